use super::{Hop, Request, Resolver};
use crate::mirror::settle::Moment;
use crate::mirror::wire::{Neighbour, nud};
use dataplane::id::PortId;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const MAC: Option<[u8; 6]> = Some([2, 0, 0, 0, 0, 1]);
const REACHABLE: u16 = 0x02;

fn hop(last: u8) -> Hop {
    (PortId(0), [10, 0, 0, last].into())
}

fn neighbour(last: u8, state: u16, mac: Option<[u8; 6]>, managed: bool) -> Neighbour {
    Neighbour { index: 5, address: [10, 0, 0, last].into(), state, mac, managed }
}

fn at(milliseconds: u64) -> Moment {
    Duration::from_millis(milliseconds)
}

fn drained(resolver: &mut Resolver, now: Moment) -> Vec<Request> {
    std::iter::from_fn(|| resolver.next(now)).collect()
}

fn running() -> Resolver {
    let mut resolver = Resolver::default();
    resolver.set_running(PortId(0), true, Moment::ZERO);
    resolver
}

fn wanting(hops: &[u8]) -> Resolver {
    let mut resolver = running();
    let set: BTreeSet<Hop> = hops.iter().map(|last| hop(*last)).collect();
    resolver.want(&set, Moment::ZERO, |_| None);
    resolver
}

#[test]
fn asks_for_the_unknown_and_leaves_the_kept_alone() {
    let mut resolver = running();
    let set: BTreeSet<Hop> = [hop(1), hop(2), hop(3)].into();
    resolver.want(&set, at(0), |(_, address)| match address {
        address if address == hop(1).1 => Some(neighbour(1, REACHABLE, MAC, true)),
        address if address == hop(2).1 => Some(neighbour(2, nud::PERMANENT, MAC, false)),
        _ => None,
    });
    assert_eq!(drained(&mut resolver, at(0)), [Request::Keep(hop(3))]);
    assert_eq!(drained(&mut resolver, at(60_000)), [Request::Keep(hop(3))]);
    assert_eq!((resolver.counts().wanted, resolver.counts().usable), (3, 2));
}

#[test]
fn a_failed_hop_is_asked_every_second() {
    let mut resolver = wanting(&[1]);
    assert_eq!(drained(&mut resolver, at(0)), [Request::Keep(hop(1))]);
    resolver.seen(hop(1), &neighbour(1, nud::INCOMPLETE, None, true), at(1));
    assert_eq!(drained(&mut resolver, at(3_000)), []);
    resolver.seen(hop(1), &neighbour(1, nud::FAILED, None, true), at(3_050));
    assert_eq!(drained(&mut resolver, at(4_049)), []);
    assert_eq!(drained(&mut resolver, at(4_050)), [Request::Keep(hop(1))]);
    resolver.seen(hop(1), &neighbour(1, REACHABLE, MAC, true), at(4_051));
    assert_eq!(resolver.deadline(), None);
}

#[test]
fn a_lost_mark_is_asked_back_and_a_static_entry_is_left() {
    let mut resolver = wanting(&[1]);
    drained(&mut resolver, at(0));
    resolver.seen(hop(1), &neighbour(1, REACHABLE, MAC, true), at(1));
    resolver.seen(hop(1), &neighbour(1, REACHABLE, MAC, false), at(900));
    assert_eq!(drained(&mut resolver, at(900)), [Request::Keep(hop(1))]);
    resolver.seen(hop(1), &neighbour(1, REACHABLE, MAC, true), at(901));
    resolver.seen(hop(1), &neighbour(1, nud::PERMANENT, MAC, false), at(2_000));
    assert_eq!(drained(&mut resolver, at(100_000)), []);
    resolver.want(&BTreeSet::new(), at(100_000), |_| None);
    assert_eq!(drained(&mut resolver, at(100_000)), []);
}

#[test]
fn a_kernel_without_the_mark_has_its_entries_used() {
    let mut resolver = wanting(&[1]);
    let mut requests = Vec::new();
    let mut moments = Vec::new();
    for now in (0..30_000).step_by(10) {
        for request in drained(&mut resolver, at(now)) {
            requests.push(request);
            moments.push(now);
            resolver.seen(hop(1), &neighbour(1, REACHABLE, MAC, false), at(now));
        }
    }
    assert_eq!(requests[..3], [Request::Keep(hop(1)); 3]);
    assert!(requests[3..].iter().all(|request| *request == Request::Use(hop(1))));
    assert_eq!(moments, [0, 100, 200, 5_200, 10_200, 15_200, 20_200, 25_200]);
}

