//! One engine between clients and servers, fed with frames that were written before.

use dataplane::bench::{Frame, LeanPacket, Roundabout};
use dataplane::connection::HashKey;
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::engine::{Engine, EngineConfig, Shared, SharedLimits};
use dataplane::flow::protocol;
use dataplane::id::{PortId, Ticks, WorkerId};
use dataplane::pipeline::BURST;
use dataplane::snapshot::editor::{DestinationSpec, Editor, Limits, ServiceSpec};
use dataplane::snapshot::{
    Method, NextHop, PortView, Route, RouteView, Routes, SchedulerKind, ServiceKey, Snapshot,
};
use dataplane::steering::Steering;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const WORKER: WorkerId = WorkerId(0);
const CLIENTS: PortId = PortId(0);
const SERVERS: PortId = PortId(1);
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0x0c, 1], [2, 0, 0, 0, 0x05, 1]];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const MTU: u16 = 1500;
const PORT: u16 = 80;

/// What the director is to do.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The family of everything.
    pub ipv6: bool,
    /// TCP; otherwise UDP.
    pub tcp: bool,
    /// How packets are sent on.
    pub method: Method,
    /// How destinations are chosen.
    pub scheduler: SchedulerKind,
    /// Of the one service.
    pub destinations: u16,
    /// Room for connections.
    pub connections: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            ipv6: false,
            tcp: true,
            method: Method::Direct,
            scheduler: SchedulerKind::Rr,
            destinations: 2,
            connections: 16_384,
        }
    }
}

impl Shape {
    fn address(&self, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
        if self.ipv6 { v6.into() } else { v4.into() }
    }

    fn service(&self) -> SocketAddr {
        let address = self.address([198, 19, 0, 1], [0x2001, 2, 0, 1, 0, 0, 0, 1]);
        SocketAddr::new(address, PORT)
    }

    fn client(&self, flow: u16) -> SocketAddr {
        let [high, low] = (flow & 0x3fff).to_be_bytes();
        let address = self.address([198, 18, high, low], [0x2001, 2, 0, 2, 0, 0, 0, flow]);
        SocketAddr::new(address, 1024 + (flow & 0x3ff))
    }

    fn server(&self, number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        self.address([10, 1, high, low], [0x2001, 2, 0, 3, 0, 0, 0, number])
    }

    /// A frame of a flow from its client with these TCP flags.
    #[must_use]
    pub fn request(&self, flow: u16, flags: u8) -> Vec<u8> {
        let frame = Frame::new(self.client(flow), self.service());
        self.build(Frame { destination_mac: MACS[0], source_mac: ROUTER, ..frame }, flags)
    }

    /// A frame of a flow from its server, which is the only one.
    #[must_use]
    pub fn answer(&self, flow: u16, flags: u8) -> Vec<u8> {
        let frame = Frame::new(SocketAddr::new(self.server(0), PORT), self.client(flow));
        self.build(Frame { destination_mac: MACS[1], source_mac: server_mac(0), ..frame }, flags)
    }

    fn build(&self, frame: Frame, flags: u8) -> Vec<u8> {
        if self.tcp { frame.tcp(flags) } else { frame.udp() }
    }
}

fn server_mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

/// One engine.
#[derive(Debug)]
pub struct Director {
    engine: Engine<LeanPacket>,
    shared: Arc<Shared>,
    snapshot: Snapshot,
    roundabout: Roundabout,
    burst: Vec<LeanPacket>,
    port: PortId,
    /// Its clock.
    pub now: Ticks,
}

