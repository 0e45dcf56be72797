//! Destination hashing (`ip_vs_dh`): a table of 256 buckets, filled by the destinations in turn, weights ignored; the packet's
//! destination address picks the bucket. For transparent proxies behind a mark, where many addresses belong to one service. When
//! the bucket's destination is not usable, nobody is chosen.

use super::table::{in_turn, looked_up};
use super::{Loads, Own, Request, Scheduler, hash};
use crate::snapshot::ServiceView;

/// Hash bits; the table has 2^BITS buckets.
const BITS: u32 = 8;

/// dh.
#[derive(Debug, Clone, Copy)]
pub struct DestinationHashing;

impl Scheduler for DestinationHashing {
    #[inline]
    fn choose(
        service: &ServiceView,
        request: &Request,
        _: &mut Own<'_>,
        loads: &impl Loads,
    ) -> Option<usize> {
        looked_up(service, hash::golden(hash::fold(request.destination), BITS), loads)
    }
}

/// The table for a list of `destinations`.
pub(super) fn table(destinations: usize) -> Box<[u16]> {
    in_turn(1 << BITS, std::iter::repeat_n(1, destinations))
}
