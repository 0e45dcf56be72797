//! Token buckets: how often something may happen.

use crate::id::Ticks;

/// A token bucket on [`Ticks`]: at most `burst` at once and `rate` a second in the long run. It starts full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Tokens a second, which are thousandths of a token a tick.
    rate: u32,
    /// Most thousandths of a token there can be.
    limit: u64,
    /// Thousandths of a token there are.
    level: u64,
    last: Ticks,
}

const THOUSAND: u64 = 1000;

impl TokenBucket {
    /// A full bucket at `now`. A `burst` of 0 never gives a token.
    #[must_use]
    pub const fn new(rate: u32, burst: u32, now: Ticks) -> Self {
        let limit = burst as u64 * THOUSAND;
        Self { rate, limit, level: limit, last: now }
    }

    /// Takes one token if there is one. `now` must not go back between calls.
    #[inline]
    pub const fn take(&mut self, now: Ticks) -> bool {
        // Ticks too far apart to compare count as no time: the bucket fills from `now` on.
        self.level += now.since(self.last) as u64 * self.rate as u64;
        if self.level > self.limit {
            self.level = self.limit;
        }
        self.last = now;
        if self.level < THOUSAND {
            return false;
        }
        self.level -= THOUSAND;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_bucket_gives_its_burst_then_its_rate() {
        let start = Ticks(u32::MAX - 3);
        let mut bucket = TokenBucket::new(100, 3, start);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(start.after(9)), "100 a second is one in 10 ms, over the wrap too");
        assert!(bucket.take(start.after(10)));
        assert!(!bucket.take(start.after(10)));
        assert_eq!((0..5).filter(|_| bucket.take(start.after(60_000))).count(), 3);
    }

    #[test]
    fn an_idle_month_does_not_lock_it() {
        let mut bucket = TokenBucket::new(1, 1, Ticks(0));
        assert!(bucket.take(Ticks(0)));
        let later = Ticks(0).after(3_000_000_000);
        bucket.take(later);
        assert!(bucket.take(later.after(1000)));
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert!(!TokenBucket::new(1000, 0, Ticks(0)).take(Ticks(60_000)));
        let mut bucket = TokenBucket::new(0, 1, Ticks(0));
        assert!(bucket.take(Ticks(0)) && !bucket.take(Ticks(1_000_000)));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 512 })
        })]

        #[test]
        fn never_more_than_burst_and_rate(
            rate in 0_u32..200_000, burst in 0_u32..1000, start: u32,
            steps in proptest::collection::vec((0_u32..5000, 1_u8..40), 1..60),
        ) {
            let mut bucket = TokenBucket::new(rate, burst, Ticks(start));
            let (mut now, mut elapsed, mut taken) = (Ticks(start), 0_u64, 0_u64);
            for (step, asks) in steps {
                now = now.after(step);
                elapsed += u64::from(step);
                let got = (0..asks).filter(|_| bucket.take(now)).count() as u64;
                taken += got;
                prop_assert!(taken <= u64::from(burst) + u64::from(rate) * elapsed / 1000);
                let earned = (u64::from(step) * u64::from(rate) / 1000).min(u64::from(burst));
                prop_assert!(got >= earned.min(asks.into()), "{got} of {earned} earned");
            }
        }
    }
}
