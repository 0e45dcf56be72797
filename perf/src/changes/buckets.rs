//! Distributions that a director tells: what happened between two of its answers.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::collections::BTreeMap;

/// Times in nanoseconds, and how many were so long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Buckets(BTreeMap<u64, u64>);

impl Buckets {
    /// Of the distribution `name` in an answer to `stats`.
    pub(super) fn read(stats: &Value, name: &str) -> Result<Self> {
        let list = stats[name]["buckets"].as_array().with_context(|| {
            format!("the director's stats have no buckets of {name}: is it an older one?")
        })?;
        let pair = |pair: &Value| Some((pair[0].as_u64()?, pair[1].as_u64()?));
        Ok(Self(list.iter().filter_map(pair).collect()))
    }

    /// What came since an earlier answer.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let since = |(time, count): (&u64, &u64)| {
            let count = count - earlier.0.get(time).copied().unwrap_or(0).min(*count);
            (count > 0).then_some((*time, count))
        };
        Self(self.0.iter().filter_map(since).collect())
    }

    /// Adds these to a histogram of nanoseconds.
    pub(super) fn add_to(&self, histogram: &mut Histogram<u64>) {
        for (time, count) in &self.0 {
            histogram.saturating_record_n(*time, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_is_what_came_between() {
        let stats = |times: Value| json!({ "burst": { "count": 9, "buckets": times } });
        let before = Buckets::read(&stats(json!([[100, 5], [200, 1]])), "burst").unwrap();
        let after = Buckets::read(&stats(json!([[100, 7], [200, 1], [900, 2]])), "burst").unwrap();
        let between = after.since(&before);
        assert_eq!(between, Buckets(BTreeMap::from([(100, 2), (900, 2)])));
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        between.add_to(&mut histogram);
        assert_eq!((histogram.len(), histogram.min()), (4, 100));
        assert!(Buckets::read(&json!({ "burst": {} }), "burst").is_err());
    }
}
