//! From a packet's destination to a service: flat, clone-on-write open-addressing tables.

use super::ServiceKey;
use crate::flow::{port, protocol};
use crate::id::ServiceSlot;
use std::net::IpAddr;
use std::sync::Arc;

/// Multiply-fold over 128 bits: keyed tables of the configuration need only spread, not secrecy, because their keys are chosen
/// by the operator and their load stays at or below one half.
#[inline(always)]
pub(super) fn mix(high: u64, low: u64) -> u64 {
    let product = u128::from(high ^ 0x9E37_79B9_7F4A_7C15) * u128::from(low ^ 0xD6E8_FEB8_6659_FD93);
    (product >> 64) as u64 ^ (product & 0xFFFF_FFFF_FFFF_FFFF) as u64
}

/// A key of a [`Cells`].
pub(super) trait Hashed: Copy + Eq {
    fn hash(&self) -> u64;
}

impl Hashed for IpAddr {
    #[inline(always)]
    fn hash(&self) -> u64 {
        match self {
            Self::V4(v4) => mix(4, v4.to_bits().into()),
            Self::V6(v6) => {
                let bits = v6.to_bits();
                mix((bits >> 64) as u64, (bits & 0xFFFF_FFFF_FFFF_FFFF) as u64)
            }
        }
    }
}

impl Hashed for ServiceKey {
    #[inline(always)]
    fn hash(&self) -> u64 {
        match self {
            Self::Address { protocol, address, port } => {
                mix(address.hash(), u64::from(*port) << 8 | u64::from(*protocol))
            }
            Self::Mark { mark, v6 } => mix(u64::from(*v6), (*mark).into()),
        }
    }
}

/// Where probing for `key` begins in a table of `mask + 1` cells.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the mask keeps fewer bits than either type has")]
fn home(key: &impl Hashed, mask: usize) -> usize {
    key.hash() as usize & mask
}

/// Linear probing at a load of one half at most. Cloning shares the cells; the first change after it copies them, further
/// changes work in place.
#[derive(Debug, Clone)]
pub(super) struct Cells<K, V> {
    cells: Arc<[Option<(K, V)>]>,
    count: usize,
}

impl<K, V> Default for Cells<K, V> {
    fn default() -> Self {
        Self { cells: Arc::default(), count: 0 }
    }
}

impl<K: Hashed, V: Copy> Cells<K, V> {
    const SMALLEST: usize = 8;

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The place of `key`, or the empty one where it would go. The table is not empty.
    #[inline(always)]
    fn place(&self, key: &K) -> usize {
        let mask = self.cells.len() - 1;
        let mut place = home(key, mask);
        while let Some((found, _)) = &self.cells[place] {
            if found == key {
                break;
            }
            place = (place + 1) & mask;
        }
        place
    }

    #[inline(always)]
    pub(super) fn get(&self, key: &K) -> Option<V> {
        if self.cells.is_empty() {
            return None;
        }
        self.cells[self.place(key)].map(|(_, value)| value)
    }

    /// Whether the key is a new one.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        if (self.count + 1) * 2 > self.cells.len() {
            self.resize((self.cells.len() * 2).max(Self::SMALLEST));
        }
        let place = self.place(&key);
        let cells = Arc::make_mut(&mut self.cells);
        let new = cells[place].is_none();
        cells[place] = Some((key, value));
        self.count += usize::from(new);
        new
    }

    /// Whether the key was there. Cells after it move up, so that no mark is left behind.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        if self.get(key).is_none() {
            return false;
        }
        let mut hole = self.place(key);
        let cells = Arc::make_mut(&mut self.cells);
        let mask = cells.len() - 1;
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let Some((other, _)) = &cells[place] else { break };
            let home = home(other, mask);
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                cells[hole] = cells[place];
                hole = place;
            }
        }
        cells[hole] = None;
        self.count -= 1;
        if cells.len() > Self::SMALLEST && self.count * 8 < cells.len() {
            self.resize(self.cells.len() / 2);
        }
        true
    }

    fn resize(&mut self, size: usize) {
        let old = std::mem::replace(&mut self.cells, std::iter::repeat_n(None, size).collect());
        let cells = Arc::make_mut(&mut self.cells);
        for (key, value) in old.iter().flatten() {
            let mut place = home(key, size - 1);
            while cells[place].is_some() {
                place = (place + 1) & (size - 1);
            }
            cells[place] = Some((*key, *value));
        }
    }
}

