//! Service time of bursts, recorded by a worker and read by the management thread without either waiting: empty histograms
//! go to the worker, full ones come back.

use crossbeam_queue::ArrayQueue;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Longest recorded time, in nanoseconds; longer ones count as this.
const LONGEST: u64 = 1_000_000_000;
const DIGITS: u8 = 2;

/// Nanoseconds a burst took, from receive to flush.
pub type BurstTimes = Histogram<u32>;

/// An empty histogram of burst times; `None` would mean that the library refuses these bounds.
#[must_use]
pub fn burst_times() -> Option<BurstTimes> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).ok()
}

/// The two one-place queues between a worker and the management thread.
#[derive(Debug)]
pub(super) struct Exchange {
    empty: ArrayQueue<Box<BurstTimes>>,
    full: ArrayQueue<Box<BurstTimes>>,
    first: std::sync::Mutex<Option<Box<BurstTimes>>>,
    nanoseconds_per_cycle: f64,
}

impl Exchange {
    pub(super) fn new(tsc_hz: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a frequency")]
        let nanoseconds_per_cycle = 1e9 / tsc_hz.max(1) as f64;
        Self {
            empty: ArrayQueue::new(1),
            full: ArrayQueue::new(1),
            first: std::sync::Mutex::new(burst_times().map(Box::new)),
            nanoseconds_per_cycle,
        }
    }

    /// The worker's end, made once before its loop starts.
    pub(super) fn recorder(&self) -> Recorder {
        let times = self.first.lock().ok().and_then(|mut first| first.take());
        Recorder { times, nanoseconds_per_cycle: self.nanoseconds_per_cycle }
    }

    /// What was recorded since the last call; `None` when the worker does not answer in time.
    pub(super) fn collect(&self, patience: Duration) -> Option<Box<BurstTimes>> {
        let deadline = Instant::now() + patience;
        let _ = self.empty.push(Box::new(burst_times()?));
        loop {
            if let Some(times) = self.full.pop() {
                return Some(times);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Records for one worker.
#[derive(Debug)]
pub(super) struct Recorder {
    times: Option<Box<BurstTimes>>,
    nanoseconds_per_cycle: f64,
}

impl Recorder {
    /// Records one burst.
    #[inline]
    pub(super) fn record(&mut self, cycles: u64) {
        if let Some(times) = &mut self.times {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a time"
            )]
            let nanoseconds = (cycles as f64 * self.nanoseconds_per_cycle) as u64;
            times.saturating_record(nanoseconds.max(1));
        }
    }

    /// Hands the histogram over when an empty one has come.
    #[inline]
    pub(super) fn answer(&mut self, exchange: &Exchange) {
        if let Some(empty) = exchange.empty.pop()
            && let Some(times) = self.times.replace(empty)
            && let Err(times) = exchange.full.push(times)
        {
            self.times = Some(times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_comes_back_once() {
        let exchange = Exchange::new(1_000_000_000);
        let mut recorder = exchange.recorder();
        recorder.record(100);
        recorder.record(200);
        assert!(exchange.collect(Duration::ZERO).is_none());
        recorder.answer(&exchange);
        assert_eq!(exchange.collect(Duration::ZERO).unwrap().len(), 2);
    }
}
