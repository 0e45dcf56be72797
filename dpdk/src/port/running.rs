//! Started ports.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dpdk_sys as sys;

use super::device::Handle;
use super::queue::OneThread;
use super::{
    Capabilities, Device, Direction, Limits, LinkState, PortConfig, PortError, PortStats, RxQueue,
    StartReport, TxQueue, rss, stats,
};
use crate::errno::Errno;
use crate::log;
use crate::mempool::{FRAME_OVERHEAD, Mempool};

/// A started port. It is stopped and closed when it and all its queues are dropped.
pub struct Port {
    shared: Arc<Shared>,
    capabilities: Capabilities,
    report: StartReport,
    one_thread: OneThread,
}

/// What the port and its queues keep alive; the handle is closed before the pool goes.
pub(super) struct Shared {
    pub(super) handle: Handle,
    pub(super) rx: Box<[AtomicBool]>,
    pub(super) tx: Box<[AtomicBool]>,
    pool: Mempool,
}

impl Device {
    /// Configures the device, sets up its queues and starts it; packets are received into buffers of `pool`.
    ///
    /// # Errors
    /// Whatever the device cannot do or its driver refuses; the device is then released.
    pub fn start(self, config: &PortConfig, pool: &Mempool) -> Result<Port, PortError> {
        let Self { mut handle, capabilities } = self;
        check_queues(&handle, &capabilities, config)?;
        let present =
            handle.mtu().map_err(|errno| handle.refused(&capabilities, "to tell its MTU", errno))?;
        let mtu = config.mtu.unwrap_or(present);
        let scatter = check_mtu(&handle, &capabilities, config.mtu, mtu, pool)?;

        let rss_plan = config.rss.as_ref().map(|wanted| rss::plan(wanted, &capabilities));
        configure(&handle, &capabilities, config, mtu, scatter, rss_plan.as_ref())?;
        if mtu != present {
            set_mtu(&handle, &capabilities, mtu)?;
        }
        set_up_queues(&handle, &capabilities, config, pool)?;
        log::record(|| handle.start())
            .map_err(|failure| handle.refused_with(&capabilities, "to start", failure))?;
        let notes = set_modes(&handle, &capabilities, config)?;
        let rss = match (config.rss.as_ref(), rss_plan) {
            (Some(wanted), Some(plan)) => Some(rss::apply(handle.id, wanted, &capabilities, plan)),
            _ => None,
        };
        let mtu = handle.mtu().unwrap_or(mtu);
        let free = |count: u16| (0..count).map(|_| AtomicBool::new(false)).collect();
        let (rx, tx) = (free(config.rx_queues), free(config.tx_queues));
        Ok(Port {
            shared: Arc::new(Shared { handle, rx, tx, pool: pool.clone() }),
            capabilities,
            report: StartReport { mtu, scatter, rss, notes },
            one_thread: PhantomData,
        })
    }
}

fn check_queues(handle: &Handle, device: &Capabilities, config: &PortConfig) -> Result<(), PortError> {
    let sides: [(Direction, u16, u16, u16, Limits); 2] = [
        (Direction::Rx, config.rx_queues, device.rx_queues, config.rx_descriptors, device.rx_descriptors),
        (Direction::Tx, config.tx_queues, device.tx_queues, config.tx_descriptors, device.tx_descriptors),
    ];
    for (direction, queues, most, descriptors, limits) in sides {
        if !(1..=most).contains(&queues) {
            return Err(PortError::Queues {
                port: handle.name.clone(),
                driver: device.driver.clone(),
                direction,
                asked: queues,
                most,
            });
        }
        if !limits.allow(descriptors) {
            return Err(PortError::Descriptors {
                port: handle.name.clone(),
                driver: device.driver.clone(),
                direction,
                asked: descriptors,
                limits,
            });
        }
    }
    Ok(())
}

/// Whether frames of `mtu` must be scattered over several buffers, after checking that they can be received.
fn check_mtu(
    handle: &Handle,
    device: &Capabilities,
    asked: Option<u16>,
    mtu: u16,
    pool: &Mempool,
) -> Result<bool, PortError> {
    if let Some(asked) = asked.filter(|asked| !(device.min_mtu..=device.max_mtu).contains(asked)) {
        return Err(PortError::Mtu {
            port: handle.name.clone(),
            driver: device.driver.clone(),
            asked,
            least: device.min_mtu,
            most: device.max_mtu,
        });
    }
    let room = pool.config().data_room;
    let scatter = u32::from(mtu) + FRAME_OVERHEAD > u32::from(room);
    if scatter && !device.scatter {
        return Err(PortError::FrameTooLong {
            port: handle.name.clone(),
            driver: device.driver.clone(),
            mtu,
            room,
            pool: pool.name().to_owned(),
        });
    }
    Ok(scatter)
}

