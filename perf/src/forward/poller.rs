//! Something that moves packets, looked at from outside.

use crate::interrupt::Interrupt;
use crate::machine::cpu_of;
use crate::progress::Progress;
use crate::window::Window;
use anyhow::Result;
use std::time::{Duration, Instant};

/// A program with polling threads.
pub(super) trait Poller {
    /// Packets it has sent since its start.
    fn packets(&mut self) -> Result<u64>;

    /// Its process.
    fn process(&self) -> u32;

    /// Its polling threads.
    fn threads(&self) -> &[u32];

    /// An error when it has ended.
    fn check(&mut self) -> Result<()>;
}

/// Where a poller stood at a moment.
struct Sample {
    packets: u64,
    cpu: Vec<Duration>,
    at: Instant,
}

fn sample(poller: &mut impl Poller) -> Result<Sample> {
    poller.check()?;
    let packets = poller.packets()?;
    let process = poller.process();
    let cpu = poller.threads().iter().map(|thread| cpu_of(process, *thread)).collect::<Result<_>>()?;
    Ok(Sample { packets, cpu, at: Instant::now() })
}

/// Watches a poller for `count` windows of this length, one after the other.
pub(super) fn watch(
    poller: &mut impl Poller,
    count: usize,
    length: Duration,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Result<Vec<Window>> {
    let mut windows = Vec::with_capacity(count);
    let mut before = sample(poller)?;
    for _ in 0..count {
        interrupt.sleep(length)?;
        let after = sample(poller)?;
        let window = Window {
            packets: after.packets.saturating_sub(before.packets),
            wall: after.at - before.at,
            cpu: after
                .cpu
                .iter()
                .zip(&before.cpu)
                .map(|(after, before)| after.saturating_sub(*before))
                .collect(),
        };
        progress.window(&window);
        windows.push(window);
        before = after;
    }
    Ok(windows)
}
