//! A worker's loop: receive, take over, inject, turn, flush, rest.

use super::clock::{Clock, GlancedClock};
use super::histogram::Exchange;
use super::idle::{Idle, IdleMode};
use super::packet::DpdkPacket;
use super::sink::DpdkSink;
use crate::counters::Counter;
use crate::engine::Engine;
use crate::id::{PortId, Ticks};
use crate::rcu::Reader;
use crate::snapshot::Snapshot;
use crossbeam_utils::CachePadded;
use dpdk::{Burst, RxQueue};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// When each worker last completed a turn.
#[derive(Debug)]
pub(super) struct Heartbeats {
    beats: Box<[CachePadded<AtomicU32>]>,
}

impl Heartbeats {
    pub(super) fn new(workers: usize, now: Ticks) -> Self {
        Self {
            beats: std::iter::repeat_with(|| CachePadded::new(AtomicU32::new(now.0))).take(workers).collect(),
        }
    }

    /// Milliseconds since each worker's last turn.
    pub(super) fn ages(&self, now: Ticks) -> impl Iterator<Item = u32> {
        self.beats.iter().map(move |beat| now.since(Ticks(beat.load(Relaxed))))
    }

    pub(super) fn slowest_age(&self, now: Ticks) -> u32 {
        self.ages(now).max().unwrap_or(0)
    }
}

/// Everything a worker owns.
pub(super) struct Worker {
    pub(super) engine: Engine<DpdkPacket>,
    pub(super) inlets: Vec<(PortId, RxQueue)>,
    pub(super) sink: DpdkSink,
    pub(super) reader: Reader<Snapshot>,
    pub(super) heartbeats: Arc<Heartbeats>,
    pub(super) histogram: Arc<Exchange>,
    pub(super) clock: Clock,
    pub(super) idle: IdleMode,
    /// On a line of its own, so that nobody else's writing makes reading it slow.
    pub(super) stop: Arc<CachePadded<AtomicBool>>,
}

impl Worker {
    /// Runs until told to stop; then everything held is dropped and counted.
    pub(super) fn run(mut self) {
        let beat = Arc::clone(&self.heartbeats);
        let beat = &beat.beats[self.sink.id.index()];
        let mut idle = Idle::new(self.idle);
        let mut burst = Burst::new();
        let mut recorder = self.histogram.recorder();
        let mut cycle = dpdk::tsc();
        let mut clock = GlancedClock::new(self.clock, dpdk::tsc_hz(), cycle);
        let mut last = clock.now(cycle);
        while !self.stop.load(Relaxed) {
            let now = clock.now(cycle);
            beat.store(now.0, Relaxed);
            let found = self.turn(&mut burst, now);
            let start = std::mem::replace(&mut cycle, dpdk::tsc());
            let counters = self.sink.counters();
            counters.add(Counter::Turns, 1);
            if found > 0 {
                let cycles = cycle.wrapping_sub(start);
                counters.add(Counter::BusyCycles, cycles);
                recorder.record(cycles);
                idle.busy();
            } else {
                counters.add(Counter::IdleTurns, 1);
                if let Some(rest) = idle.rest() {
                    counters.add(Counter::Sleeps, 1);
                    self.reader.offline();
                    rest.take();
                    self.reader.online();
                    cycle = dpdk::tsc();
                }
            }
            if now != last {
                last = now;
                recorder.answer(&self.histogram);
            }
        }
        self.finish();
    }

    /// One turn; returns how many packets it found.
    #[inline]
    fn turn(&mut self, burst: &mut Burst, now: Ticks) -> usize {
        let Self { engine, inlets, sink, reader, .. } = self;
        reader.with(|snapshot| {
            let mut found = 0;
            for (port, queue) in inlets.iter_mut() {
                queue.receive(burst);
                if !burst.is_empty() {
                    found += burst.len();
                    for packet in burst.iter() {
                        packet.prefetch_data();
                    }
                    engine.process(*port, burst.drain().map(DpdkPacket), snapshot, now, sink);
                }
            }
            found += take_over(engine, snapshot, now, sink);
            found += sink.inject();
            engine.turn(snapshot, now, sink);
            sink.flush();
            found
        })
    }

    fn finish(mut self) {
        self.engine.stop();
        self.sink.flush();
    }
}

/// Takes a burst over from every other worker that has sent something.
#[inline(always)]
fn take_over(engine: &mut Engine<DpdkPacket>, snapshot: &Snapshot, now: Ticks, sink: &mut DpdkSink) -> usize {
    if sink.rings.mesh.is_rung() { take_rung(engine, snapshot, now, sink) } else { 0 }
}

#[cold]
fn take_rung(engine: &mut Engine<DpdkPacket>, snapshot: &Snapshot, now: Ticks, sink: &mut DpdkSink) -> usize {
    let (mut found, mut from) = (0, 0);
    while let Some(sender) = sink.rings.mesh.next_sender(from) {
        let mut taken = std::mem::take(&mut sink.redirected);
        sink.rings.mesh.take(sender, dpdk::BURST, &mut taken);
        found += taken.len();
        engine.process_redirected(taken.drain(..), snapshot, now, sink);
        sink.redirected = taken;
        from = sender + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workers_heartbeat_is_in_a_pair_of_lines_of_its_own() {
        let beats = Heartbeats::new(3, Ticks(7)).beats;
        assert_eq!((beats.as_ptr().addr() % 128, size_of_val(&*beats)), (0, 3 * 128));
        assert_eq!(size_of::<CachePadded<AtomicBool>>(), 128);
    }
}
