//! What a device can do.

use std::ffi::CStr;
use std::fmt;
use std::fs;

use dpdk_sys::{rte_eth_desc_lim, rte_eth_dev_info};

use super::RssFields;

/// Sizes that a descriptor ring may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Smallest.
    pub least: u16,
    /// Largest.
    pub most: u16,
    /// A divisor of every size.
    pub multiple_of: u16,
}

impl Limits {
    fn from_raw(raw: &rte_eth_desc_lim) -> Self {
        // Drivers that have no opinion leave zeros.
        let most = if raw.nb_max == 0 { u16::MAX } else { raw.nb_max };
        Self { least: raw.nb_min.max(1), most, multiple_of: raw.nb_align.max(1) }
    }

    /// Whether a ring may have `count` descriptors.
    #[must_use]
    pub fn allow(&self, count: u16) -> bool {
        (self.least..=self.most).contains(&count) && count.is_multiple_of(self.multiple_of)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.least, self.most)?;
        if self.multiple_of > 1 { write!(f, " in multiples of {}", self.multiple_of) } else { Ok(()) }
    }
}

/// What a device can do, as its driver says.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// The driver, such as `net_af_packet`.
    pub driver: String,
    /// Receive queues at most.
    pub rx_queues: u16,
    /// Transmit queues at most.
    pub tx_queues: u16,
    /// Receive ring sizes.
    pub rx_descriptors: Limits,
    /// Transmit ring sizes.
    pub tx_descriptors: Limits,
    /// Smallest MTU.
    pub min_mtu: u16,
    /// Largest MTU that the driver sets and receives; 65535 where it has no opinion. `net_af_packet` claims
    /// 1500, and works with whatever the MTU of its kernel interface is (see [`super::PortConfig::mtu`]).
    pub max_mtu: u16,
    /// Longest frame that can be received, bytes.
    pub max_frame: u32,
    /// Smallest receive buffer, bytes.
    pub min_rx_buffer: u32,
    /// Header fields that RSS can hash; empty without RSS.
    pub rss_fields: RssFields,
    /// Slots of the RSS indirection table, 0 if it cannot be set.
    pub reta_size: u16,
    /// Bytes of the RSS key; 40, the common size, where the driver has no opinion.
    pub rss_key_size: u8,
    /// Whether the computed RSS hash comes with each packet.
    pub rss_hash_delivered: bool,
    /// Whether a long frame can be received into several buffers, as the driver says or (`net_pcap`) does.
    pub scatter: bool,
    /// Whether a chain of buffers can be transmitted, as the driver says or (`net_pcap`) does.
    pub multi_segment_tx: bool,
    /// Receive checksums verified by the device: IPv4 header, TCP, UDP. (Never enabled by this layer.)
    pub rx_checksums: [bool; 3],
    /// Transmit checksums filled in by the device: IPv4 header, TCP, UDP. (Never enabled by this layer.)
    pub tx_checksums: [bool; 3],
    /// NUMA node, where known.
    pub socket: Option<u32>,
    /// The kernel interface that the device works on, by index, where there is one.
    pub kernel_interface: Option<u32>,
    /// Receive offloads that may be switched on.
    pub(super) rx_offloads: u64,
    /// Transmit offloads that may be switched on.
    pub(super) tx_offloads: u64,
}

/// Ethernet header and checksum: what DPDK adds to an MTU to compare it with the longest frame.
const ETHERNET: u32 = 14 + 4;

/// Drivers that receive and transmit chains without saying so.
const CHAINS_UNDECLARED: &[&str] = &["net_pcap"];

