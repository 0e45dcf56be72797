//! Longest-prefix match that snapshots share.
//!
//! A path-compressed binary trie whose nodes are shared between the mirror's working copy and every snapshot that
//! still lives: a change copies only the nodes on its own path (at most one per bit), so that a snapshot of a full
//! routing table costs the same as one of three routes.

use std::net::IpAddr;
use std::sync::Arc;

/// A network: the leading `length` bits of `bits`, left-aligned in 128 bits whatever the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    bits: u128,
    length: u8,
}

impl Key {
    /// The network of `address` with `length` leading bits; bits beyond are dropped, too long a length is shortened.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        let (bits, width) = left_aligned(address);
        let length = length.min(width);
        Self { bits: bits & mask(length), length }
    }

    /// The network of one address alone.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let (bits, length) = left_aligned(address);
        Self { bits, length }
    }

    const fn contains(self, other: Self) -> bool {
        self.length <= other.length && (self.bits ^ other.bits) & mask(self.length) == 0
    }

    fn common(self, other: Self) -> u8 {
        let same = u8::try_from((self.bits ^ other.bits).leading_zeros()).unwrap_or(128);
        same.min(self.length).min(other.length)
    }

    const fn bit(self, at: u8) -> usize {
        if at >= 128 { 0 } else { ((self.bits >> (127 - at)) & 1) as usize }
    }

    const fn shortened(self, length: u8) -> Self {
        Self { bits: self.bits & mask(length), length }
    }
}

fn left_aligned(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

const fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - if length > 128 { 128 } else { length }) }
}

#[derive(Debug, Clone)]
struct Node<T> {
    key: Key,
    value: Option<T>,
    children: [Option<Arc<Self>>; 2],
}

/// Values by network, of one address family. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Trie<T> {
    root: Option<Arc<Node<T>>>,
    length: usize,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: None, length: 0 }
    }
}

impl<T: Clone> Trie<T> {
    /// Number of networks.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no network.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The value of exactly this network.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let mut node = self.root.as_deref()?;
        loop {
            if !node.key.contains(key) {
                return None;
            }
            if node.key.length == key.length {
                return node.value.as_ref();
            }
            node = node.children[key.bit(node.key.length)].as_deref()?;
        }
    }

    /// What `choose` makes of the longest network that contains `address` and that it does not decline.
    pub fn longest<R>(&self, address: IpAddr, mut choose: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let key = Key::host(address);
        let mut best = None;
        let mut next = self.root.as_deref();
        while let Some(node) = next.filter(|node| node.key.contains(key)) {
            if let Some(chosen) = node.value.as_ref().and_then(&mut choose) {
                best = Some(chosen);
            }
            next = if node.key.length < key.length {
                node.children[key.bit(node.key.length)].as_deref()
            } else {
                None
            };
        }
        best
    }

    /// Sets the value of a network, giving the former one back.
    pub fn insert(&mut self, key: Key, value: T) -> Option<T> {
        let former = insert(&mut self.root, key, value);
        self.length += usize::from(former.is_none());
        former
    }

    /// Removes a network.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        // Looked up first: a miss must not copy the shared path.
        self.get(key)?;
        let former = remove(&mut self.root, key);
        self.length -= usize::from(former.is_some());
        former
    }

    /// All values, shorter networks first where one contains the other.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let mut stack: Vec<&Node<T>> = self.root.as_deref().into_iter().collect();
        std::iter::from_fn(move || {
            loop {
                let node = stack.pop()?;
                stack.extend(node.children.iter().rev().filter_map(Option::as_deref));
                if let Some(value) = &node.value {
                    return Some(value);
                }
            }
        })
    }
}

fn insert<T: Clone>(slot: &mut Option<Arc<Node<T>>>, key: Key, value: T) -> Option<T> {
    let Some(present) = slot else {
        *slot = Some(Arc::new(Node { key, value: Some(value), children: [None, None] }));
        return None;
    };
    let common = key.common(present.key);
    if common < present.key.length {
        // The new network ends, or turns off, above this node.
        let mut above = Node { key: key.shortened(common), value: None, children: [None, None] };
        let side = present.key.bit(common);
        above.children[side] = slot.take();
        if common == key.length {
            above.value = Some(value);
        } else {
            above.children[key.bit(common)] =
                Some(Arc::new(Node { key, value: Some(value), children: [None, None] }));
        }
        *slot = Some(Arc::new(above));
        return None;
    }
    let node = Arc::make_mut(present);
    if common == key.length {
        node.value.replace(value)
    } else {
        insert(&mut node.children[key.bit(common)], key, value)
    }
}

