//! What a port is asked for, and what it got.

use super::{RssConfig, RssReport};

/// How to start a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Receive queues, at least 1.
    pub rx_queues: u16,
    /// Transmit queues, at least 1.
    pub tx_queues: u16,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: u16,
    /// The MTU to set, or `None` for the device's present one (its kernel interface's, where it has one). A
    /// frame of that MTU must fit one buffer of the receive mempool (see
    /// [`crate::mempool::data_room_for_mtu`]), unless the device can scatter it. More than 1500 on
    /// `net_af_packet` must be set on the kernel interface beforehand, with a `framesz` to match; frames
    /// longer than that arrive cut off.
    pub mtu: Option<u16>,
    /// Whether to receive frames for every address.
    pub promiscuous: bool,
    /// Whether to receive frames for every multicast group.
    pub all_multicast: bool,
    /// How to distribute packets over the receive queues; `None` leaves it to the device.
    pub rss: Option<RssConfig>,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            promiscuous: false,
            all_multicast: false,
            rss: None,
        }
    }
}

/// What a started port got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartReport {
    /// The MTU.
    pub mtu: u16,
    /// Whether frames longer than a buffer arrive in several.
    pub scatter: bool,
    /// The distribution over queues, if one was asked for.
    pub rss: Option<RssReport>,
    /// What was asked and is not supported, but does no harm; in words.
    pub notes: Vec<String>,
}
