//! The names of the bindings without libdpdk behind them.
//!
//! Structures have the members that the safe layer uses and no more; functions abort the process, and are
//! never reached because the safe layer refuses to start the EAL when [`STUB`](crate::STUB) is set.

#![allow(missing_docs, reason = "DPDK's own names; its API reference documents them")]
#![allow(missing_debug_implementations, reason = "the generated bindings lack them too")]
#![allow(non_camel_case_types)]

use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

pub const RTE_MAX_ETHPORTS: u32 = 32;
pub const RTE_MAX_LCORE: u32 = 128;
pub const RTE_MEMPOOL_CACHE_MAX_SIZE: u32 = 512;
pub const RTE_PKTMBUF_HEADROOM: u32 = 128;

pub type rte_eth_rx_mq_mode = c_uint;
pub const RTE_ETH_MQ_RX_NONE: rte_eth_rx_mq_mode = 0;
pub const RTE_ETH_MQ_RX_RSS: rte_eth_rx_mq_mode = 1;

pub type rte_cpuset_t = cpu_set_t;
pub type lcore_function_t = Option<unsafe extern "C" fn(*mut c_void) -> c_int>;
pub type uvs_log_sink = Option<unsafe extern "C" fn(c_int, *const c_char, usize)>;

/// Declares structures that are all zero by default, as bindgen's are.
macro_rules! structures {
    ($($(#[$attribute:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        #[repr(C)]
        $(#[$attribute])*
        #[derive(Copy, Clone)]
        pub struct $name { $(pub $field: $kind),* }

        impl Default for $name {
            fn default() -> Self {
                // SAFETY: the structures hold integers and raw pointers only, for which zero is valid.
                unsafe { core::mem::zeroed() }
            }
        }
    )*};
}

structures! {
    rte_device { _unused: [u8; 0] }
    rte_mempool { _unused: [u8; 0] }
    cpu_set_t { __bits: [c_ulong; 16] }
    rte_ether_addr { addr_bytes: [u8; 6] }
    #[repr(align(64))]
    rte_mbuf {
        buf_addr: *mut c_void,
        buf_iova: u64,
        data_off: u16,
        refcnt: u16,
        nb_segs: u16,
        port: u16,
        ol_flags: u64,
        packet_type: u32,
        pkt_len: u32,
        data_len: u16,
        vlan_tci: u16,
        __bindgen_anon_2: [u32; 2],
        vlan_tci_outer: u16,
        buf_len: u16,
        pool: *mut rte_mempool,
        next: *mut rte_mbuf,
        tx_offload: u64,
        shinfo: *mut c_void,
        priv_size: u16,
        timesync: u16,
        dynfield1: [u32; 9],
    }
    rte_eth_stats {
        ipackets: u64,
        opackets: u64,
        ibytes: u64,
        obytes: u64,
        imissed: u64,
        ierrors: u64,
        oerrors: u64,
        rx_nombuf: u64,
    }
    rte_eth_link { link_speed: u32 }
    rte_eth_rxmode { mq_mode: rte_eth_rx_mq_mode, mtu: u32, offloads: u64 }
    rte_eth_txmode { offloads: u64 }
    rte_eth_rss_conf { rss_key: *mut u8, rss_key_len: u8, rss_hf: u64 }
    rte_eth_rx_adv_conf { rss_conf: rte_eth_rss_conf }
    rte_eth_conf { rxmode: rte_eth_rxmode, txmode: rte_eth_txmode, rx_adv_conf: rte_eth_rx_adv_conf }
    rte_eth_rss_reta_entry64 { mask: u64, reta: [u16; 64] }
    rte_eth_desc_lim { nb_max: u16, nb_min: u16, nb_align: u16, nb_seg_max: u16, nb_mtu_seg_max: u16 }
    rte_eth_rxconf { offloads: u64 }
    rte_eth_txconf { offloads: u64 }
    rte_eth_dev_info {
        device: *mut rte_device,
        driver_name: *const c_char,
        if_index: c_uint,
        min_mtu: u16,
        max_mtu: u16,
        min_rx_bufsize: u32,
        max_rx_pktlen: u32,
        max_rx_queues: u16,
        max_tx_queues: u16,
        rx_offload_capa: u64,
        tx_offload_capa: u64,
        reta_size: u16,
        hash_key_size: u8,
        flow_type_rss_offloads: u64,
        default_rxconf: rte_eth_rxconf,
        default_txconf: rte_eth_txconf,
        rx_desc_lim: rte_eth_desc_lim,
        tx_desc_lim: rte_eth_desc_lim,
    }
    rte_eth_xstat { id: u64, value: u64 }
    rte_eth_xstat_name { name: [c_char; 64] }
}

impl rte_eth_link {
    #[must_use]
    pub fn link_duplex(&self) -> u16 {
        0
    }

    #[must_use]
    pub fn link_status(&self) -> u16 {
        0
    }
}

/// Declares functions that abort.
macro_rules! functions {
    ($($name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)?;)*) => {$(
        /// Aborts: this build has no libdpdk.
        ///
        /// # Safety
        /// None needed.
        pub unsafe extern "C" fn $name($(_: $kind),*) $(-> $result)? {
            std::process::abort()
        }
    )*};
}

functions! {
    rte_dev_probe(devargs: *const c_char) -> c_int;
    rte_dev_remove(device: *mut rte_device) -> c_int;
    rte_eal_cleanup() -> c_int;
    rte_eal_get_runtime_dir() -> *const c_char;
    rte_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    rte_eal_remote_launch(function: lcore_function_t, argument: *mut c_void, lcore: c_uint) -> c_int;
    rte_eal_wait_lcore(lcore: c_uint) -> c_int;
    rte_eth_allmulticast_disable(port: u16) -> c_int;
    rte_eth_allmulticast_enable(port: u16) -> c_int;
    rte_eth_dev_close(port: u16) -> c_int;
    rte_eth_dev_configure(port: u16, rx: u16, tx: u16, conf: *const rte_eth_conf) -> c_int;
    rte_eth_dev_default_mac_addr_set(port: u16, address: *mut rte_ether_addr) -> c_int;
    rte_eth_dev_get_mtu(port: u16, mtu: *mut u16) -> c_int;
    rte_eth_dev_get_name_by_port(port: u16, name: *mut c_char) -> c_int;
    rte_eth_dev_get_port_by_name(name: *const c_char, port: *mut u16) -> c_int;
    rte_eth_dev_info_get(port: u16, info: *mut rte_eth_dev_info) -> c_int;
    rte_eth_dev_rss_hash_conf_get(port: u16, conf: *mut rte_eth_rss_conf) -> c_int;
    rte_eth_dev_rss_hash_update(port: u16, conf: *mut rte_eth_rss_conf) -> c_int;
    rte_eth_dev_rss_reta_query(port: u16, reta: *mut rte_eth_rss_reta_entry64, size: u16) -> c_int;
    rte_eth_dev_rss_reta_update(port: u16, reta: *mut rte_eth_rss_reta_entry64, size: u16) -> c_int;
    rte_eth_dev_set_mtu(port: u16, mtu: u16) -> c_int;
    rte_eth_dev_socket_id(port: u16) -> c_int;
    rte_eth_dev_start(port: u16) -> c_int;
    rte_eth_dev_stop(port: u16) -> c_int;
    rte_eth_find_next(port: u16) -> u16;
    rte_eth_link_get_nowait(port: u16, link: *mut rte_eth_link) -> c_int;
    rte_eth_macaddr_get(port: u16, address: *mut rte_ether_addr) -> c_int;
    rte_eth_promiscuous_disable(port: u16) -> c_int;
    rte_eth_promiscuous_enable(port: u16) -> c_int;
    rte_eth_promiscuous_get(port: u16) -> c_int;
    rte_eth_rx_burst(port: u16, queue: u16, mbufs: *mut *mut rte_mbuf, count: u16) -> u16;
    rte_eth_rx_queue_setup(port: u16, queue: u16, descriptors: u16, socket: c_uint,
        conf: *const rte_eth_rxconf, pool: *mut rte_mempool) -> c_int;
    rte_eth_stats_get(port: u16, stats: *mut rte_eth_stats) -> c_int;
    rte_eth_stats_reset(port: u16) -> c_int;
    rte_eth_tx_burst(port: u16, queue: u16, mbufs: *mut *mut rte_mbuf, count: u16) -> u16;
    rte_eth_tx_queue_setup(port: u16, queue: u16, descriptors: u16, socket: c_uint,
        conf: *const rte_eth_txconf) -> c_int;
    rte_eth_xstats_get(port: u16, stats: *mut rte_eth_xstat, count: c_uint) -> c_int;
    rte_eth_xstats_get_names(port: u16, names: *mut rte_eth_xstat_name, count: c_uint) -> c_int;
    rte_get_next_lcore(lcore: c_uint, skip_main: c_int, wrap: c_int) -> c_uint;
    rte_get_tsc_hz() -> u64;
    rte_lcore_cpuset(lcore: c_uint) -> rte_cpuset_t;
    rte_lcore_id() -> c_uint;
    rte_mempool_avail_count(pool: *const rte_mempool) -> c_uint;
    rte_mempool_free(pool: *mut rte_mempool);
    rte_mempool_in_use_count(pool: *const rte_mempool) -> c_uint;
    rte_pktmbuf_alloc(pool: *mut rte_mempool) -> *mut rte_mbuf;
    rte_pktmbuf_alloc_bulk(pool: *mut rte_mempool, mbufs: *mut *mut rte_mbuf, count: c_uint) -> c_int;
    rte_pktmbuf_free(mbuf: *mut rte_mbuf);
    rte_pktmbuf_free_bulk(mbufs: *mut *mut rte_mbuf, count: c_uint);
    rte_pktmbuf_linearize(mbuf: *mut rte_mbuf) -> c_int;
    rte_pktmbuf_pool_create_by_ops(name: *const c_char, count: c_uint, cache: c_uint, private: u16,
        data_room: u16, socket: c_int, ops: *const c_char) -> *mut rte_mempool;
    rte_rdtsc() -> u64;
    rte_version() -> *const c_char;
    uvs_log_redirect(sink: uvs_log_sink) -> c_int;
    uvs_rte_errno() -> c_int;
}
