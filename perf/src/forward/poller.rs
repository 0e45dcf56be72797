//! Something that moves packets, looked at from outside.

use crate::interrupt::Interrupt;
use crate::machine::cpu_of;
use crate::progress::Progress;
use crate::window::Window;
use anyhow::Result;
use std::time::{Duration, Instant};

/// A program with polling threads.
pub(crate) trait Poller {
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
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    packets: u64,
    cpu: Vec<Duration>,
    at: Instant,
}

impl Sample {
    /// Now, after `packets` packets.
    pub(crate) fn at(poller: &impl Poller, packets: u64) -> Result<Self> {
        let process = poller.process();
        let cpu = poller.threads().iter().map(|thread| cpu_of(process, *thread)).collect::<Result<_>>()?;
        Ok(Self { packets, cpu, at: Instant::now() })
    }

    fn take(poller: &mut impl Poller) -> Result<Self> {
        poller.check()?;
        let packets = poller.packets()?;
        Self::at(poller, packets)
    }

    /// The time between.
    pub(crate) fn until(&self, later: &Self) -> Window {
        let cpu = later.cpu.iter().zip(&self.cpu).map(|(later, earlier)| later.saturating_sub(*earlier));
        Window {
            packets: later.packets.saturating_sub(self.packets),
            wall: later.at - self.at,
            cpu: cpu.collect(),
        }
    }
}

/// Watches a poller for `count` windows of this length, one after the other.
pub(crate) fn watch(
    poller: &mut impl Poller,
    count: usize,
    length: Duration,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Result<Vec<Window>> {
    let mut windows = Vec::with_capacity(count);
    let mut before = Sample::take(poller)?;
    for _ in 0..count {
        interrupt.sleep(length)?;
        let after = Sample::take(poller)?;
        let window = before.until(&after);
        progress.window(&window);
        windows.push(window);
        before = after;
    }
    Ok(windows)
}
