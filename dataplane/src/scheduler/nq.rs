//! Never queue (`ip_vs_nq`): an idle destination, the first usable one without an active connection, whatever its weight; else as
//! sed. (Weinrib, Shenker: "Greed is not enough: adaptive load sharing in large heterogeneous systems", INFOCOM 1988.)
//!
//! A datagram never makes an active connection, so all of a UDP service's go to the newest usable destination.

use super::{Loads, Own, Request, Scheduler};
use crate::snapshot::{SchedulerKind, ServiceView};

/// nq.
#[derive(Debug, Clone, Copy)]
pub struct NeverQueue;

impl Scheduler for NeverQueue {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, own: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        own.standings.least(SchedulerKind::Nq, service, loads)
    }
}
