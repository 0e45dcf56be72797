//! Engines of 1, 2 and 4 workers on threads of their own, over one snapshot and the counts they share, while the publisher edits:
//! every scheduler, random traffic, an accelerated clock.
//!
//! What the kernel guarantees of thresholds: a destination is overloaded from the new connection on with which active and inactive ones
//! reach the upper threshold; on several processors some more may slip in before that is seen. What is promised here: a scheduler's
//! choice never opens a connection above the upper threshold that its snapshot has, whoever chooses at the same time; after a
//! threshold was lowered, that holds once every worker has passed the change. Not counted are, as in the kernel, connections by a
//! template and by lblc's and lblcr's memory. Of persistence: while a template lives and its server is there for all workers, no new
//! connection of the client goes elsewhere.
//!
//! `UVS_CONCURRENT_SECONDS` says how long all of it runs (default 9), `UVS_SEED` where the random numbers begin. Longer:
//! `UVS_CONCURRENT_SECONDS=600 UVS_SEED=$RANDOM cargo nextest run -p dataplane --no-default-features concurrent`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test figures are small, helpers may fail"
)]

mod common;

use common::{MAC, MTU, PORT, server_mac};
use dataplane::bench::{Frame, MemorySink, Outcome};
use dataplane::connection::HashKey;
use dataplane::counters::Counter;
use dataplane::engine::{Engine, EngineConfig, Redirected, Shared, SharedLimits};
use dataplane::id::{DestinationSlot, ServiceSlot, Ticks, WorkerId};
use dataplane::packet::{HeapPacket, tcp};
use dataplane::rcu::{Publisher, Reader, channel};
use dataplane::snapshot::editor::{Cursors, DestinationSpec, Editor, Limits, ServiceSpec};
use dataplane::snapshot::{ClientMask, NextHop, Persistence, PortView, SchedulerKind, ServiceKey, Snapshot};
use dataplane::steering::Steering;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 132, 254));
/// With thresholds.
const BOUNDED: ServiceKey = ServiceKey::Address { protocol: 6, address: VIP, port: 80 };
/// With persistence, each client's templates alive to the end.
const STICKY: ServiceKey = ServiceKey::Address { protocol: 6, address: VIP, port: 81 };
const NAMES: ServiceKey = ServiceKey::Address { protocol: 17, address: VIP, port: 53 };
const SERVERS: u8 = 5;
const UPPER: std::ops::Range<u32> = 3..12;
const CLIENTS: u32 = 60;
const DESTINATIONS: usize = 16;

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % u64::from(bound.max(1))) as u32
    }
}

/// Where a client's newest connection went, and how often that server had been removed by then.
type Homes = Mutex<HashMap<u32, (u8, u32)>>;

struct World {
    shared: Arc<Shared>,
    now: AtomicU32,
    end: AtomicBool,
    rings: Vec<Mutex<Vec<Redirected<HeapPacket>>>>,
    homes: Homes,
    /// By server: twice how often it was removed from the persistent service; odd until all workers know that it is back.
    removals: [AtomicU32; SERVERS as usize],
    /// No threshold holds for these schedulers' choices.
    may_exceed: bool,
    label: String,
}

struct Positions<'a>(&'a Shared);

impl Cursors for Positions<'_> {
    fn stands_on(&self, service: ServiceSlot, position: u32) -> bool {
        self.0.cursor_on(service, position)
    }
}

/// One worker: its engine, the clients' packets it receives, and what is checked of those it sends.
struct Worker<'a> {
    world: &'a World,
    engine: Engine<HeapPacket>,
    sink: MemorySink,
    random: Random,
    number: usize,
    /// Packets are of new connections, so that no port is used twice.
    next_port: u32,
}

