//! Weighted overflow (`ip_vs_ovf`): the usable destination of the greatest weight that has not more active connections than its
//! weight, the first of equals in list order. The rest flows over to the next lighter one; when all are full, nobody is chosen.

use super::{Loads, Own, Request, Scheduler};
use crate::snapshot::{SchedulerKind, ServiceView};

/// ovf.
#[derive(Debug, Clone, Copy)]
pub struct Overflow;

impl Scheduler for Overflow {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, own: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        own.standings.least(SchedulerKind::Ovf, service, loads)
    }
}
