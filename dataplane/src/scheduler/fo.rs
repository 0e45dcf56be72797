//! Weighted fail-over (`ip_vs_fo`): the usable destination of the greatest weight, the first of equals in list order; the others
//! stand by.

use super::{Loads, Own, Request, Scheduler, heaviest, usable};
use crate::snapshot::ServiceView;

/// fo.
#[derive(Debug, Clone, Copy)]
pub struct FailOver;

impl Scheduler for FailOver {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, _: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        heaviest(service, |candidate| usable(candidate, loads))
    }
}
