//! The core as the trace replayer drives it: changes, traffic counted by hand, listings.

use super::*;
use crate::address::{Endpoint, Mac, Prefix, Protocol};
use crate::config::Neighbour;
use crate::desired::{
    Apply, DestinationAdd, DestinationDelete, DestinationEdit, DestinationSpec, Family, MarkRule, Method,
    Scheduler, SchedulerFlags, ServiceAdd, ServiceDelete, ServiceEdit, ServiceFlush, ServiceSpec,
    SettingsEdit, TimeoutsSet, Tunnel,
};
use crate::protocol::{
    ConnectionQuery, DestinationState, Request, Response, ServicePageQuery, ServiceQuery, ServiceState,
    Stats, StatsQuery, Traffic,
};
use dataplane::counters::Activity;
use dataplane::engine::SharedLimits;
use dataplane::id::WorkerId;
use dataplane::snapshot::ClientMask;
use dataplane::template::TemplateKey;

const WORKERS: u8 = 2;

struct Lab {
    management: Management,
    shared: Shared,
    now_ms: u64,
}

fn key(last: u8) -> ServiceKey {
    let address = Endpoint { ip: [192, 0, 2, last].into(), port: 80 };
    ServiceKey::Address { protocol: Protocol::Tcp, address }
}

fn server(last: u8) -> Server {
    Server { ip: [10, 0, 0, last].into(), port: Some(80) }
}

impl Lab {
    fn new() -> Self {
        let tables = Tables {
            addresses: vec!["10.0.0.254/24".parse::<Prefix>().unwrap()],
            routes: Vec::new(),
            neighbours: vec![Neighbour { address: [10, 0, 0, 1].into(), mac: Mac([4; 6]) }],
        };
        let port = Port { name: "eth0".into(), mac: [2; 6], mtu: 1500, tables: Some(tables) };
        let limits = Limits { services: 8, destinations: 32 };
        let shared = SharedLimits { workers: WORKERS.into(), services: 8, destinations: 32, templates: 64 };
        let management = Management::new(limits, Network::new(vec![port]));
        Self { management, shared: Shared::new(shared, 1), now_ms: 0 }
    }

    fn change(&mut self, change: &Change) -> Snapshot {
        self.management.change(change, &self.shared).unwrap();
        let snapshot = self.management.snapshot();
        self.management.published(&self.shared);
        snapshot
    }

    fn add_service(&mut self, last: u8, servers: &[u8]) -> Snapshot {
        let destination = servers.iter().copied().map(server).map(DestinationSpec::new).collect();
        let service = ServiceSpec { destination, ..ServiceSpec::new(key(last), Scheduler::Rr) };
        self.change(&Change::ServiceAdd(ServiceAdd { service }))
    }

    fn add(&mut self, last: u8, to: u8) {
        let destination = DestinationSpec::new(server(to));
        self.change(&Change::DestinationAdd(DestinationAdd { service: key(last), destination }));
    }

    fn delete(&mut self, last: u8, which: u8) {
        let delete = DestinationDelete { service: key(last), address: server(which) };
        self.change(&Change::DestinationDelete(delete));
    }

    /// Counts a connection with packets of 100 bytes from the client, as a worker does.
    fn traffic(&self, last: u8, to: u8, packets: u64) {
        let slot = self.management.find(key(last), server(to)).unwrap().slot;
        let table = &self.shared.destinations;
        let worker = WorkerId(to % WORKERS);
        table.opened(worker, slot, Activity::Active, false);
        (0..packets).for_each(|_| table.of(worker, slot).count_in(100));
        table.closed(worker, slot, Activity::Active, 0, 0);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now_ms += milliseconds;
        self.management.tick_rates(self.now_ms, &self.shared);
    }

    fn answer(&self, request: &Request) -> Result<Response, Fault> {
        let view = View { shared: &self.shared, tables: &[], now: Ticks(0) };
        self.management.answer(request, &view)
    }

    fn services(&self) -> Vec<ServiceState> {
        match self.answer(&Request::ServiceList(ServicePageQuery::default())).unwrap() {
            Response::Services(page) => page.services,
            other => panic!("{other:?}"),
        }
    }

    fn service(&self, last: u8) -> ServiceState {
        self.services().into_iter().find(|service| service.key == key(last)).unwrap()
    }

    fn destination(&self, last: u8, which: u8) -> DestinationState {
        let of_service = self.service(last).destinations.into_iter();
        of_service.into_iter().find(|held| held.address.ip == server(which).ip).unwrap()
    }

