//! An engine with established flows, and the loop that feeds it.

use super::order::Order;
use super::packet::{LeanPacket, Roundabout};
use super::timing::{Clock, Turns};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::traffic::{DIRECTOR_MAC, Frames, Protocol, Segment, Shape};
use anyhow::{Context, Result, bail};
use dataplane::connection::HashKey;
use dataplane::counters::{Counter, DropReason, WorkerCounters};
use dataplane::engine::{Engine, EngineConfig, Shared, SharedLimits, Sink};
use dataplane::id::{PortId, Ticks, WorkerId};
use dataplane::packet::Packet;
use dataplane::snapshot::editor::{DestinationSpec, Editor, Limits, ServiceSpec};
use dataplane::snapshot::{NextHop, PortView, SchedulerKind, ServiceKey, Snapshot};
use dataplane::steering::Steering;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

const PORT: PortId = PortId(0);
const WORKER: WorkerId = WorkerId(0);
const MTU: u16 = 1500;
/// Secrets of tables that no stranger can reach.
const KEY: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
const TEMPLATE_KEY: u128 = 0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344;
/// Flows opened between looks at the user's patience.
const STRIDE: u64 = 1 << 16;

/// Makes bursts of frames of random flows.
#[derive(Debug)]
pub(super) struct Source {
    frames: Frames,
    length: u16,
    order: Order,
    burst: Vec<LeanPacket>,
    size: usize,
    roundabout: Roundabout,
}

impl Source {
    pub(super) fn new(shape: &Shape, burst: usize) -> Result<Self> {
        let frames = Frames::new(shape, Segment::Ack);
        let length = frames.length();
        if length > LeanPacket::ROOM {
            bail!("a frame of {length} bytes is longer than {}", LeanPacket::ROOM);
        }
        Ok(Self {
            frames,
            length: u16::try_from(length)?,
            order: Order::new(shape.flows),
            burst: Vec::with_capacity(burst),
            size: burst,
            roundabout: Roundabout::new(),
        })
    }

    #[inline(always)]
    fn write(&mut self, flow: u64) {
        let mut packet = self.roundabout.take();
        self.frames.write(flow, packet.reset(self.length));
        self.burst.push(packet);
    }

    #[inline(always)]
    fn fill(&mut self) {
        for _ in 0..self.size {
            let flow = self.order.next();
            self.write(flow);
        }
    }
}

/// The preparation alone: frames are written and given back.
impl Turns for Source {
    #[inline]
    fn turn(&mut self, _now: Ticks) {
        self.fill();
        for packet in self.burst.drain(..) {
            black_box(packet.data());
            self.roundabout.transmit(PORT, packet);
        }
    }
}

/// Preparation and engine.
#[derive(Debug)]
pub(super) struct Lab {
    engine: Engine<LeanPacket>,
    shared: Arc<Shared>,
    snapshot: Snapshot,
    source: Source,
}

/// What an engine has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Books {
    /// Packets sent on.
    pub(super) transmitted: u64,
    /// Packets that found no connection.
    pub(super) misses: u64,
    /// Packets unaccounted for.
    pub(super) imbalance: i64,
}

impl Lab {
    /// An engine with room for `capacity` connections and a resolved next hop for every destination.
    pub(super) fn new(
        shape: &Shape,
        destinations: u16,
        capacity: u32,
        burst: usize,
        now: Ticks,
    ) -> Result<Self> {
        let services = shape.services as usize;
        let limits = SharedLimits {
            workers: 1,
            services,
            destinations: services * usize::from(destinations),
            templates: 1024,
        };
        let shared = Arc::new(Shared::new(limits, TEMPLATE_KEY));
        let config = EngineConfig {
            id: WORKER,
            workers: 1,
            steering: Steering::Client,
            trusted_rss: Box::new([false]),
            connections_v4: if shape.ipv6 { 1024 } else { capacity },
            connections_v6: if shape.ipv6 { capacity } else { 1024 },
            services,
            fragments: 256,
            parked: 64,
            localities: 0,
            hash_key: HashKey(KEY),
            seed: 0,
        };
        Ok(Self {
            engine: Engine::new(&config, Arc::clone(&shared), now)
                .context("no memory for the connections")?,
            shared,
            snapshot: snapshot(shape, destinations)?,
            source: Source::new(shape, burst)?,
        })
    }

    fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[WORKER.index()]
    }

    /// Opens every flow, as clients do: a datagram, or SYN and ACK.
    pub(super) fn open(
        &mut self,
        shape: &Shape,
        clock: Clock,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> Result<()> {
        let established = Frames::new(shape, Segment::Ack);
        if shape.protocol == Protocol::Tcp {
            self.source.frames = Frames::new(shape, Segment::Syn);
        }
        let mut all = |lab: &mut Self, what| lab.send_all(shape.flows, what, clock, interrupt, progress);
        all(self, "connections opened")?;
        self.source.frames = established;
        if shape.protocol == Protocol::Tcp {
            all(self, "connections established")?;
        }
        let opened = self.counters().get(Counter::ConnectionsOpened);
        if opened != shape.flows {
            bail!("{opened} of {} connections were opened; dropped were: {:?}", shape.flows, self.drops());
        }
        Ok(())
    }

    fn send_all(
        &mut self,
        flows: u64,
        what: &str,
        clock: Clock,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> Result<()> {
        for flow in 0..flows {
            self.source.write(flow);
            if self.source.burst.len() == self.source.size || flow + 1 == flows {
                self.process(clock.now());
            }
            if flow % STRIDE == 0 {
                interrupt.check()?;
                progress.far(what, flow, flows);
            }
        }
        Ok(())
    }

    /// A worker's turn: the burst, the time's work, the counting of what was sent.
    #[inline(always)]
    fn process(&mut self, now: Ticks) {
        let Self { engine, snapshot, source, shared } = self;
        engine.process(PORT, source.burst.drain(..), snapshot, now, &mut source.roundabout);
        engine.turn(snapshot, now, &mut source.roundabout);
        source.roundabout.flush(&shared.counters[WORKER.index()]);
    }

    /// What it has counted so far.
    pub(super) fn books(&self) -> Books {
        let counters = self.counters();
        Books {
            transmitted: counters.get(Counter::Transmitted),
            misses: counters.get(Counter::Misses),
            imbalance: counters.imbalance(),
        }
    }

    /// Packets dropped so far, reasons without any left out.
    pub(super) fn drops(&self) -> BTreeMap<String, u64> {
        let count = |reason: &DropReason| (reason.label().to_owned(), self.counters().dropped(*reason));
        DropReason::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }
}

impl Turns for Lab {
    #[inline]
    fn turn(&mut self, now: Ticks) {
        self.source.fill();
        self.process(now);
    }
}

fn snapshot(shape: &Shape, destinations: u16) -> Result<Snapshot> {
    let limits = Limits { services: shape.services, destinations: shape.services * u32::from(destinations) };
    let ports = [PortView { mac: DIRECTOR_MAC, more_macs: [].into(), mtu: MTU }];
    let mut editor = Editor::new(limits, ports.into());
    for index in 0..shape.services {
        let service = shape.service(index);
        let key = ServiceKey::Address {
            protocol: shape.protocol.number(),
            address: service.ip(),
            port: service.port(),
        };
        editor.add_service(ServiceSpec::new(key, SchedulerKind::Rr))?;
        for destination in 0..destinations {
            let (address, mac) = shape.server(destination);
            let spec = DestinationSpec::new(address, service.port(), 1);
            let slot = editor.add_destination(&key, spec)?;
            let hop = NextHop::Resolved { destination_mac: mac, source_mac: DIRECTOR_MAC };
            editor.set_next_hop(slot, hop, PORT, MTU);
        }
    }
    Ok(editor.publish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_of_every_shape_is_forwarded() {
        let interrupt = Interrupt::listen().unwrap();
        for (protocol, ipv6, services) in [
            (Protocol::Udp, false, 1),
            (Protocol::Tcp, false, 3),
            (Protocol::Tcp, true, 1),
            (Protocol::Udp, true, 2),
        ] {
            let shape = Shape { protocol, ipv6, services, frame: if ipv6 { 80 } else { 64 }, flows: 1000 };
            let clock = Clock::start();
            let mut lab = Lab::new(&shape, 2, 1200, 32, clock.now()).unwrap();
            lab.open(&shape, clock, &interrupt, &mut Progress::new()).unwrap();
            let before = lab.books();
            assert_eq!(before.misses, 1000);
            for _ in 0..100 {
                lab.turn(clock.now());
            }
            let after = Books { transmitted: before.transmitted + 3200, imbalance: 0, ..before };
            assert_eq!(lab.books(), after, "{protocol:?} {ipv6}");
            assert_eq!(lab.drops(), BTreeMap::new());
        }
    }
}
