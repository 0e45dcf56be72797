//! MTUs: what a device takes, what a receive buffer holds, and what the kernel has set.

use dpdk_sys as sys;

use super::device::Handle;
use super::{Capabilities, PortError};
use crate::errno::Errno;
use crate::log;
use crate::mempool::{FRAME_OVERHEAD, Mempool};

/// What a port will work with.
pub(super) struct Plan {
    /// The MTU in effect.
    pub(super) mtu: u16,
    /// What DPDK is configured with; less than that where a driver understates what it does.
    pub(super) configured: u16,
    /// Whether the device must still be told.
    change: bool,
    /// Whether frames must be scattered over several buffers.
    pub(super) scatter: bool,
}

pub(super) fn plan(
    handle: &Handle,
    device: &Capabilities,
    asked: Option<u16>,
    pool: &Mempool,
) -> Result<Plan, PortError> {
    let kernel = device.kernel_mtu();
    let present = match kernel {
        Some(mtu) => mtu,
        None => handle.mtu().map_err(|errno| handle.refused(device, "to tell its MTU", errno))?,
    };
    let mtu = asked.unwrap_or(present);
    let already_there = kernel == Some(mtu) && device.follows_kernel_mtu();
    if asked.is_some() && !already_there {
        check_range(handle, device, mtu)?;
    }
    let scatter = check_room(handle, device, mtu, pool)?;
    // Not clamp(), which panics when a driver's range is empty.
    let configured = mtu.min(device.max_mtu).max(device.min_mtu);
    Ok(Plan { mtu, configured, change: mtu != present, scatter })
}

/// Tells a configured device its MTU. A driver without that operation has no MTU of its own (pcap, ring): it
/// was told by the configuration, which checked the driver's range.
pub(super) fn set(handle: &Handle, device: &Capabilities, plan: &Plan) -> Result<(), PortError> {
    if !plan.change {
        return Ok(());
    }
    let result = log::record(|| {
        // SAFETY: the port exists.
        Errno::check(unsafe { sys::rte_eth_dev_set_mtu(handle.id, plan.mtu) })
    });
    match result {
        Err((errno, _)) if errno == Errno::NOTSUP => Ok(()),
        Err(failure) => Err(handle.refused_with(device, &format!("MTU {}", plan.mtu), failure)),
        Ok(_) => Ok(()),
    }
}

pub(super) fn check_range(handle: &Handle, device: &Capabilities, mtu: u16) -> Result<(), PortError> {
    if (device.min_mtu..=device.max_mtu).contains(&mtu) {
        return Ok(());
    }
    Err(PortError::Mtu {
        port: handle.name.clone(),
        driver: device.driver.clone(),
        asked: mtu,
        least: device.min_mtu,
        most: device.max_mtu,
        remedy: if device.follows_kernel_mtu() {
            "; set more on the kernel interface beforehand"
        } else {
            ""
        },
    })
}

/// Whether frames of `mtu` must be scattered, if they can be received at all.
pub(super) fn check_room(
    handle: &Handle,
    device: &Capabilities,
    mtu: u16,
    pool: &Mempool,
) -> Result<bool, PortError> {
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