fn remove<T: Clone>(slot: &mut Option<Arc<Node<T>>>, key: Key) -> Option<T> {
    let node = Arc::make_mut(slot.as_mut().filter(|node| node.key.contains(key))?);
    let former = if node.key.length == key.length {
        node.value.take()
    } else {
        remove(&mut node.children[key.bit(node.key.length)], key)
    };
    if node.value.is_none() && node.children.iter().any(Option::is_none) {
        // A node without a value and with one child at most has no reason to be.
        let child = node.children.iter_mut().find_map(Option::take);
        *slot = child;
    }
    former
}

#[cfg(test)]
mod tests {
    use super::{Key, Trie};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn naive(model: &BTreeMap<Key, u32>, address: IpAddr) -> Option<u32> {
        let host = Key::host(address);
        model
            .iter()
            .filter(|(key, _)| key.contains(host))
            .max_by_key(|(key, _)| key.length)
            .map(|(_, value)| *value)
    }

    // Few distinct bits, so that networks nest and collide.
    fn v4() -> impl Strategy<Value = IpAddr> {
        (0_u8..4, 0_u8..4, any::<u8>(), any::<u8>())
            .prop_map(|(a, b, c, d)| IpAddr::V4(Ipv4Addr::new(a << 6, b << 6, c & 0xc3, d & 0x0f)))
    }

    fn v6() -> impl Strategy<Value = IpAddr> {
        (0_u128..4, 0_u128..4, 0_u128..16)
            .prop_map(|(a, b, c)| IpAddr::V6(Ipv6Addr::from_bits(a << 126 | b << 64 | c)))
    }

    fn matches_the_model(steps: &[(IpAddr, u8, Option<u32>)], probes: &[IpAddr]) {
        let (mut trie, mut model) = (Trie::default(), BTreeMap::new());
        let mut snapshots = Vec::new();
        for (at, (address, length, value)) in steps.iter().enumerate() {
            let key = Key::new(*address, *length);
            match value {
                Some(value) => assert_eq!(trie.insert(key, *value), model.insert(key, *value)),
                None => assert_eq!(trie.remove(key), model.remove(&key)),
            }
            assert_eq!(trie.len(), model.len());
            if at % 7 == 0 {
                snapshots.push((trie.clone(), model.clone()));
            }
        }
        snapshots.push((trie, model));
        for (trie, model) in &snapshots {
            for probe in probes.iter().chain(steps.iter().map(|(address, _, _)| address)) {
                assert_eq!(trie.longest(*probe, |value| Some(*value)), naive(model, *probe), "{probe}");
            }
            for (key, value) in model {
                assert_eq!(trie.get(*key), Some(value));
            }
            let mut all: Vec<u32> = trie.iter().copied().collect();
            all.sort_unstable();
            let mut expected: Vec<u32> = model.values().copied().collect();
            expected.sort_unstable();
            assert_eq!(all, expected);
        }
    }

    proptest! {
        #[test]
        fn ipv4_matches_a_naive_model(
            steps in prop::collection::vec((v4(), 0_u8..=32, prop::option::weighted(0.7, any::<u32>())), 1..120),
            probes in prop::collection::vec(v4(), 1..40),
        ) {
            matches_the_model(&steps, &probes);
        }

        #[test]
        fn ipv6_matches_a_naive_model(
            steps in prop::collection::vec((v6(), 0_u8..=128, prop::option::weighted(0.7, any::<u32>())), 1..120),
            probes in prop::collection::vec(v6(), 1..40),
        ) {
            matches_the_model(&steps, &probes);
        }
    }

    #[test]
    fn a_declined_network_falls_back_to_the_one_around_it() {
        let mut trie = Trie::default();
        trie.insert(Key::new("10.0.0.0".parse().unwrap(), 8), 1);
        trie.insert(Key::new("10.1.0.0".parse().unwrap(), 16), 2);
        let address = "10.1.2.3".parse().unwrap();
        assert_eq!(trie.longest(address, |value| Some(*value)), Some(2));
        assert_eq!(trie.longest(address, |value| (*value != 2).then_some(*value)), Some(1));
    }

    #[test]
    fn a_full_table_is_cheap_to_snapshot_and_change() {
        let mut trie = Trie::default();
        for network in 0..200_000_u32 {
            trie.insert(Key::new(IpAddr::V4(Ipv4Addr::from_bits(network << 9)), 24), network);
        }
        let started = std::time::Instant::now();
        for network in 0..1_000_u32 {
            let snapshot = trie.clone();
            trie.insert(Key::new(IpAddr::V4(Ipv4Addr::from_bits(network << 9)), 24), network + 1);
            drop(snapshot);
        }
        assert!(
            started.elapsed().as_millis() < 500,
            "1,000 snapshots of 200,000 routes took {:?}",
            started.elapsed()
        );
    }
}
