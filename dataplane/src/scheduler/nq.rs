//! Never queue (`ip_vs_nq`): an idle destination, the first usable one without an active connection, whatever its weight; else as
//! sed. (Weinrib, Shenker: "Greed is not enough: adaptive load sharing in large heterogeneous systems", INFOCOM 1988.)
//!
//! A datagram never makes an active connection, so all of a UDP service's go to the newest usable destination.

use super::sed::shortest_delay;
use super::{Loads, Own, Request, Scheduler, usable};
use crate::snapshot::ServiceView;

/// nq.
#[derive(Debug, Clone, Copy)]
pub struct NeverQueue;

impl Scheduler for NeverQueue {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, _: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        let idle = service
            .candidates
            .iter()
            .position(|candidate| usable(candidate, loads) && loads.active(candidate.slot) == 0);
        idle.or_else(|| shortest_delay(service, loads))
    }
}