    fn stats(&self) -> Stats {
        match self.answer(&Request::Stats(StatsQuery::default())).unwrap() {
            Response::Stats(stats) => *stats,
            other => panic!("{other:?}"),
        }
    }

    fn zero(&mut self, service: Option<ServiceKey>) -> u64 {
        self.management.zero(CountersZero { service }, &self.shared).unwrap().services
    }
}

fn counted(traffic: Traffic) -> (u64, u64, u64) {
    (traffic.connections, traffic.in_packets, traffic.in_bytes)
}

#[test]
fn a_service_counts_what_its_removed_destinations_counted() {
    let mut lab = Lab::new();
    lab.add_service(1, &[1, 2]);
    lab.add_service(2, &[1]);
    lab.traffic(1, 1, 3);
    lab.traffic(1, 2, 5);
    lab.traffic(2, 1, 7);
    assert_eq!(counted(lab.service(1).traffic), (2, 8, 800));
    assert_eq!(counted(lab.destination(1, 1).traffic), (1, 3, 300));
    assert_eq!(counted(lab.stats().totals), (3, 15, 1_500));

    lab.delete(1, 1);
    assert_eq!(counted(lab.service(1).traffic), (2, 8, 800));
    assert_eq!(counted(lab.stats().totals), (3, 15, 1_500));
    lab.add(1, 1);
    assert_eq!(counted(lab.destination(1, 1).traffic), (1, 3, 300), "it comes back with its counts");
    assert_eq!(counted(lab.service(1).traffic), (2, 8, 800));
    lab.traffic(1, 1, 1);
    assert_eq!(counted(lab.destination(1, 1).traffic), (2, 4, 400));
    assert_eq!(counted(lab.service(1).traffic), (3, 9, 900));

    lab.change(&Change::ServiceDelete(ServiceDelete { service: key(1) }));
    assert_eq!(counted(lab.stats().totals), (4, 16, 1_600), "the director forgets nothing");
    lab.add_service(1, &[1]);
    assert_eq!(counted(lab.service(1).traffic), (0, 0, 0), "another service, as in the kernel");
    assert_eq!(counted(lab.destination(1, 1).traffic), (0, 0, 0));
    lab.change(&Change::ServiceFlush(ServiceFlush {}));
    assert_eq!(counted(lab.stats().totals), (4, 16, 1_600));
}

#[test]
fn a_new_order_of_the_same_destinations_changes_no_count() {
    let mut lab = Lab::new();
    lab.add_service(1, &[1, 2, 3]);
    lab.traffic(1, 1, 3);
    lab.traffic(1, 3, 4);
    let mut spec = lab.management.desired().to_specs();
    spec[0].destination.reverse();
    lab.change(&Change::Apply(Apply { services: spec, ..Apply::default() }));
    assert_eq!(counted(lab.service(1).traffic), (2, 7, 700));
    assert_eq!(counted(lab.destination(1, 3).traffic), (1, 4, 400));
    assert_eq!(counted(lab.stats().totals), (2, 7, 700));
}

#[test]
fn zero_is_a_point_in_time_and_rates_start_at_0() {
    let mut lab = Lab::new();
    lab.add_service(1, &[1]);
    lab.add_service(2, &[2]);
    lab.pass(0);
    lab.traffic(1, 1, 800);
    lab.traffic(2, 2, 800);
    lab.pass(2_000);
    // 800 packets in 2 s, and a quarter of the way.
    assert_eq!(lab.service(1).traffic.in_packets_per_s, 100);
    assert_eq!(lab.destination(1, 1).traffic.in_bytes_per_s, 10_000);
    assert_eq!(lab.stats().totals.in_packets_per_s, 200);

    assert_eq!(lab.zero(Some(key(1))), 1);
    assert_eq!(lab.service(1).traffic, Traffic::default());
    assert_eq!(lab.destination(1, 1).traffic, Traffic::default());
    assert_eq!(counted(lab.service(2).traffic), (1, 800, 80_000));
    assert_eq!(counted(lab.stats().totals), (2, 1_600, 160_000));
    lab.traffic(1, 1, 2);
    assert_eq!(counted(lab.service(1).traffic), (1, 2, 200));

    assert_eq!(lab.zero(None), 2);
    assert_eq!(lab.stats().totals, Traffic::default());
    assert!(lab.services().iter().all(|service| service.traffic == Traffic::default()));
    lab.traffic(2, 2, 1);
    assert_eq!(counted(lab.stats().totals), (1, 1, 100));
    let missing = lab.management.zero(CountersZero { service: Some(key(9)) }, &lab.shared).unwrap_err();
    assert_eq!((missing.name, missing.errno), ("no_service", Some("ESRCH")));
}

