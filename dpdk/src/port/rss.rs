//! Receive-side scaling: which queue a packet lands on.

use std::fmt;
use std::ops::BitOr;

use dpdk_sys as sys;
use dpdk_sys::{rte_eth_rss_conf, rte_eth_rss_reta_entry64};

use super::Capabilities;
use crate::errno::Errno;

/// Slots of the indirection table that every port gets, whatever its own table's size.
pub const RETA_SLOTS: usize = 128;

/// A set of packet kinds and header fields, as DPDK numbers them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct RssFields(u64);

impl RssFields {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// IPv4 and IPv6 addresses, with the ports of TCP, UDP and SCTP where a packet has them.
    pub const IP_AND_PORTS: Self = Self(
        sys::RTE_ETH_RSS_IPV4
            | sys::RTE_ETH_RSS_FRAG_IPV4
            | sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP
            | sys::RTE_ETH_RSS_NONFRAG_IPV4_UDP
            | sys::RTE_ETH_RSS_NONFRAG_IPV4_SCTP
            | sys::RTE_ETH_RSS_NONFRAG_IPV4_OTHER
            | sys::RTE_ETH_RSS_IPV6
            | sys::RTE_ETH_RSS_FRAG_IPV6
            | sys::RTE_ETH_RSS_NONFRAG_IPV6_TCP
            | sys::RTE_ETH_RSS_NONFRAG_IPV6_UDP
            | sys::RTE_ETH_RSS_NONFRAG_IPV6_SCTP
            | sys::RTE_ETH_RSS_NONFRAG_IPV6_OTHER,
    );
    /// Restricts the hash to the source address and port.
    pub const SOURCE_ONLY: Self = Self(sys::RTE_ETH_RSS_L3_SRC_ONLY | sys::RTE_ETH_RSS_L4_SRC_ONLY);
    /// Restricts the hash to the destination address and port.
    pub const DESTINATION_ONLY: Self = Self(sys::RTE_ETH_RSS_L3_DST_ONLY | sys::RTE_ETH_RSS_L4_DST_ONLY);

    /// From DPDK's `RTE_ETH_RSS_*` bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// DPDK's `RTE_ETH_RSS_*` bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for RssFields {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for RssFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RssFields({:#x})", self.0)
    }
}

/// The wanted distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RssConfig {
    /// The Toeplitz key; the device takes as many leading bytes as its key has (40 or 52).
    pub key: Vec<u8>,
    /// What to hash; what the device cannot hash is left out and reported.
    pub fields: RssFields,
    /// The queue for each value of the hash's low 7 bits.
    pub table: [u16; RETA_SLOTS],
}

impl RssConfig {
    /// All slots in turn over `queues`.
    #[must_use]
    pub fn round_robin(queues: u16) -> [u16; RETA_SLOTS] {
        let mut table = [0; RETA_SLOTS];
        for (slot, queue) in table.iter_mut().zip((0..queues.max(1)).cycle()) {
            *slot = queue;
        }
        table
    }
}

/// What the device really does. A device without RSS is no error: the packets are distributed in software.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RssReport {
    /// Whether the device distributes exactly as configured: all fields, the key and the table.
    pub exact: bool,
    /// The fields that it was given.
    pub fields: RssFields,
    /// The key as read back, where the device tells.
    pub key: Option<Vec<u8>>,
    /// The table as read back, where the device tells; its own number of slots.
    pub table: Option<Vec<u16>>,
    /// Whether packets come with the hash ([`crate::Mbuf::rss_hash`]).
    pub hash_delivered: bool,
    /// What could not be had, in words.
    pub shortfalls: Vec<String>,
}

/// The part of the configuration that goes into `rte_eth_dev_configure`.
pub(super) struct Plan {
    pub(super) fields: RssFields,
    pub(super) key: Option<Vec<u8>>,
    pub(super) report: RssReport,
}

pub(super) fn plan(wanted: &RssConfig, capabilities: &Capabilities) -> Plan {
    let mut report = RssReport::default();
    let fields = wanted.fields.intersection(capabilities.rss_fields);
    report.fields = fields;
    if fields.intersection(RssFields::IP_AND_PORTS).is_empty() {
        report.shortfalls.push(format!("{} has no RSS over IP", capabilities.driver));
        report.fields = RssFields::NONE;
        return Plan { fields: RssFields::NONE, key: None, report };
    }
    if fields != wanted.fields {
        let missing = RssFields(wanted.fields.0 & !fields.0);
        report.shortfalls.push(format!("{} cannot hash {missing:?}", capabilities.driver));
    }
    let key_size = usize::from(capabilities.rss_key_size);
    let key = wanted.key.get(..key_size).map(<[u8]>::to_vec);
    if key.is_none() {
        let length = wanted.key.len();
        report.shortfalls.push(format!("the device's key has {key_size} bytes, the configured one {length}"));
    }
    report.hash_delivered = capabilities.rss_hash_delivered;
    Plan { fields, key, report }
}

