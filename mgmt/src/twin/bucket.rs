//! Token buckets in front of the kernel.

/// How many frames a class may send to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Frames a second in the long run; at most 10 million.
    pub per_second: u32,
    /// Frames at once after a pause; at least 1.
    pub burst: u32,
}

const TOKEN: u64 = 1_000_000_000;
const FASTEST: u32 = 10_000_000;
const LONGEST_PAUSE: u64 = 10 * TOKEN;

/// Tokens that come with time. The level is in billionths of a token, so that a nanosecond brings `per_second` of them.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    per_second: u64,
    full: u64,
    level: u64,
    at: u64,
}

impl Bucket {
    /// A full bucket at the moment `now` (nanoseconds of a monotonic clock).
    pub(super) fn new(limit: RateLimit, now: u64) -> Self {
        let full = u64::from(limit.burst.max(1)) * TOKEN;
        Self { per_second: u64::from(limit.per_second.min(FASTEST)), full, level: full, at: now }
    }

    /// Adds what came since the last time.
    pub(super) fn refill(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at).min(LONGEST_PAUSE);
        self.at = self.at.max(now);
        self.level = self.level.saturating_add(passed * self.per_second).min(self.full);
    }

    /// Takes one token if there is one.
    pub(super) const fn take(&mut self) -> bool {
        let some = self.level >= TOKEN;
        if some {
            self.level -= TOKEN;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use super::{Bucket, RateLimit, TOKEN};
    use proptest::prelude::*;

    #[test]
    fn burst_then_rate() {
        let mut bucket = Bucket::new(RateLimit { per_second: 1_000, burst: 5 }, 0);
        assert_eq!((0..10).filter(|_| bucket.take()).count(), 5);
        bucket.refill(1_999_999);
        assert!(bucket.take() && !bucket.take());
        bucket.refill(2_000_000);
        assert!(bucket.take() && !bucket.take());
        bucket.refill(3_600 * TOKEN);
        assert_eq!((0..10).filter(|_| bucket.take()).count(), 5);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut bucket = Bucket::new(RateLimit { per_second: u32::MAX, burst: u32::MAX }, u64::MAX);
        bucket.refill(0);
        bucket.refill(u64::MAX);
        assert!(bucket.take());
        let mut none = Bucket::new(RateLimit { per_second: 0, burst: 0 }, 0);
        assert!(none.take() && !none.take());
        none.refill(u64::MAX);
        assert!(!none.take());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            per_second in 1_u32..100_000, burst in 1_u32..1_000,
            steps in prop::collection::vec((0_u64..50_000_000, 0_usize..200), 1..100),
        ) {
            let mut bucket = Bucket::new(RateLimit { per_second, burst }, 0);
            let (mut now, mut taken) = (0, 0_u64);
            for (gap, wants) in steps {
                now += gap;
                bucket.refill(now);
                taken += (0..wants).filter(|_| bucket.take()).count() as u64;
                let allowed = u64::from(burst) + now * u64::from(per_second) / TOKEN;
                prop_assert!(taken <= allowed, "{taken} of {allowed}");
            }
        }
    }
}
