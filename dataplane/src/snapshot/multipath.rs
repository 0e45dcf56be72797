//! Several ways to one network: a flow takes one of them by its addresses, each way its share by weight.
//!
//! As Linux chooses (`fib_multipath_hash_policy` 0): 31 bits of a hash over source and destination, held against a bound for each way.
//! Linux draws its hash's key at boot, so that no two hosts choose alike; this one has none: the choice is the same on every
//! worker, after a restart, and on the director that takes over.

use super::RouteView;
use super::routes::Way;
use std::net::IpAddr;

/// A way of several, and its share of the flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightedWay {
    /// The way.
    pub view: RouteView,
    /// Its share, by that of the others.
    pub weight: u16,
}

/// A network that several ways lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipath {
    /// Any address of the network.
    pub network: IpAddr,
    /// How many leading bits name it.
    pub prefix: u8,
    /// The ways, in the order of the routing table.
    pub ways: Vec<WeightedWay>,
}

/// Bits of the hash that chooses.
const BITS: u32 = 31;

/// The hash of the flows between two addresses, of 31 bits.
#[must_use]
pub fn flow_hash(source: IpAddr, destination: IpAddr) -> u32 {
    // The golden ratio and two odd multipliers (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
    const START: u64 = 0x9E37_79B9_7F4A_7C15;
    const FIRST: u64 = 0xBF58_476D_1CE4_E5B9;
    const SECOND: u64 = 0x94D0_49BB_1331_11EB;
    let words = |address: IpAddr| match address {
        IpAddr::V4(address) => [0, u64::from(address.to_bits())],
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, low @ ..] = address.octets();
            [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(low)]
        }
    };
    let state = words(source).into_iter().chain(words(destination)).fold(START, |state, word| {
        let state = (state ^ word).wrapping_mul(FIRST);
        let state = (state ^ state >> 29).wrapping_mul(SECOND);
        state ^ state >> 32
    });
    u32::try_from(state >> (64 - BITS)).unwrap_or(0)
}

/// For each weight, the highest hash whose flows take that way; none for a way of weight 0 but behind another's.
pub fn bounds(weights: impl Iterator<Item = u16> + Clone) -> impl Iterator<Item = u32> {
    let total = weights.clone().map(u64::from).sum::<u64>().max(1);
    weights.scan(0, move |sum: &mut u64, weight| {
        *sum += u64::from(weight);
        // Rounded to the nearest, as the kernel does.
        let bound = ((*sum << BITS) + total / 2) / total;
        Some(u32::try_from(bound.saturating_sub(1)).unwrap_or(u32::MAX))
    })
}

/// Ways by their bounds.
#[derive(Debug, Clone)]
pub(super) struct Ways(Box<[(u32, Way)]>);

impl Ways {
    pub(super) fn new(ways: &[WeightedWay]) -> Self {
        let bounds = bounds(ways.iter().map(|way| way.weight));
        Self(bounds.zip(ways).map(|(bound, way)| (bound, Way::new(way.view))).collect())
    }

    pub(super) fn first(&self) -> Option<&Way> {
        self.0.first().map(|(_, way)| way)
    }

    #[cold]
    pub(super) fn of_flow(&self, source: IpAddr, destination: IpAddr) -> Option<&Way> {
        let hash = flow_hash(source, destination);
        let place = self.0.partition_point(|(bound, _)| *bound < hash);
        self.0.get(place).map(|(_, way)| way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PortId;
    use crate::snapshot::NextHop;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn ways(weights: &[u16]) -> Ways {
        let view =
            |mtu| RouteView { next_hop: NextHop::Unresolved, via: None, source: None, port: PortId(0), mtu };
        let ways = (0..).zip(weights).map(|(mtu, weight)| WeightedWay { view: view(mtu), weight: *weight });
        Ways::new(&ways.collect::<Vec<_>>())
    }

    fn chosen(ways: &Ways, source: IpAddr, destination: IpAddr) -> usize {
        ways.of_flow(source, destination).unwrap().view.mtu.into()
    }

    #[test]
    fn bounds_are_those_of_the_kernel() {
        assert_eq!(bounds([1, 1].into_iter()).collect::<Vec<_>>(), [0x3fff_ffff, 0x7fff_ffff]);
        assert_eq!(bounds([1, 3].into_iter()).collect::<Vec<_>>(), [0x1fff_ffff, 0x7fff_ffff]);
        assert_eq!(
            bounds([1, 1, 1].into_iter()).collect::<Vec<_>>(),
            [0x2aaa_aaaa, 0x5555_5554, 0x7fff_ffff]
        );
        assert_eq!(bounds([256; 256].into_iter()).last(), Some(0x7fff_ffff));
    }

    #[test]
    fn every_way_gets_its_share_of_near_addresses_too() {
        let vip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));
        let vip6 = IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | 0x100));
        for weights in [&[1, 1][..], &[1, 3], &[5, 2, 1], &[1; 8]] {
            let ways = ways(weights);
            for stride in [1_u32, 256, 65_536] {
                let mut counts = vec![[0_u32; 2]; weights.len()];
                for client in (0..4000).map(|index: u32| (10 << 24) + index.wrapping_mul(stride)) {
                    counts[chosen(&ways, vip, Ipv4Addr::from_bits(client).into())][0] += 1;
                    let client6 = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(client));
                    counts[chosen(&ways, vip6, client6.into())][1] += 1;
                }
                let total: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
                for (weight, counts) in weights.iter().zip(counts) {
                    let share = 4000 * u32::from(*weight) / total;
                    for count in counts {
                        assert!(
                            count.abs_diff(share) < share / 5,
                            "{weights:?} {stride}: {count} of {share}"
                        );
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 })
        })]

        #[test]
        fn every_flow_has_a_way_and_the_same_one(
            weights in proptest::collection::vec(1_u16.., 1..64), source: u128, destination: u128, v6: bool,
        ) {
            let address = |bits: u128| -> IpAddr {
                if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits((bits >> 96) as u32).into() }
            };
            let ways = ways(&weights);
            let way = chosen(&ways, address(source), address(destination));
            prop_assert!(way < weights.len());
            prop_assert_eq!(chosen(&ways, address(source), address(destination)), way);
            let bounds: Vec<u32> = bounds(weights.iter().copied()).collect();
            prop_assert!(bounds.is_sorted());
            prop_assert_eq!(bounds.last(), Some(&0x7fff_ffff));
        }
    }
}
