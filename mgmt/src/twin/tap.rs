//! A TAP interface with a port's name, address and MTU.

use crate::mirror::message::{LinkChange, set_link};
use crate::mirror::socket::{NetlinkError, RouteSocket};
use dataplane::id::PortId;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// What a twin is to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinConfig {
    /// The port whose twin it is.
    pub port: PortId,
    /// Name of the kernel interface, 1 to 15 bytes.
    pub name: String,
    /// Hardware address, the NIC's.
    pub mac: [u8; 6],
    /// MTU in bytes, the NIC's.
    pub mtu: u32,
}

/// Why there is no twin; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// The kernel would not take the name.
    #[error(
        "twin {0:?}: an interface name has 1 to 15 bytes, no '/', ':', '%' or white space, and is not \".\" or \"..\""
    )]
    Name(String),
    /// Another interface has the name.
    #[error(
        "twin {name}: an interface of that name is there already. If it is the NIC, rename it (`ip link set {name} \
         down; ip link set {name} name nic0`) or bind it to DPDK; if it is another director's twin, stop that one; if \
         it is a left-over TAP, remove it (`ip link delete {name}`)"
    )]
    Taken {
        /// The name.
        name: String,
    },
    /// The process may not make interfaces.
    #[error("twin {name}: making a TAP interface needs CAP_NET_ADMIN; run as root or grant the capability")]
    NotPermitted {
        /// The name.
        name: String,
    },
    /// The kernel has no TAP driver.
    #[error("twin {name}: /dev/net/tun cannot be opened ({error}); load the driver with `modprobe tun`")]
    NoDriver {
        /// The name.
        name: String,
        /// What opening said.
        error: io::Error,
    },
    /// The kernel refused a property.
    #[error("twin {name}: {what}: {error}")]
    Property {
        /// The name.
        name: String,
        /// What was to be set.
        what: String,
        /// Why it was not.
        error: NetlinkError,
    },
    /// Anything else.
    #[error("twin {name}: {error}")]
    Io {
        /// The name.
        name: String,
        /// What happened.
        error: io::Error,
    },
}

/// A TAP interface, non-blocking and closed at exec. The interface lives as long as this value.
///
/// No virtio headers are agreed on: the kernel then completes checksums and cuts segments before a frame gets here.
#[derive(Debug)]
pub struct Twin {
    config: TwinConfig,
    index: u32,
    device: Device,
}

struct Device(SyncDevice);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.0.as_fd()).finish()
    }
}

impl Twin {
    /// Makes the interface and brings it up. Exclusive: a name that is in use, by another director's twin or by
    /// anything else, is an error, never shared.
    ///
    /// # Errors
    /// [`TwinError`].
    pub fn create(config: TwinConfig) -> Result<Self, TwinError> {
        check_name(&config.name)?;
        let name = || config.name.clone();
        let property = |what: &str| {
            let what = what.to_owned();
            |error| TwinError::Property { name: config.name.clone(), what, error }
        };
        let mut socket = RouteSocket::open().map_err(property("opening a netlink socket"))?;
        // Asked first: TUNSETIFF would take over a persistent TAP of that name with whatever is configured on it.
        match socket.link(&config.name) {
            Ok(_) => return Err(TwinError::Taken { name: name() }),
            Err(error) if error.errno() == Some(Errno::NODEV) => {}
            Err(error) => return Err(property("looking for its name")(error)),
        }
        let device = DeviceBuilder::new()
            .name(&config.name)
            .layer(Layer::L2)
            .packet_information(false)
            .offload(false)
            .multi_queue(false)
            .inherit_enable_state()
            .build_sync()
            .map_err(|error| match Errno::from_io_error(&error) {
                // EINVAL: the name belongs to an interface that is no TAP, made since we asked.
                Some(Errno::BUSY | Errno::INVAL | Errno::EXIST) => TwinError::Taken { name: name() },
                Some(Errno::PERM | Errno::ACCESS) => TwinError::NotPermitted { name: name() },
                Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
                    TwinError::NoDriver { name: name(), error }
                }
                _ => TwinError::Io { name: name(), error },
            })?;
        rustix::io::ioctl_fionbio(&device, true)
            .map_err(|error| TwinError::Io { name: name(), error: error.into() })?;
        let index = socket.link(&config.name).map_err(property("reading it back"))?.index;
        // One by one, so that a refusal names what was refused; the address while it is down.
        let steps = [
            ("setting its hardware address", LinkChange { mac: Some(config.mac), ..LinkChange::default() }),
            ("setting its MTU", LinkChange { mtu: Some(config.mtu), ..LinkChange::default() }),
            ("bringing it up", LinkChange { up: Some(true), ..LinkChange::default() }),
        ];
        for (what, change) in steps {
            socket.request(set_link(index, &change), 0).map_err(property(what))?;
        }
        Ok(Self { config, index, device: Device(device) })
    }

    /// What it was made from.
    #[must_use]
    pub const fn config(&self) -> &TwinConfig {
        &self.config
    }

    /// Interface index.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Hands a frame to the kernel.
    pub(super) fn write(&self, frame: &[u8]) -> Result<usize, Errno> {
        rustix::io::write(&self.device.0, frame)
    }

    /// Takes a frame of the kernel's; `AGAIN` when there is none.
    pub(super) fn read(&self, frame: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.device.0, frame)
    }
}

impl AsFd for Twin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.0.as_fd()
    }
}

fn check_name(name: &str) -> Result<(), TwinError> {
    // The kernel expands '%', and takes ':' for an alias.
    let fine = matches!(name.len(), 1..=15)
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_whitespace());
    if fine { Ok(()) } else { Err(TwinError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::{TwinError, check_name};

    #[test]
    fn names_are_checked_as_the_kernel_would() {
        for fine in ["eth0", "a", "123456789012345", "up-link.7"] {
            assert!(check_name(fine).is_ok(), "{fine}");
        }
        for wrong in ["", ".", "..", "1234567890123456", "eth0:0", "eth%d", "a/b", "a b", "a\n", "a\0b"] {
            assert!(matches!(check_name(wrong), Err(TwinError::Name(_))), "{wrong:?}");
        }
    }
}
