//! The port, and runs over it: one thread sends and receives, and never waits for the other end.

use crate::Arguments;
use crate::capture::Frames;
use anyhow::{Context, Result};
use dpdk::{
    BURST, Burst, Eal, EalConfig, Hugepages, Mempool, MempoolConfig, PortConfig, RxQueue, TxQueue, tsc,
    tsc_hz,
};
use generator::pace::Pace;
use generator::slots::Slots;
use generator::{Order, Outcome, Scheduled, stamp};
use hdrhistogram::Histogram;
use std::path::Path;

/// Longest time in nanoseconds that the histogram tells apart.
const LONGEST_NS: u64 = 10_000_000_000;
/// Not looking at the port for so long is a stall; a burst out and one in take a few microseconds.
const STALL_NS: u64 = 25_000;
/// How long packets under way are waited for.
const PATIENCE_NS: u64 = 20_000_000;
/// Packet buffers: those in rings on either side, and in caches.
const BUFFERS: u32 = 16_383;

/// A started port with its files.
#[derive(Debug)]
pub(crate) struct Link {
    files: Vec<Frames>,
    pool: Mempool,
    rx: RxQueue,
    tx: TxQueue,
    hz: u64,
    ns_per_cycle: f64,
}

/// Where a run stands.
struct Run<'a> {
    link: &'a mut Link,
    file: usize,
    /// The next frame of the file.
    frame: usize,
    /// Frames that are to be sent.
    out: Burst,
    start: u64,
    /// Packets with an earlier time may have waited for the generator.
    blind_before: u64,
    pace: Option<Pace>,
    slots: Slots,
    histogram: Histogram<u64>,
    outcome: Outcome,
}

impl Link {
    /// Starts the EAL and the port.
    pub(crate) fn start(arguments: &Arguments, files: Vec<Frames>) -> Result<Self> {
        let eal = Eal::init(&EalConfig {
            file_prefix: format!("uvs-generator-{}", std::process::id()),
            memory_mib: arguments.memory,
            hugepages: if arguments.no_hugepages { Hugepages::Never } else { Hugepages::Required },
            housekeeping_cpus: vec![arguments.cpu],
            devices: vec![arguments.device.clone()],
            extra_args: arguments.eal.clone(),
            ..EalConfig::default()
        })?;
        let config =
            MempoolConfig { name: "frames".to_owned(), buffers: BUFFERS, ..MempoolConfig::default() };
        let pool = Mempool::new(&eal, &config)?;
        let descriptors = arguments.descriptors;
        let config = PortConfig {
            rx_descriptors: descriptors,
            tx_descriptors: descriptors,
            promiscuous: true,
            ..PortConfig::default()
        };
        let mut port = eal.attach(&arguments.device)?.start(&config, &pool)?;
        let (rx, tx) = port.rx_queue(0).zip(port.tx_queue(0)).context("the port has no queues")?;
        let hz = tsc_hz();
        Ok(Self { files, pool, rx, tx, hz, ns_per_cycle: 1e9 / hz as f64 })
    }

    const fn cycles(&self, ns: u64) -> u64 {
        ns * (self.hz / 1_000_000) / 1000
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds of a run")]
    fn ns(&self, cycles: u64) -> u64 {
        (cycles as f64 * self.ns_per_cycle) as u64
    }

    /// Follows an order.
    pub(crate) fn run(&mut self, order: &Order) -> Result<Outcome> {
        self.files.get(order.file).with_context(|| format!("there is no file {}", order.file))?;
        // What an earlier run left in the rings.
        let mut left: Burst = Burst::new();
        while self.rx.receive(&mut left) > 0 {
            left.clear();
        }
        let before = scheduled(order)?;
        let start = tsc();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an hour at most")]
        let end = start + (order.seconds * self.hz as f64) as u64;
        let (hz, patience) = (self.hz, self.cycles(PATIENCE_NS));
        let mut run = Run {
            file: order.file,
            frame: 0,
            out: Burst::new(),
            start,
            blind_before: start,
            pace: order.rate.map(|rate| Pace::new(start, rate, hz)),
            slots: Slots::new(start, end + patience, hz),
            histogram: Histogram::new_with_max(LONGEST_NS, 3)?,
            outcome: Outcome::default(),
            link: self,
        };
        let last = run.go(end, end + patience);
        let Run { slots, histogram, mut outcome, .. } = run;
        let after = scheduled(order)?;
        let mut differences = before.iter().zip(&after).map(|(before, after)| Scheduled {
            ran: after.ran.saturating_sub(before.ran),
            waited: after.waited.saturating_sub(before.waited),
        });
        outcome.own = differences.next().unwrap_or_default();
        outcome.threads = differences.collect();
        outcome.wall_ns = self.ns(last - start);
        outcome.patience_ns = PATIENCE_NS;
        outcome.sending_ns = self.ns(end - start).saturating_sub(outcome.stalled_ns);
        (outcome.judged, outcome.lost) = slots.judge();
        outcome.latencies = histogram
            .iter_recorded()
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
            .collect();
        Ok(outcome)
    }
}

impl Run<'_> {
    /// Sends until `end`, and receives until all is back or `last`; returns when that was.
    fn go(&mut self, end: u64, last: u64) -> u64 {
        let stall = self.link.cycles(STALL_NS);
        let mut looked = self.start;
        loop {
            let now = tsc();
            let gap = now - looked;
            if gap > stall {
                self.stalled(looked, now, now < end);
            }
            looked = now;
            if now < end {
                self.send(now);
            } else {
                self.give_up();
                if now >= last || self.outcome.returned + self.outcome.refused >= self.outcome.offered {
                    return now;
                }
            }
            self.receive();
        }
    }

