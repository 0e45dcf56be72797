//! Weighted least connections (`ip_vs_wlc`): the usable destination with the smallest load / weight, the first of equals in
//! list order. The quotients are compared by multiplying across; the products take more than 64 bits.

use super::{Cursor, Loads, Scheduler, load, usable};
use crate::snapshot::ServiceView;

/// wlc.
#[derive(Debug, Clone, Copy)]
pub struct WeightedLeastConnections;

impl Scheduler for WeightedLeastConnections {
    #[inline]
    fn choose(service: &ServiceView, _: &mut Cursor, loads: &impl Loads) -> Option<usize> {
        let mut least: Option<(usize, u64, u32)> = None;
        for (index, candidate) in service.candidates.iter().enumerate() {
            if !usable(candidate, loads) {
                continue;
            }
            let own = load(candidate, loads);
            let lighter = least.is_none_or(|(_, load, weight)| {
                u128::from(load) * u128::from(candidate.weight) > u128::from(own) * u128::from(weight)
            });
            if lighter {
                least = Some((index, own, candidate.weight));
            }
        }
        least.map(|(index, ..)| index)
    }
}
