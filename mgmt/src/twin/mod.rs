//! The kernel twin of a port: a TAP with the NIC's address, one thread that carries frames between it and the workers,
//! and the silencing of the NIC's own kernel interface.
//!
//! Workers never touch a TAP: a system call for each punted frame would cost them twenty times the forwarding of one.
//! The twin is not persistent: it goes with the process, and with it its addresses, so that a dead director cannot go
//! on announcing them.

mod bucket;
mod exception;
mod lane;
pub mod silence;
mod stats;
mod tap;

pub use bucket::RateLimit;
pub use exception::{ExceptionHandle, ExceptionOptions, ExceptionThread};
pub use silence::{Silence, SilenceError};
pub use stats::{ByClass, ExceptionSnapshot, ExceptionStats};
pub use tap::{Twin, TwinConfig, TwinError};

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
pub(crate) mod testing;
