//! What a worker does when a turn found nothing to do.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Idle back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleMode {
    /// Poll on: for cores that have nothing else to do.
    Poll,
    /// Let other threads of the core run.
    Yield,
    /// Sleep for tens of microseconds: for shared cores.
    Sleep,
}

/// Empty turns before the first rest: a packet in a train does not wait for a sleeper.
const PATIENCE: u32 = 64;
/// The first sleep and the longest one. Longer ones win nothing measurable and cost latency.
const SHORTEST: Duration = Duration::from_micros(20);
const LONGEST: Duration = Duration::from_micros(50);
/// Empty turns after which sleeps are the longest.
const DEEP: u32 = 1024;

/// How long a worker has been idle.
#[derive(Debug)]
pub(super) struct Idle {
    mode: IdleMode,
    empty_turns: u32,
}

impl Idle {
    pub(super) fn new(mode: IdleMode) -> Self {
        Self { mode, empty_turns: 0 }
    }

    /// A turn found work.
    #[inline(always)]
    pub(super) fn busy(&mut self) {
        self.empty_turns = 0;
    }

    /// Another turn found none: whether and how the worker is to rest now.
    #[inline]
    pub(super) fn rest(&mut self) -> Option<Rest> {
        self.empty_turns = self.empty_turns.saturating_add(1);
        if self.empty_turns < PATIENCE {
            return None;
        }
        match self.mode {
            IdleMode::Poll => None,
            IdleMode::Yield => Some(Rest::Yield),
            IdleMode::Sleep if self.empty_turns < DEEP => Some(Rest::Sleep(SHORTEST)),
            IdleMode::Sleep => Some(Rest::Sleep(LONGEST)),
        }
    }
}

/// One rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Yield,
    Sleep(Duration),
}

impl Rest {
    pub(super) fn take(self) {
        match self {
            Self::Yield => std::thread::yield_now(),
            Self::Sleep(duration) => std::thread::sleep(duration),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_worker_never_rests_and_an_idle_one_does_after_a_while() {
        let mut idle = Idle::new(IdleMode::Sleep);
        for _ in 1..PATIENCE {
            assert_eq!(idle.rest(), None);
        }
        assert_eq!(idle.rest(), Some(Rest::Sleep(SHORTEST)));
        idle.busy();
        assert_eq!(idle.rest(), None);
        let mut poller = Idle::new(IdleMode::Poll);
        assert!((0..10_000).all(|_| poller.rest().is_none()));
    }
}
