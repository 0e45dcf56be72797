//! The process: one of its kind, on its CPUs, with its memory, until it is told to end.

mod cpus;
mod memory;
mod prefix;
mod signals;

pub use cpus::{Housekeeping, Placement, PlacementError, place};
pub use memory::{MemoryError, check_memory};
pub use prefix::{PrefixError, PrefixLock};
pub use signals::{Signal, Signals};
