//! Constants that bindgen drops or gives the wrong type (`RTE_BIT64` macros), written by hand.
//!
//! The build script reads this file and compiles one C assertion for every line, so that a value that
//! differs from the installed headers stops the build.

#![allow(missing_docs, reason = "DPDK's own names; its API reference documents them")]

pub const RTE_LOG_ERR: u32 = 4;
pub const RTE_LOG_WARNING: u32 = 5;
pub const RTE_LOG_NOTICE: u32 = 6;
pub const RTE_LOG_INFO: u32 = 7;
pub const RTE_LOG_DEBUG: u32 = 8;
pub const LCORE_ID_ANY: u32 = 0xffff_ffff;
pub const RTE_ETH_NAME_MAX_LEN: u32 = 64;
pub const RTE_ETH_XSTATS_NAME_SIZE: u32 = 64;
pub const RTE_ETH_RETA_GROUP_SIZE: u32 = 64;
pub const RTE_ETH_SPEED_NUM_UNKNOWN: u32 = 0xffff_ffff;

pub const RTE_MBUF_F_RX_VLAN: u64 = 0x1;
pub const RTE_MBUF_F_RX_RSS_HASH: u64 = 0x2;
pub const RTE_MBUF_F_RX_VLAN_STRIPPED: u64 = 0x40;
pub const RTE_MBUF_F_EXTERNAL: u64 = 0x2000_0000_0000_0000;
pub const RTE_MBUF_F_INDIRECT: u64 = 0x4000_0000_0000_0000;

pub const RTE_ETH_RSS_IPV4: u64 = 0x4;
pub const RTE_ETH_RSS_FRAG_IPV4: u64 = 0x8;
pub const RTE_ETH_RSS_NONFRAG_IPV4_TCP: u64 = 0x10;
pub const RTE_ETH_RSS_NONFRAG_IPV4_UDP: u64 = 0x20;
pub const RTE_ETH_RSS_NONFRAG_IPV4_SCTP: u64 = 0x40;
pub const RTE_ETH_RSS_NONFRAG_IPV4_OTHER: u64 = 0x80;
pub const RTE_ETH_RSS_IPV6: u64 = 0x100;
pub const RTE_ETH_RSS_FRAG_IPV6: u64 = 0x200;
pub const RTE_ETH_RSS_NONFRAG_IPV6_TCP: u64 = 0x400;
pub const RTE_ETH_RSS_NONFRAG_IPV6_UDP: u64 = 0x800;
pub const RTE_ETH_RSS_NONFRAG_IPV6_SCTP: u64 = 0x1000;
pub const RTE_ETH_RSS_NONFRAG_IPV6_OTHER: u64 = 0x2000;
pub const RTE_ETH_RSS_L4_DST_ONLY: u64 = 0x1000_0000_0000_0000;
pub const RTE_ETH_RSS_L4_SRC_ONLY: u64 = 0x2000_0000_0000_0000;
pub const RTE_ETH_RSS_L3_DST_ONLY: u64 = 0x4000_0000_0000_0000;
pub const RTE_ETH_RSS_L3_SRC_ONLY: u64 = 0x8000_0000_0000_0000;

pub const RTE_ETH_RX_OFFLOAD_VLAN_STRIP: u64 = 0x1;
pub const RTE_ETH_RX_OFFLOAD_IPV4_CKSUM: u64 = 0x2;
pub const RTE_ETH_RX_OFFLOAD_UDP_CKSUM: u64 = 0x4;
pub const RTE_ETH_RX_OFFLOAD_TCP_CKSUM: u64 = 0x8;
pub const RTE_ETH_RX_OFFLOAD_SCATTER: u64 = 0x2000;
pub const RTE_ETH_RX_OFFLOAD_RSS_HASH: u64 = 0x8_0000;
pub const RTE_ETH_TX_OFFLOAD_IPV4_CKSUM: u64 = 0x2;
pub const RTE_ETH_TX_OFFLOAD_UDP_CKSUM: u64 = 0x4;
pub const RTE_ETH_TX_OFFLOAD_TCP_CKSUM: u64 = 0x8;
pub const RTE_ETH_TX_OFFLOAD_MULTI_SEGS: u64 = 0x8000;
