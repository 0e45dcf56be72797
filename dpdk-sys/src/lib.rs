//! Raw bindings to the system's libdpdk, generated at build time.
//!
//! Only the `dpdk` crate uses these. Functions that DPDK defines as static inlines are compiled once as C
//! wrappers (about 2.5 cycles a call): right for what is called once a burst; what is called once a packet
//! is written in Rust on [`rte_mbuf`] by the safe layer.
//!
//! With feature `stub` (or `UVS_DPDK_STUB=1` in the build's environment) the same names exist without
//! libdpdk, so that documentation and lints can be built anywhere; [`STUB`] is then `true` and no function
//! may be called.

mod constants;
pub use constants::*;

#[cfg(not(dpdk_stub))]
mod generated {
    #![allow(
        missing_docs,
        missing_debug_implementations,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unsafe_op_in_unsafe_fn,
        unused_qualifications,
        clippy::all,
        clippy::restriction,
        clippy::pedantic,
        clippy::nursery
    )]
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}
#[cfg(not(dpdk_stub))]
pub use generated::*;

#[cfg(dpdk_stub)]
mod stub;
#[cfg(dpdk_stub)]
pub use stub::*;

impl rte_mbuf {
    /// The RSS hash word; meaningful only with `RTE_MBUF_F_RX_RSS_HASH` in `ol_flags`.
    #[inline(always)]
    #[must_use]
    pub const fn rss_hash_word(&self) -> u32 {
        // SAFETY: every member of the hash union is plain old data that starts with a u32, and mbuf memory
        // is always initialised (zeroed mappings, written by C).
        unsafe { core::ptr::from_ref(&self.__bindgen_anon_2).cast::<u32>().read() }
    }
}

// What the safe layer's accessors rely on: first line = everything a received packet needs.
const _: () = assert!(size_of::<rte_mbuf>() == 128 && align_of::<rte_mbuf>() == 64);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, buf_addr) == 0);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, data_off) == 16);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, refcnt) == 18);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, nb_segs) == 20);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, port) == 22);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, ol_flags) == 24);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, pkt_len) == 36);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, data_len) == 40);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, vlan_tci) == 42);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, __bindgen_anon_2) == 44);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, buf_len) == 54);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, pool) == 56);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, next) == 64);

/// Whether this build has declarations only and no libdpdk behind them.
pub const STUB: bool = cfg!(dpdk_stub);
