//! Schedulers: which destination takes a new connection. One file each behind one small trait.
//!
//! With one worker every choice equals Linux IPVS's. The kernel keeps a pointer into a linked list; here a worker keeps a
//! [`Cursor`] that names a place of an immutable list, and a destination that is removed stays in the list, marked, while a
//! cursor stands on it: what follows it is what follows the predecessor that the kernel's pointer would have moved to.

mod lc;
mod rr;
#[cfg(test)]
pub(crate) mod tests;
mod wlc;
mod wrr;

pub use lc::LeastConnections;
pub use rr::RoundRobin;
pub use wlc::WeightedLeastConnections;
pub use wrr::WeightedRoundRobin;
pub(crate) use wrr::wrr_adjust;

use crate::id::{DestinationSlot, WorkerId};
use crate::snapshot::{Candidate, SchedulerKind, ServiceView};

/// What a scheduler may ask about destinations. Counts are those of the whole director.
pub trait Loads {
    /// Whether the destination has reached its upper threshold.
    fn overloaded(&self, slot: DestinationSlot) -> bool;
    /// Connections in an active state.
    fn active(&self, slot: DestinationSlot) -> u32;
    /// The other connections.
    fn inactive(&self, slot: DestinationSlot) -> u32;
}

/// Where a worker stands in a service's list. Kept for each (worker, service) by the engine, written by that worker alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Whose it is: workers begin at different places.
    pub worker: WorkerId,
    /// `ServiceView::generation` this cursor belongs to; another one starts it afresh. 0 is never a service's.
    pub generation: u32,
    /// `ServiceView::list_version` for which `index` holds.
    pub list_version: u32,
    /// The last chosen candidate's position, or [`Cursor::HEAD`]. The engine publishes it, so that whoever prunes the list
    /// knows where cursors stand.
    pub position: u32,
    /// Its index in the list.
    pub index: u32,
    /// wrr's current weight.
    pub current_weight: u32,
}

impl Default for Cursor {
    fn default() -> Self {
        Self::start(WorkerId(0))
    }
}

impl Cursor {
    /// Before the first candidate.
    pub const HEAD: u32 = u32::MAX;

    /// A cursor that has not been used. Worker 0 begins where the kernel does, worker k where k choices of its own would
    /// have led.
    #[must_use]
    pub const fn start(worker: WorkerId) -> Self {
        Self { worker, generation: 0, list_version: 0, position: Self::HEAD, index: 0, current_weight: 0 }
    }

    /// Index of the candidate the cursor stands on, `None` before the first one.
    fn standing(&self) -> Option<usize> {
        (self.position != Self::HEAD).then_some(self.index as usize)
    }

    /// Moves onto a candidate.
    fn stand_on(&mut self, service: &ServiceView, index: usize) {
        if let (Some(candidate), Ok(place)) = (service.candidates.get(index), u32::try_from(index)) {
            self.position = candidate.position;
            self.index = place;
        }
    }

    /// Moves before the first candidate.
    fn stand_before_all(&mut self) {
        self.position = Self::HEAD;
        self.index = 0;
    }
}

/// A scheduling algorithm.
pub trait Scheduler {
    /// Index into `service.candidates` of the destination for a new connection, `None` when none is usable.
    fn choose(service: &ServiceView, cursor: &mut Cursor, loads: &impl Loads) -> Option<usize>;
}

/// Asks the service's scheduler for the destination of a new connection: an index into `service.candidates`, `None` when no
/// destination is usable. Removed destinations, those of weight 0 and overloaded ones are never chosen.
#[inline]
pub fn choose(service: &ServiceView, cursor: &mut Cursor, loads: &impl Loads) -> Option<usize> {
    match service.scheduler {
        SchedulerKind::Rr => RoundRobin::choose(service, cursor, loads),
        SchedulerKind::Wrr => WeightedRoundRobin::choose(service, cursor, loads),
        SchedulerKind::Lc => LeastConnections::choose(service, cursor, loads),
        SchedulerKind::Wlc => WeightedLeastConnections::choose(service, cursor, loads),
    }
}

/// Whether a new connection may go to `candidate`.
#[inline(always)]
fn usable(candidate: &Candidate, loads: &impl Loads) -> bool {
    candidate.weight > 0 && open(candidate, loads)
}

/// Whether `candidate` is in the list and below its threshold, whatever its weight.
#[inline(always)]
fn open(candidate: &Candidate, loads: &impl Loads) -> bool {
    !candidate.removed && (candidate.upper_threshold == 0 || !loads.overloaded(candidate.slot))
}

/// The kernel's measure of a destination's connections: an active one weighs as much as 256 inactive ones.
#[inline(always)]
fn load(candidate: &Candidate, loads: &impl Loads) -> u64 {
    u64::from(loads.active(candidate.slot)) * 256 + u64::from(loads.inactive(candidate.slot))
}

/// No connections anywhere: by this cursors of the workers after the first are led to their first places.
struct Idle;

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
