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

fn summary(histogram: Option<&Histogram<u32>>, unit: u64) -> Latency {
    let Some(histogram) = histogram else { return Latency::default() };
    Latency {
        count: histogram.len(),
        p50_us: histogram.value_at_quantile(0.5) / unit,
        p99_us: histogram.value_at_quantile(0.99) / unit,
        max_us: histogram.max() / unit,
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
        summary(self.apply.as_ref(), 1)
    }

    pub(super) fn grace_summary(&self) -> Latency {
        summary(self.grace.as_ref(), 1)
    }

    /// Service time of bursts, recorded in nanoseconds.
    pub(super) fn burst_summary(&self) -> Latency {
        summary(self.bursts.as_ref(), 1000)
    }
}
