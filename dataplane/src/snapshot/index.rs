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
    (product >> 64) as u64 ^ (product & u128::from(u64::MAX)) as u64
}

#[inline(always)]
fn hash_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => mix(4, v4.to_bits().into()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            mix((bits >> 64) as u64, (bits & u128::from(u64::MAX)) as u64)
        }
    }
}

#[inline(always)]
fn hash_key(key: &ServiceKey) -> u64 {
    mix(hash_address(key.address), u64::from(key.port) << 8 | u64::from(key.protocol))
}

type Cell = Option<(ServiceKey, ServiceSlot)>;

/// Services by key. Cloning shares the table; a change copies it (240 kB at 10,000 services).
#[derive(Debug, Clone, Default)]
pub struct ServiceIndex {
    cells: Arc<[Cell]>,
    count: usize,
    /// Services that take every port; without any the second probe is left out.
    wildcards: usize,
}

impl ServiceIndex {
    /// Number of services.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
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
        if self.cells.is_empty() {
            return None;
        }
        let mask = self.cells.len() - 1;
        let mut place = hash_key(key) as usize & mask;
        while let Some((found, slot)) = &self.cells[place] {
            if found == key {
                return Some(*slot);
            }
            place = (place + 1) & mask;
        }
        None
    }

    /// Adds or replaces a service.
    pub fn insert(&mut self, key: ServiceKey, slot: ServiceSlot) {
        self.rebuild(|cells| {
            cells.retain(|(old, _)| *old != key);
            cells.push((key, slot));
        });
    }

    /// Removes a service, if there.
    pub fn remove(&mut self, key: &ServiceKey) {
        self.rebuild(|cells| cells.retain(|(old, _)| old != key));
    }

    /// Replaces all services at once.
    pub fn replace(&mut self, services: impl IntoIterator<Item = (ServiceKey, ServiceSlot)>) {
        self.rebuild(|cells| {
            cells.clear();
            cells.extend(services);
        });
    }

    fn rebuild(&mut self, change: impl FnOnce(&mut Vec<(ServiceKey, ServiceSlot)>)) {
        let mut entries: Vec<_> = self.cells.iter().flatten().copied().collect();
        change(&mut entries);
        let size = (entries.len() * 2).next_power_of_two().max(8);
        let mut cells: Vec<Cell> = vec![None; size];
        for (key, slot) in &entries {
            let mut place = hash_key(key) as usize & (size - 1);
            while cells[place].is_some() {
                place = (place + 1) & (size - 1);
            }
            cells[place] = Some((*key, *slot));
        }
        self.count = entries.len();
        self.wildcards = entries.iter().filter(|(key, _)| key.port == 0).count();
        self.cells = cells.into();
    }
}

/// A set of addresses.
#[derive(Debug, Clone, Default)]
pub struct AddressSet {
    cells: Box<[Option<IpAddr>]>,
}

impl AddressSet {
    /// Whether `address` is in the set.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        if self.cells.is_empty() {
            return false;
        }
        let mask = self.cells.len() - 1;
        let mut place = hash_address(address) as usize & mask;
        while let Some(found) = self.cells[place] {
            if found == address {
                return true;
            }
            place = (place + 1) & mask;
        }
        false
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let addresses: std::collections::BTreeSet<_> = addresses.into_iter().collect();
        let size = (addresses.len() * 2).next_power_of_two().max(2);
        let mut cells = vec![None; size];
        for address in addresses {
            let mut place = hash_address(address) as usize & (size - 1);
            while cells[place].is_some() {
                place = (place + 1) & (size - 1);
            }
            cells[place] = Some(address);
        }
        Self { cells: cells.into() }
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