/// The first port a program may listen on without privileges.
const UNPRIVILEGED: u16 = 1024;

/// What a service makes the look-up do.
#[derive(Debug, Clone, Copy, Default)]
struct Kinds {
    /// Services of IPv4 and of IPv6, marks included.
    families: [usize; 2],
    /// TCP services on FTP's port.
    ftp: usize,
    /// Services that take every port.
    wildcards: usize,
}

impl Kinds {
    fn count(&mut self, key: &ServiceKey, step: fn(&mut usize)) {
        step(&mut self.families[usize::from(key.is_v6())]);
        match key {
            ServiceKey::Address { port: 0, .. } => step(&mut self.wildcards),
            ServiceKey::Address { port: port::FTP, protocol: protocol::TCP, .. } => step(&mut self.ftp),
            _ => {}
        }
    }
}

/// Services by key. Cloning shares the table; the first change after it copies it (1.2 MB at 10,000 services).
#[derive(Debug, Clone, Default)]
pub struct ServiceIndex {
    services: Cells<ServiceKey, ServiceSlot>,
    kinds: Kinds,
}

impl ServiceIndex {
    /// Number of services.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.count
    }

    /// Whether there is no service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.count == 0
    }

    /// Whether there is a service of a family.
    #[inline(always)]
    #[must_use]
    pub fn has_family(&self, v6: bool) -> bool {
        self.kinds.families[usize::from(v6)] != 0
    }

    /// The service of a packet to port `number` of `address`, in the kernel's order: the exact one; for TCP to port 20 or one from 1024
    /// on, the address's FTP service; the one that takes every port.
    #[inline]
    #[must_use]
    pub fn find(&self, protocol: u8, address: IpAddr, number: u16) -> Option<ServiceSlot> {
        let key = |port| ServiceKey::Address { protocol, address, port };
        let exact = self.get(&key(number));
        if exact.is_some() || (self.kinds.wildcards | self.kinds.ftp) == 0 {
            return exact;
        }
        let ftp = protocol == protocol::TCP && (number == port::FTP_DATA || number >= UNPRIVILEGED);
        let ftp = ftp.then(|| self.get(&key(port::FTP))).flatten();
        ftp.or_else(|| self.get(&key(0)))
    }

    /// Whether there is an FTP service.
    #[inline(always)]
    #[must_use]
    pub fn has_ftp(&self) -> bool {
        self.kinds.ftp != 0
    }

    /// The service of exactly this key.
    #[inline]
    #[must_use]
    pub fn get(&self, key: &ServiceKey) -> Option<ServiceSlot> {
        self.services.get(key)
    }

    /// Adds or replaces a service.
    pub fn insert(&mut self, key: ServiceKey, slot: ServiceSlot) {
        if self.services.insert(key, slot) {
            self.kinds.count(&key, |count| *count += 1);
        }
    }

    /// Removes a service, if there.
    pub fn remove(&mut self, key: &ServiceKey) {
        if self.services.remove(key) {
            self.kinds.count(key, |count| *count -= 1);
        }
    }

    /// Replaces all services at once.
    pub fn replace(&mut self, services: impl IntoIterator<Item = (ServiceKey, ServiceSlot)>) {
        *self = Self::default();
        for (key, slot) in services {
            self.insert(key, slot);
        }
    }
}

/// A set of addresses. Cloning shares it, as with [`ServiceIndex`].
#[derive(Debug, Clone, Default)]
pub struct AddressSet {
    addresses: Cells<IpAddr, ()>,
}

