//! Where a worker stands in a service's list.

use crate::id::WorkerId;
use crate::snapshot::ServiceView;

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
    pub(super) fn standing(&self) -> Option<usize> {
        (self.position != Self::HEAD).then_some(self.index as usize)
    }

    /// Moves onto a candidate.
    pub(super) fn stand_on(&mut self, service: &ServiceView, index: usize) {
        if let (Some(candidate), Ok(place)) = (service.candidates.get(index), u32::try_from(index)) {
            self.position = candidate.position;
            self.index = place;
        }
    }

    /// Moves before the first candidate.
    pub(super) fn stand_before_all(&mut self) {
        self.position = Self::HEAD;
        self.index = 0;
    }
}
