//! What all engines of a director share: counters, templates, published cursors.

use crate::counters::{DestinationCounts, DestinationTable, WorkerCounters};
use crate::id::{ServiceSlot, WorkerId};
use crate::scheduler::Cursor;
use crate::template::Templates;
use crossbeam_utils::CachePadded;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Sizes of everything that engines share. All of it is allocated at start.
#[derive(Debug, Clone, Copy)]
pub struct SharedLimits {
    /// Workers.
    pub workers: usize,
    /// Virtual services.
    pub services: usize,
    /// Destinations, removed ones that still have connections included.
    pub destinations: usize,
    /// Persistence templates.
    pub templates: u32,
}

/// Services of one line of published cursors.
const PER_LINE: usize = 32;

/// One worker's published cursors, by service.
type Cursors = Box<[CachePadded<[AtomicU32; PER_LINE]>]>;

/// What others read of one worker and it alone writes. Made by the worker's own thread it lies in memory near to it, and shares no
/// cache line with what other workers write.
#[derive(Debug)]
pub struct Share {
    counts: Arc<[DestinationCounts]>,
    cursors: Cursors,
}

impl Share {
    /// One worker's, for `limits`.
    #[must_use]
    pub fn new(limits: SharedLimits) -> Self {
        let line = || CachePadded::new([const { AtomicU32::new(Cursor::HEAD) }; PER_LINE]);
        let lines = limits.services.div_ceil(PER_LINE);
        Self {
            counts: std::iter::repeat_with(DestinationCounts::default).take(limits.destinations).collect(),
            cursors: std::iter::repeat_with(line).take(lines).collect(),
        }
    }

    #[inline]
    fn cursor(cursors: &[CachePadded<[AtomicU32; PER_LINE]>], service: ServiceSlot) -> &AtomicU32 {
        &cursors[service.index() / PER_LINE][service.index() % PER_LINE]
    }
}

/// A name and the addresses of what it is of.
pub type Place = (&'static str, Range<usize>);

/// Where a slice lies.
pub(crate) fn place<T>(name: &'static str, slice: &[T]) -> Place {
    let start = slice.as_ptr().addr();
    (name, start..start + size_of_val(slice))
}

/// State that outlives snapshots and is not one worker's own.
#[derive(Debug)]
pub struct Shared {
    /// Counters by worker.
    pub counters: Box<[CachePadded<WorkerCounters>]>,
    /// Counters by destination.
    pub destinations: DestinationTable,
    /// Persistence templates.
    pub templates: Templates,
    cursors: Box<[Cursors]>,
}

impl Shared {
    /// Allocates for `limits`; `key` is the secret of the template table's hash.
    #[must_use]
    pub fn new(limits: SharedLimits, key: u128) -> Self {
        Self::of(limits, key, (0..limits.workers).map(|_| Share::new(limits)).collect())
    }

    /// The same of what the workers have allocated: one share each, made for the same limits.
    #[must_use]
    pub fn of(limits: SharedLimits, key: u128, shares: Vec<Share>) -> Self {
        let (counts, cursors): (Vec<_>, Vec<_>) =
            shares.into_iter().map(|share| (share.counts, share.cursors)).unzip();
        Self {
            counters: std::iter::repeat_with(CachePadded::default).take(counts.len()).collect(),
            destinations: DestinationTable::with_lines(counts.into(), limits.destinations),
            templates: Templates::new(limits.templates, key),
            cursors: cursors.into(),
        }
    }

    /// Tells the management thread where `worker` stands in a service's list.
    #[inline]
    pub(crate) fn publish_cursor(&self, worker: WorkerId, service: ServiceSlot, position: u32) {
        Share::cursor(&self.cursors[worker.index()], service).store(position, Relaxed);
    }

    /// Whether any worker's cursor stands on `position` of the service's list.
    #[must_use]
    pub fn cursor_on(&self, service: ServiceSlot, position: u32) -> bool {
        self.cursors.iter().any(|worker| Share::cursor(worker, service).load(Relaxed) == position)
    }

    /// Where everything lies, by name: for those who count what touches it.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let mut places = vec![place("worker counters", &self.counters)];
        places.extend(self.cursors.iter().map(|cursors| place("published cursors", cursors)));
        places.extend(self.destinations.places());
        places.extend(self.templates.places());
        places
    }

    /// Bytes taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let cursors: usize = self.cursors.iter().map(|worker| size_of_val(&**worker)).sum();
        cursors + self.destinations.bytes() + self.templates.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// What the processor fetches together: a line and its neighbour.
    const PAIR: usize = 128;
    const LINE: usize = 64;

    fn limits(workers: usize) -> SharedLimits {
        SharedLimits { workers, services: 5, destinations: 3, templates: 10 }
    }

    #[test]
    fn nothing_that_is_written_shares_a_line_with_something_else() {
        let shared = Shared::new(limits(5), 1);
        let lines: Vec<(&str, Range<usize>)> = (shared.places().into_iter())
            .map(|(name, range)| (name, range.start / LINE..range.end.div_ceil(LINE)))
            .collect();
        for (index, (name, range)) in lines.iter().enumerate() {
            for (other, others) in &lines[..index] {
                assert!(range.start >= others.end || others.start >= range.end, "{name} and {other}");
            }
        }
        assert_eq!(lines.len(), 1 + 5 + 2 + 5 + 3);
    }

    #[test]
    fn each_workers_counters_and_cursors_are_in_pairs_of_lines_of_their_own() {
        let shared = Shared::new(limits(3), 1);
        assert_eq!(size_of_val(&shared.counters[0]) % PAIR, 0);
        for worker in 0..3 {
            assert_eq!(shared.counters.as_ptr().wrapping_add(worker).addr() % PAIR, 0);
            let cursors = &shared.cursors[worker];
            assert_eq!((cursors.as_ptr().addr() % PAIR, size_of_val(&**cursors) % PAIR), (0, 0));
        }
    }

    #[test]
    fn what_is_read_for_every_packet_is_not_beside_what_changes_with_templates() {
        // The free list is in pairs of lines of its own, and so are the pointers that workers read, up to the reference count.
        let shared = Arc::new(Shared::new(limits(1), 1));
        let books =
            shared.templates.places().into_iter().find(|(name, _)| *name == "free templates").unwrap().1;
        assert_eq!((books.start % PAIR, books.len() % PAIR, align_of::<Shared>()), (0, 0, PAIR));
        let start = Arc::as_ptr(&shared).addr();
        for field in
            [offset_of!(Shared, counters), offset_of!(Shared, destinations), offset_of!(Shared, cursors)]
        {
            assert!(!books.contains(&(start + field)));
        }
    }

    #[test]
    fn cursors_are_found_by_service() {
        let limits = SharedLimits { services: 70, ..limits(2) };
        let shared = Shared::of(limits, 1, (0..2).map(|_| Share::new(limits)).collect());
        for service in 0..70 {
            shared.publish_cursor(WorkerId(1), ServiceSlot(service), 100 + service);
        }
        assert!((0..70).all(|service| shared.cursor_on(ServiceSlot(service), 100 + service)));
        assert!(shared.cursor_on(ServiceSlot(3), Cursor::HEAD) && !shared.cursor_on(ServiceSlot(3), 104));
    }
}
