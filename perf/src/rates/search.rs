//! The highest rate at which nothing is lost (RFC 2544, section 26.1): a binary search, since loss grows with the rate.

use anyhow::Result;

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found<T> {
    /// The trial at the highest rate that lost nothing, `None` where even the lowest one lost packets.
    pub(crate) best: Option<T>,
    /// Rates that were tried, in order, and whether they lost nothing.
    pub(crate) tried: Vec<(f64, bool)>,
}

/// Tries rates between `least` and `most` until the answer is known to `resolution`. `trial` runs one and says whether nothing was
/// lost.
pub(crate) fn no_drop_rate<T>(
    least: f64,
    most: f64,
    resolution: f64,
    mut trial: impl FnMut(f64) -> Result<(bool, T)>,
) -> Result<Found<T>> {
    let mut found = Found { best: None, tried: Vec::new() };
    let (mut low, mut high, mut rate) = (0.0, most, most);
    loop {
        let (lossless, outcome) = trial(rate)?;
        found.tried.push((rate, lossless));
        if lossless {
            found.best = Some(outcome);
            low = rate;
        } else {
            high = rate;
        }
        if high - low <= resolution || (!lossless && rate <= least) {
            return Ok(found);
        }
        rate = f64::midpoint(low, high).max(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(true_rate: f64) -> Found<f64> {
        no_drop_rate(1.0, 100.0, 0.5, |rate| Ok((rate <= true_rate, rate))).unwrap()
    }

    #[test]
    fn a_link_without_loss_takes_one_trial() {
        assert_eq!(search(200.0), Found { best: Some(100.0), tried: vec![(100.0, true)] });
    }

    #[test]
    fn loss_at_the_lowest_rate_is_no_rate() {
        let found = search(0.2);
        assert_eq!((found.best, found.tried.last()), (None, Some(&(1.0, false))));
    }

    #[test]
    fn a_trial_that_fails_ends_the_search() {
        assert!(no_drop_rate::<()>(1.0, 100.0, 0.5, |_| anyhow::bail!("no link")).is_err());
    }

    proptest! {
        #[test]
        fn the_rate_is_found_to_the_resolution(true_rate in 1.0_f64..100.0) {
            let found = search(true_rate);
            let best = found.best.unwrap();
            prop_assert!(best <= true_rate && true_rate - best <= 0.5, "{best} of {true_rate}");
            prop_assert!(found.tried.len() <= 10, "{:?}", found.tried);
        }
    }
}
