//! Windows of a loop in this thread.

use crate::machine::thread_cpu;
use crate::window::Window;
use dataplane::id::Ticks;
use std::time::{Duration, Instant};

/// Something that is done a burst at a time.
pub(crate) trait Turns {
    /// One burst at this time of the director's clock.
    fn turn(&mut self, now: Ticks);
}

/// The director's clock: milliseconds since the start of the run, read once a turn as a worker does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap")]
    fn at(self, now: Instant) -> Ticks {
        Ticks((now - self.0).as_millis() as u32)
    }

    #[inline(always)]
    pub(crate) fn now(self) -> Ticks {
        self.at(Instant::now())
    }
}

/// Repeats `turns` for this long.
#[inline(never)]
pub(crate) fn window(turns: &mut impl Turns, burst: usize, length: Duration, clock: Clock) -> Window {
    let (cpu, start) = (thread_cpu(), Instant::now());
    let mut count = 0;
    let end = loop {
        let now = Instant::now();
        if now - start >= length {
            break now;
        }
        turns.turn(clock.at(now));
        count += 1;
    };
    Window { packets: count * burst as u64, wall: end - start, cpu: vec![thread_cpu().saturating_sub(cpu)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(u64);

    impl Turns for Count {
        fn turn(&mut self, _now: Ticks) {
            self.0 += 1;
        }
    }

    #[test]
    fn a_window_counts_its_packets_and_its_time() {
        let mut count = Count(0);
        let window = window(&mut count, 32, Duration::from_millis(20), Clock::start());
        assert_eq!(window.packets, 32 * count.0);
        // The thread's time is read outside the wall's.
        let slack = Duration::from_millis(5);
        assert!(window.wall >= Duration::from_millis(20) && window.cpu[0] <= window.wall + slack);
    }
}
