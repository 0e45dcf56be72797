//! Where packets to an address go: longest-prefix match in two cache lines.
//!
//! Networks nest, ranges do not: the table is the sorted list of the places where the answer changes, and an index over
//! the leading bits of an address that says between which of them to look. With four times as many index entries as ranges there is
//! mostly one, so that an answer costs one line of the index, one of the list, and one of the next hops, which are few and hot.
//! Built anew when routes change; a lookup writes nothing. Where several ways lead to a network ([`super::multipath`]), the answer is
//! one of them by the flow.

use super::multipath::{Multipath, Ways};
use super::{Exit, NextHop};
use crate::address::Address;
use crate::id::PortId;
use std::collections::HashMap;
use std::net::IpAddr;

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteView {
    /// How the next hop is reached. [`NextHop::Unresolved`] where it is the destination itself, which is on the link and not known
    /// by a host route.
    pub next_hop: NextHop,
    /// The router; `None` where the destination is on the link.
    pub via: Option<IpAddr>,
    /// The director's own address for packets this way.
    pub source: Option<IpAddr>,
    /// Port to send from.
    pub port: PortId,
    /// IP MTU in bytes.
    pub mtu: u16,
}

/// A network and where its packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Any address of the network.
    pub network: IpAddr,
    /// How many leading bits name it.
    pub prefix: u8,
    /// Where its packets go.
    pub view: RouteView,
}

/// A route, and what most packets need of it.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) view: RouteView,
    pub(super) exit: Exit,
}

impl Way {
    pub(super) fn new(view: RouteView) -> Self {
        Self { view, exit: Exit::of(&view) }
    }
}

/// Routes of both families.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    single: Box<[Way]>,
    several: Box<[Ways]>,
}

/// An address as a number.
trait Bits: Copy + Ord {
    const WIDTH: u32;
    const MAXIMUM: Self;
    /// The address after this one.
    fn next(self) -> Option<Self>;
    /// The first and the last address of a network.
    fn network(self, prefix: u8) -> (Self, Self);
    fn leading(self, bits: u32) -> usize;
    /// The first address whose leading bits are `slot`.
    fn lowest_of(slot: usize, bits: u32) -> Self;
}

macro_rules! bits {
    ($type:ty) => {
        impl Bits for $type {
            const WIDTH: u32 = Self::BITS;
            const MAXIMUM: Self = Self::MAX;

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn network(self, prefix: u8) -> (Self, Self) {
                let rest = Self::MAX.checked_shr(prefix.into()).unwrap_or(0);
                (self & !rest, self | rest)
            }

            #[inline(always)]
            fn leading(self, bits: u32) -> usize {
                usize::try_from(self.checked_shr(Self::BITS - bits).unwrap_or(0)).unwrap_or(usize::MAX)
            }

            fn lowest_of(slot: usize, bits: u32) -> Self {
                Self::try_from(slot).ok().and_then(|slot| slot.checked_shl(Self::BITS - bits)).unwrap_or(0)
            }
        }
    };
}

bits!(u32);
bits!(u128);

/// An answer with this bit numbers several ways, any other one a single view.
const SEVERAL: u32 = 1 << 31;
/// No route.
const NONE: u32 = u32::MAX;
/// The index has at most this many bits: 4 MiB.
const MOST_INDEX_BITS: u32 = 20;

/// Ranges of addresses, each from its start to the next one's.
#[derive(Debug, Clone)]
struct Ranges<K> {
    starts: Box<[(K, u32)]>,
    /// By leading bits: the range of the first address that has them; one more for the end.
    index: Box<[u32]>,
    bits: u32,
}

impl<K> Default for Ranges<K> {
    fn default() -> Self {
        Self { starts: Box::default(), index: Box::default(), bits: 0 }
    }
}

/// The list of ranges while it is made.
struct Sweep<K> {
    starts: Vec<(K, u32)>,
    /// The networks around the present place, with their last addresses.
    around: Vec<(K, u32)>,
}

impl<K: Bits> Sweep<K> {
    fn change(&mut self, at: K, answer: u32) {
        match self.starts.last_mut() {
            Some(last) if last.0 == at => last.1 = answer,
            Some(last) if last.1 == answer => {}
            _ => self.starts.push((at, answer)),
        }
    }

    fn enter(&mut self, first: K, last: K, answer: u32) {
        self.leave(Some(first));
        self.around.push((last, answer));
        self.change(first, answer);
    }

    /// Leaves the networks that end before `until`.
    fn leave(&mut self, until: Option<K>) {
        while let Some((end, _)) = self.around.pop_if(|(end, _)| until.is_none_or(|until| *end < until)) {
            let outer = self.around.last().map_or(NONE, |(_, answer)| *answer);
            if let Some(after) = end.next() {
                self.change(after, outer);
            }
        }
    }
}

