//! From a device to a started port.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dpdk_sys as sys;

use super::device::Handle;
use super::running::Shared;
use super::{Capabilities, Device, Direction, Limits, Port, PortConfig, PortError, StartReport, mtu, rss};
use crate::errno::Errno;
use crate::log;
use crate::mempool::Mempool;

impl Device {
    /// Configures the device, sets up its queues and starts it; packets are received into buffers of `pool`.
    ///
    /// # Errors
    /// Whatever the device cannot do or its driver refuses; the device is then released.
    pub fn start(self, config: &PortConfig, pool: &Mempool) -> Result<Port, PortError> {
        let Self { mut handle, capabilities } = self;
        check_queues(&handle, &capabilities, config)?;
        let mtu = mtu::plan(&handle, &capabilities, config.mtu, pool)?;
        let rss_plan = config.rss.as_ref().map(|wanted| rss::plan(wanted, &capabilities));
        configure(&handle, &capabilities, config, &mtu, rss_plan.as_ref())?;
        mtu::set(&handle, &capabilities, &mtu)?;
        set_up_queues(&handle, &capabilities, config, pool)?;
        log::record(|| handle.start())
            .map_err(|failure| handle.refused_with(&capabilities, "to start", failure))?;
        let notes = set_modes(&handle, &capabilities, config)?;
        let rss = match (config.rss.as_ref(), rss_plan) {
            (Some(wanted), Some(plan)) => Some(rss::apply(handle.id, wanted, &capabilities, plan)),
            _ => None,
        };
        let free = |count: u16| (0..count).map(|_| AtomicBool::new(false)).collect();
        let (rx, tx) = (free(config.rx_queues), free(config.tx_queues));
        let report = StartReport { mtu: mtu.mtu, scatter: mtu.scatter, rss, notes };
        let shared = Arc::new(Shared { handle, rx, tx, pool: pool.clone() });
        Ok(Port { shared, capabilities, report, one_thread: PhantomData })
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

fn configure(
    handle: &Handle,
    device: &Capabilities,
    config: &PortConfig,
    mtu: &mtu::Plan,
    rss: Option<&rss::Plan>,
) -> Result<(), PortError> {
    let mut conf = sys::rte_eth_conf::default();
    conf.rxmode.mtu = u32::from(mtu.configured);
    if mtu.scatter {
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
            "the configuration ({} receive and {} transmit queues, MTU {})",
            config.rx_queues, config.tx_queues, mtu.configured
        );
        handle.refused_with(device, &step, failure)
    })?;
    Ok(())
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
