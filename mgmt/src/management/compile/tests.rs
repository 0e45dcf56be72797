//! Plans become snapshots: what is in them, what a refused one leaves, and how long one takes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dataplane::snapshot::NextHop;
use dataplane::snapshot::editor::Limits;

use super::super::network::{Port, Tables};
use super::*;
use crate::address::{Endpoint, Mac, Protocol, Server};
use crate::config::Neighbour;
use crate::desired::{
    Apply, Bounds, Desired, DestinationAdd, DestinationDelete, DestinationEdit, Refusal, Scheduler,
    ServiceAdd, ServiceDelete,
};

type Spec = desired::ServiceSpec;

/// Servers whose address ends in 1 to 9 have a MAC address, which ends the same.
fn network() -> Network {
    let neighbours = (0..40)
        .flat_map(|high| (0..=255).flat_map(move |low| (1..10).map(move |last| (high, low, last))))
        .map(|(high, low, last)| Neighbour {
            address: [172, high, low, last].into(),
            mac: Mac([2, 0, 0, 0, 0, last]),
        })
        .collect();
    let tables = Tables { neighbours, ..Tables::default() };
    Network::new(vec![Port { name: "eth0".into(), mac: [2; 6], mtu: 1500, tables: Some(tables) }])
}

fn next_hop(server: IpAddr) -> NextHop {
    let IpAddr::V4(server) = server else { return NextHop::NoRoute };
    NextHop::Resolved { destination_mac: [2, 0, 0, 0, 0, server.octets()[3]], source_mac: [2; 6] }
}

struct Pair {
    desired: Desired,
    compiler: Compiler,
    network: Network,
}

impl Pair {
    fn new(services: u32, destinations: u32) -> Self {
        let bounds = Bounds { services: services as usize, destinations: destinations as usize };
        let limits = Limits { services, destinations };
        Self {
            desired: Desired::new(bounds),
            compiler: Compiler::new(Editor::new(limits, Arc::default())),
            network: network(),
        }
    }

    fn make(&mut self, change: &Change) -> Result<Snapshot, String> {
        let plan = self.desired.prepare(change).map_err(|refusal: Refusal| refusal.to_string())?;
        self.compiler.apply(&plan, &self.network).map_err(|error| error.to_string())?;
        self.desired.commit(&plan);
        Ok(self.compiler.publish())
    }

    fn slot(&self, service: ServiceKey, destination: &Destination) -> Option<DestinationSlot> {
        let server = destination.server;
        let found = self.compiler.lookup().find_destination(&key_of(service), server.ip, server.port);
        found.map(|found| found.slot)
    }

    /// The snapshot says what the desired state says.
    fn agree(&self, snapshot: &Snapshot) {
        assert_eq!(snapshot.index.len(), self.desired.counts().0);
        for service in self.desired.services() {
            let slot = snapshot.index.get(&key_of(service.key)).unwrap();
            let view = snapshot.service(slot).unwrap();
            assert_eq!(view.scheduler, service.scheduler);
            let live: Vec<_> = view.candidates.iter().filter(|candidate| !candidate.removed).collect();
            assert_eq!(live.len(), service.destinations.len());
            for (candidate, destination) in live.into_iter().zip(&service.destinations) {
                assert_eq!(self.slot(service.key, destination), Some(candidate.slot));
                assert_eq!(candidate.weight, destination.weight);
                let view = snapshot.destination(candidate.slot).unwrap();
                assert!(view.available);
                assert_eq!(view.next_hop, next_hop(destination.server.ip));
                assert!(self.compiler.way(candidate.slot).is_some());
                assert_eq!((view.server, view.server_port), (destination.server.ip, destination.server.port));
            }
        }
    }
}

fn specs(services: u16, each: u8) -> Vec<Spec> {
    let one = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let address = |last: u8| Server { ip: [172, high, low, last].into(), port: None };
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: Endpoint { ip: [10, high, low, 1].into(), port: 80 },
        };
        Spec {
            persistent: u32::from(number % 2),
            destination: (1..=each).map(address).map(desired::DestinationSpec::new).collect(),
            ..Spec::new(key, Scheduler::Wrr)
        }
    };
    (0..services).map(one).collect()
}

fn apply(services: Vec<Spec>) -> Change {
    Change::Apply(Apply { services, ..Apply::default() })
}

