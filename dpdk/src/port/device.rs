//! Attached devices.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use dpdk_sys as sys;

use super::{Capabilities, PortError};
use crate::eal::{Eal, EalGuard};
use crate::errno::Errno;
use crate::log;

/// A device that a driver took, not started: [`Device::start`] makes it a [`super::Port`]. Dropping it
/// releases it.
#[derive(Debug)]
pub struct Device {
    pub(super) handle: Handle,
    pub(super) capabilities: Capabilities,
}

/// An attached ethdev. Dropping it stops, closes and removes the device.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) id: u16,
    pub(super) name: String,
    started: bool,
    eal: Arc<EalGuard>,
}

impl Eal {
    /// Attaches a device: a PCI address (`0000:3b:00.0`, domain optional) or a virtual device with its
    /// arguments (`net_af_packet0,iface=eth0`).
    ///
    /// # Errors
    /// Refused when it is attached already or when no driver takes it; the error quotes the driver.
    pub fn attach(&self, device: &str) -> Result<Device, PortError> {
        let invalid =
            |reason: &str| PortError::Invalid { device: device.to_owned(), reason: reason.to_owned() };
        let name =
            pci_address(device).unwrap_or_else(|| device.split(',').next().unwrap_or_default().to_owned());
        if name.is_empty() {
            return Err(invalid("it has no name"));
        }
        let c_name = CString::new(name.as_str()).map_err(|_| invalid("it contains a NUL byte"))?;
        let arguments = device.split_once(',').map_or(String::new(), |(_, rest)| format!(",{rest}"));
        let devargs =
            CString::new(format!("{name}{arguments}")).map_err(|_| invalid("it contains a NUL byte"))?;

        let id = {
            let mut control = self.guard().lock();
            let id = match port_by_name(&c_name) {
                Some(id) => id,
                None => probe(device, &devargs, &c_name)?,
            };
            if !control.attached.insert(id) {
                return Err(PortError::AlreadyAttached { port: name });
            }
            id
        };
        let handle = Handle { id, name, started: false, eal: Arc::clone(self.guard()) };
        let capabilities = handle.capabilities()?;
        Ok(Device { handle, capabilities })
    }
}

impl Device {
    /// The device's name: the PCI address, or the virtual device's name without its arguments.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.handle.name
    }

    /// What the device can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The present MTU.
    ///
    /// # Errors
    /// The driver's.
    pub fn mtu(&self) -> Result<u16, PortError> {
        self.capabilities
            .kernel_mtu()
            .map_or_else(|| self.handle.mtu(), Ok)
            .map_err(|errno| self.handle.refused(&self.capabilities, "to tell its MTU", errno))
    }

    /// The MAC address.
    ///
    /// # Errors
    /// The driver's.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        self.handle
            .mac()
            .map_err(|errno| self.handle.refused(&self.capabilities, "to tell its address", errno))
    }
}

impl Handle {
    fn info(&self) -> Result<sys::rte_eth_dev_info, Errno> {
        let mut info = sys::rte_eth_dev_info::default();
        // SAFETY: the port exists while the handle does, and `info` is writable.
        Errno::check(unsafe { sys::rte_eth_dev_info_get(self.id, &raw mut info) })?;
        Ok(info)
    }

    pub(super) fn default_queues(&self) -> Result<(sys::rte_eth_rxconf, sys::rte_eth_txconf), Errno> {
        self.info().map(|info| (info.default_rxconf, info.default_txconf))
    }

    fn capabilities(&self) -> Result<Capabilities, PortError> {
        let info = self.info().map_err(|errno| PortError::Refused {
            port: self.name.clone(),
            driver: "the driver".to_owned(),
            step: "to describe the device".to_owned(),
            errno,
            log: log::LogTail::default(),
        })?;
        Ok(Capabilities::from_raw(&info, self.socket()))
    }

    pub(super) fn socket(&self) -> i32 {
        // SAFETY: the port exists.
        unsafe { sys::rte_eth_dev_socket_id(self.id) }
    }

    pub(super) fn mtu(&self) -> Result<u16, Errno> {
        let mut mtu = 0;
        // SAFETY: the port exists, and `mtu` is writable.
        Errno::check(unsafe { sys::rte_eth_dev_get_mtu(self.id, &raw mut mtu) })?;
        Ok(mtu)
    }

    pub(super) fn mac(&self) -> Result<[u8; 6], Errno> {
        let mut address = sys::rte_ether_addr::default();
        // SAFETY: the port exists, and `address` is writable.
        Errno::check(unsafe { sys::rte_eth_macaddr_get(self.id, &raw mut address) })?;
        Ok(address.addr_bytes)
    }

    pub(super) fn start(&mut self) -> Result<(), Errno> {
        // SAFETY: the port exists, and is configured with all its queues.
        Errno::check(unsafe { sys::rte_eth_dev_start(self.id) })?;
        self.started = true;
        Ok(())
    }

    pub(super) fn refused(&self, capabilities: &Capabilities, step: &str, errno: Errno) -> PortError {
        self.refused_with(capabilities, step, (errno, log::LogTail::default()))
    }