impl Worker<'_> {
    fn client(&mut self) -> (u32, Frame) {
        let client = self.random.below(CLIENTS);
        let workers = self.world.rings.len() as u32;
        self.next_port += 1;
        let port = 1024 + (self.next_port * workers + self.number as u32) % 64_000;
        let source = SocketAddr::from(([10, 1, 0, client as u8], port as u16));
        (client, Frame::new(source, SocketAddr::new(VIP, 80)))
    }

    fn packets(&mut self) -> Vec<HeapPacket> {
        let mut frames = Vec::new();
        for _ in 0..1 + self.random.below(8) {
            let (_, mut frame) = self.client();
            let service = [80, 81, 53][self.random.below(3) as usize];
            frame.destination.set_port(service);
            if service == 53 {
                frames.push(frame.udp());
                continue;
            }
            frames.push(frame.clone().tcp(tcp::SYN));
            if service == 81 {
                // A template whose connections all ended half open goes with them, as in the kernel.
                frames.push(frame.clone().tcp(tcp::ACK));
            }
            for flags in [tcp::ACK, tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST] {
                if self.random.below(2) == 0 {
                    frames.push(frame.clone().tcp(flags));
                }
            }
        }
        frames.iter().map(|frame| HeapPacket::new(frame)).collect()
    }

    /// Removals as they were before the snapshot was read: what is removed meanwhile counts as removed after the burst.
    fn removed(&self) -> [u32; SERVERS as usize] {
        self.world.removals.each_ref().map(|removals| removals.load(SeqCst) & !1)
    }

    fn turn(&mut self, snapshot: &Snapshot, removed: [u32; SERVERS as usize], burst: Vec<HeapPacket>) {
        let now = Ticks(self.world.now.load(SeqCst));
        let arrived = std::mem::take(&mut *self.world.rings[self.number].lock().unwrap());
        self.engine.process_redirected(arrived.into_iter(), snapshot, now, &mut self.sink);
        self.engine.process(PORT, burst.into_iter(), snapshot, now, &mut self.sink);
        self.engine.turn(snapshot, now, &mut self.sink);
        self.sink.flush(&self.world.shared.counters[self.number]);
        for (to, ring) in self.sink.redirected.iter_mut().enumerate() {
            self.world.rings[to].lock().unwrap().extend(ring.drain(..));
        }
        for outcome in std::mem::take(&mut self.sink.outcomes) {
            if let Outcome::Transmitted(_, frame) = outcome {
                self.check(&frame, &removed);
            }
        }
    }

    /// A new connection of a persistent client is where the one before was, unless that server was removed meanwhile.
    fn check(&self, frame: &[u8], removed: &[u32]) {
        let sticky = frame[23] == 6 && frame[36..38] == [0, 81] && frame[47] == tcp::SYN;
        if !sticky {
            return;
        }
        let (client, server) = (u32::from(frame[29]), frame[5]);
        let index = |server: u8| usize::from(server - 1);
        let removals = |server: u8| self.world.removals[index(server)].load(SeqCst);
        let mut homes = self.world.homes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if removals(server) > removed[index(server)] {
            // Another worker may have been ahead with a later connection.
            return;
        }
        let home = homes.insert(client, (server, removed[index(server)]));
        drop(homes);
        if let Some((before, removed)) = home.filter(|(before, _)| *before != server) {
            let gone = removals(before) > removed;
            assert!(gone, "{}: client {client} went from {before} to {server}", self.world.label);
        }
    }

    fn run(mut self, reader: &mut Reader<Snapshot>) -> Self {
        let _end = EndOnPanic(self.world);
        while !self.world.end.load(SeqCst) {
            let burst = self.packets();
            let removed = self.removed();
            reader.with(|snapshot| self.turn(snapshot, removed, burst));
            let totals = (0..DESTINATIONS as u32).map(|slot| self.total(DestinationSlot(slot)));
            let most = totals.max().unwrap_or(0);
            assert!(
                self.world.may_exceed || most < UPPER.end,
                "{}: {most} connections of at most {}",
                self.world.label,
                UPPER.end - 1
            );
        }
        self
    }

    /// Connections of a destination with a threshold; others are not counted together.
    fn total(&self, slot: DestinationSlot) -> u32 {
        if slot.0 < u32::from(SERVERS) {
            self.world.shared.destinations.shared(slot).total.load(SeqCst)
        } else {
            0
        }
    }
}

/// A worker that failed ends the others, too.
struct EndOnPanic<'a>(&'a World);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        self.0.end.store(true, SeqCst);
    }
}

fn address(server: u8) -> IpAddr {
    IpAddr::from([192, 168, 132, server])
}

/// The management thread.
struct Management<'a> {
    world: &'a World,
    editor: Editor,
    publisher: Publisher<Snapshot>,
    random: Random,
    milliseconds: u64,
    kind: SchedulerKind,
}

