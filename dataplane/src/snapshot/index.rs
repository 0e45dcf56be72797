//! From a packet's destination to a service: flat, clone-on-write open-addressing tables.

use super::ServiceKey;
use crate::id::ServiceSlot;
use std::net::IpAddr;
use std::sync::Arc;

/// Multiply-fold over 128 bits: keyed tables of the configuration need only spread, not secrecy, because their keys are chosen
/// by the operator and their load stays at or below one half.
#[inline(always)]
fn mix(high: u64, low: u64) -> u64 {
    let product = u128::from(high ^ 0x9E37_79B9_7F4A_7C15) * u128::from(low ^ 0xD6E8_FEB8_6659_FD93);
    (product >> 64) as u64 ^ (product & 0xFFFF_FFFF_FFFF_FFFF) as u64
}

/// A key of a [`Cells`].
trait Hashed: Copy + Eq {
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
        mix(self.address.hash(), u64::from(self.port) << 8 | u64::from(self.protocol))
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
struct Cells<K, V> {
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
    fn get(&self, key: &K) -> Option<V> {
        if self.cells.is_empty() {
            return None;
        }
        self.cells[self.place(key)].map(|(_, value)| value)
    }

    /// Whether the key is a new one.
    fn insert(&mut self, key: K, value: V) -> bool {
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
    fn remove(&mut self, key: &K) -> bool {
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

/// Services by key. Cloning shares the table; the first change after it copies it (1.2 MB at 10,000 services).
#[derive(Debug, Clone, Default)]
pub struct ServiceIndex {
    services: Cells<ServiceKey, ServiceSlot>,
    /// Services that take every port; without any the second probe is left out.
    wildcards: usize,
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

    /// The service of a packet to `address`, `port`: the exact one, else the one that takes every port.
    #[inline]
    #[must_use]
    pub fn find(&self, protocol: u8, address: IpAddr, port: u16) -> Option<ServiceSlot> {
        let exact = self.get(&ServiceKey { protocol, address, port });
        if exact.is_some() || self.wildcards == 0 {
            return exact;
        }
        self.get(&ServiceKey { protocol, address, port: 0 })
    }

    /// The service of exactly this key.
    #[inline]
    #[must_use]
    pub fn get(&self, key: &ServiceKey) -> Option<ServiceSlot> {
        self.services.get(key)
    }

    /// Adds or replaces a service.
    pub fn insert(&mut self, key: ServiceKey, slot: ServiceSlot) {
        if self.services.insert(key, slot) && key.port == 0 {
            self.wildcards += 1;
        }
    }

    /// Removes a service, if there.
    pub fn remove(&mut self, key: &ServiceKey) {
        if self.services.remove(key) && key.port == 0 {
            self.wildcards -= 1;
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

    fn key(port: u16) -> ServiceKey {
        ServiceKey { protocol: 6, address: IpAddr::from([10, 0, 0, 1]), port }
    }

    #[test]
    fn exact_before_every_port() {
        let mut index = ServiceIndex::default();
        assert_eq!(index.find(6, key(80).address, 80), None);
        index.insert(key(0), ServiceSlot(1));
        index.insert(key(80), ServiceSlot(2));
        assert_eq!(index.find(6, key(80).address, 80), Some(ServiceSlot(2)));
        assert_eq!(index.find(6, key(80).address, 81), Some(ServiceSlot(1)));
        assert_eq!(index.find(17, key(80).address, 81), None);
        index.remove(&key(0));
        assert_eq!(index.find(6, key(80).address, 81), None);
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
