//! Least connections (`ip_vs_lc`): the usable destination with the smallest load, the first of equals in list order.

use super::{Loads, Own, Request, Scheduler, load, usable};
use crate::snapshot::ServiceView;

/// lc.
#[derive(Debug, Clone, Copy)]
pub struct LeastConnections;

impl Scheduler for LeastConnections {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, _: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        let candidates = service.candidates.iter().enumerate();
        let (index, _) = candidates
            .filter(|(_, candidate)| usable(candidate, loads))
            .min_by_key(|(_, candidate)| load(candidate.slot, loads))?;
        Some(index)
    }
}
