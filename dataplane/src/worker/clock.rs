//! The one clock of a director: milliseconds since it started, the same for workers and management.

use crate::id::Ticks;
use std::time::Instant;

/// How often a [`GlancedClock`] looks at its clock, in a second.
const GLANCES: u64 = 4_000;

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

/// A worker's view of the clock: looked at a few times in a millisecond, since a turn is shorter than that and has a better use for
/// the time a look takes. Late by less than a quarter of a millisecond.
#[derive(Debug, Clone, Copy)]
pub(super) struct GlancedClock {
    clock: Clock,
    /// Cycles between looks.
    pause: u64,
    /// The cycle of the last look.
    at: u64,
    now: Ticks,
}

impl GlancedClock {
    /// Looks at `clock` in cycle `cycle` of a counter that counts `hz` in a second.
    pub(super) fn new(clock: Clock, hz: u64, cycle: u64) -> Self {
        Self { clock, pause: hz / GLANCES, at: cycle, now: clock.now() }
    }

    /// The moment, in a cycle of the same counter. A counter that was set back is no harm: the clock is looked at.
    #[inline(always)]
    pub(super) fn now(&mut self, cycle: u64) -> Ticks {
        if cycle.wrapping_sub(self.at) >= self.pause {
            self.look(cycle);
        }
        self.now
    }

    #[cold]
    fn look(&mut self, cycle: u64) {
        (self.at, self.now) = (cycle, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_glance_is_enough_until_the_pause_is_over_or_the_counter_set_back() {
        let clock = Clock::start();
        let mut glanced = GlancedClock::new(clock, 4_000 * 100, 1000);
        let first = glanced.now(1000);
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(glanced.now(1099), first);
        let second = glanced.now(1100);
        assert!(second.since(first) >= 3);
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(glanced.now(1199), second);
        assert!(glanced.now(7).since(second) >= 3);
    }
}
