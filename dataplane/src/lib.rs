//! The director's engine: parse, own, look up, schedule, track, rewrite, transmit.
//!
//! The engine is pure: it does no I/O, reads no clock and draws no random number that was not handed in. It gets a
//! burst of packet buffers, a [`snapshot::Snapshot`], its own shard of the connection table and `now`. The poll-mode
//! worker that drives it on DPDK lives behind the default feature `worker`.

pub mod address;
pub mod bench;
pub mod connection;
pub mod counters;
pub mod engine;
pub mod exception;
pub mod flow;
mod ftp;
pub mod id;
pub mod packet;
pub mod pipeline;
pub mod rcu;
pub mod scheduler;
pub mod snapshot;
pub mod steering;
pub mod template;
pub mod tokens;
#[cfg(feature = "worker")]
pub mod worker;