#[test]
fn rates_rise_while_packets_come_and_fall_after_a_pause() {
    let mut lab = Lab::new();
    lab.add_service(1, &[1]);
    lab.pass(0);
    for _ in 0..20 {
        lab.traffic(1, 1, 200);
        lab.pass(2_000);
    }
    let rate = lab.service(1).traffic;
    assert!((98..=100).contains(&rate.in_packets_per_s), "{rate:?}");
    assert!((9_800..=10_000).contains(&rate.in_bytes_per_s), "{rate:?}");
    assert_eq!(rate.connections_per_s, 0, "half a connection a second is rounded as in the kernel");
    lab.pass(1_999);
    assert_eq!(lab.service(1).traffic, rate, "not yet");
    lab.pass(1_000_000);
    assert_eq!(lab.service(1).traffic.in_packets_per_s, 0);
}

#[test]
fn changes_reach_the_snapshot() {
    let mut lab = Lab::new();
    lab.change(&Change::TimeoutsSet(TimeoutsSet { tcp: Some(7), tcp_fin: Some(0), udp: None }));
    let edit = SettingsEdit::default().with("expire_nodest_conn", "1").unwrap();
    let snapshot = lab.change(&Change::SettingsSet(edit));
    assert_eq!(snapshot.timeouts, Timeouts { tcp: 7_000, ..Timeouts::default() });
    assert!(snapshot.settings.expire_nodest_conn);
    let snapshot = lab.add_service(1, &[1, 2]);
    assert_eq!(snapshot.index.len(), 1);
    assert_eq!(lab.destination(1, 1).next_hop, "04:04:04:04:04:04 via eth0");
    assert_eq!(lab.destination(1, 2).next_hop, "unresolved");
    assert!(!lab.management.changed());
}

#[test]
fn routes_and_sources_are_there_once_a_destination_needs_them() {
    let mut lab = Lab::new();
    assert!(lab.add_service(1, &[1]).routes.is_empty(), "direct routing needs none");
    let method = Method::Tunnel(Tunnel::default());
    let destination = DestinationSpec { method, ..DestinationSpec::new(server(2)) };
    let add = Change::DestinationAdd(DestinationAdd { service: key(1), destination });
    let snapshot = lab.change(&add);
    let route = snapshot.routes.find(server(2).ip).unwrap();
    assert_eq!(route.source, Some([10, 0, 0, 254].into()));
    let slot = lab.management.find(key(1), server(2)).unwrap().slot;
    assert_eq!(lab.management.way(slot).unwrap().source, route.source);
    assert_eq!(
        snapshot.destination(slot).unwrap().method,
        dataplane::snapshot::Method::Tunnel(dataplane::snapshot::Tunnel::default())
    );

    let address = || "10.0.0.253/24".parse::<Prefix>().unwrap();
    let tables = Tables { addresses: vec![address()], ..Tables::default() };
    let port = Port { name: "eth0".into(), mac: [2; 6], mtu: 1500, tables: Some(tables) };
    *lab.management.network_mut() = Network::new(vec![port]);
    lab.management.follow();
    let snapshot = lab.management.snapshot();
    assert_eq!(snapshot.routes.find(server(2).ip).unwrap().source, Some(address().ip));
}

#[test]
fn marks_reach_the_snapshot_and_a_rules_port_must_be_there() {
    let mut lab = Lab::new();
    let rule = |port: &str| MarkRule {
        port: Some(port.to_owned()),
        destination: Some("192.0.2.0/24".parse().unwrap()),
        ..MarkRule::all(3)
    };
    let before = lab.management.desired().revision();
    let refused = lab.management.change(&Change::MarkRuleAdd(rule("eth7")), &lab.shared).unwrap_err();
    assert_eq!((refused.errno, lab.management.desired().revision()), (Some("ENODEV"), before));
    let snapshot = lab.change(&Change::MarkRuleAdd(rule("eth0")));
    assert_eq!(snapshot.marks.rules().len(), 1);

    let marked = ServiceKey::Mark { mark: 3.try_into().unwrap(), family: Family::Ipv4 };
    let service = ServiceSpec {
        destination: vec![DestinationSpec::new(server(1))],
        ..ServiceSpec::new(marked, Scheduler::Rr)
    };
    let snapshot = lab.change(&Change::ServiceAdd(ServiceAdd { service }));
    let key = dataplane::snapshot::ServiceKey::Mark { mark: 3, v6: false };
    assert!(snapshot.index.get(&key).is_some());
    assert_eq!(lab.services()[0].key, marked);
    let snapshot = lab.change(&Change::MarkRuleDelete(rule("eth0")));
    assert!(snapshot.marks.rules().is_empty());
}

