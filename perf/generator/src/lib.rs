//! What `uvs-generator` is asked on its standard input and answers on its standard output: a line of JSON each.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Bytes at the end of a frame that the generator writes: the time at which it was to be sent, and that time's complement, which
/// keeps the sum of the bytes, and with it every checksum, as it was with zeros there.
pub const STAMP: usize = 16;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Which of its files it sends, over and over.
    pub file: usize,
    /// Packets a second; without it as many as the link takes.
    pub rate: Option<f64>,
    /// For so long. What is still under way then is waited for, at most as long as [`Outcome::patience_ns`] says.
    pub seconds: f64,
    /// A thread of the program under test each: its `schedstat`.
    pub threads: Vec<PathBuf>,
}

/// What a thread had of its CPU during a run, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// It ran.
    pub ran: u64,
    /// It wanted to run and another thread did.
    pub waited: u64,
}

/// What came of a run. Times are in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// From the first packet's time to the end of the waiting for the last.
    pub wall_ns: u64,
    /// Longest time that was waited for packets under way.
    pub patience_ns: u64,
    /// In which packets were sent, stalls left out.
    pub sending_ns: u64,
    /// Packets whose time came in it.
    pub offered: u64,
    /// Of these, packets that the link had no room for.
    pub refused: u64,
    /// Packets that came back, whenever they were sent in this run.
    pub returned: u64,
    /// Offered in moments that no stall of the generator spoiled, and of these lost.
    pub judged: u64,
    /// Lost of those.
    pub lost: u64,
    /// Moments in which the generator itself did not look at its port for too long.
    pub stalls: u64,
    /// Their time together.
    pub stalled_ns: u64,
    /// Packets that came back with a time that a stall spoiled: not in the histogram.
    pub blind: u64,
    /// The generator's own thread.
    pub own: Scheduled,
    /// The threads under test, in the order of [`Order::threads`].
    pub threads: Vec<Scheduled>,
    /// From the time at which a packet was to be sent until it was back: a time of the histogram's grain, and how often it came.
    pub latencies: Vec<(u64, u64)>,
}

/// What it says once its port is there.
pub const READY: &str = "{\"ready\":true}";

#[cfg(feature = "port")]
pub mod pace;
#[cfg(feature = "port")]
pub mod slots;
#[cfg(feature = "port")]
pub mod stamp;
