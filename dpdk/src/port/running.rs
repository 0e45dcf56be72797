//! Started ports.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dpdk_sys as sys;

use super::device::Handle;
use super::queue::OneThread;
use super::{Capabilities, LinkState, PortError, PortStats, RxQueue, StartReport, TxQueue, mtu, stats};
use crate::errno::Errno;
use crate::log;
use crate::mempool::Mempool;

/// A started port. It is stopped and closed when it and all its queues are dropped.
pub struct Port {
    pub(super) shared: Arc<Shared>,
    pub(super) capabilities: Capabilities,
    pub(super) report: StartReport,
    pub(super) one_thread: OneThread,
}

/// What the port and its queues keep alive; the handle is closed before the pool goes.
pub(super) struct Shared {
    pub(super) handle: Handle,
    pub(super) rx: Box<[AtomicBool]>,
    pub(super) tx: Box<[AtomicBool]>,
    pub(super) pool: Mempool,
}

impl Port {
    /// The port's number, as in [`crate::Mbuf::port`].
    #[must_use]
    pub fn id(&self) -> u16 {
        self.shared.handle.id
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.handle.name
    }

    /// What the device can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What the port got of its configuration.
    #[must_use]
    pub fn report(&self) -> &StartReport {
        &self.report
    }

    /// The mempool that packets are received into.
    #[must_use]
    pub fn pool(&self) -> &Mempool {
        &self.shared.pool
    }

    /// The receive queue of that number; `None` if there is none or it is in use.
    #[must_use]
    pub fn rx_queue(&mut self, queue: u16) -> Option<RxQueue> {
        RxQueue::take(&self.shared, queue)
    }

    /// The transmit queue of that number; `None` if there is none or it is in use.
    #[must_use]
    pub fn tx_queue(&mut self, queue: u16) -> Option<TxQueue> {
        TxQueue::take(&self.shared, queue)
    }

    /// The MAC address.
    ///
    /// # Errors
    /// The driver's.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        self.shared.handle.mac().map_err(|errno| self.refused("to tell its address", errno))
    }

    /// Sets the MAC address.
    ///
    /// # Errors
    /// The driver's.
    pub fn set_mac(&mut self, address: [u8; 6]) -> Result<(), PortError> {
        let mut raw = sys::rte_ether_addr { addr_bytes: address };
        self.control("the MAC address", |id| {
            // SAFETY: the port exists, and `raw` is readable.
            unsafe { sys::rte_eth_dev_default_mac_addr_set(id, &raw mut raw) }
        })
    }

    /// The MTU.
    ///
    /// # Errors
    /// The driver's.
    pub fn mtu(&self) -> Result<u16, PortError> {
        let kernel = self.capabilities.kernel_mtu();
        kernel
            .map_or_else(|| self.shared.handle.mtu(), Ok)
            .map_err(|errno| self.refused("to tell its MTU", errno))
    }

    /// Sets the MTU of the running port. Many drivers only allow that on a stopped one.
    ///
    /// # Errors
    /// Outside the device's range, longer than the receive buffers, or the driver's own reason.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), PortError> {
        let handle = &self.shared.handle;
        mtu::check_range(handle, &self.capabilities, mtu)?;
        let scatter = mtu::check_room(handle, &self.capabilities, mtu, &self.shared.pool)?;
        if scatter && !self.report.scatter {
            return Err(PortError::FrameTooLong {
                port: handle.name.clone(),
                driver: self.capabilities.driver.clone(),
                mtu,
                room: self.shared.pool.config().data_room,
                pool: self.shared.pool.name().to_owned(),
            });
        }
        // SAFETY: the port exists.
        self.control(&format!("MTU {mtu}"), |id| unsafe { sys::rte_eth_dev_set_mtu(id, mtu) })?;
        self.report.mtu = mtu;
        Ok(())
    }

    /// Receives frames for every address, or no longer.
    ///
    /// # Errors
    /// The driver's.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<(), PortError> {
        self.control("promiscuous mode", |id| {
            if on {
                // SAFETY: the port exists.
                unsafe { sys::rte_eth_promiscuous_enable(id) }
            } else {
                // SAFETY: the port exists.
                unsafe { sys::rte_eth_promiscuous_disable(id) }
            }
        })
    }

    /// Whether frames for every address are received.
    #[must_use]
    pub fn is_promiscuous(&self) -> bool {
        // SAFETY: the port exists.
        unsafe { sys::rte_eth_promiscuous_get(self.id()) == 1 }
    }

    /// The link, without waiting for it to settle.
    ///
    /// # Errors
    /// The driver's.
    pub fn link(&self) -> Result<LinkState, PortError> {
        stats::link(self.id()).map_err(|errno| self.refused("to tell its link state", errno))
    }

    /// The counters.
    ///
    /// # Errors
    /// The driver's.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        stats::stats(self.id()).map_err(|errno| self.refused("to tell its counters", errno))
    }

    /// The driver's own counters, by name.
    ///
    /// # Errors
    /// The driver's.
    pub fn xstats(&self) -> Result<BTreeMap<String, u64>, PortError> {
        stats::xstats(self.id()).map_err(|errno| self.refused("to tell its extended counters", errno))
    }

    /// Sets the counters to zero.
    ///
    /// # Errors
    /// The driver's.
    pub fn reset_stats(&mut self) -> Result<(), PortError> {
        // SAFETY: the port exists.
        self.control("to reset its counters", |id| unsafe { sys::rte_eth_stats_reset(id) })
    }

    /// The NUMA node of the device, where known.
    #[must_use]
    pub fn socket(&self) -> Option<u32> {
        self.capabilities.socket
    }

    /// Stops and releases the port. (Dropping it and its queues does the same without an answer.)
    ///
    /// # Errors
    /// Refused while queues are in use, and the port then goes with the last of them; or the driver's reason.
    pub fn close(self) -> Result<(), PortError> {
        let Self { shared, capabilities, .. } = self;
        let port = shared.handle.name.clone();
        let queues = Arc::strong_count(&shared) - 1;
        let Some(shared) = Arc::into_inner(shared) else { return Err(PortError::InUse { port, queues }) };
        let Shared { handle, pool: _pool, .. } = shared;
        log::record(|| handle.close()).map_err(|(errno, log)| PortError::Refused {
            port,
            driver: capabilities.driver,
            step: "to close".to_owned(),
            errno,
            log,
        })
    }

    fn control(&self, step: &str, call: impl FnOnce(u16) -> i32) -> Result<(), PortError> {
        let handle = &self.shared.handle;
        log::record(|| Errno::check(call(handle.id)))
            .map(drop)
            .map_err(|failure| handle.refused_with(&self.capabilities, step, failure))
    }

    fn refused(&self, step: &str, errno: Errno) -> PortError {
        self.shared.handle.refused(&self.capabilities, step, errno)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("driver", &self.capabilities.driver)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}
