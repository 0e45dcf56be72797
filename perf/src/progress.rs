//! What a long run is doing, on standard error.

use crate::table::{grouped, millions};
use crate::window::{Window, least_percent};
use std::time::{Duration, Instant};

/// How often a step that takes long says how far it is.
const PERIOD: Duration = Duration::from_secs(1);

/// Says what goes on.
#[derive(Debug)]
pub(crate) struct Progress {
    said: Instant,
}

impl Progress {
    /// A new one, silent so far.
    pub(crate) fn new() -> Self {
        Self { said: Instant::now() }
    }

    /// A new step begins.
    pub(crate) fn step(&mut self, what: &str) {
        self.said = Instant::now();
        eprintln!("uvs-perf: {what}");
    }

    /// A step is so far along; said once a second at most.
    pub(crate) fn far(&mut self, what: &str, done: u64, all: u64) {
        if self.said.elapsed() >= PERIOD {
            self.step(&format!("{what}: {} of {}", grouped(done), grouped(all)));
        }
    }

    /// So many hugepages of 2 MiB are not free.
    pub(crate) fn without_hugepages(&mut self, pages: u64) {
        self.step(&format!(
            "fewer than {pages} hugepages of 2 MiB are free: all programs run without, which is slower; reserve them \
             with `echo {pages} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`"
        ));
    }

    /// A window has ended.
    pub(crate) fn window(&mut self, window: &Window) {
        let share = window.share() * 100.0;
        if window.packets == 0 {
            self.step("  a window without packets: discarded");
        } else if window.counts() {
            let rate = 1e9 / window.ns_per_packet();
            self.step(&format!("  {} packets/CPU-s, {share:.1} % of the CPU", millions(rate)));
        } else {
            let least = least_percent();
            self.step(&format!("  a window with {share:.1} % of the CPU, less than {least:.0} %: discarded"));
        }
    }
}
