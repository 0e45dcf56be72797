//! The one clock of a director: milliseconds since it started, the same for workers and management.

use crate::id::Ticks;
use std::time::Instant;

/// A monotonic clock. Copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The moment. Costs one read of the system's clock page, no system call.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Ticks {
        #[expect(clippy::cast_possible_truncation, reason = "ticks wrap")]
        Ticks(self.start.elapsed().as_millis() as u32)
    }
}
