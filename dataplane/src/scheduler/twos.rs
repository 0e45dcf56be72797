//! Power of two choices (`ip_vs_twos`, Linux 6.5; Mitzenmacher: "The power of two choices in randomized load balancing", IEEE TPDS
//! 12(10), 2001): two usable destinations are drawn at random, by their weights and maybe twice the same, and the one with the
//! smaller load / weight is chosen, the first drawn of equals. Close to wlc's balance, without all new connections going to the one
//! destination that every director sees as the least loaded.
//!
//! A draw is a number from 0 to the sum of the weights, both included, and names the first destination at which the weights so far
//! reach it. So the head of the list is drawn a little more often than its weight says: as in the kernel.

use super::{Loads, Own, Request, Scheduler, load, usable};
use crate::snapshot::ServiceView;

/// twos.
#[derive(Debug, Clone, Copy)]
pub struct TwoChoices;

impl Scheduler for TwoChoices {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, own: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        let candidates = || service.candidates.iter().enumerate().filter(|(_, one)| usable(one, loads));
        let total: u64 = candidates().map(|(_, one)| u64::from(one.weight)).sum();
        if total == 0 {
            return None;
        }
        let draws = [(); 2].map(|()| own.random.up_to(total));
        let mut drawn = [None; 2];
        let mut reached = 0;
        for (index, candidate) in candidates() {
            reached += u64::from(candidate.weight);
            for (place, draw) in drawn.iter_mut().zip(draws) {
                if place.is_none() && draw <= reached {
                    *place = Some((index, candidate.weight, load(candidate.slot, loads)));
                }
            }
            if drawn.iter().all(Option::is_some) {
                break;
            }
        }
        let [first, second] = drawn;
        // A destination that another worker has just filled may have left a draw without its place.
        let (Some(first), Some(second)) = (first, second) else {
            return first.or(second).map(|(index, ..)| index);
        };
        let lighter = u128::from(second.1) * u128::from(first.2) > u128::from(first.1) * u128::from(second.2);
        Some(if lighter { second.0 } else { first.0 })
    }
}