impl<K: Bits> Ranges<K> {
    /// From networks: first and last address and the answer. Of two equal networks the later one counts.
    fn new(mut networks: Vec<(K, K, u32)>) -> Self {
        if networks.is_empty() {
            return Self::default();
        }
        // Outer networks before inner ones; the sort is stable.
        networks.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
        let lowest = K::MAXIMUM.network(0).0;
        let mut sweep = Sweep { starts: vec![(lowest, NONE)], around: Vec::new() };
        for (first, last, answer) in networks {
            sweep.enter(first, last, answer);
        }
        sweep.leave(None);
        Self::indexed(sweep.starts.into_boxed_slice())
    }

    fn indexed(starts: Box<[(K, u32)]>) -> Self {
        let bits = (starts.len().ilog2() + 3).min(MOST_INDEX_BITS).min(K::WIDTH);
        let slots = 1_usize << bits;
        let mut index = Vec::with_capacity(slots + 1);
        let mut range = 0;
        for slot in 0..slots {
            // The last range that starts at or below the first address of the slot.
            while let Some((next, _)) = starts.get(range + 1)
                && *next <= K::lowest_of(slot, bits)
            {
                range += 1;
            }
            index.push(u32::try_from(range).unwrap_or(u32::MAX));
        }
        index.push(u32::try_from(starts.len() - 1).unwrap_or(u32::MAX));
        Self { starts, index: index.into_boxed_slice(), bits }
    }

    #[inline]
    fn find(&self, address: K) -> Option<u32> {
        let slot = address.leading(self.bits);
        let [first, last] = *self.index.get(slot..)?.first_chunk::<2>()?;
        let ranges = self.starts.get(first as usize..=last as usize)?;
        let at = if ranges.len() == 1 { 1 } else { ranges.partition_point(|(start, _)| *start <= address) };
        ranges.get(at.wrapping_sub(1)).map(|(_, answer)| *answer)
    }
}

