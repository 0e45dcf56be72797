//! Weighted fail-over (`ip_vs_fo`): the usable destination of the greatest weight, the first of equals in list order; the others
//! stand by.

use super::{Loads, Own, Request, Scheduler};
use crate::snapshot::{SchedulerKind, ServiceView};

/// fo.
#[derive(Debug, Clone, Copy)]
pub struct FailOver;

impl Scheduler for FailOver {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, own: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        own.standings.least(SchedulerKind::Fo, service, loads)
    }
}
