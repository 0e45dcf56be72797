//! What schedulers ask about destinations.

use crate::counters::DestinationTable;
use crate::id::{DestinationSlot, WorkerId};
use std::sync::atomic::Ordering::Relaxed;

/// What a scheduler may ask about destinations, and tell. Counts are those of the whole director.
pub trait Loads {
    /// Whether the destination has reached its upper threshold.
    fn overloaded(&self, slot: DestinationSlot) -> bool;
    /// Connections in an active state.
    fn active(&self, slot: DestinationSlot) -> u32;
    /// The other connections.
    fn inactive(&self, slot: DestinationSlot) -> u32;

    /// A cache names the destination from now on: it keeps its slot when it is removed.
    fn hold(&self, _: DestinationSlot) {}

    /// Takes one [`Loads::hold`] back.
    fn release(&self, _: DestinationSlot) {}

    /// [`Loads::next_change`] is to tell when `worker` changes the destination's counts. `false` when that cannot be: then lists are
    /// walked.
    fn watch(&self, _worker: WorkerId, _: DestinationSlot) -> bool {
        false
    }

    /// A watched destination whose counts `worker` has changed since it was told last.
    fn next_change(&self, _worker: WorkerId) -> Option<DestinationSlot> {
        None
    }
}

impl Loads for DestinationTable {
    fn overloaded(&self, slot: DestinationSlot) -> bool {
        self.shared(slot).overloaded.load(Relaxed)
    }

    fn active(&self, slot: DestinationSlot) -> u32 {
        self.shared(slot).active.load(Relaxed)
    }

    fn inactive(&self, slot: DestinationSlot) -> u32 {
        let shared = self.shared(slot);
        shared.total.load(Relaxed).saturating_sub(shared.active.load(Relaxed))
    }

    fn hold(&self, slot: DestinationSlot) {
        self.shared(slot).cached.fetch_add(1, Relaxed);
    }

    fn release(&self, slot: DestinationSlot) {
        self.shared(slot).cached.fetch_sub(1, Relaxed);
    }

    fn watch(&self, worker: WorkerId, slot: DestinationSlot) -> bool {
        self.of(worker, slot).watch();
        true
    }

    fn next_change(&self, worker: WorkerId) -> Option<DestinationSlot> {
        self.take_change(worker)
    }
}

/// No connections anywhere: by this cursors of the workers after the first are led to their first places.
pub(super) struct Idle;

impl Loads for Idle {
    fn overloaded(&self, _: DestinationSlot) -> bool {
        false
    }

    fn active(&self, _: DestinationSlot) -> u32 {
        0
    }

    fn inactive(&self, _: DestinationSlot) -> u32 {
        0
    }
}
