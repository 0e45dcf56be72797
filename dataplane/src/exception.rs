//! What crosses between the workers and the kernel's stack.

use crate::id::PortId;
use serde::{Deserialize, Serialize};

/// The rings that punted frames go to; a flood in one never starves another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PuntClass {
    /// ARP, neighbour discovery, BGP, BFD, VRRP, OSPF.
    Control,
    /// Other frames for this host.
    Local,
    /// To a virtual address, but to no service and no connection.
    Stray,
}

impl PuntClass {
    /// All classes, the most important first.
    pub const ALL: [Self; 3] = [Self::Control, Self::Local, Self::Stray];

    /// The class's place in tables indexed by class.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a kernel frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The ring to the worker, or the buffer pool, is full; the frame is lost as on a full transmit queue.
    #[error("the worker's inject ring is full")]
    Full,
    /// The frame does not fit a buffer of the port.
    #[error("the frame is longer than the {limit} bytes the port takes")]
    TooLong {
        /// Longest frame in bytes.
        limit: usize,
    },
}

/// The exception thread's end of the rings. Its other end is the workers'; nobody blocks.
pub trait ExceptionPath: Send {
    /// Takes up to `max` punted frames of `class`, handing each with the port it came in by; returns how many.
    fn drain(&mut self, class: PuntClass, max: usize, frame: &mut dyn FnMut(PortId, &[u8])) -> usize;

    /// Sends a frame of the kernel's out of `port`.
    ///
    /// # Errors
    /// [`InjectError`]; the frame is lost and the caller counts it.
    fn inject(&mut self, port: PortId, frame: &[u8]) -> Result<(), InjectError>;

    /// Milliseconds since the slowest worker last completed a turn.
    fn slowest_worker_age_ms(&self) -> u64;
}
