//! Least connections (`ip_vs_lc`): the usable destination with the smallest load, the first of equals in list order.

use super::{Loads, Own, Request, Scheduler, load, usable};
use crate::snapshot::ServiceView;

/// lc.
#[derive(Debug, Clone, Copy)]
pub struct LeastConnections;

impl Scheduler for LeastConnections {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, _: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        let mut least: Option<(usize, u64)> = None;
        for (index, candidate) in service.candidates.iter().enumerate() {
            if !usable(candidate, loads) {
                continue;
            }
            let own = load(candidate.slot, loads);
            if least.is_none_or(|(_, load)| own < load) {
                least = Some((index, own));
            }
        }
        least.map(|(index, _)| index)
    }
}
