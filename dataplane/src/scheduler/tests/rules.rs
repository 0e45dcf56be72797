//! What each scheduler is for, by small examples.

use super::director::{Director, ticks};
use super::{ANYBODY, Dice};
use crate::counters::Activity;
use crate::scheduler::Request;
use crate::snapshot::{Maglev, SchedulerKind, ServiceKey, ServiceSpec, Settings, scheduler_flags};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A director whose servers have these weights, the first of them the newest.
fn director(spec: ServiceSpec, weights: &[(u8, u32)]) -> Director {
    let mut director = Director::with(spec, 1, 0);
    director.configure(Settings::default());
    for (server, weight) in weights.iter().rev() {
        director.add(*server, *weight, 0, 0);
    }
    director
}

fn spec(kind: SchedulerKind) -> ServiceSpec {
    ServiceSpec::new(ServiceKey::Mark { mark: 1, v6: false }, kind)
}

fn from(client: u32) -> Request {
    Request { client: IpAddr::from(client.to_be_bytes()), ..ANYBODY }
}

fn to(destination: u8, now: u64) -> Request {
    Request { destination: IpAddr::from([203, 0, 113, destination]), now: ticks(now), ..ANYBODY }
}

/// Opens `count` connections; to whom they went.
fn open(director: &mut Director, count: usize) -> Vec<Option<u8>> {
    let mut one = || {
        let server = director.choose(0, &ANYBODY)?;
        director.opened(0, server, Activity::Active);
        Some(server)
    };
    (0..count).map(|_| one()).collect()
}

/// Who gets each of 5,000 clients.
fn clients(director: &mut Director) -> Vec<Option<u8>> {
    (0..5000).map(|client| director.choose(0, &from(0x0a01_0000 + client * 7))).collect()
}

fn shares(chosen: &[Option<u8>]) -> BTreeMap<u8, usize> {
    let mut shares = BTreeMap::new();
    chosen.iter().flatten().for_each(|server| *shares.entry(*server).or_default() += 1);
    shares
}

#[test]
fn sed_expects_the_shortest_delay() {
    let mut director = director(spec(SchedulerKind::Sed), &[(1, 1), (2, 3)]);
    // 1/3, 2/3, then 1/1 against 3/3: the first of equals.
    assert_eq!(open(&mut director, 4), [2, 2, 1, 2].map(Some));
}

#[test]
fn nq_lets_nobody_wait_while_somebody_is_idle() {
    let mut director = director(spec(SchedulerKind::Nq), &[(1, 9), (2, 1), (3, 1)]);
    assert_eq!(open(&mut director, 4), [1, 2, 3, 1].map(Some));
    director.closed(0, 3, Activity::Active);
    assert_eq!(open(&mut director, 1), [Some(3)]);
}

#[test]
fn fo_stays_with_the_heaviest_until_it_is_gone() {
    let mut director = director(spec(SchedulerKind::Fo), &[(1, 5), (2, 9), (3, 9)]);
    assert_eq!(open(&mut director, 3), [2, 2, 2].map(Some));
    director.edit(2, 0, 0, 0);
    assert_eq!(open(&mut director, 1), [Some(3)]);
    director.remove(3);
    assert_eq!(open(&mut director, 1), [Some(1)]);
}

#[test]
fn ovf_flows_over_when_more_are_active_than_the_weight() {
    let mut director = director(spec(SchedulerKind::Ovf), &[(1, 1), (2, 2)]);
    assert_eq!(open(&mut director, 6), [Some(2), Some(2), Some(2), Some(1), Some(1), None]);
    director.changed(0, 2, Activity::Inactive);
    assert_eq!(open(&mut director, 1), [Some(2)]);
}

#[test]
fn dh_looks_at_the_destination_alone() {
    let mut director = director(spec(SchedulerKind::Dh), &[(1, 1), (2, 7), (3, 1)]);
    let by_address: Vec<_> = (0..=255).map(|last| director.choose(0, &to(last, 0))).collect();
    let shares = shares(&by_address);
    assert!(shares.len() == 3 && shares.values().all(|share| *share > 60), "{shares:?}");
    let other_client = Request { client: IpAddr::from([10, 9, 9, 9]), client_port: 9, ..to(7, 0) };
    assert_eq!(director.choose(0, &other_client), by_address[7]);
    director.edit(2, 0, 0, 0);
    for (last, before) in (0..=255).zip(by_address) {
        assert_eq!(director.choose(0, &to(last, 0)), before.filter(|server| *server != 2));
    }
}

#[test]
fn sh_gives_buckets_by_weight_and_falls_back_only_when_told() {
    let mut director = director(spec(SchedulerKind::Sh), &[(1, 1), (2, 3)]);
    let before = clients(&mut director);
    let shares = shares(&before);
    assert!(shares[&2] * 10 > shares[&1] * 27 && shares[&2] * 10 < shares[&1] * 33, "{shares:?}");
    let busy = Request { client_port: 4000, ..from(0x0a01_0007) };
    assert_eq!(director.choose(0, &busy), before[1], "ports do not count");
    // With three equals instead, one of them full.
    director.edit(2, 1, 1, 0);
    director.opened(0, 2, Activity::Active);
    let without: Vec<_> = clients(&mut director);
    assert!(without.contains(&None));
    director.switch(SchedulerKind::Sh, scheduler_flags::FALLBACK);
    for (fallen, stayed) in clients(&mut director).into_iter().zip(without) {
        assert_eq!(fallen, stayed.or(Some(1)));
    }
    director.switch(SchedulerKind::Sh, scheduler_flags::PORT);
    let by_port: Vec<_> =
        (1..200).map(|port| director.choose(0, &Request { client_port: port, ..ANYBODY })).collect();
    assert!(by_port.contains(&None) && by_port.contains(&Some(1)));
}