fn configure(
    handle: &Handle,
    device: &Capabilities,
    config: &PortConfig,
    mtu: u16,
    scatter: bool,
    rss: Option<&rss::Plan>,
) -> Result<(), PortError> {
    let mut conf = sys::rte_eth_conf::default();
    conf.rxmode.mtu = u32::from(mtu);
    if scatter {
        conf.rxmode.offloads |= device.rx_offloads & sys::RTE_ETH_RX_OFFLOAD_SCATTER;
    }
    conf.txmode.offloads |= device.tx_offloads & sys::RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    let mut key = Vec::new();
    if let Some(plan) = rss.filter(|plan| !plan.fields.is_empty()) {
        conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = plan.fields.bits();
        if device.rss_hash_delivered {
            conf.rxmode.offloads |= sys::RTE_ETH_RX_OFFLOAD_RSS_HASH;
        }
        if let Some(wanted) = &plan.key {
            key.clone_from(wanted);
            conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
            conf.rx_adv_conf.rss_conf.rss_key_len = u8::try_from(key.len()).unwrap_or(0);
        }
    }
    log::record(|| {
        // SAFETY: the port exists and is not started; `conf` and the key it points to outlive the call.
        let result = unsafe {
            sys::rte_eth_dev_configure(handle.id, config.rx_queues, config.tx_queues, &raw const conf)
        };
        Errno::check(result)
    })
    .map_err(|failure| {
        let step = format!(
            "the configuration ({} receive and {} transmit queues, MTU {mtu})",
            config.rx_queues, config.tx_queues
        );
        handle.refused_with(device, &step, failure)
    })?;
    Ok(())
}

/// Sets the device's MTU. A driver without that operation has no MTU of its own (pcap, ring): it was told
/// by the configuration, which checked the driver's range.
fn set_mtu(handle: &Handle, device: &Capabilities, mtu: u16) -> Result<(), PortError> {
    let result = log::record(|| {
        // SAFETY: the port exists.
        Errno::check(unsafe { sys::rte_eth_dev_set_mtu(handle.id, mtu) })
    });
    match result {
        Err((errno, _)) if errno == Errno::NOTSUP => Ok(()),
        Err(failure) => Err(handle.refused_with(device, &format!("MTU {mtu}"), failure)),
        Ok(_) => Ok(()),
    }
}

fn set_up_queues(
    handle: &Handle,
    device: &Capabilities,
    config: &PortConfig,
    pool: &Mempool,
) -> Result<(), PortError> {
    let (rx_conf, tx_conf) =
        handle.default_queues().map_err(|errno| handle.refused(device, "to describe its queues", errno))?;
    // -1, any node, as DPDK's unsigned parameter wants it.
    let socket = handle.socket().cast_unsigned();
    for queue in 0..config.rx_queues {
        log::record(|| {
            // SAFETY: the port is configured with that many queues; the pool lives as long as the port.
            let result = unsafe {
                sys::rte_eth_rx_queue_setup(
                    handle.id,
                    queue,
                    config.rx_descriptors,
                    socket,
                    &raw const rx_conf,
                    pool.as_ptr(),
                )
            };
            Errno::check(result)
        })
        .map_err(|failure| {
            let step = format!(
                "receive queue {queue} ({} descriptors, buffers of {} bytes)",
                config.rx_descriptors,
                pool.config().data_room
            );
            handle.refused_with(device, &step, failure)
        })?;
    }
    for queue in 0..config.tx_queues {
        log::record(|| {
            // SAFETY: the port is configured with that many queues.
            let result = unsafe {
                sys::rte_eth_tx_queue_setup(
                    handle.id,
                    queue,
                    config.tx_descriptors,
                    socket,
                    &raw const tx_conf,
                )
            };
            Errno::check(result)
        })
        .map_err(|failure| {
            let step = format!("transmit queue {queue} ({} descriptors)", config.tx_descriptors);
            handle.refused_with(device, &step, failure)
        })?;
    }
    Ok(())
}

/// Switches receive modes on; a device that has none receives what it receives.
fn set_modes(handle: &Handle, device: &Capabilities, config: &PortConfig) -> Result<Vec<String>, PortError> {
    let mut notes = Vec::new();
    let mut check = |what: &str, result: Result<i32, (Errno, log::LogTail)>| match result {
        Err((errno, _)) if errno == Errno::NOTSUP => {
            notes.push(format!("{} has no {what} mode", device.driver));
            Ok(())
        }
        Err(failure) => Err(handle.refused_with(device, &format!("{what} mode"), failure)),
        Ok(_) => Ok(()),
    };
    if config.promiscuous {
        // SAFETY: the port exists.
        let switch = || Errno::check(unsafe { sys::rte_eth_promiscuous_enable(handle.id) });
        check("promiscuous", log::record(switch))?;
    }
    if config.all_multicast {
        // SAFETY: the port exists.
        let switch = || Errno::check(unsafe { sys::rte_eth_allmulticast_enable(handle.id) });
        check("all-multicast", log::record(switch))?;
    }
    Ok(notes)
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
        self.shared.handle.mtu().map_err(|errno| self.refused("to tell its MTU", errno))
    }

    /// Sets the MTU of the running port. Many drivers only allow that on a stopped one.
    ///
    /// # Errors
    /// Outside the device's range, longer than the receive buffers, or the driver's own reason.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), PortError> {
        let handle = &self.shared.handle;
        let scatter = check_mtu(handle, &self.capabilities, Some(mtu), mtu, &self.shared.pool)?;
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