#[test]
fn snapshots_say_what_the_desired_state_says_through_every_kind_of_change() {
    let mut pair = Pair::new(64, 256);
    let all = specs(6, 3);
    let snapshot = pair.make(&apply(all.clone())).unwrap();
    pair.agree(&snapshot);
    let key = all[2].key;
    let address = all[2].destination[0].address;
    let first_slot = pair.slot(key, &pair.desired.service(key).unwrap().destinations[2]).unwrap();
    let edit =
        DestinationEdit { weight: Some(0), upper_threshold: Some(9), ..DestinationEdit::of(key, address) };
    let changes = [
        Change::DestinationEdit(edit),
        Change::DestinationDelete(DestinationDelete { service: key, address }),
        Change::DestinationAdd(DestinationAdd { service: key, destination: all[2].destination[0] }),
        Change::ServiceDelete(ServiceDelete { service: all[0].key }),
        apply(all[1..5].iter().rev().cloned().collect()),
        apply(all.clone()),
    ];
    for (revision, change) in (snapshot.revision + 1..).zip(&changes) {
        let snapshot = pair.make(change).unwrap();
        assert_eq!(snapshot.revision, revision, "{change}");
        pair.agree(&snapshot);
    }
    let held = pair.desired.service(key).unwrap();
    let again = held.destinations.iter().find(|held| held.server.ip == address.ip).unwrap();
    assert_eq!(pair.slot(key, again), Some(first_slot), "a destination that comes back has its slot");
    // The order of an applied set is the set's, whatever was before.
    let mut turned = all;
    turned[3].destination.reverse();
    let snapshot = pair.make(&apply(turned)).unwrap();
    pair.agree(&snapshot);
}

#[test]
fn a_plan_that_does_not_fit_changes_nothing() {
    // Room in the desired state but none in the slots, which removed destinations still hold.
    let mut pair = Pair::new(4, 4);
    let all = specs(2, 2);
    let snapshot = pair.make(&apply(all.clone())).unwrap();
    pair.agree(&snapshot);
    pair.make(&apply(Vec::new())).unwrap();
    let mut others = specs(4, 2);
    others.drain(..2);
    let refused = pair.make(&apply(others.clone())).unwrap_err();
    assert!(refused.contains("recently removed"), "{refused}");
    assert_eq!(pair.desired.counts(), (0, 0));
    let one = Change::ServiceAdd(ServiceAdd { service: others[0].clone() });
    assert!(pair.make(&one).is_err());
    assert!(pair.compiler.lookup().service(&key_of(others[0].key)).is_none(), "half a service is left");
    assert!(pair.compiler.ways.is_empty());
    let snapshot = pair.make(&apply(all)).unwrap();
    pair.agree(&snapshot);
}

#[test]
fn destinations_that_go_take_their_ways_along() {
    let mut pair = Pair::new(16, 64);
    pair.make(&apply(specs(3, 2))).unwrap();
    assert_eq!(pair.compiler.ways.len(), 6);
    let service = specs(3, 2)[0].key;
    pair.make(&Change::ServiceDelete(ServiceDelete { service })).unwrap();
    assert_eq!(pair.compiler.ways.len(), 4);
    pair.make(&apply(Vec::new())).unwrap();
    assert!(pair.compiler.ways.is_empty() && pair.compiler.hops.is_empty());
}

/// The law is 1 ms for a change at 10,000 services of 5 destinations; a debug build gets ten times that.
#[test]
fn one_change_among_ten_thousand_services_is_no_rebuild() {
    let mut pair = Pair::new(16_384, 65_536);
    let all = specs(10_000, 5);
    let start = Instant::now();
    pair.make(&apply(all.clone())).unwrap();
    let whole = start.elapsed();
    let mut times = Vec::new();
    for (round, spec) in all.iter().step_by(50).enumerate() {
        let service = spec.key;
        let address = spec.destination[round % 5].address;
        let weight = DestinationEdit { weight: Some(2), ..DestinationEdit::of(service, address) };
        let changes = [
            Change::DestinationEdit(weight),
            Change::DestinationDelete(DestinationDelete { service, address }),
            Change::DestinationAdd(DestinationAdd { service, destination: spec.destination[round % 5] }),
            Change::ServiceDelete(ServiceDelete { service }),
            Change::ServiceAdd(ServiceAdd { service: spec.clone() }),
        ];
        for (kind, change) in changes.iter().enumerate() {
            let start = Instant::now();
            pair.make(change).unwrap();
            times.push((start.elapsed(), kind));
        }
    }
    let kinds = ["weight", "remove destination", "add destination", "remove service", "add service with 5"];
    println!("10,000 services x 5: applied as a whole in {whole:?}");
    for (kind, name) in kinds.iter().enumerate() {
        let mut of_kind: Vec<Duration> =
            times.iter().filter(|(_, k)| *k == kind).map(|(time, _)| *time).collect();
        of_kind.sort();
        println!("{name}: p50 {:?} p99 {:?} max {:?}", of_kind[100], of_kind[198], of_kind[199]);
    }
    let mut all: Vec<Duration> = times.iter().map(|(time, _)| *time).collect();
    all.sort();
    let bound = Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 1 });
    assert!(all[all.len() * 99 / 100] < bound, "p99 {:?}", all[all.len() * 99 / 100]);
}
