//! Distributions of times, in nanoseconds, as results keep them.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A distribution of times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    /// How many times were taken.
    pub(crate) count: u64,
    /// The shortest.
    pub(crate) minimum: u64,
    /// Their mean.
    pub(crate) mean: f64,
    /// The time that half of them do not exceed; and so on.
    pub(crate) p50: u64,
    /// 90 %.
    pub(crate) p90: u64,
    /// 99 %.
    pub(crate) p99: u64,
    /// 99.9 %.
    pub(crate) p99_9: u64,
    /// 99.99 %.
    pub(crate) p99_99: u64,
    /// The longest.
    pub(crate) maximum: u64,
}

impl Times {
    /// Of a histogram of nanoseconds; `None` of an empty one.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            minimum: histogram.min(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            p99_99: histogram.value_at_quantile(0.9999),
            maximum: histogram.max(),
        })
    }

    /// The figures with their names, in the order in which tables show them.
    pub(crate) const fn figures(&self) -> [(&'static str, u64); 7] {
        [
            ("min", self.minimum),
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("p99.99", self.p99_99),
            ("max", self.maximum),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_values_recorded() {
        let mut histogram = Histogram::new(3).unwrap();
        assert_eq!(Times::of(&histogram), None);
        for value in 1..=1000 {
            histogram.record(value).unwrap();
        }
        let times = Times::of(&histogram).unwrap();
        assert_eq!((times.count, times.minimum, times.p50, times.p90), (1000, 1, 500, 900));
        assert_eq!((times.p99, times.p99_9, times.p99_99, times.maximum), (990, 999, 1000, 1000));
        assert!((times.mean - 500.5).abs() < 1.0);
        assert!(times.figures().is_sorted_by_key(|(_, value)| *value));
    }
}