#[test]
fn a_clamp_reaches_the_workers_and_the_listing_and_ipvsadms_edits_leave_it() {
    let mut lab = Lab::new();
    lab.add_service(1, &[1]);
    let nothing = ServiceEdit::of(key(1));
    let clamp = |lab: &Lab, snapshot: &Snapshot| {
        let service = snapshot.services.iter().flatten().next().unwrap().mss_clamp;
        assert_eq!(lab.services()[0].mss_clamp, service);
        service
    };
    let snapshot = lab.change(&Change::ServiceEdit(ServiceEdit { mss_clamp: Some(1440), ..nothing }));
    assert_eq!(clamp(&lab, &snapshot), Some(1440));
    // What ipvsadm -E says is all of what it knows.
    let theirs = ServiceEdit {
        scheduler: Some(Scheduler::Wlc),
        persistent: Some(60),
        netmask: Some("255.255.255.255".parse().unwrap()),
        one_packet: Some(false),
        scheduler_flags: Some(SchedulerFlags::default()),
        ..nothing
    };
    let snapshot = lab.change(&Change::ServiceEdit(theirs));
    assert_eq!(clamp(&lab, &snapshot), Some(1440));
    let snapshot = lab.change(&Change::ServiceEdit(ServiceEdit { mss_clamp: Some(0), ..nothing }));
    assert_eq!(clamp(&lab, &snapshot), None);
}

#[test]
fn templates_are_listed_as_the_kernel_lists_them() {
    let mut lab = Lab::new();
    lab.add_service(1, &[1]);
    let marked = ServiceKey::Mark { mark: 3.try_into().unwrap(), family: Family::Ipv4 };
    let service = ServiceSpec {
        destination: vec![DestinationSpec::new(server(2))],
        ..ServiceSpec::new(marked, Scheduler::Rr)
    };
    lab.change(&Change::ServiceAdd(ServiceAdd { service }));
    let templates = &lab.shared.templates;
    let client = std::net::Ipv4Addr::new(10, 1, 0, 5);
    let insert = |protocol, virtual_address: [u8; 4], port, of, to| {
        let key = TemplateKey::new(protocol, client, ClientMask::HOST_V4, virtual_address.into(), port);
        let slot = lab.management.find(of, server(to)).unwrap().slot;
        templates.insert(&key, slot, 300_000, Ticks(0)).unwrap().0
    };
    let gone = insert(6, [192, 0, 2, 1], 80, key(1), 1);
    insert(0, [0, 0, 0, 3], 0, marked, 2);
    let list = |service| {
        let query = ConnectionQuery { service, ..ConnectionQuery::default() };
        match lab.answer(&Request::ConnectionList(query)).unwrap() {
            Response::Connections(page) => page.connections,
            other => panic!("{other:?}"),
        }
    };
    let shown = |entries: Vec<crate::protocol::ConnectionEntry>| -> Vec<String> {
        let one = |entry: crate::protocol::ConnectionEntry| {
            let mark = entry.mark.map_or_else(String::new, |mark| format!(" mark {mark}"));
            let (protocol, client) = (entry.protocol, entry.client);
            format!("{protocol} {client} {} {}{mark}", entry.virtual_address, entry.destination)
        };
        entries.into_iter().map(one).collect()
    };
    let of_mark = "ip 10.1.0.5:0 0.0.0.3:0 10.0.0.2:0 mark 3";
    assert_eq!(shown(list(Some(key(1)))), ["tcp 10.1.0.5:0 192.0.2.1:80 10.0.0.1:80"]);
    assert_eq!(shown(list(Some(marked))), [of_mark]);
    templates.invalidate(gone);
    let all = ["tcp 10.1.0.5:0 192.0.2.1:65535 10.0.0.1:65535", of_mark];
    assert_eq!(shown(list(None)), all);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut lab = Lab::new();
    lab.add_service(1, &[1]);
    lab.traffic(1, 1, 1);
    let before = (lab.management.desired().to_specs(), lab.service(1));
    let refused = [
        Change::ServiceAdd(ServiceAdd { service: ServiceSpec::new(key(1), Scheduler::Rr) }),
        Change::ServiceDelete(ServiceDelete { service: key(2) }),
        Change::DestinationEdit(DestinationEdit {
            weight: Some(1),
            ..DestinationEdit::of(key(1), server(9))
        }),
    ];
    for change in &refused {
        let fault = lab.management.change(change, &lab.shared).unwrap_err();
        assert!(fault.errno.is_some(), "{change}: {fault}");
        assert_eq!((lab.management.desired().to_specs(), lab.service(1)), before);
        assert!(!lab.management.changed());
    }
    for request in [Request::Status, Request::EventsList(crate::protocol::EventQuery::default())] {
        assert_eq!(lab.answer(&request).unwrap_err().kind, FaultKind::Internal);
    }
    let cursor = ConnectionQuery { cursor: Some("x".into()), ..ConnectionQuery::default() };
    assert!(lab.answer(&Request::ConnectionList(cursor)).is_err());
    assert!(lab.answer(&Request::DestinationList(ServiceQuery { service: key(3) })).is_err());
}