impl AddressSet {
    /// Whether `address` is in the set.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some()
    }

    /// Number of addresses.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.count
    }

    /// Whether there is no address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.count == 0
    }

    /// Adds an address, if it is not there.
    pub fn insert(&mut self, address: IpAddr) {
        self.addresses.insert(address, ());
    }

    /// Takes an address out, if it is there.
    pub fn remove(&mut self, address: IpAddr) {
        self.addresses.remove(&address);
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut set = Self::default();
        for address in addresses {
            set.insert(address);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const VIRTUAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn key(port: u16) -> ServiceKey {
        ServiceKey::Address { protocol: 6, address: VIRTUAL, port }
    }

    #[test]
    fn exact_before_every_port() {
        let mut index = ServiceIndex::default();
        assert_eq!(index.find(6, VIRTUAL, 80), None);
        index.insert(key(0), ServiceSlot(1));
        index.insert(key(80), ServiceSlot(2));
        assert_eq!(index.find(6, VIRTUAL, 80), Some(ServiceSlot(2)));
        assert_eq!(index.find(6, VIRTUAL, 81), Some(ServiceSlot(1)));
        assert_eq!(index.find(17, VIRTUAL, 81), None);
        index.remove(&key(0));
        assert_eq!(index.find(6, VIRTUAL, 81), None);
    }

    /// The FTP service also takes its data connections: TCP to port 20 or to an unprivileged one, before the service that
    /// takes every port.
    #[test]
    fn ftp_before_every_port() {
        let mut index = ServiceIndex::default();
        index.insert(key(21), ServiceSlot(1));
        index.insert(ServiceKey::Address { protocol: 17, address: VIRTUAL, port: 21 }, ServiceSlot(3));
        for (port, found) in
            [(20, true), (21, true), (22, false), (1023, false), (1024, true), (40_001, true)]
        {
            assert_eq!(index.find(6, VIRTUAL, port), found.then_some(ServiceSlot(1)), "{port}");
        }
        assert_eq!(index.find(17, VIRTUAL, 1024), None, "TCP alone");
        index.insert(key(0), ServiceSlot(2));
        assert_eq!(index.find(6, VIRTUAL, 40_001), Some(ServiceSlot(1)));
        assert_eq!(index.find(6, VIRTUAL, 22), Some(ServiceSlot(2)));
        index.remove(&key(21));
        assert_eq!(index.find(6, VIRTUAL, 40_001), Some(ServiceSlot(2)));
    }

    #[test]
    fn families_are_counted_marks_included() {
        let mut index = ServiceIndex::default();
        let mark = |v6| ServiceKey::Mark { mark: 1, v6 };
        index.insert(mark(true), ServiceSlot(0));
        assert!(index.has_family(true) && !index.has_family(false));
        assert_eq!((index.get(&mark(true)), index.get(&mark(false))), (Some(ServiceSlot(0)), None));
        index.remove(&mark(true));
        assert!(!index.has_family(true));
    }

    proptest! {
        #[test]
        fn the_index_is_a_map(edits in proptest::collection::vec((any::<bool>(), 0u16..40, any::<u32>()), 0..120)) {
            let mut index = ServiceIndex::default();
            let mut model = HashMap::new();
            for (add, port, slot) in edits {
                if add {
                    index.insert(key(port), ServiceSlot(slot));
                    model.insert(port, ServiceSlot(slot));
                } else {
                    index.remove(&key(port));
                    model.remove(&port);
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for port in 0..40 {
                prop_assert_eq!(index.get(&key(port)), model.get(&port).copied());
            }
        }

        #[test]
        fn an_address_set_is_a_set(members in proptest::collection::vec(any::<u8>(), 0..60)) {
            let address = |last: u8| IpAddr::from([10, 0, 0, last]);
            let set: AddressSet = members.iter().map(|last| address(*last)).collect();
            for last in 0..=u8::MAX {
                prop_assert_eq!(set.contains(address(last)), members.contains(&last));
            }
        }
    }
}
