//! What was sent and received at one rate.

use crate::times::Times;
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde_json::Value;

/// One rate's figures.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Level {
    /// Percent of the link's speed that were asked for: pktgen keeps it within 3 % only.
    pub(super) rate: f64,
    /// Packets a second while measuring.
    pub(super) sent_per_second: f64,
    pub(super) received_per_second: f64,
    /// Packets from start to stop, probes included.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Latency in nanoseconds, where it was asked for.
    pub(super) latency: Option<Times>,
}

impl Level {
    pub(super) const fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// From the lines that the script wrote: all levels, if it came to its end.
    pub(super) fn read(text: &str) -> Result<Vec<Self>> {
        let mut levels = Vec::new();
        for line in text.lines() {
            let value: Value =
                serde_json::from_str(line).with_context(|| format!("the generator wrote {line}"))?;
            if let Some(error) = value["error"].as_str() {
                bail!("the generator's script failed: {error}");
            }
            if value["done"].as_bool() == Some(true) {
                return Ok(levels);
            }
            let number = |name: &str| {
                value[name].as_u64().with_context(|| format!("the generator did not write `{name}`: {line}"))
            };
            levels.push(Self {
                rate: value["rate"].as_f64().with_context(|| format!("no rate in {line}"))?,
                sent_per_second: number("tx_pps")? as f64,
                received_per_second: number("rx_pps")? as f64,
                sent: number("tx")?,
                received: number("rx")?,
                latency: None,
            });
        }
        bail!("the generator's script ended early, after {} rates", levels.len())
    }
}

/// Latencies from the sampler's file: a heading, then nanoseconds, one a line.
pub(super) fn latencies(text: &str) -> Result<Option<Times>> {
    let mut histogram = Histogram::<u64>::new(3)?;
    for line in text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()) {
        let ns: u64 = line.parse().with_context(|| format!("{line} is no latency in nanoseconds"))?;
        histogram.record(ns)?;
    }
    Ok(Times::of(&histogram))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"rate":50.5,"seconds":5,"tx_pps":1000,"rx_pps":990,"tx":9000,"rx":8990,"imissed":0,"nombuf":0,"oerrors":0,"probes":7,"probes_skipped":0}"#;

    #[test]
    fn levels_count_when_the_script_came_to_its_end() {
        let levels = Level::read(&format!("{LINE}\n{LINE}\n{{\"done\":true}}\n")).unwrap();
        assert_eq!((levels.len(), levels[0].rate, levels[0].lost()), (2, 50.5, 10));
        let error = |text: &str| format!("{:#}", Level::read(text).unwrap_err());
        assert!(error(LINE).contains("ended early, after 1 rates"));
        assert!(error("{\"error\":\"no port\"}").contains("no port"));
        assert!(error("nonsense").contains("wrote nonsense"));
        assert!(error("{\"rate\":1}").contains("tx_pps"));
    }

    #[test]
    fn latencies_are_the_lines_below_the_heading() {
        let times = latencies("Latency\n1000\n2000\n3000\n\n").unwrap().unwrap();
        assert_eq!((times.count, times.minimum), (3, 1000));
        assert_eq!(latencies("Latency\n").unwrap(), None);
        assert!(latencies("Latency\nfast\n").is_err());
    }
}
