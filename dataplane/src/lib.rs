//! The director's engine: parse, own, look up, schedule, track, rewrite, transmit.
//!
//! The engine is pure: it does no I/O, reads no clock and draws no random number that was not handed in. It gets a
//! burst of packet buffers, a [`snapshot::Snapshot`], its own shard of the connection table and `now`. The poll-mode
//! worker that drives it on DPDK lives behind the default feature `worker`.

pub mod address;
pub mod counters;
pub mod exception;
pub mod flow;
pub mod id;
pub mod packet;
pub mod scheduler;
pub mod snapshot;
pub mod template;
