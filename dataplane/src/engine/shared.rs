//! What all engines of a director share: counters, templates, published cursors.

use crate::counters::{DestinationTable, WorkerCounters};
use crate::id::{ServiceSlot, WorkerId};
use crate::scheduler::Cursor;
use crate::template::Templates;
use crossbeam_utils::CachePadded;
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

/// State that outlives snapshots and is not one worker's own.
#[derive(Debug)]
pub struct Shared {
    /// Counters by worker.
    pub counters: Box<[CachePadded<WorkerCounters>]>,
    /// Counters by destination.
    pub destinations: DestinationTable,
    /// Persistence templates.
    pub templates: Templates,
    cursors: Box<[Box<[AtomicU32]>]>,
}

impl Shared {
    /// Allocates for `limits`; `key` is the secret of the template table's hash.
    #[must_use]
    pub fn new(limits: SharedLimits, key: u128) -> Self {
        let cursors =
            || std::iter::repeat_with(|| AtomicU32::new(Cursor::HEAD)).take(limits.services).collect();
        Self {
            counters: std::iter::repeat_with(CachePadded::default).take(limits.workers).collect(),
            destinations: DestinationTable::new(limits.workers, limits.destinations),
            templates: Templates::new(limits.templates, key),
            cursors: std::iter::repeat_with(cursors).take(limits.workers).collect(),
        }
    }

    /// Tells the management thread where `worker` stands in a service's list.
    #[inline]
    pub(crate) fn publish_cursor(&self, worker: WorkerId, service: ServiceSlot, position: u32) {
        self.cursors[worker.index()][service.index()].store(position, Relaxed);
    }

    /// Whether any worker's cursor stands on `position` of the service's list.
    #[must_use]
    pub fn cursor_on(&self, service: ServiceSlot, position: u32) -> bool {
        self.cursors.iter().any(|worker| worker[service.index()].load(Relaxed) == position)
    }

    /// Bytes taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let cursors: usize = self.cursors.iter().map(|worker| worker.len() * size_of::<AtomicU32>()).sum();
        cursors + self.destinations.bytes() + self.templates.bytes()
    }
}
