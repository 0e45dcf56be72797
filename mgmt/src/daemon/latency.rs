//! How long changes take, and bursts.

use crate::protocol::Latency;
use dataplane::worker::{BurstTimes, Runtime, burst_times};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Longest recorded time in microseconds; longer ones count as this.
const LONGEST_US: u64 = 60_000_000;
/// How long a worker may take to hand its histogram over.
const PATIENCE: Duration = Duration::from_millis(5);

/// Distributions since the start.
#[derive(Debug)]
pub(super) struct Latencies {
    apply: Option<Histogram<u32>>,
    grace: Option<Histogram<u32>>,
    bursts: Option<BurstTimes>,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 2).ok();
        Self { apply: histogram(), grace: histogram(), bursts: burst_times() }
    }
}

fn record(histogram: &mut Option<Histogram<u32>>, time: Duration) {
    if let Some(histogram) = histogram {
        histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }
}

/// `unit` is what the histogram counts in, in nanoseconds.
fn summary(histogram: Option<&Histogram<u32>>, unit: u64) -> Latency {
    let Some(histogram) = histogram else { return Latency::default() };
    let microseconds = |value: u64| value * unit / 1000;
    Latency {
        count: histogram.len(),
        p50_us: microseconds(histogram.value_at_quantile(0.5)),
        p99_us: microseconds(histogram.value_at_quantile(0.99)),
        max_us: microseconds(histogram.max()),
        buckets: histogram
            .iter_recorded()
            .map(|bucket| (bucket.value_iterated_to() * unit, bucket.count_at_value().into()))
            .collect(),
    }
}

impl Latencies {
    /// From a change's arrival to its publication.
    pub(super) fn apply(&mut self, time: Duration) {
        record(&mut self.apply, time);
    }

    /// From a publication until every worker used it.
    pub(super) fn grace(&mut self, time: Duration) {
        record(&mut self.grace, time);
    }

    /// Takes over what workers recorded.
    pub(super) fn collect_bursts(&mut self, runtime: &Runtime) {
        let Some(bursts) = &mut self.bursts else { return };
        for times in runtime.burst_times(PATIENCE).into_iter().flatten() {
            // Both have the same bounds.
            let _ = bursts.add(&*times);
        }
    }

    pub(super) fn apply_summary(&self) -> Latency {
        summary(self.apply.as_ref(), 1000)
    }

    pub(super) fn grace_summary(&self) -> Latency {
        summary(self.grace.as_ref(), 1000)
    }

    /// Service time of bursts, recorded in nanoseconds.
    pub(super) fn burst_summary(&self) -> Latency {
        summary(self.bursts.as_ref(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_the_same_in_both_units() {
        let mut latencies = Latencies::default();
        [3, 3, 7_000].map(Duration::from_micros).into_iter().for_each(|time| latencies.apply(time));
        let apply = latencies.apply_summary();
        assert_eq!((apply.count, apply.p50_us, apply.buckets[0]), (3, 3, (3_000, 2)));
        assert!((7_000..7_100).contains(&apply.max_us) && apply.buckets.len() == 2, "{apply:?}");
        let mut bursts = Histogram::new_with_bounds(1, 1_000_000, 2).unwrap();
        bursts.record(2_500).unwrap();
        let burst = summary(Some(&bursts), 1);
        assert_eq!((burst.count, burst.p50_us, burst.buckets[0].1), (1, 2, 1));
        assert!((2_500..2_520).contains(&burst.buckets[0].0), "{burst:?}");
    }
}