#[test]
fn the_carrier_decides_whether_anything_is_asked() {
    let mut resolver = wanting(&[1, 2]);
    assert_eq!(drained(&mut resolver, at(0)).len(), 2);
    resolver.set_running(PortId(0), false, at(10));
    resolver.gone(hop(1), at(10));
    resolver.gone(hop(2), at(10));
    resolver.resolve_once(hop(9), at(10));
    assert_eq!(drained(&mut resolver, at(10_000)), []);
    resolver.set_running(PortId(0), true, at(10_001));
    assert_eq!(drained(&mut resolver, at(10_001)), [Request::Keep(hop(1)), Request::Keep(hop(2))]);
}

#[test]
fn one_request_serves_all_packets_that_wait_for_it() {
    let mut resolver = wanting(&[1]);
    drained(&mut resolver, at(0));
    resolver.seen(hop(1), &neighbour(1, REACHABLE, MAC, true), at(1));
    for _ in 0..10 {
        resolver.resolve_once(hop(1), at(2));
        resolver.resolve_once(hop(7), at(2));
    }
    assert_eq!(drained(&mut resolver, at(2)), [Request::Use(hop(7))]);
    resolver.resolve_once(hop(7), at(600));
    assert_eq!(drained(&mut resolver, at(600)), [Request::Use(hop(7))]);
}

#[test]
fn on_demand_memory_is_bounded() {
    let mut resolver = running();
    for address in 0..5_000_u32 {
        resolver.resolve_once((PortId(0), std::net::Ipv4Addr::from_bits(address).into()), at(0));
    }
    assert_eq!(drained(&mut resolver, at(0)).len(), super::ONCE_LIMIT);
    assert_eq!(resolver.counts().once_refused, 5_000 - super::ONCE_LIMIT as u64);
}

#[test]
fn what_is_wanted_no_longer_is_released() {
    let mut resolver = wanting(&[1, 2]);
    drained(&mut resolver, at(0));
    resolver.want(&[hop(2)].into(), at(5), |_| None);
    assert_eq!(drained(&mut resolver, at(5)), [Request::Release(hop(1))]);
}

proptest! {
    /// Whatever the kernel tells, no hop is asked for more often than the pace allows, and an unusable one on a running
    /// port always has an appointment.
    #[test]
    fn never_too_often_and_never_forgotten(
        steps in prop::collection::vec((0_u8..7, 1_u8..4, 0_u64..400), 1..300),
    ) {
        let mut resolver = wanting(&[1, 2, 3]);
        let mut now = 0;
        let mut asked = std::collections::BTreeMap::new();
        let mut usable = BTreeSet::new();
        let mut up = true;
        for (what, last, gap) in steps {
            now += gap;
            let mut exempt = false;
            match what {
                0 => { resolver.seen(hop(last), &neighbour(last, REACHABLE, MAC, true), at(now)); usable.insert(last); }
                1 => { resolver.seen(hop(last), &neighbour(last, REACHABLE, MAC, false), at(now)); usable.insert(last); }
                2 => { resolver.seen(hop(last), &neighbour(last, nud::FAILED, None, true), at(now)); usable.remove(&last); }
                3 => { resolver.gone(hop(last), at(now)); usable.remove(&last); }
                4 => resolver.reachability_changed(at(now)),
                5 => { up = !up; resolver.set_running(PortId(0), up, at(now)); exempt = true; usable.clear(); }
                _ => resolver.refused(hop(last), at(now)),
            }
            for request in drained(&mut resolver, at(now)) {
                if let Request::Keep(hop) | Request::Use(hop) = request
                    && let Some(before) = asked.insert(hop, now)
                {
                    prop_assert!(exempt || now - before >= 100, "{hop:?} asked at {before} and {now}");
                }
            }
            if up {
                for last in 1..4 {
                    prop_assert!(usable.contains(&last) || resolver.wanted[&hop(last)].due.is_some());
                }
            }
        }
    }
}
