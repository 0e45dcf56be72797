//! When packets are due.

/// A steady rate: packet after packet has its time, whatever happens to the ones before. Times are cycles.
#[derive(Debug, Clone)]
pub struct Pace {
    start: u64,
    interval: f64,
    /// The next packet's time after the start.
    next: f64,
}

impl Pace {
    /// `rate` packets a second from `start` on, on a clock of `hz` cycles a second.
    #[must_use]
    pub fn new(start: u64, rate: f64, hz: u64) -> Self {
        Self { start, interval: hz as f64 / rate, next: 0.0 }
    }

    /// Packets whose time has come by `now`, at most `most`.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `most`")]
    pub fn due(&self, now: u64, most: usize) -> usize {
        let late = now.saturating_sub(self.start) as f64 - self.next;
        if late < 0.0 { 0 } else { ((late / self.interval) as usize).saturating_add(1).min(most) }
    }

    /// Takes the next packet's time.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cycles since the start")]
    pub fn take(&mut self) -> u64 {
        let time = self.start + self.next as u64;
        self.next += self.interval;
        time
    }

    /// Nothing was due in the last `cycles`.
    pub fn skip(&mut self, cycles: u64) {
        self.next += cycles as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_due_at_their_rate() {
        let mut pace = Pace::new(1000, 100.0, 1000);
        assert_eq!([999, 1000, 1009, 1010, 1500].map(|now| pace.due(now, 32)), [1, 1, 1, 2, 32]);
        assert_eq!([pace.take(), pace.take(), pace.take()], [1000, 1010, 1020]);
        assert_eq!([1029, 1030].map(|now| pace.due(now, 32)), [0, 1]);
        pace.skip(100);
        assert_eq!([1129, 1130].map(|now| pace.due(now, 32)), [0, 1]);
    }

    #[test]
    fn a_long_run_keeps_the_rate() {
        let mut pace = Pace::new(0, 3e6, 2_600_000_000);
        let mut sent = 0;
        for now in (0..2_600_000_000_u64).step_by(5000) {
            for _ in 0..pace.due(now, 32) {
                assert!(pace.take() <= now);
                sent += 1;
            }
        }
        assert!((2_999_990..=3_000_000).contains(&sent), "{sent}");
    }
}
