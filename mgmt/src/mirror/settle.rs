//! When a batch of kernel changes is complete enough to act on.

use std::time::Duration;

/// Moment of a monotonic clock, since the mirror started.
pub type Moment = Duration;

/// Collects changes until none has come for `quiet`, but for no longer than `limit`.
///
/// Tools change the kernel's tables in many steps (ifconfig sets an alias by seven within 125 µs); a state between the
/// steps is nobody's wish.
#[derive(Debug, Clone)]
pub struct Settler {
    quiet: Duration,
    limit: Duration,
    open: Option<(Moment, Moment)>,
}

impl Settler {
    /// A settler with no batch open.
    #[must_use]
    pub const fn new(quiet: Duration, limit: Duration) -> Self {
        Self { quiet, limit, open: None }
    }

    /// A change came.
    pub fn changed(&mut self, now: Moment) {
        let first = self.open.map_or(now, |(first, _)| first);
        self.open = Some((first, now));
    }

    /// When the open batch is to be acted on.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.open.map(|(first, last)| (last + self.quiet).min(first + self.limit))
    }

    /// Whether to act now; closes the batch when so.
    pub fn take(&mut self, now: Moment) -> bool {
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        if due {
            self.open = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::Settler;
    use proptest::prelude::*;
    use std::time::Duration;

    const QUIET: Duration = Duration::from_millis(1);
    const LIMIT: Duration = Duration::from_millis(20);

    #[test]
    fn a_burst_is_one_batch() {
        let mut settler = Settler::new(QUIET, LIMIT);
        assert_eq!(settler.deadline(), None);
        for step in 0..7 {
            settler.changed(Duration::from_micros(step * 18));
            assert!(!settler.take(Duration::from_micros(step * 18 + 17)));
        }
        assert_eq!(settler.deadline(), Some(Duration::from_micros(6 * 18 + 1_000)));
        assert!(settler.take(Duration::from_micros(1_108)));
        assert!(!settler.take(Duration::from_secs(1)));
    }

    #[test]
    fn unending_changes_are_cut() {
        let mut settler = Settler::new(QUIET, LIMIT);
        let mut taken = Vec::new();
        for step in 0..1_000_u64 {
            let now = Duration::from_micros(step * 100);
            settler.changed(now);
            if settler.take(now) {
                taken.push(now);
            }
        }
        assert_eq!(taken.len(), 4);
        assert!(taken.windows(2).all(|pair| pair[1] - pair[0] >= LIMIT));
    }

    proptest! {
        #[test]
        fn every_change_is_acted_on_in_time(gaps in prop::collection::vec(1_u64..5_000, 1..200)) {
            let mut settler = Settler::new(QUIET, LIMIT);
            let (mut now, mut waiting, mut last) = (Duration::ZERO, None, Duration::ZERO);
            for gap in gaps {
                now += Duration::from_micros(gap);
                if let Some(deadline) = settler.deadline().filter(|deadline| *deadline <= now) {
                    prop_assert!(settler.take(deadline));
                    let first: Duration = waiting.take().unwrap();
                    prop_assert!(deadline - first <= LIMIT);
                    prop_assert!(deadline - last >= QUIET || deadline - first == LIMIT);
                }
                settler.changed(now);
                waiting.get_or_insert(now);
                last = now;
            }
            prop_assert!(settler.deadline().is_some());
        }
    }
}
