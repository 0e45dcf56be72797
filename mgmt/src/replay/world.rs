//! The director under test with all that is around it: engines on a virtual clock, the management core, the network's tables and
//! the host's own stack.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::bench::{Director, DirectorConfig, Outcome};
use dataplane::flow::FlowKey;
use dataplane::id::{PortId, Ticks, WorkerId};
use dataplane::packet::{HeapPacket, Parsed};
use dataplane::snapshot::Snapshot;
use dataplane::worker::Connections;

use crate::address::Endpoint;
use crate::control::{Backend, Peer};
use crate::desired::{self, Change, Method, Scheduler, ServiceKey, SettingsEdit};
use crate::management::{Limits, Management, Network, Port, View};
use crate::protocol::{ConnectionEntry, ConnectionQuery, EntryProtocol, Fault, FaultKind, Request, Response};

use super::captures::Captures;
use super::cursors::Service;
use super::host::Host;
use super::late::{Entry, Late};
use super::stand_in::{Answer, Asked};
use super::tables::{MACS, NAMES, Tables, Way};
use super::text::Remaining;
use super::trace::Emitted;
use super::{mark_commands, network_commands};

/// Sizes: more than any trace needs, small enough to be made in no time.
const SERVICES: u32 = 256;
const DESTINATIONS: u32 = 4096;
const CONNECTIONS: u32 = 16_384;
const TEMPLATES: u32 = 4096;
/// How far the clock goes at a time. Timers, estimators and the trash count in seconds; what falls due within a step is
/// done at its end.
const STEP_MS: u32 = 250;
/// Of these last milliseconds before a record each is gone through, so that the bounded work of every turn is done.
const FINE_MS: u32 = 24;
/// Between two rounds of the management's housekeeping.
const HOUSEKEEPING_MS: u32 = 1000;
/// Between two looks at which connections there are, while time passes: shorter than any template is armed again for.
const LOOK_MS: u32 = 10_000;
/// How long before its trace's start the recorded director's namespace was made: its estimators, which go every 2 s from then
/// on, show in the traces with rates that they first went some 1.5 s after the start.
const MADE_MS: u32 = 500;
/// A tick of the recorded kernel, and what reading its clock twice may differ by.
const JIFFIES_MS: u64 = 8;

/// FTP's control port, its data port, and the first one that a passive data connection may have.
const FTP: u16 = 21;
const FTP_DATA: u16 = 20;
const FIRST_FREE: u16 = 1024;

/// Everything but the commands' namespaces.
#[derive(Debug)]
pub struct World {
    director: Director,
    management: Management,
    tables: Tables,
    host: Host,
    late: Late,
    connections: Vec<Connections>,
    start: Ticks,
    /// Which worker the next packet comes to: without a NIC that spreads flows any may get it.
    receiver: u8,
    emitted: Vec<Emitted>,
    unplayed: Vec<String>,
    /// Servers that were masqueraded and are direct ones now.
    remade: BTreeSet<IpAddr>,
    /// Where frames are written to.
    captures: Option<Captures>,
}

impl World {
    /// At time 0: the traces' topology, no service.
    ///
    /// # Errors
    /// There is no memory for the tables.
    pub fn new(workers: u8) -> Result<Self, String> {
        let tables = Tables::new();
        let port =
            |(name, mac): (&str, [u8; 6])| Port { name: name.to_owned(), mac, mtu: 1500, tables: None };
        let mut network = Network::new(NAMES.into_iter().zip(MACS).map(port).collect());
        network.set_view(tables.view());
        let limits = Limits { services: SERVICES, destinations: DESTINATIONS };
        let config = DirectorConfig {
            workers,
            connections: CONNECTIONS,
            destinations: DESTINATIONS as usize,
            services: SERVICES as usize,
            templates: TEMPLATES,
            ..DirectorConfig::default()
        };
        let ports = network.port_views();
        let management = Management::new(limits, network);
        let director = Director::new(config, Snapshot::empty(ports)).map_err(|error| error.to_string())?;
        let tables_of = |engine: &dataplane::engine::Engine<HeapPacket>| Connections {
            v4: engine.connections_v4(),
            v6: engine.connections_v6(),
        };
        let mut world = Self {
            connections: director.engines.iter().map(tables_of).collect(),
            start: director.now,
            director,
            management,
            tables,
            host: Host::default(),
            late: Late::default(),
            receiver: 0,
            emitted: Vec::new(),
            unplayed: Vec::new(),
            remade: BTreeSet::new(),
            captures: None,
        };
        world.management.tick_rates(0, &world.director.shared);
        world.publish();
        Ok(world)
    }