#[test]
fn a_dry_run_makes_nothing() {
    let mut lab = Lab::new();
    let services = vec![ServiceSpec::new(key(1), Scheduler::Rr)];
    let apply = Change::Apply(Apply { services, dry_run: true, ..Apply::default() });
    let changed = lab.management.change(&apply, &lab.shared).unwrap();
    assert!(changed.changed && changed.dry_run && changed.revision == 0);
    assert_eq!(lab.services(), []);
}

/// What the counters are held against: lists of what was counted, the least that can be right.
#[derive(Debug, Default)]
struct Model {
    /// By service: packets since its zero, and those of each destination that is there or in the trash.
    services: std::collections::BTreeMap<u8, u64>,
    destinations: std::collections::BTreeMap<(u8, u8), (bool, u64)>,
    total: u64,
}

impl Model {
    fn there(&self, service: u8, which: u8) -> bool {
        self.destinations.get(&(service, which)).is_some_and(|(there, _)| *there)
    }

    fn step(&mut self, lab: &mut Lab, step: Step) {
        let Step { what, service, which, packets } = step;
        let known = self.services.contains_key(&service);
        match what {
            0 if !known => {
                lab.add_service(service, &[]);
                self.services.insert(service, 0);
                // What left with the old service is another's when it comes back.
                self.destinations.retain(|(of, _), _| *of != service);
            }
            1 if known => {
                lab.change(&Change::ServiceDelete(ServiceDelete { service: key(service) }));
                self.services.remove(&service);
                self.destinations.retain(|(of, _), _| *of != service);
            }
            2 | 3 if known && !self.there(service, which) => {
                lab.add(service, which);
                self.destinations.entry((service, which)).or_insert((true, 0)).0 = true;
            }
            4 if self.there(service, which) => {
                lab.delete(service, which);
                self.destinations.entry((service, which)).or_default().0 = false;
            }
            5 => {
                lab.zero(known.then(|| key(service)));
                let zeroed = |of: u8| !known || of == service;
                self.services.iter_mut().filter(|(of, _)| zeroed(**of)).for_each(|(_, count)| *count = 0);
                let there =
                    self.destinations.iter_mut().filter(|((of, _), (there, _))| zeroed(*of) && *there);
                there.for_each(|(_, (_, count))| *count = 0);
                self.total *= u64::from(known);
            }
            _ if self.there(service, which) => {
                lab.traffic(service, which, packets);
                self.total += packets;
                *self.services.entry(service).or_default() += packets;
                self.destinations.entry((service, which)).or_default().1 += packets;
            }
            _ => {}
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Step {
    what: u8,
    service: u8,
    which: u8,
    packets: u64,
}

fn any_step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::strategy::Strategy as _;
    (0_u8..10, 1_u8..4, 1_u8..4, 1_u64..9).prop_map(|(what, service, which, packets)| Step {
        what,
        service,
        which,
        packets,
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn counts_agree_with_the_model(steps in proptest::collection::vec(any_step(), 0..80)) {
        let mut lab = Lab::new();
        let mut model = Model::default();
        for step in steps {
            model.step(&mut lab, step);
            lab.pass(700);
            for service in lab.services() {
                let of = (1..4).find(|last| key(*last) == service.key).unwrap();
                proptest::prop_assert_eq!(service.traffic.in_packets, model.services[&of], "{:?}", step);
                for held in &service.destinations {
                    let which = (1..4).find(|last| server(*last).ip == held.address.ip).unwrap();
                    let (there, packets) = model.destinations[&(of, which)];
                    proptest::prop_assert!(there);
                    proptest::prop_assert_eq!(held.traffic.in_packets, packets, "{:?}", step);
                }
            }
            proptest::prop_assert_eq!(lab.stats().totals.in_packets, model.total, "{:?}", step);
        }
    }
}
