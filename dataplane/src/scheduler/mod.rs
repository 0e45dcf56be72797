//! Schedulers: which destination takes a new connection. One file each behind one small trait.

use crate::id::DestinationSlot;
use crate::snapshot::ServiceView;

/// What a scheduler may ask about destinations. Counts are those of the whole director.
pub trait Loads {
    /// Whether the destination has reached its upper threshold.
    fn overloaded(&self, slot: DestinationSlot) -> bool;
    /// Connections in an active state.
    fn active(&self, slot: DestinationSlot) -> u32;
    /// The other connections.
    fn inactive(&self, slot: DestinationSlot) -> u32;
}

/// Where a worker stands in a service's list. Kept for each (worker, service) by the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// `ServiceView::generation` this cursor belongs to; another one starts it afresh.
    pub generation: u32,
    /// `ServiceView::list_version` for which `index` holds.
    pub list_version: u32,
    /// The last chosen candidate's position, or [`Cursor::HEAD`].
    pub position: u32,
    /// Its index in the list.
    pub index: u32,
    /// wrr's current weight.
    pub current_weight: u32,
}

impl Cursor {
    /// Before the first candidate.
    pub const HEAD: u32 = u32::MAX;
}

/// A scheduling algorithm.
pub trait Scheduler {
    /// Index into `service.candidates` of the destination for a new connection, `None` when none is usable.
    fn choose(service: &ServiceView, cursor: &mut Cursor, loads: &impl Loads) -> Option<usize>;
}
