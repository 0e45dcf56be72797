//! Maglev hashing (`ip_vs_mh`; Eisenbud et al.: "Maglev: a fast and reliable software network load balancer", NSDI 2016, section
//! 3.4): every destination has its own permutation of a table's slots and takes, in turn, the first of them that is still free, as
//! many at each turn as its weight says. Adding or removing one of n destinations moves little more than 1/n of the clients.
//!
//! Sizes are primes, so that every skip visits every slot. Weights are the last ones above 0: a quiesced destination keeps its
//! slots, and no other client moves. When the slot's destination is not usable nobody is chosen, but with `mh-fallback` further
//! slots are tried, which ones depends on the client.

use super::table::{NOBODY, Share, looked_up};
use super::{Loads, Own, Request, Scheduler, greatest_common_divisor, hash};
use crate::snapshot::{Maglev, ServiceView, scheduler_flags};
use std::net::IpAddr;

/// Keys of the two hashes: where a permutation begins (and a client looks), and how it goes on.
const BEGIN: u64 = 2_654_435_761;
const SKIP: u64 = 2_654_446_892;

/// mh.
#[derive(Debug, Clone, Copy)]
pub struct MaglevHashing;

impl Scheduler for MaglevHashing {
    #[inline]
    fn choose(
        service: &ServiceView,
        request: &Request,
        _: &mut Own<'_>,
        loads: &impl Loads,
    ) -> Option<usize> {
        let size = u32::try_from(service.table.as_deref()?.len()).ok()?;
        let key = request.client_key(service.flags);
        let first = hash::siphash_1_3(key, BEGIN) % size;
        let found = looked_up(service, first, loads);
        if found.is_some() || service.flags & scheduler_flags::FALLBACK == 0 {
            return found;
        }
        (0..size).find_map(|step| {
            let offset = (step + first) % size;
            looked_up(service, hash::siphash_1_3(key.wrapping_add(offset), BEGIN) % size, loads)
        })
    }
}

/// A destination's permutation, as far as it has been followed.
struct Permutation {
    place: u16,
    next: u32,
    skip: u32,
    /// [`LANES`] skips.
    strides: u32,
    turns: u32,
}

/// Slots of a permutation that are looked at together.
const LANES: usize = 4;

impl Permutation {
    /// The next free slot; the permutation stands behind it then. Steps depend on each other, looks do not: some slots ahead are
    /// known by wider steps.
    #[inline(always)]
    fn take(&mut self, taken: &Taken, size: u32) -> u32 {
        let mut lanes = [self.next; LANES];
        for lane in 1..LANES {
            lanes[lane] = sum(lanes[lane - 1], self.skip, size);
        }
        let stride = self.strides;
        while lanes.iter().fold(true, |all, slot| all & taken.contains(*slot)) {
            lanes = lanes.map(|slot| sum(slot, stride, size));
        }
        let free = lanes.into_iter().find(|slot| !taken.contains(*slot)).unwrap_or(self.next);
        self.next = sum(free, self.skip, size);
        free
    }
}

/// The remainder of a sum of two numbers below `size`.
#[inline(always)]
const fn sum(a: u32, b: u32, size: u32) -> u32 {
    let sum = a + b;
    if sum < size { sum } else { sum - size }
}

/// The slots that have a destination, a bit each: of a hundred slots that are tried, few are free, and the bits of the largest
/// table lie in the first-level cache, as its slots do not.
struct Taken(Vec<u64>);

impl Taken {
    #[inline(always)]
    fn contains(&self, slot: u32) -> bool {
        self.0[slot as usize / 64] >> (slot % 64) & 1 != 0
    }

    #[inline(always)]
    fn insert(&mut self, slot: u32) {
        self.0[slot as usize / 64] |= 1 << (slot % 64);
    }
}

/// A server's address as one number. The kernel reads as much of it as the *service's* family has: of a tunnel server in IPv6 behind
/// an IPv4 service that is the first word alone, so that servers of one network go on in the same order. Canonical tables, which no
/// kernel has to agree with, are filled from the whole address.
fn server_key(server: IpAddr, v6_service: bool, canonical: bool) -> u32 {
    match server {
        IpAddr::V6(server) if !v6_service && !canonical => {
            let [first, second, ..] = server.segments();
            u32::from(first) << 16 | u32::from(second)
        }
        server => hash::fold(server),
    }
}

/// The table for a list of destinations.
pub(super) fn table(maglev: Maglev, v6_service: bool, list: impl Iterator<Item = Share>) -> Box<[u16]> {
    let mut list: Vec<(u16, Share)> = (0..NOBODY).zip(list).collect();
    if maglev.canonical {
        list.sort_by_key(|(_, share)| (share.server, share.port));
    }
    let size = maglev.size;
    let divisor =
        list.iter().fold(0, |divisor, (_, share)| greatest_common_divisor(divisor, share.last_weight));
    let greatest = list.iter().map(|(_, share)| share.last_weight).max().unwrap_or(0);
    let mut table = vec![NOBODY; size as usize].into_boxed_slice();
    if divisor == 0 {
        return table;
    }
    // Weights count with half as many bits as the size has, so that a round never takes the whole table.
    let shift = bits(greatest / divisor).saturating_sub(bits(size) / 2);
    let mut permutations: Vec<_> = list
        .iter()
        .filter(|(_, share)| share.last_weight > 0)
        .map(|(place, share)| {
            let key = server_key(share.server, v6_service, maglev.canonical).wrapping_add(share.port.into());
            let skip = hash::siphash_1_3(key, SKIP) % (size - 1) + 1;
            let twice = sum(skip, skip, size);
            Permutation {
                place: *place,
                next: hash::siphash_1_3(key, BEGIN) % size,
                skip,
                strides: sum(twice, twice, size),
                turns: ((share.last_weight / divisor) >> shift).max(1),
            }
        })
        .collect();
    let mut taken = Taken(vec![0; size as usize / 64 + 1]);
    let mut left = size;
    while left > 0 {
        for one in &mut permutations {
            for _ in 0..one.turns.min(left) {
                let slot = one.take(&taken, size);
                taken.insert(slot);
                table[slot as usize] = one.place;
                left -= 1;
            }
        }
    }
    table
}

const fn bits(number: u32) -> u32 {
    u32::BITS - number.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::{Share, table};
    use crate::snapshot::Maglev;

    /// As recorded in random_0184 and random_0238.
    #[test]
    fn of_an_ipv6_server_an_ipv4_service_hashes_the_first_word() {
        let share = |server: &str, weight| Share {
            server: server.parse().unwrap(),
            port: 80,
            weight,
            last_weight: weight,
        };
        let filled = |v6, canonical, servers: [&str; 2]| {
            let maglev = Maglev { size: 4093, canonical };
            table(maglev, v6, servers.into_iter().map(|server| share(server, 1)))
        };
        let (near, far) = (["fd00:10::7", "fd00:10::8"], ["fd00:10::9", "fd00:10::a"]);
        assert_eq!(filled(false, false, near), filled(false, false, far));
        assert_ne!(filled(true, false, near), filled(true, false, far));
        assert_ne!(filled(false, true, near), filled(false, true, far));
    }
}
