//! Weighted least connections (`ip_vs_wlc`): the usable destination with the smallest load / weight, the first of equals in
//! list order.

use super::{Loads, Own, Request, Scheduler};
use crate::snapshot::{SchedulerKind, ServiceView};

/// wlc.
#[derive(Debug, Clone, Copy)]
pub struct WeightedLeastConnections;

impl Scheduler for WeightedLeastConnections {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, own: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        own.standings.least(SchedulerKind::Wlc, service, loads)
    }
}