    /// What was not sent will not be.
    #[inline(always)]
    fn give_up(&mut self) {
        self.outcome.refused += self.out.len() as u64;
        self.out.clear();
    }

    #[cold]
    fn stalled(&mut self, from: u64, to: u64, sending: bool) {
        self.slots.spoil(from, to);
        self.blind_before = to;
        self.outcome.stalls += 1;
        if sending {
            self.outcome.stalled_ns += self.link.ns(to - from);
            if let Some(pace) = &mut self.pace {
                pace.skip(to - from);
            }
        }
    }

    #[inline(always)]
    fn send(&mut self, now: u64) {
        let count = match &self.pace {
            Some(pace) => pace.due(now, BURST),
            None => self.out.room(),
        };
        if count > 0 {
            self.fill(count, now);
        }
        if self.out.is_empty() {
            return;
        }
        self.link.tx.transmit(&mut self.out);
        // At a rate there is no second try: a wire takes a packet at its time, or not at all.
        if self.pace.is_some() {
            self.give_up();
        }
    }

    #[inline(always)]
    fn fill(&mut self, count: usize, now: u64) {
        let Self { link, file, frame, out, pace, slots, outcome, .. } = self;
        let before = out.len();
        if !link.pool.alloc_bulk(out, count) {
            return;
        }
        let frames = &link.files[*file];
        for packet in &mut out[before..] {
            let time = pace.as_mut().map_or(now, Pace::take);
            // Buffers hold the longest frame there is.
            let _ = packet.set_data(frames.get(*frame));
            stamp::write(packet.data_mut(), time);
            slots.offered(time);
            *frame += 1;
            if *frame == frames.len() {
                *frame = 0;
            }
        }
        outcome.offered += count as u64;
    }

    #[inline(always)]
    fn receive(&mut self) {
        let mut back: Burst = Burst::new();
        if self.link.rx.receive(&mut back) == 0 {
            return;
        }
        let now = tsc();
        for packet in &*back {
            // Frames of other programs, and of earlier runs, are nobody's loss.
            let Some(time) = stamp::read(packet.data()).filter(|time| (self.start..=now).contains(time))
            else {
                continue;
            };
            self.outcome.returned += 1;
            self.slots.returned(time);
            if time >= self.blind_before {
                self.histogram.saturating_record(self.link.ns(now - time));
            } else {
                self.outcome.blind += 1;
            }
        }
        back.clear();
    }
}

/// This thread, and those of the order.
fn scheduled(order: &Order) -> Result<Vec<Scheduled>> {
    let own = Path::new("/proc/thread-self/schedstat");
    std::iter::once(own).chain(order.threads.iter().map(std::path::PathBuf::as_path)).map(read).collect()
}

fn read(path: &Path) -> Result<Scheduled> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    let (ran, waited) = (numbers.next().flatten(), numbers.next().flatten());
    let (ran, waited) =
        ran.zip(waited).with_context(|| format!("{} holds `{}`", path.display(), text.trim()))?;
    Ok(Scheduled { ran, waited })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_time_is_read() {
        let order = Order {
            file: 0,
            rate: None,
            seconds: 1.0,
            threads: vec![format!("/proc/{0}/task/{0}/schedstat", std::process::id()).into()],
        };
        assert_eq!(scheduled(&order).unwrap().len(), 2);
        assert!(read(Path::new("/proc/self/comm")).unwrap_err().to_string().contains("holds `"));
    }
}
