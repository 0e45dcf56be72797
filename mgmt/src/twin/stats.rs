//! What the exception thread counts.

use dataplane::exception::PuntClass;
use serde::Serialize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Counters written by the exception thread alone, read by anyone.
#[derive(Debug, Default)]
pub struct ExceptionStats {
    pub(super) to_kernel: [AtomicU64; 3],
    pub(super) bucket_refused: [AtomicU64; 3],
    pub(super) tap_full: AtomicU64,
    pub(super) tap_down: AtomicU64,
    pub(super) tap_refused: AtomicU64,
    pub(super) no_twin: AtomicU64,
    pub(super) read: AtomicU64,
    pub(super) from_kernel: AtomicU64,
    pub(super) inject_full: AtomicU64,
    pub(super) too_long: AtomicU64,
    pub(super) wake_ups: AtomicU64,
    pub(super) carrier_drops: AtomicU64,
    pub(super) twins_remade: AtomicU64,
    pub(super) carrier_down: AtomicBool,
}

/// The counters at one moment. Frames drained are `to_kernel + bucket_refused + tap_full + tap_down + tap_refused +
/// no_twin`; frames read are `from_kernel + inject_full + too_long` and at most one a twin in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ExceptionSnapshot {
    /// Punted frames that the kernel took, by class.
    pub to_kernel: ByClass,
    /// Punted frames dropped because their class had used up its rate, by class.
    pub bucket_refused: ByClass,
    /// Punted frames dropped because the kernel had no room.
    pub tap_full: u64,
    /// Punted frames dropped because the twin was down.
    pub tap_down: u64,
    /// Punted frames that the kernel refused for another reason, such as being shorter than an Ethernet header.
    pub tap_refused: u64,
    /// Punted frames of ports without a twin.
    pub no_twin: u64,
    /// Frames read from the kernel.
    pub read: u64,
    /// Frames of the kernel's that a worker took.
    pub from_kernel: u64,
    /// Frames of the kernel's dropped because the worker's ring stayed full.
    pub inject_full: u64,
    /// Frames of the kernel's dropped because the port does not take ones as long.
    pub too_long: u64,
    /// Turns of the thread.
    pub wake_ups: u64,
    /// Times the carrier was dropped because a worker stood still.
    pub carrier_drops: u64,
    /// Twins made anew after somebody had deleted them.
    pub twins_remade: u64,
    /// Whether the carrier is dropped now.
    pub carrier_down: bool,
}

/// A figure for each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ByClass {
    /// ARP, neighbour discovery, routing protocols.
    pub control: u64,
    /// Other frames for this host.
    pub local: u64,
    /// To a virtual address, but to no service.
    pub stray: u64,
}

impl ByClass {
    fn read(counters: &[AtomicU64; 3]) -> Self {
        let of = |class: PuntClass| counters[class.index()].load(Relaxed);
        Self { control: of(PuntClass::Control), local: of(PuntClass::Local), stray: of(PuntClass::Stray) }
    }

    /// All classes together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.control + self.local + self.stray
    }
}

impl ExceptionStats {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> ExceptionSnapshot {
        ExceptionSnapshot {
            to_kernel: ByClass::read(&self.to_kernel),
            bucket_refused: ByClass::read(&self.bucket_refused),
            tap_full: self.tap_full.load(Relaxed),
            tap_down: self.tap_down.load(Relaxed),
            tap_refused: self.tap_refused.load(Relaxed),
            no_twin: self.no_twin.load(Relaxed),
            read: self.read.load(Relaxed),
            from_kernel: self.from_kernel.load(Relaxed),
            inject_full: self.inject_full.load(Relaxed),
            too_long: self.too_long.load(Relaxed),
            wake_ups: self.wake_ups.load(Relaxed),
            carrier_drops: self.carrier_drops.load(Relaxed),
            twins_remade: self.twins_remade.load(Relaxed),
            carrier_down: self.carrier_down.load(Relaxed),
        }
    }
}

/// One writer, so that a load and a store do.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}