impl Management<'_> {
    fn publish(&mut self) {
        let snapshot = self.editor.publish();
        let revision = loop {
            if self.publisher.retired() < dataplane::rcu::MAXIMUM_RETIRED {
                break self.publisher.publish(snapshot).unwrap();
            }
            if self.world.end.load(SeqCst) {
                return;
            }
            self.publisher.reclaim();
            std::thread::yield_now();
        };
        for change in self.editor.take_threshold_changes() {
            change.apply(&self.world.shared.destinations);
        }
        let _ = self.publisher.passed(revision);
    }

    /// Publishes, and waits for all workers to have seen it.
    fn publish_and_wait(&mut self) {
        self.publish();
        let revision = self.publisher.revision();
        while !self.publisher.passed(revision) && !self.world.end.load(SeqCst) {
            std::thread::yield_now();
        }
    }

    fn spec(&mut self, key: &ServiceKey, server: u8) -> DestinationSpec {
        let weight = [0, 1, 1, 3, 7][self.random.below(5) as usize];
        let upper = UPPER.start + self.random.below(UPPER.end - UPPER.start - 1);
        let lower = self.random.below(upper);
        let bounded = *key == BOUNDED;
        let (upper, lower) = if bounded { (upper, lower) } else { (0, 0) };
        DestinationSpec { upper, lower, ..DestinationSpec::new(address(server), key.port(), weight) }
    }

    fn edit(&mut self) {
        let key = [BOUNDED, STICKY, NAMES][self.random.below(3) as usize];
        let server = 1 + self.random.below(SERVERS.into()) as u8;
        let present = self.editor.find_destination(&key, address(server), key.port());
        match (self.random.below(8), present) {
            (0, _) => {
                let kind = if self.random.below(2) == 0 { self.kind } else { SchedulerKind::Wlc };
                let (_, spec) = self.editor.services().find(|(_, spec)| spec.key == key).unwrap();
                let spec = ServiceSpec { scheduler: kind, ..*spec };
                self.editor.edit_service(spec).unwrap();
            }
            (1, Some(_)) if key == STICKY => {
                let removals = &self.world.removals[usize::from(server - 1)];
                removals.fetch_add(1, SeqCst);
                self.editor.remove_destination(&key, address(server), key.port()).unwrap();
                self.publish_and_wait();
            }
            (1, Some(_)) => {
                self.editor.remove_destination(&key, address(server), key.port()).unwrap();
            }
            (_, None) => {
                let spec = self.spec(&key, server);
                self.add(&key, spec);
                if key == STICKY {
                    // Workers may be a snapshot apart: one that has not seen the server come back yet ends its templates.
                    self.publish_and_wait();
                    self.world.removals[usize::from(server - 1)].fetch_add(1, SeqCst);
                }
            }
            (_, Some(_)) => {
                let spec = self.spec(&key, server);
                self.editor.edit_destination(&key, spec).unwrap();
            }
        }
        self.publish();
        if key == BOUNDED && self.random.below(4) == 0 {
            self.watch_threshold(server);
        }
    }

    fn add(&mut self, key: &ServiceKey, spec: DestinationSpec) -> DestinationSlot {
        let slot = self.editor.add_destination(key, spec).unwrap();
        let hop = NextHop::Resolved { destination_mac: server_mac(spec.address), source_mac: MAC };
        self.editor.set_next_hop(slot, hop, PORT, MTU);
        slot
    }

    /// Once every worker has passed, a destination above its threshold only loses connections.
    fn watch_threshold(&mut self, server: u8) {
        let Some(found) = self.editor.find_destination(&BOUNDED, address(server), 80) else { return };
        if self.world.may_exceed {
            return;
        }
        self.publish_and_wait();
        let total = || self.world.shared.destinations.shared(found.slot).total.load(SeqCst);
        let mut before = total();
        for _ in 0..20 {
            let now = total();
            let most = before.max(found.spec.upper);
            assert!(now <= most, "{}: {now} after {before}, of {}", self.world.label, found.spec.upper);
            before = now;
        }
    }

    fn run(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time && !self.world.end.load(SeqCst) {
            self.edit();
            let step = self.random.below(400);
            self.world.now.fetch_add(step, SeqCst);
            self.milliseconds += u64::from(step);
            if self.random.below(8) == 0 {
                let shared = &self.world.shared;
                let passed = if self.publisher.laggard().is_none() { self.editor.revision() } else { 0 };
                self.editor.housekeep(self.milliseconds, &shared.destinations, &Positions(shared), passed);
            }
        }
        self.world.end.store(true, SeqCst);
    }
}

fn services(management: &mut Management<'_>, kind: SchedulerKind) {
    for key in [BOUNDED, STICKY, NAMES] {
        let spec = ServiceSpec { flags: 3, ..ServiceSpec::new(key, kind) };
        let persistence = Persistence { timeout: 1_000_000_000, mask: ClientMask::HOST_V4 };
        let persistence = (key == STICKY).then_some(persistence);
        management.editor.add_service(ServiceSpec { persistence, ..spec }).unwrap();
        for server in 1..=SERVERS {
            let spec = DestinationSpec { weight: u32::from(server), ..management.spec(&key, server) };
            let slot = management.add(&key, spec);
            assert!(key != BOUNDED || slot.0 < u32::from(SERVERS));
        }
    }
}