    fn now_ms(&self) -> u32 {
        self.director.now.since(self.start)
    }

    /// Lets time pass until `at_ms` after the start.
    pub fn advance(&mut self, at_ms: u32) {
        let left = at_ms.saturating_sub(self.now_ms());
        if left > STEP_MS {
            self.look();
        }
        while self.now_ms() < at_ms {
            let now = self.now_ms();
            let left = at_ms - now;
            let grid = STEP_MS - now % STEP_MS;
            let step = if left <= FINE_MS { 1 } else { grid.min(left - FINE_MS) };
            self.director.leap(step);
            if self.now_ms().is_multiple_of(STEP_MS) {
                self.management.tick_rates(u64::from(self.now_ms() + MADE_MS), &self.director.shared);
            }
            if self.now_ms().is_multiple_of(HOUSEKEEPING_MS) {
                self.housekeep();
            }
            if self.now_ms().is_multiple_of(LOOK_MS) {
                self.look();
            }
        }
        if left > STEP_MS {
            self.look();
        }
        self.collect();
    }

    fn housekeep(&mut self) {
        let (now, shared) = (u64::from(self.now_ms()), &self.director.shared);
        // One thread: between two turns every engine has passed whatever was published.
        self.management.housekeep(now, shared, self.director.snapshot.revision);
        self.publish();
    }

    fn publish(&mut self) {
        if self.management.changed() {
            self.director.snapshot = self.management.snapshot();
            self.management.published(&self.director.shared);
            self.director.leap(0);
        }
    }

    /// A frame comes in.
    pub fn receive(&mut self, packet: &Emitted) {
        let port = PortId(u8::try_from(packet.link).unwrap_or(0));
        let workers = u8::try_from(self.director.engines.len()).unwrap_or(1);
        self.receiver = (self.receiver + 1) % workers;
        self.write(|captures, at_ms| captures.received(at_ms, &packet.frame));
        self.director.receive(WorkerId(self.receiver), port, [HeapPacket::new(&packet.frame)]);
        self.collect();
    }

    /// Takes what the engines sent, and what the host does with what they punted.
    fn collect(&mut self) {
        for outcome in self.director.take_outcomes() {
            match outcome {
                Outcome::Transmitted(port, frame) => {
                    self.write(|captures, at_ms| captures.sent(at_ms, &frame));
                    self.emitted.push(Emitted { link: port.index(), frame });
                }
                Outcome::Punted(_, port, frame) => {
                    let mark = self.mark(port, &frame);
                    self.emitted.extend(self.host.receive(&self.tables, port, &frame, mark));
                }
            }
        }
        self.director.sinks.iter_mut().for_each(|sink| sink.events.clear());
    }

    fn mark(&self, port: PortId, frame: &[u8]) -> u32 {
        let Parsed::Flow(headers) = dataplane::packet::parse(frame, frame.len(), 1) else { return 0 };
        let marks = &self.director.snapshot.marks;
        match headers.key(frame) {
            FlowKey::V4(tuple) => marks.of(&tuple, port),
            FlowKey::V6(tuple) => marks.of(&tuple, port),
        }
    }

    /// Has every frame that comes in or leaves the engines from now on written to files.
    pub fn capture(&mut self, captures: Captures) {
        self.captures = Some(captures);
    }

    /// Ends the capture files.
    ///
    /// # Errors
    /// They could not be written.
    pub fn end_capture(&mut self) -> std::io::Result<()> {
        self.captures.take().map_or(Ok(()), |mut captures| captures.end())
    }

    fn write(&mut self, write: impl FnOnce(&mut Captures, u32) -> std::io::Result<()>) {
        let at_ms = self.now_ms();
        if let Some(Err(error)) = self.captures.as_mut().map(|captures| write(captures, at_ms)) {
            self.unplayed.push(format!("--pcap: {error}"));
        }
    }

    /// Frames emitted since the last call.
    pub fn take_emitted(&mut self) -> Vec<Emitted> {
        std::mem::take(&mut self.emitted)
    }