#[test]
fn mh_shares_by_weight_and_moves_little() {
    for size in [1021, 4093, 65_537] {
        let maglev = Maglev { size, canonical: false };
        let spec = ServiceSpec { maglev, ..spec(SchedulerKind::Mh) };
        let mut director = director(spec, &[(1, 1), (2, 2), (3, 3), (4, 4)]);
        let before = clients(&mut director);
        for (server, share) in shares(&before) {
            assert!(share.abs_diff(usize::from(server) * 500) < 150, "{size}: {server} has {share}");
        }
        director.edit(3, 0, 0, 0);
        for (now, then) in clients(&mut director).into_iter().zip(&before) {
            assert_eq!(now, then.filter(|server| *server != 3), "quiescing moves nobody");
        }
        director.edit(3, 3, 0, 0);
        assert_eq!(clients(&mut director), before);
        director.remove(1);
        let pairs = clients(&mut director).into_iter().zip(&before);
        let moved = pairs.filter(|(now, then)| now != *then && **then != Some(1)).count();
        assert!(moved < 5000 / 10, "{size}: {moved} clients of others moved");
        // One that comes back as quiesced has no share, whatever it weighed.
        director.add(1, 0, 0, 0);
        assert!(clients(&mut director).iter().all(Option::is_some));
    }
}

#[test]
fn mh_in_canonical_order_forgets_how_the_list_came_about() {
    let filled = |canonical, servers: &[u8]| {
        let spec = ServiceSpec { maglev: Maglev { size: 509, canonical }, ..spec(SchedulerKind::Mh) };
        let weights: Vec<_> = servers.iter().map(|server| (*server, u32::from(*server))).collect();
        clients(&mut director(spec, &weights))
    };
    let (up, down) = ([1, 2, 3, 4, 5], [5, 3, 1, 2, 4]);
    assert_eq!(filled(true, &up), filled(true, &down));
    assert_ne!(filled(false, &up), filled(false, &down));
    assert_eq!(filled(true, &down), filled(false, &up), "the newest of `up` has the lowest address");
}

#[test]
fn lblc_keeps_an_address_on_its_server_while_that_is_not_hot() {
    let mut director = director(spec(SchedulerKind::Lblc), &[(1, 2), (2, 2)]);
    let mut served = Vec::new();
    for _ in 0..5 {
        let server = director.choose(0, &to(1, 0)).unwrap();
        director.opened(0, server, Activity::Active);
        served.push(server);
    }
    // Three are more than the weight, and the other one has not half of its own.
    assert_eq!(served, [1, 1, 1, 2, 2]);
    assert_eq!(director.choose(0, &to(1, 0)), Some(2), "not hot yet");
    director.edit(2, 0, 0, 0);
    assert_eq!(director.choose(0, &to(1, 0)), Some(1));
    director.edit(2, 9, 0, 0);
    assert_eq!(director.remembered(), BTreeMap::from([(1, 1)]));
    director.remove(1);
    assert_eq!(director.choose(0, &to(1, 0)), Some(2));
    assert_eq!(director.remembered(), BTreeMap::from([(2, 1)]));
}

#[test]
fn lblcr_serves_a_busy_address_by_several_and_later_by_fewer() {
    let mut director = director(spec(SchedulerKind::Lblcr), &[(1, 2), (2, 2)]);
    let settings = Settings { lblcr_expiration: 100, ..Settings::default() };
    director.configure(settings);
    let mut served = Vec::new();
    for _ in 0..6 {
        let server = director.choose(0, &to(1, 0)).unwrap();
        director.opened(0, server, Activity::Active);
        served.push(server);
    }
    assert_eq!(served, [1, 1, 1, 2, 2, 2], "the newest member is the first of equals");
    assert_eq!(director.remembered(), BTreeMap::from([(1, 1), (2, 1)]));
    director.opened(0, 1, Activity::Active);
    // Exactly at the expiration nothing happens yet.
    assert_eq!(director.choose(0, &to(1, 100_000)), Some(2));
    assert_eq!(director.remembered().len(), 2);
    assert_eq!(director.choose(0, &to(1, 100_001)), Some(2));
    assert_eq!(director.remembered(), BTreeMap::from([(2, 1)]), "the most loaded one left");
}

/// Lengths of the longest queues when nobody leaves: two choices keep them near the average, one does not.
#[test]
fn twos_balances_better_than_chance() {
    let servers: Vec<(u8, u32)> = (1..=20).map(|server| (server, 1)).collect();
    let mut director = director(spec(SchedulerKind::Twos), &servers);
    let two = shares(&open(&mut director, 2000));
    let (longest, shortest) = (two.values().max().unwrap(), two.values().min().unwrap());
    assert!(*longest < 108 && *shortest > 92, "{two:?}");
    let mut dice = Dice::new(1);
    let mut one = [0_u32; 20];
    (0..2000).for_each(|_| one[dice.below(20) as usize] += 1);
    assert!(one.iter().max().unwrap() - one.iter().min().unwrap() > 30);
}