/// A director of `workers` engines under `kind` for a while; how many connections it opened.
fn run(kind: SchedulerKind, workers: u8, seed: u64, time: Duration) -> u64 {
    let limits =
        SharedLimits { workers: workers.into(), services: 4, destinations: DESTINATIONS, templates: 256 };
    let shared = Arc::new(Shared::new(limits, 1));
    let world = World {
        shared: Arc::clone(&shared),
        now: AtomicU32::new(1000),
        end: AtomicBool::new(false),
        rings: (0..workers).map(|_| Mutex::default()).collect(),
        homes: Homes::default(),
        removals: std::array::from_fn(|_| AtomicU32::new(0)),
        may_exceed: kind.exceeds_thresholds(),
        label: format!("{kind:?}, {workers} workers, seed {seed}"),
    };
    let ports = [PortView { mac: MAC, more_macs: [].into(), mtu: MTU }];
    let mut editor = Editor::new(Limits { services: 4, destinations: DESTINATIONS as u32 }, ports.into());
    let (publisher, mut readers) = channel(editor.publish(), workers.into());
    let random = Random::new(seed);
    let mut management = Management { world: &world, editor, publisher, random, milliseconds: 1000, kind };
    services(&mut management, kind);
    management.publish();
    let worker = |number: u8| {
        let config = EngineConfig {
            id: WorkerId(number),
            workers,
            steering: Steering::Client,
            trusted_rss: [false].into(),
            connections_v4: 512,
            connections_v6: 1,
            services: 4,
            fragments: 4,
            parked: 4,
            localities: 64,
            hash_key: HashKey([3, 5]),
            seed: number.into(),
        };
        Worker {
            world: &world,
            engine: Engine::new(&config, Arc::clone(&shared), Ticks(1000)).unwrap(),
            sink: MemorySink::new(workers.into()),
            random: Random::new(seed ^ (u64::from(number) + 1) << 32),
            number: number.into(),
            next_port: 0,
        }
    };
    let made: Vec<_> = (0..workers).map(worker).collect();
    let mut workers: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = made
            .into_iter()
            .zip(&mut readers)
            .map(|(worker, reader)| scope.spawn(move || worker.run(reader)))
            .collect();
        management.run(time);
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    // What is between workers arrives, then everything times out.
    for step in 0..4_000 {
        if step > 8 {
            world.now.fetch_add(1_000, SeqCst);
        }
        for worker in &mut workers {
            let removed = worker.removed();
            worker.turn(management.publisher.current(), removed, Vec::new());
        }
    }
    let sum = |counter| shared.counters.iter().map(|counters| counters.get(counter)).sum::<u64>();
    assert_eq!(sum(Counter::ConnectionsOpened), sum(Counter::ConnectionsClosed), "{}", world.label);
    for (number, counters) in shared.counters.iter().enumerate() {
        assert_eq!(counters.imbalance(), 0, "{}: worker {number}", world.label);
    }
    for slot in (0..DESTINATIONS as u32).map(DestinationSlot) {
        let (totals, counts) = (shared.destinations.totals(slot), shared.destinations.shared(slot));
        assert_eq!((totals.active, totals.inactive), (0, 0), "{}: {slot:?}", world.label);
        let (active, total) = (counts.active.load(SeqCst), counts.total.load(SeqCst));
        assert_eq!((active, total), (0, 0), "{}: {slot:?}", world.label);
        assert!(!counts.overloaded.load(SeqCst), "{}: {slot:?} is empty and overloaded", world.label);
    }
    sum(Counter::ConnectionsOpened)
}

#[test]
fn engines_on_threads_keep_thresholds_and_persistence_and_lose_no_count() {
    let number =
        |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seconds, seed): (u64, u64) = (number("UVS_CONCURRENT_SECONDS", 9), number("UVS_SEED", 1));
    println!("seed {seed}");
    let runs: Vec<_> =
        SchedulerKind::ALL.into_iter().flat_map(|kind| [1, 2, 4].map(|workers| (kind, workers))).collect();
    let each = Duration::from_millis(seconds * 1000 / runs.len() as u64) * 2 / 3;
    for (place, (kind, workers)) in runs.into_iter().enumerate() {
        let opened = run(kind, workers, seed + place as u64, each);
        assert!(opened > 100, "{kind:?}, {workers} workers: {opened}");
    }
}
