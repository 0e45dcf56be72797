//! Link state and counters.

use std::collections::BTreeMap;
use std::ffi::CStr;

use dpdk_sys::{rte_eth_stats, rte_eth_xstat, rte_eth_xstat_name};

use crate::errno::Errno;

/// A port's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// Whether there is one.
    pub up: bool,
    /// Its speed, where known.
    pub speed_mbps: Option<u32>,
    /// Whether both directions may send at once.
    pub full_duplex: bool,
}

/// A port's counters since it was started, as the driver keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames transmitted.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes transmitted.
    pub tx_bytes: u64,
    /// Frames lost because the receive queues were full.
    pub rx_missed: u64,
    /// Erroneous frames received.
    pub rx_errors: u64,
    /// Frames that could not be transmitted.
    pub tx_errors: u64,
    /// Receive attempts without a buffer.
    pub rx_no_buffer: u64,
}

impl From<&rte_eth_stats> for PortStats {
    fn from(raw: &rte_eth_stats) -> Self {
        Self {
            rx_packets: raw.ipackets,
            tx_packets: raw.opackets,
            rx_bytes: raw.ibytes,
            tx_bytes: raw.obytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            tx_errors: raw.oerrors,
            rx_no_buffer: raw.rx_nombuf,
        }
    }
}

pub(super) fn link(port: u16) -> Result<LinkState, Errno> {
    let mut link = dpdk_sys::rte_eth_link::default();
    // SAFETY: the port exists, and `link` is writable.
    let result = unsafe { dpdk_sys::rte_eth_link_get_nowait(port, &raw mut link) };
    Errno::check(result)?;
    let known = link.link_speed != 0 && link.link_speed != dpdk_sys::RTE_ETH_SPEED_NUM_UNKNOWN;
    Ok(LinkState {
        up: link.link_status() != 0,
        speed_mbps: known.then_some(link.link_speed),
        full_duplex: link.link_duplex() != 0,
    })
}

pub(super) fn stats(port: u16) -> Result<PortStats, Errno> {
    let mut stats = rte_eth_stats::default();
    // SAFETY: the port exists, and `stats` is writable.
    let result = unsafe { dpdk_sys::rte_eth_stats_get(port, &raw mut stats) };
    Errno::check(result)?;
    Ok(PortStats::from(&stats))
}

pub(super) fn xstats(port: u16) -> Result<BTreeMap<String, u64>, Errno> {
    // SAFETY: asks for the count only.
    let count = Errno::check(unsafe { dpdk_sys::rte_eth_xstats_get_names(port, std::ptr::null_mut(), 0) })?;
    let room = u32::try_from(count).unwrap_or(0);
    let mut names = vec![rte_eth_xstat_name::default(); room as usize];
    let mut values = vec![rte_eth_xstat::default(); room as usize];
    // SAFETY: `names` has `room` elements.
    let named = Errno::check(unsafe { dpdk_sys::rte_eth_xstats_get_names(port, names.as_mut_ptr(), room) })?;
    // SAFETY: `values` has `room` elements.
    let filled = Errno::check(unsafe { dpdk_sys::rte_eth_xstats_get(port, values.as_mut_ptr(), room) })?;
    let filled = usize::try_from(filled.min(named)).unwrap_or(0).min(values.len());
    Ok(values[..filled]
        .iter()
        .filter_map(|value| {
            let name = names.get(usize::try_from(value.id).ok()?)?;
            Some((text(&name.name), value.value))
        })
        .collect())
}

/// A fixed array of C characters up to its NUL.
pub(super) fn text(characters: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().map(|character| character.to_ne_bytes()[0]).collect();
    CStr::from_bytes_until_nul(&bytes).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