impl Director {
    /// An engine without connections.
    ///
    /// # Errors
    /// No memory, or a shape that cannot be.
    pub fn new(shape: &Shape) -> Result<Self, Box<dyn std::error::Error>> {
        let destinations = usize::from(shape.destinations);
        let limits = SharedLimits { workers: 1, services: 1, destinations, templates: 64 };
        let shared = Arc::new(Shared::new(limits, 0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344));
        let config = EngineConfig {
            id: WORKER,
            workers: 1,
            steering: Steering::Client,
            trusted_rss: Box::new([false; 2]),
            connections_v4: if shape.ipv6 { 64 } else { shape.connections },
            connections_v6: if shape.ipv6 { shape.connections } else { 64 },
            services: 1,
            fragments: 64,
            parked: 64,
            localities: 1024,
            hash_key: HashKey([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]),
            seed: 0,
        };
        let now = Ticks(1000);
        Ok(Self {
            engine: Engine::new(&config, Arc::clone(&shared), now)?,
            shared,
            snapshot: snapshot(shape)?,
            roundabout: Roundabout::new(),
            burst: Vec::with_capacity(BURST),
            port: CLIENTS,
            now,
        })
    }

    /// Takes frames of one port for the next burst, at most [`BURST`].
    pub fn load<'a>(&mut self, from_servers: bool, frames: impl Iterator<Item = &'a [u8]>) {
        self.port = if from_servers { SERVERS } else { CLIENTS };
        for frame in frames {
            let mut packet = self.roundabout.take();
            let room = packet.reset();
            let length = frame.len().min(room.len());
            room[..length].copy_from_slice(&frame[..length]);
            packet.cut(length);
            self.burst.push(packet);
        }
    }

    /// A worker's turn with the frames that were loaded.
    #[inline]
    pub fn turn(&mut self) {
        let Self { engine, snapshot, roundabout, shared, burst, port, now } = self;
        engine.process(*port, burst.drain(..), snapshot, *now, roundabout);
        engine.turn(snapshot, *now, roundabout);
        roundabout.flush(&shared.counters[WORKER.index()]);
    }

    /// Sends frames through, burst by burst.
    pub fn pass(&mut self, from_servers: bool, frames: &[Vec<u8>]) {
        for burst in frames.chunks(BURST) {
            self.load(from_servers, burst.iter().map(Vec::as_slice));
            self.turn();
        }
    }

    fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[WORKER.index()]
    }

    /// Reads a counter.
    #[must_use]
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters().get(counter)
    }

    /// Connections there are.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.count(Counter::ConnectionsOpened) - self.count(Counter::ConnectionsClosed)
    }
}

fn snapshot(shape: &Shape) -> Result<Snapshot, Box<dyn std::error::Error>> {
    let limits = Limits { services: 1, destinations: shape.destinations.into() };
    let ports: Arc<[PortView]> =
        MACS.into_iter().map(|mac| PortView { mac, more_macs: [].into(), mtu: MTU }).collect();
    let mut editor = Editor::new(limits, ports);
    let service = shape.service();
    let key = ServiceKey::Address {
        protocol: if shape.tcp { protocol::TCP } else { protocol::UDP },
        address: service.ip(),
        port: service.port(),
    };
    editor.add_service(ServiceSpec::new(key, shape.scheduler))?;
    for number in 0..shape.destinations {
        let spec =
            DestinationSpec { method: shape.method, ..DestinationSpec::new(shape.server(number), PORT, 1) };
        let slot = editor.add_destination(&key, spec)?;
        let hop = NextHop::Resolved { destination_mac: server_mac(number), source_mac: MACS[1] };
        editor.set_next_hop(slot, hop, SERVERS, MTU);
        editor.set_source(slot, Some(shape.address([10, 1, 255, 1], [0x2001, 2, 0, 3, 0, 0, 0, 0xffff])));
    }
    let view = RouteView {
        next_hop: NextHop::Resolved { destination_mac: ROUTER, source_mac: MACS[0] },
        via: Some(shape.address([198, 18, 0, 254], [0x2001, 2, 0, 2, 0, 0, 0, 0xfffe])),
        source: None,
        port: CLIENTS,
        mtu: MTU,
    };
    let route = Route { network: shape.address([0; 4], [0; 8]), prefix: 0, view };
    editor.set_routes(Arc::new(Routes::new([route])));
    Ok(editor.publish())
}
