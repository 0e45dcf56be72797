//! Why a port does not work.

use std::fmt;

use crate::errno::Errno;
use crate::log::LogTail;

/// Receive or transmit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Receive.
    Rx,
    /// Transmit.
    Tx,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rx => "receive",
            Self::Tx => "transmit",
        })
    }
}

/// Why a port was not attached, configured or changed. The texts name the port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device string cannot be one.
    #[error("device {device:?}: {reason}")]
    Invalid {
        /// As it was given.
        device: String,
        /// What is wrong.
        reason: String,
    },
    /// A device of this name is attached already.
    #[error("port {port}: already attached")]
    AlreadyAttached {
        /// The port.
        port: String,
    },
    /// No driver took the device.
    #[error("device {device:?} cannot be attached: {reason}{log}")]
    Attach {
        /// As it was given.
        device: String,
        /// The reason in words.
        reason: String,
        /// The reason as a number.
        errno: Errno,
        /// What the driver logged.
        log: LogTail,
    },
    /// More queues than the device has, or none.
    #[error("port {port}: {asked} {direction} queues asked, {driver} has 1 to {most}")]
    Queues {
        /// The port.
        port: String,
        /// Its driver.
        driver: String,
        /// Which queues.
        direction: Direction,
        /// What was asked.
        asked: u16,
        /// What there is.
        most: u16,
    },
    /// A ring size that the device does not take.
    #[error("port {port}: {asked} {direction} descriptors asked, {driver} takes {limits}")]
    Descriptors {
        /// The port.
        port: String,
        /// Its driver.
        driver: String,
        /// Which rings.
        direction: Direction,
        /// What was asked.
        asked: u16,
        /// What it takes.
        limits: super::Limits,
    },
    /// An MTU outside the device's range.
    #[error("port {port}: MTU {asked} asked, {driver} takes {least} to {most}{remedy}")]
    Mtu {
        /// The port.
        port: String,
        /// Its driver.
        driver: String,
        /// What was asked.
        asked: u16,
        /// Smallest.
        least: u16,
        /// Largest.
        most: u16,
        /// What can be done about it, if anything.
        remedy: &'static str,
    },
    /// Frames that neither fit a buffer nor can be scattered over several.
    #[error(
        "port {port}: frames of MTU {mtu} do not fit the {room} bytes of a buffer of mempool {pool}, and \
         {driver} cannot scatter them over several"
    )]
    FrameTooLong {
        /// The port.
        port: String,
        /// Its driver.
        driver: String,
        /// The MTU.
        mtu: u16,
        /// Bytes that a buffer holds.
        room: u16,
        /// Whose buffers.
        pool: String,
    },
    /// The driver refused a step.
    #[error("port {port}: {driver} refused {step}: {errno}{log}")]
    Refused {
        /// The port.
        port: String,
        /// Its driver.
        driver: String,
        /// What was tried, in words.
        step: String,
        /// The reason as a number.
        errno: Errno,
        /// What the driver logged.
        log: LogTail,
    },
    /// Queues of the port are still in use.
    #[error("port {port}: {queues} queues are still in use")]
    InUse {
        /// The port.
        port: String,
        /// How many.
        queues: usize,
    },
}

impl PortError {
    /// The reason as a number, where DPDK gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Attach { errno, .. } | Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}
