//! Tables of the hashing schedulers: from a bucket to a place in the list. The editor fills one when the list of a service that
//! needs it changes; snapshots share it until the next change, and services under other schedulers have none.

use super::{Loads, dh, mh, sh, usable};
use crate::snapshot::{SchedulerKind, ServiceSpec, ServiceView};
use std::net::IpAddr;

/// A bucket without a destination. Tables cannot name destinations from this one on; no table has that many buckets for them.
pub(super) const NOBODY: u16 = u16::MAX;

/// A destination as tables see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    /// The server.
    pub(crate) server: IpAddr,
    /// Its port.
    pub(crate) port: u16,
    /// Its weight.
    pub(crate) weight: u32,
    /// The last weight above 0 that it was given, 0 if none ever was.
    pub(crate) last_weight: u32,
}

/// The table of a service with this list, `None` when its scheduler needs none.
pub(crate) fn table(spec: &ServiceSpec, list: impl Iterator<Item = Share>) -> Option<Box<[u16]>> {
    match spec.scheduler {
        SchedulerKind::Dh => Some(dh::table(list.count())),
        SchedulerKind::Sh => Some(sh::table(list)),
        SchedulerKind::Mh => Some(mh::table(spec.maglev, spec.key.is_v6(), list)),
        _ => None,
    }
}

/// A table whose buckets the destinations take in list order, each as many in a row as `turns` says, over and over.
pub(super) fn in_turn(buckets: usize, turns: impl Iterator<Item = u32>) -> Box<[u16]> {
    // A destination that the first round does not reach gets no bucket at all.
    let turns: Vec<_> = (0..NOBODY).zip(turns).take(buckets).collect();
    let round = turns.iter().flat_map(|(place, turns)| std::iter::repeat_n(*place, *turns as usize));
    round.cycle().chain(std::iter::repeat(NOBODY)).take(buckets).collect()
}

/// The destination in a bucket, if it is usable.
#[inline(always)]
pub(super) fn looked_up(service: &ServiceView, bucket: u32, loads: &impl Loads) -> Option<usize> {
    let place = usize::from(*service.table.as_deref()?.get(bucket as usize)?);
    service.candidates.get(place).filter(|candidate| usable(candidate, loads)).map(|_| place)
}