    pub(super) fn refused_with(
        &self,
        capabilities: &Capabilities,
        step: &str,
        (errno, log): (Errno, log::LogTail),
    ) -> PortError {
        PortError::Refused {
            port: self.name.clone(),
            driver: capabilities.driver.clone(),
            step: step.to_owned(),
            errno,
            log,
        }
    }

    /// Stops and releases the device, going on after a failure; returns the first one.
    fn release(&mut self) -> Result<(), Errno> {
        let mut control = self.eal.lock();
        control.attached.remove(&self.id);
        let device = self.info().map_or(std::ptr::null_mut(), |info| info.device);
        let stopped = if std::mem::take(&mut self.started) {
            // SAFETY: the port exists, and no queue handle is left.
            Errno::check(unsafe { sys::rte_eth_dev_stop(self.id) })
        } else {
            Ok(0)
        };
        // SAFETY: the port exists, is stopped, and this is its last handle.
        let closed = Errno::check(unsafe { sys::rte_eth_dev_close(self.id) });
        let shared = ports().any(|port| device_of(port) == device);
        let removed = if device.is_null() || shared {
            Ok(0)
        } else {
            // SAFETY: the device has no port left that could be used.
            Errno::check(unsafe { sys::rte_dev_remove(device) })
        };
        stopped.and(closed).and(removed).map(drop)
    }

    /// Releases the device and tells how that went.
    pub(super) fn close(mut self) -> Result<(), Errno> {
        let result = self.release();
        self.id = RELEASED;
        result
    }
}

/// No port: there are at most `RTE_MAX_ETHPORTS`.
const RELEASED: u16 = u16::MAX;

impl Drop for Handle {
    fn drop(&mut self) {
        if self.id != RELEASED {
            // A failure has been logged by DPDK, and there is nobody to tell.
            let _ = log::record(|| self.release());
        }
    }
}

fn port_by_name(name: &CStr) -> Option<u16> {
    let mut id = 0;
    // SAFETY: `name` ends in NUL, and `id` is writable.
    let result = unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut id) };
    (result == 0).then_some(id)
}

/// All existing ports.
fn ports() -> impl Iterator<Item = u16> {
    let next = |from: u16| {
        // SAFETY: walks a table of fixed size and checks the index.
        let id = unsafe { sys::rte_eth_find_next(from) };
        (u32::from(id) < sys::RTE_MAX_ETHPORTS).then_some(id)
    };
    std::iter::successors(next(0), move |id| next(id + 1))
}

fn device_of(port: u16) -> *mut sys::rte_device {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: the function checks the port, and `info` is writable.
    let result = unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    if result == 0 { info.device } else { std::ptr::null_mut() }
}

fn probe(device: &str, devargs: &CStr, name: &CStr) -> Result<u16, PortError> {
    let before: Vec<u16> = ports().collect();
    log::record(|| {
        // SAFETY: `devargs` ends in NUL and is copied; the caller holds the control lock.
        Errno::check(unsafe { sys::rte_dev_probe(devargs.as_ptr()) })?;
        // A driver may name its port otherwise than the device.
        port_by_name(name).or_else(|| ports().find(|port| !before.contains(port))).ok_or(Errno::NODEV)
    })
    .map_err(|(errno, mut log)| {
        // Said after every failure, by whatever called the driver.
        log.retain(|line| {
            !line.contains("Failed to attach device") && !line.contains("Driver cannot attach")
        });
        PortError::Attach { device: device.to_owned(), reason: attach_reason(device, errno), errno, log }
    })
}

/// What the return value of a failed probe means.
fn attach_reason(device: &str, errno: Errno) -> String {
    match errno {
        Errno::PERM => "its driver refused it; check its arguments and this process's privileges".to_owned(),
        Errno::FAULT => "no driver has a device of this name".to_owned(),
        Errno::NODEV if pci_address(device).is_some() => {
            "no such PCI device, or it is not bound to a driver for user space (vfio-pci)".to_owned()
        }
        other => other.to_string(),
    }
}

/// The full form of a PCI address (`DDDD:BB:DD.F`) at the start of a device string; `None` for anything else.
pub(crate) fn pci_address(device: &str) -> Option<String> {
    let address = device.split(',').next()?;
    let (rest, function) = address.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let slot = parts.next()?;
    let bus = parts.next()?;
    let domain = parts.next().unwrap_or("0000");
    let hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let valid = hex(domain, 4) && hex(bus, 2) && hex(slot, 2) && hex(function, 1) && parts.next().is_none();
    valid.then(|| format!("{domain}:{bus}:{slot}.{function}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses() {
        assert_eq!(pci_address("0000:3b:00.0").as_deref(), Some("0000:3b:00.0"));
        assert_eq!(pci_address("3B:00.1,arg=2").as_deref(), Some("0000:3b:00.1"));
        for other in
            ["net_null0", "net_pcap0,rx_pcap=a.b", "", "x:3b:00.0", "1:0000:3b:00.0", "3b:00", "3b:0.0"]
        {
            assert_eq!(pci_address(other), None, "{other}");
        }
    }
}
