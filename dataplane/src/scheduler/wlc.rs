//! Weighted least connections (`ip_vs_wlc`): the usable destination with the smallest load / weight, the first of equals in
//! list order.

use super::{Loads, Own, Request, Scheduler, least, load};
use crate::snapshot::ServiceView;

/// wlc.
#[derive(Debug, Clone, Copy)]
pub struct WeightedLeastConnections;

impl Scheduler for WeightedLeastConnections {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, _: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        least(service, loads, |slot| load(slot, loads))
    }
}