    /// What commands asked since the last call that is not played.
    pub fn take_unplayed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unplayed)
    }

    /// Notes something that is not played.
    pub fn unplayed(&mut self, what: String) {
        self.unplayed.push(what);
    }

    /// Whether an address is the director's own.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.tables.is_own(address)
    }

    /// Entries whose time has passed just now.
    #[must_use]
    pub fn late(&self) -> &Late {
        &self.late
    }

    fn view(&self) -> View<'_> {
        View { shared: &self.director.shared, tables: &self.connections, now: self.director.now }
    }

    fn entries(&self) -> Vec<ConnectionEntry> {
        let mut entries = Vec::new();
        let mut query = ConnectionQuery::default();
        while let Ok(Response::Connections(page)) =
            self.management.answer(&Request::ConnectionList(query), &self.view())
        {
            entries.extend(page.connections);
            let Some(cursor) = page.next else { break };
            query = ConnectionQuery { cursor: Some(cursor), ..ConnectionQuery::default() };
        }
        entries
    }

    /// Takes down which connections there are.
    pub fn look(&mut self) {
        let entries = self.entries();
        let seen = entries.iter().map(|entry| Entry {
            name: name(entry),
            raw_name: raw_name(entry),
            server: entry.destination.to_string(),
            active: ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "SYNACK"].contains(&entry.state.as_str()),
            template: entry.template,
            remaining: entry.expires_ms,
        });
        self.late.see(self.now_ms().into(), seen);
    }

    /// What may remain of every connection's time in a command that runs within the next `window_ms`.
    #[must_use]
    pub fn remaining(&self, window_ms: u32) -> Remaining {
        let mut remaining = Remaining::default();
        for entry in self.entries() {
            let span = (
                entry.expires_ms + JIFFIES_MS,
                entry.expires_ms.saturating_sub(u64::from(window_ms) + JIFFIES_MS),
            );
            remaining.spans.insert(name(&entry), span);
            remaining.spans.insert(raw_name(&entry), span);
        }
        remaining
    }

    /// The director's settings with their values as the kernel writes them.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        let settings = serde_json::to_value(self.management.desired().settings());
        let Ok(serde_json::Value::Object(fields)) = settings else { return Vec::new() };
        let written = |value: serde_json::Value| match value {
            serde_json::Value::Bool(on) => u8::from(on).to_string(),
            other => other.to_string(),
        };
        fields.into_iter().map(|(name, value)| (name, written(value))).collect()
    }

    /// Sets one of the director's settings.
    ///
    /// # Errors
    /// There is no such setting, or not this value of it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let edit = SettingsEdit::default().with(name, value).map_err(|refusal| refusal.to_string())?;
        self.change(&Change::SettingsSet(edit)).map_err(|fault| fault.message)
    }

    fn change(&mut self, change: &Change) -> Result<(), Fault> {
        self.management.change(change, &self.director.shared)?;
        self.publish();
        Ok(())
    }

    /// The service that a packet is for.
    #[must_use]
    pub fn service_of(&self, packet: &Emitted) -> Option<Service> {
        let port = PortId(u8::try_from(packet.link).unwrap_or(0));
        let mark = self.mark(port, &packet.frame);
        let Parsed::Flow(headers) = dataplane::packet::parse(&packet.frame, packet.frame.len(), 1) else {
            return None;
        };
        let key = headers.key(&packet.frame);
        let (protocol, ip, to) = match key {
            FlowKey::V4(tuple) => (tuple.protocol, IpAddr::V4(tuple.destination), tuple.destination_port),
            FlowKey::V6(tuple) => (tuple.protocol, IpAddr::V6(tuple.destination), tuple.destination_port),
        };
        // In the kernel's order of looking services up; all of them are candidates for what fits worse.
        let rank = |service: &desired::Service| match service.key {
            ServiceKey::Mark { mark: own, family } => {
                (own.get() == mark && family == desired::Family::of(ip)).then_some(0)
            }
            ServiceKey::Address { protocol: own, address } => {
                let fits = own.number() == protocol && address.ip == ip;
                let ftp = address.port == FTP && (to == FTP_DATA || to >= FIRST_FREE);
                match address.port {
                    port if fits && port == to => Some(1),
                    _ if fits && ftp => Some(2),
                    0 if fits => Some(3),
                    _ => None,
                }
            }
        };
        let services = self.management.desired().services();
        let ranked = services.filter_map(|service| Some((rank(service)?, service)));
        let (_, service) = ranked.min_by_key(|(rank, _)| *rank)?;
        let weights = service.destinations.iter().map(|destination| destination.weight);
        let divisor = weights.clone().fold(0, greatest_common_divisor).max(1);
        let round = match service.scheduler {
            Scheduler::Rr => 1,
            Scheduler::Wrr => weights.clone().max().unwrap_or(0) / divisor,
            _ => 0,
        };
        Some(Service {
            name: service.key.to_string(),
            cursor: matches!(
                service.scheduler,
                Scheduler::Rr | Scheduler::Wrr | Scheduler::Lblc | Scheduler::Lblcr
            ),
            list: format!(
                "{:?}",
                service.destinations.iter().map(|one| (one.server, one.weight)).collect::<Vec<_>>()
            ),
            round: round.into(),
            persistent: service.persistence.is_some(),
        })
    }

    /// Carries out a command that the replay stands in for.
    pub fn stand_in(&mut self, asked: &Asked) -> Answer {
        let said = match asked.command.as_str() {
            "ip" => network_commands::ip(&mut self.tables, &asked.arguments).inspect(|_| {
                self.management.network_mut().set_view(self.tables.view());
                self.management.follow();
                self.publish();
            }),
            _ => mark_commands::changes(&asked.arguments).and_then(|changes| {
                let made = changes.iter().try_for_each(|change| self.change(change));
                made.map(|()| String::new()).map_err(|fault| fault.message)
            }),
        };
        match said {
            Ok(text) => Answer { rc: 0, text },
            Err(why) => {
                let line = format!("{} {}: {why}", asked.command, asked.arguments.join(" "));
                self.unplayed(line.clone());
                Answer { rc: 2, text: format!("{line}\n") }
            }
        }
    }

    fn note_method(&mut self, change: &Change) {
        let Change::DestinationEdit(edit) = change else { return };
        let service = self.management.desired().service(edit.service).ok();
        let before = service.and_then(|service| {
            let place = service.position(edit.address)?;
            service.destinations.get(place).map(|destination| destination.method)
        });
        if before == Some(Method::Masquerade) && edit.method == Some(Method::Direct) {
            self.remade.insert(edit.address.ip);
        }
    }

    /// Whether a frame goes to a server that was masqueraded and is a direct one now.
    #[must_use]
    pub fn is_remade(&self, frame: &[u8]) -> bool {
        self.remade.iter().any(|server| match self.tables.way(*server, 0) {
            Way::On(exit) => frame.get(..6).is_some_and(|mac| mac == exit.destination_mac),
            _ => false,
        })
    }

    fn call(&mut self, request: Request) -> Result<Response, Fault> {
        match request {
            Request::Change { change, .. } => {
                self.note_method(&change);
                let changed = self.management.change(&change, &self.director.shared)?;
                self.publish();
                Ok(Response::Changed(changed))
            }
            Request::CountersZero(zero) => {
                self.management.zero(zero, &self.director.shared).map(Response::Zeroed)
            }
            Request::Status | Request::EventsList(_) => {
                Err(Fault::new(FaultKind::Internal, "a replay has no status"))
            }
            listing => self.management.answer(&listing, &self.view()),
        }
    }
}

const fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

const fn protocol(entry: &ConnectionEntry) -> &'static str {
    match entry.protocol {
        EntryProtocol::Tcp => "TCP",
        EntryProtocol::Udp => "UDP",
        EntryProtocol::Sctp => "SCTP",
        EntryProtocol::Ip => "IP",
    }
}

fn name(entry: &ConnectionEntry) -> String {
    format!("{} {} {}", protocol(entry), entry.client, entry.virtual_address)
}

fn raw_name(entry: &ConnectionEntry) -> String {
    let raw = |end: Endpoint| match end.ip {
        IpAddr::V4(ip) => format!("{:08X} {:04X}", ip.to_bits(), end.port),
        IpAddr::V6(ip) => {
            let words = ip.segments().map(|word| format!("{word:04x}"));
            format!("{} {:04X}", words.join(":"), end.port)
        }
    };
    format!("{} {} {}", protocol(entry), raw(entry.client), raw(entry.virtual_address))
}

/// A world that several threads ask: the replay itself, the IPVS endpoint, the stand-ins.
#[derive(Debug, Clone)]
pub struct SharedWorld(Arc<Mutex<World>>);

impl SharedWorld {
    /// For several threads.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// For this thread alone.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for SharedWorld {
    fn call(&self, request: Request, _: Peer) -> Result<Response, Fault> {
        self.lock().call(request)
    }

    fn revision(&self) -> u64 {
        self.lock().management.desired().revision()
    }
}
