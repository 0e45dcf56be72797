//! Network ports: devices, their configuration and their queues.
//!
//! A [`Device`] is attached ([`Eal::attach`]) and tells its [`Capabilities`]; started with a
//! [`PortConfig`] it becomes a [`Port`], which hands out one [`RxQueue`] and one [`TxQueue`] per queue
//! number. A start that fails tears everything down and says what was asked and what the device can.

mod capabilities;
mod config;
mod device;
mod error;
mod mtu;
mod queue;
mod rss;
mod running;
mod starting;
mod stats;

pub use capabilities::{Capabilities, Limits};
pub use config::{PortConfig, StartReport};
pub use device::Device;
pub use error::{Direction, PortError};
pub use queue::{RxQueue, TxQueue};
pub use rss::{RETA_SLOTS, RssConfig, RssFields, RssReport};
pub use running::Port;
pub use stats::{LinkState, PortStats};

#[allow(unused_imports, reason = "named in the documentation")]
use crate::Eal;
pub(crate) use device::pci_address;
