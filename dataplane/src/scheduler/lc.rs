//! Least connections (`ip_vs_lc`): the usable destination with the smallest load, the first of equals in list order.

use super::{Loads, Own, Request, Scheduler};
use crate::snapshot::{SchedulerKind, ServiceView};

/// lc.
#[derive(Debug, Clone, Copy)]
pub struct LeastConnections;

impl Scheduler for LeastConnections {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, own: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        own.standings.least(SchedulerKind::Lc, service, loads)
    }
}
