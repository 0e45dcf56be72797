//! Windows of time, which of them count, and what they come to.

use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::time::Duration;

/// The share of its CPU below which a poller was disturbed, and its window says nothing about its speed; in percent.
pub(crate) const LEAST_PERCENT: f64 = 93.0;

/// The same as the user wants it in this invocation.
static LEAST: OnceLock<f64> = OnceLock::new();

/// Windows count from this percentage of a CPU on. To be said once, before there are any.
pub(crate) fn require(percent: f64) {
    // Nobody else says it.
    let _ = LEAST.set(percent);
}

/// From which percentage of a CPU on windows count.
pub(crate) fn least_percent() -> f64 {
    LEAST.get().copied().unwrap_or(LEAST_PERCENT)
}

/// What pollers did in one stretch of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    /// Packets of all pollers together.
    pub(crate) packets: u64,
    /// Length.
    pub(crate) wall: Duration,
    /// CPU time of each poller.
    pub(crate) cpu: Vec<Duration>,
}

impl Window {
    /// The share of its CPU that the worst-off poller had.
    pub(crate) fn share(&self) -> f64 {
        let wall = self.wall.as_secs_f64();
        self.cpu.iter().map(|cpu| cpu.as_secs_f64() / wall).fold(f64::INFINITY, f64::min)
    }

    /// Whether it counts.
    pub(crate) fn counts(&self) -> bool {
        self.packets > 0 && self.share() * 100.0 >= least_percent()
    }

    fn cpu_seconds(&self) -> f64 {
        self.cpu.iter().map(Duration::as_secs_f64).sum()
    }

    /// Nanoseconds of CPU time for each packet.
    pub(crate) fn ns_per_packet(&self) -> f64 {
        self.cpu_seconds() * 1e9 / self.packets as f64
    }
}

/// What the windows of one measurement come to. All but counts of windows are medians over those that count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Packets for each second of CPU time of the pollers.
    pub(crate) packets_per_cpu_second: f64,
    /// Packets for each second on the clock, all pollers together.
    pub(crate) packets_per_second: f64,
    /// CPU time for each packet in nanoseconds.
    pub(crate) ns_per_packet: f64,
    /// The same in cycles of the time stamp counter.
    pub(crate) cycles_per_packet: f64,
    /// Windows that count.
    pub(crate) windows: usize,
    /// Windows in which a poller had too little of its CPU.
    pub(crate) windows_discarded: usize,
    /// The fastest and the slowest window in nanoseconds a packet.
    pub(crate) spread_ns: [f64; 2],
}

impl Figures {
    /// Of these windows; `None` when none counts. `tsc_ghz` is the rate of the time stamp counter.
    pub(crate) fn of(windows: &[Window], tsc_ghz: f64) -> Option<Self> {
        let counting: Vec<&Window> = windows.iter().filter(|window| window.counts()).collect();
        let ns: Vec<f64> = counting.iter().map(|window| window.ns_per_packet()).collect();
        let rates: Vec<f64> =
            counting.iter().map(|window| window.packets as f64 / window.wall.as_secs_f64()).collect();
        Self::from_samples(&ns, &rates, windows.len() - counting.len(), tsc_ghz)
    }

    /// Of one CPU cost (ns) and one rate (packets a second) for each window.
    pub(crate) fn from_samples(ns: &[f64], rates: &[f64], discarded: usize, tsc_ghz: f64) -> Option<Self> {
        let ns_per_packet = median(ns)?;
        Some(Self {
            packets_per_cpu_second: 1e9 / ns_per_packet,
            packets_per_second: median(rates)?,
            ns_per_packet,
            cycles_per_packet: ns_per_packet * tsc_ghz,
            windows: ns.len(),
            windows_discarded: discarded,
            spread_ns: [
                ns.iter().copied().fold(f64::INFINITY, f64::min),
                ns.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ],
        })
    }
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(sorted[middle - 1], upper)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(packets: u64, wall_ms: u64, cpu_ms: &[u64]) -> Window {
        let cpu = cpu_ms.iter().copied().map(Duration::from_millis).collect();
        Window { packets, wall: Duration::from_millis(wall_ms), cpu }
    }

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_disturbed_window_does_not_count() {
        let windows = [window(1000, 1000, &[1000]), window(10, 1000, &[929]), window(1000, 1000, &[940])];
        assert_eq!(windows.each_ref().map(Window::counts), [true, false, true]);
        let figures = Figures::of(&windows, 2.0).unwrap();
        assert_eq!((figures.windows, figures.windows_discarded), (2, 1));
        assert!((figures.ns_per_packet - 970_000.0).abs() < 1.0);
        assert!((figures.cycles_per_packet - 1_940_000.0).abs() < 2.0);
        assert_eq!(figures.spread_ns.map(f64::round), [940_000.0, 1_000_000.0]);
        assert_eq!(Figures::of(&windows[1..2], 2.0), None);
    }

    #[test]
    fn the_worst_off_of_several_pollers_decides() {
        assert!(!window(1000, 1000, &[1000, 500]).counts());
        let both = window(1000, 1000, &[1000, 950]);
        assert!(both.counts());
        assert!((both.ns_per_packet() - 1_950_000.0).abs() < 1.0);
    }

    #[test]
    fn a_window_without_packets_says_nothing() {
        assert!(!window(0, 1000, &[1000]).counts());
    }
}