impl Routes {
    /// A table of these routes; of two to the same network the later one counts.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        Self::with_multipath(routes, &[])
    }

    /// A table of these routes and of networks with several ways; of two to the same network the later one counts, and a route
    /// before several ways.
    #[must_use]
    pub fn with_multipath(routes: impl IntoIterator<Item = Route>, multipath: &[Multipath]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut add = |network, prefix, answer| match network {
            IpAddr::V4(address) => {
                let (first, last) = address.to_bits().network(prefix);
                v4.push((first, last, answer));
            }
            IpAddr::V6(address) => {
                let (first, last) = address.to_bits().network(prefix);
                v6.push((first, last, answer));
            }
        };
        for (number, Multipath { network, prefix, .. }) in (0..SEVERAL - 1).zip(multipath) {
            add(*network, *prefix, SEVERAL | number);
        }
        let mut numbers = HashMap::new();
        let mut single = Vec::new();
        for Route { network, prefix, view } in routes {
            let number = *numbers.entry(view).or_insert_with(|| {
                single.push(Way::new(view));
                u32::try_from(single.len() - 1).unwrap_or(NONE)
            });
            add(network, prefix, number);
        }
        Self {
            v4: Ranges::new(v4),
            v6: Ranges::new(v6),
            single: single.into_boxed_slice(),
            several: multipath.iter().map(|multipath| Ways::new(&multipath.ways)).collect(),
        }
    }

    /// Whether there is no route at all.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.single.is_empty() && self.several.is_empty()
    }

    /// The route of the longest network that contains `address`, the first of several ways.
    #[inline]
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<&RouteView> {
        let answer = self.answer(address)?;
        let way =
            if answer & SEVERAL == 0 { self.single.get(answer as usize) } else { self.ways(answer)?.first() };
        way.map(|way| &way.view)
    }

    /// The same for packets from `source`: of several ways the one that its flow takes.
    #[inline]
    #[must_use]
    pub fn of_flow(&self, source: IpAddr, destination: IpAddr) -> Option<&RouteView> {
        self.way(source, destination).map(|way| &way.view)
    }

    /// Where packets from `source` go that can go straight on.
    #[inline(always)]
    #[must_use]
    pub fn exit<A: Address>(&self, source: A, destination: A) -> &Exit {
        self.way(source.ip(), destination.ip()).map_or(&Exit::Nowhere, |way| &way.exit)
    }

    #[inline(always)]
    fn way(&self, source: IpAddr, destination: IpAddr) -> Option<&Way> {
        let answer = self.answer(destination)?;
        if answer & SEVERAL == 0 {
            self.single.get(answer as usize)
        } else {
            self.ways(answer)?.of_flow(source, destination)
        }
    }

    #[inline(always)]
    fn answer(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }

    /// The ways of an answer; none of [`NONE`].
    fn ways(&self, answer: u32) -> Option<&Ways> {
        self.several.get((answer ^ SEVERAL) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::WeightedWay;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn view(number: u16) -> RouteView {
        RouteView { next_hop: NextHop::Unresolved, via: None, source: None, port: PortId(0), mtu: number }
    }

    fn covers(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
        let differ = match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        differ >= prefix.into()
    }

    fn naive(routes: &[Route], address: IpAddr) -> Option<u16> {
        let matching = routes.iter().filter(|route| covers(route.network, route.prefix, address));
        // The last of the longest.
        matching.max_by_key(|route| route.prefix).map(|route| route.view.mtu)
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

    fn edges(route: &Route) -> [IpAddr; 4] {
        match route.network {
            IpAddr::V4(address) => {
                let (first, last) = address.to_bits().network(route.prefix);
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
            }
            IpAddr::V6(address) => {
                let (first, last) = address.to_bits().network(route.prefix);
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 })
        })]

        #[test]
        fn the_longest_network_answers(
            v4s in proptest::collection::vec((v4(), 0_u8..=32), 0..60),
            v6s in proptest::collection::vec((v6(), 0_u8..=128), 0..60),
            probes in proptest::collection::vec(prop_oneof![v4(), v6()], 1..40),
        ) {
            let all = v4s.into_iter().chain(v6s);
            let routes: Vec<Route> =
                (0..).zip(all).map(|(number, (network, prefix))| Route { network, prefix, view: view(number) }).collect();
            let table = Routes::new(routes.iter().copied());
            prop_assert_eq!(table.is_empty(), routes.is_empty());
            for probe in probes.into_iter().chain(routes.iter().flat_map(edges)) {
                prop_assert_eq!(table.find(probe).map(|view| view.mtu), naive(&routes, probe), "{}", probe);
            }
        }
    }

    #[test]
    fn a_host_route_lies_in_its_network() {
        let route = |network: &str, prefix, number| Route {
            network: network.parse().unwrap(),
            prefix,
            view: view(number),
        };
        let table = Routes::new([route("0.0.0.0", 0, 1), route("10.0.0.0", 24, 2), route("10.0.0.9", 32, 3)]);
        let found = |address: &str| table.find(address.parse().unwrap()).map(|view| view.mtu);
        assert_eq!(
            ["10.0.0.9", "10.0.0.8", "10.0.1.0", "255.255.255.255"].map(found),
            [3, 2, 1, 1].map(Some)
        );
        assert_eq!(found("fd00::1"), None);
    }

    #[test]
    fn flows_share_several_ways_and_keep_theirs() {
        let network = |network: &str, prefix, ways: &[u16]| Multipath {
            network: network.parse().unwrap(),
            prefix,
            ways: ways.iter().map(|way| WeightedWay { view: view(*way), weight: 1 }).collect(),
        };
        let single = |network: &str, prefix, number| Route {
            network: network.parse().unwrap(),
            prefix,
            view: view(number),
        };
        let table = Routes::with_multipath(
            [single("10.1.0.0", 16, 9), single("10.2.0.0", 16, 8)],
            &[
                network("10.0.0.0", 8, &[1, 2]),
                network("10.2.0.0", 16, &[3, 4]),
                network("fd00::", 16, &[5, 6]),
            ],
        );
        let of = |source: &str, destination: &str| {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            table.of_flow(source, destination).map(|view| view.mtu)
        };
        let taken = |clients: &str, source: &str| -> BTreeSet<u16> {
            (0..32).filter_map(|client| of(source, &format!("{clients}{client}"))).collect()
        };
        assert_eq!(taken("10.9.0.", "192.0.2.1"), BTreeSet::from([1, 2]));
        assert_eq!(taken("fd00::", "fd01::1"), BTreeSet::from([5, 6]));
        assert_eq!(taken("10.1.0.", "192.0.2.1"), BTreeSet::from([9]), "the longer network");
        assert_eq!(taken("10.2.0.", "192.0.2.1"), BTreeSet::from([8]), "a route goes before several ways");
        assert_eq!(of("192.0.2.1", "11.0.0.1"), None);
        assert_eq!(table.find("10.9.0.1".parse().unwrap()).map(|view| view.mtu), Some(1));
        assert_eq!(table.find("11.0.0.1".parse().unwrap()), None);
        assert!(!table.is_empty() && Routes::default().is_empty());
    }

    #[test]
    fn a_view_is_one_cache_line() {
        assert!(size_of::<RouteView>() <= 64);
    }
}
