//! A director without a NIC: frames, a sink in memory, several engines with their rings between them. What tests, benches
//! and replays drive the engine with.

mod capture;
mod director;
mod frame;
mod lean;
mod sink;

pub use capture::Capture;
pub use director::{Director, DirectorConfig};
pub use frame::Frame;
pub use lean::{LeanPacket, Roundabout};
pub use sink::{MemorySink, Outcome};
