//! Source hashing (`ip_vs_sh`): a table of 256 buckets, in which each destination takes as many in a row as its weight (one at
//! weight 0) until all are taken; the client's address picks the bucket, with `sh-port` its port too. When the bucket's destination
//! is not usable nobody is chosen, but with `sh-fallback` further buckets are tried, which ones depends on the first: so clients of
//! one broken destination spread over the others.

use super::table::{Share, in_turn, looked_up};
use super::{Loads, Own, Request, Scheduler, hash};
use crate::snapshot::{ServiceView, scheduler_flags};

/// Hash bits; the table has 2^BITS buckets.
const BITS: u32 = 8;
const BUCKETS: u32 = 1 << BITS;

/// sh.
#[derive(Debug, Clone, Copy)]
pub struct SourceHashing;

impl Scheduler for SourceHashing {
    #[inline]
    fn choose(
        service: &ServiceView,
        request: &Request,
        _: &mut Own<'_>,
        loads: &impl Loads,
    ) -> Option<usize> {
        let first = hash::golden(request.client_key(service.flags), BITS);
        let found = looked_up(service, first, loads);
        if found.is_some() || service.flags & scheduler_flags::FALLBACK == 0 {
            return found;
        }
        // The kernel's second look-up adds an offset to the hash, and the offset is counted from the hash itself.
        (0..BUCKETS).find_map(|step| looked_up(service, ((step + first) % BUCKETS + first) % BUCKETS, loads))
    }
}

/// The table for a list of destinations.
pub(super) fn table(list: impl Iterator<Item = Share>) -> Box<[u16]> {
    in_turn(BUCKETS as usize, list.map(|share| share.weight.max(1)))
}