/// Sets the indirection table of a configured port and reads everything back.
pub(super) fn apply(port: u16, wanted: &RssConfig, capabilities: &Capabilities, plan: Plan) -> RssReport {
    let Plan { fields, key, mut report } = plan;
    if fields.is_empty() {
        return report;
    }
    let size = usize::from(capabilities.reta_size);
    if size < RETA_SLOTS || !size.is_multiple_of(RETA_SLOTS) {
        report.shortfalls.push(format!("an indirection table of {size} slots, {RETA_SLOTS} wanted"));
    } else {
        let mut groups = reta_groups(&wanted.table, size);
        // SAFETY: the port is configured, and `groups` covers `reta_size` slots.
        let result =
            unsafe { sys::rte_eth_dev_rss_reta_update(port, groups.as_mut_ptr(), capabilities.reta_size) };
        if let Err(errno) = Errno::check(result) {
            report.shortfalls.push(format!("the indirection table was refused: {errno}"));
        }
    }
    report.table = read_table(port, capabilities.reta_size);
    report.key = read_key(port, capabilities.rss_key_size);
    if let Some(should) = key.as_ref().filter(|should| report.key.as_ref() != Some(*should)) {
        // Some drivers (net_null) ignore the key of the configuration and take it afterwards.
        write_key(port, should, fields);
        report.key = read_key(port, capabilities.rss_key_size);
    }
    if let Some(table) = &report.table {
        let differs = table.iter().zip(wanted.table.iter().cycle()).any(|(is, should)| is != should);
        if differs {
            report.shortfalls.push("the indirection table reads back differently".to_owned());
        }
    }
    if let (Some(is), Some(should)) = (&report.key, &key)
        && is != should
    {
        report.shortfalls.push("the key reads back differently".to_owned());
    }
    report.exact = report.shortfalls.is_empty();
    report
}

fn reta_groups(table: &[u16; RETA_SLOTS], size: usize) -> Vec<rte_eth_rss_reta_entry64> {
    let mut slots = table.iter().copied().cycle();
    (0..size.div_ceil(64))
        .map(|_| {
            let mut group = rte_eth_rss_reta_entry64 { mask: u64::MAX, ..Default::default() };
            for (slot, queue) in group.reta.iter_mut().zip(&mut slots) {
                *slot = queue;
            }
            group
        })
        .collect()
}

fn read_table(port: u16, size: u16) -> Option<Vec<u16>> {
    if size == 0 {
        return None;
    }
    let mut groups = vec![
        rte_eth_rss_reta_entry64 { mask: u64::MAX, ..Default::default() };
        usize::from(size).div_ceil(64)
    ];
    // SAFETY: the port is configured, and `groups` has room for `size` slots.
    let result = unsafe { sys::rte_eth_dev_rss_reta_query(port, groups.as_mut_ptr(), size) };
    (result == 0).then(|| groups.iter().flat_map(|group| group.reta).take(usize::from(size)).collect())
}

fn write_key(port: u16, key: &[u8], fields: RssFields) {
    let mut key = key.to_vec();
    let length = u8::try_from(key.len()).unwrap_or(0);
    let mut conf = rte_eth_rss_conf { rss_key: key.as_mut_ptr(), rss_key_len: length, ..Default::default() };
    conf.rss_hf = fields.bits();
    // SAFETY: the port is configured, and `conf` points to `rss_key_len` bytes. What came of it is read back.
    unsafe { sys::rte_eth_dev_rss_hash_update(port, &raw mut conf) };
}

fn read_key(port: u16, size: u8) -> Option<Vec<u8>> {
    // Room for the longest key there is: not every driver looks at the length that it is given.
    let mut key = [0; u8::MAX as usize];
    let mut conf = rte_eth_rss_conf { rss_key: key.as_mut_ptr(), rss_key_len: u8::MAX, ..Default::default() };
    // SAFETY: the port is configured, and `conf` points to `rss_key_len` writable bytes.
    let result = unsafe { sys::rte_eth_dev_rss_hash_conf_get(port, &raw mut conf) };
    let key = &key[..usize::from(size)];
    (result == 0 && key.iter().any(|byte| *byte != 0)).then(|| key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_repeat_over_larger_devices() {
        let table = RssConfig::round_robin(3);
        assert_eq!(table[..5], [0, 1, 2, 0, 1]);
        let groups = reta_groups(&table, 512);
        let flat: Vec<u16> = groups.iter().flat_map(|group| group.reta).collect();
        assert_eq!(flat.len(), 512);
        for (slot, queue) in flat.iter().enumerate() {
            assert_eq!(*queue, table[slot % RETA_SLOTS]);
        }
    }

    #[test]
    fn sets_of_fields() {
        let both = RssFields::IP_AND_PORTS | RssFields::SOURCE_ONLY;
        assert!(both.contains(RssFields::SOURCE_ONLY));
        assert!(!both.contains(RssFields::DESTINATION_ONLY));
        assert_eq!(both.intersection(RssFields::SOURCE_ONLY), RssFields::SOURCE_ONLY);
        assert!(RssFields::NONE.is_empty());
    }
}