impl Capabilities {
    pub(super) fn from_raw(info: &rte_eth_dev_info, socket: i32) -> Self {
        use dpdk_sys as sys;
        let rx = |flag: u64| info.rx_offload_capa & flag != 0;
        let tx = |flag: u64| info.tx_offload_capa & flag != 0;
        let driver = driver_name(info);
        let chains = CHAINS_UNDECLARED.contains(&driver.as_str());
        Self {
            driver,
            rx_queues: info.max_rx_queues,
            tx_queues: info.max_tx_queues,
            rx_descriptors: Limits::from_raw(&info.rx_desc_lim),
            tx_descriptors: Limits::from_raw(&info.tx_desc_lim),
            min_mtu: info.min_mtu,
            max_mtu: u16::try_from(info.max_rx_pktlen.saturating_sub(ETHERNET))
                .map_or(info.max_mtu, |longest| longest.min(info.max_mtu)),
            max_frame: info.max_rx_pktlen,
            min_rx_buffer: info.min_rx_bufsize,
            rss_fields: RssFields::from_bits(info.flow_type_rss_offloads),
            reta_size: info.reta_size,
            rss_key_size: if info.hash_key_size == 0 { 40 } else { info.hash_key_size },
            rss_hash_delivered: rx(sys::RTE_ETH_RX_OFFLOAD_RSS_HASH),
            scatter: chains || rx(sys::RTE_ETH_RX_OFFLOAD_SCATTER),
            multi_segment_tx: chains || tx(sys::RTE_ETH_TX_OFFLOAD_MULTI_SEGS),
            rx_checksums: [
                rx(sys::RTE_ETH_RX_OFFLOAD_IPV4_CKSUM),
                rx(sys::RTE_ETH_RX_OFFLOAD_TCP_CKSUM),
                rx(sys::RTE_ETH_RX_OFFLOAD_UDP_CKSUM),
            ],
            tx_checksums: [
                tx(sys::RTE_ETH_TX_OFFLOAD_IPV4_CKSUM),
                tx(sys::RTE_ETH_TX_OFFLOAD_TCP_CKSUM),
                tx(sys::RTE_ETH_TX_OFFLOAD_UDP_CKSUM),
            ],
            socket: u32::try_from(socket).ok(),
            kernel_interface: (info.if_index != 0).then_some(info.if_index),
            rx_offloads: info.rx_offload_capa,
            tx_offloads: info.tx_offload_capa,
        }
    }
}

impl Capabilities {
    /// The MTU of the device's kernel interface, where it has one.
    pub(super) fn kernel_mtu(&self) -> Option<u16> {
        let index = self.kernel_interface?.to_string();
        let read = |path: std::path::PathBuf| fs::read_to_string(path).ok();
        fs::read_dir("/sys/class/net").ok()?.flatten().find_map(|entry| {
            let of_this = read(entry.path().join("ifindex"))?.trim() == index;
            of_this.then(|| read(entry.path().join("mtu"))?.trim().parse().ok()).flatten()
        })
    }

    /// Whether the driver receives and transmits what its kernel interface does, whatever it claims.
    pub(super) fn follows_kernel_mtu(&self) -> bool {
        self.driver == "net_af_packet"
    }
}

fn driver_name(info: &rte_eth_dev_info) -> String {
    if info.driver_name.is_null() {
        return "the driver".to_owned();
    }
    // SAFETY: the driver's name, a constant string of the loaded driver.
    let name = unsafe { CStr::from_ptr(info.driver_name) };
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_limits() {
        let raw =
            |nb_min, nb_max, nb_align| rte_eth_desc_lim { nb_min, nb_max, nb_align, ..Default::default() };
        let limits = Limits::from_raw(&raw(64, 4096, 32));
        assert!(limits.allow(64) && limits.allow(4096) && limits.allow(96));
        assert!(!limits.allow(63) && !limits.allow(65) && !limits.allow(4128));
        assert_eq!(limits.to_string(), "64 to 4096 in multiples of 32");
        let none = Limits::from_raw(&raw(0, 0, 0));
        assert!(none.allow(1) && none.allow(u16::MAX) && !none.allow(0));
        assert_eq!(none.to_string(), "1 to 65535");
    }
}
