//! The hot stages of a packet's way, each alone: what `scripts/gate` counts the instructions of, and what the benches time.

pub mod director;
pub mod gate;
pub mod packets;
pub mod scheduling;
pub mod stage;
