//! An engine in this process, fed with frames from memory.

mod feed;
mod fleet;
mod order;
mod rules;
mod timing;

use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::traffic::{DIRECTOR_MAC, Frames, Mode, Protocol, Segment, Sender};
use anyhow::{Context, Result, bail};
use dataplane::bench::LeanPacket;
use dataplane::connection::HashKey;
use dataplane::counters::{Counter, DropReason, WorkerCounters};
use dataplane::engine::{Engine, EngineConfig, Shared, SharedLimits};
use dataplane::id::{PortId, Ticks, WorkerId};
pub(crate) use dataplane::pipeline::BURST;
use dataplane::snapshot::Snapshot;
use dataplane::steering::Steering;
pub(crate) use feed::{Feed, Generator, Preparation, check};
pub(crate) use fleet::{Common, Dealt, Round, Running, Seed, Shard, seeds};
pub(crate) use order::Order;
pub(crate) use rules::Rules;
use std::collections::BTreeMap;
use std::sync::Arc;
pub(crate) use timing::{Clock, Turns, window};

pub(crate) const PORT: PortId = PortId(0);
const WORKER: WorkerId = WorkerId(0);
const MTU: u16 = 1500;
/// Secrets of tables that no stranger can reach.
const KEY: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
const TEMPLATE_KEY: u128 = 0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344;
/// Flows opened between looks at the user's patience.
const STRIDE: u64 = 1 << 16;
/// Flows whose connections are opened together.
const CHUNK: usize = 1 << 20;

/// An engine and the burst it will get next.
#[derive(Debug)]
pub(crate) struct Lab {
    engine: Engine<LeanPacket>,
    shared: Arc<Shared>,
    snapshot: Snapshot,
    /// The next burst.
    pub(crate) feed: Feed,
}

/// What an engine has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Books {
    /// Packets sent on.
    pub(crate) transmitted: u64,
    /// Packets that found no connection.
    pub(crate) misses: u64,
    /// Packets unaccounted for.
    pub(crate) imbalance: i64,
}

/// What engines share, for so many workers.
pub(crate) fn limits(rules: &Rules, workers: u8) -> SharedLimits {
    SharedLimits {
        workers: workers.into(),
        services: rules.shape.services as usize,
        destinations: rules.destinations() as usize,
        templates: 1024,
    }
}

/// The only worker, with room for `capacity` connections.
fn configuration(rules: &Rules, capacity: u32) -> EngineConfig {
    let shape = &rules.shape;
    EngineConfig {
        id: WORKER,
        workers: 1,
        steering: Steering::Client,
        trusted_rss: Box::new([false]),
        connections_v4: if shape.ipv6 { 1024 } else { capacity },
        connections_v6: if shape.ipv6 { capacity } else { 1024 },
        services: shape.services as usize,
        fragments: 256,
        parked: 64,
        localities: 65_536,
        hash_key: HashKey(KEY),
        seed: 0,
    }
}

impl Lab {
    /// An engine with room for `capacity` connections and a resolved next hop for every destination.
    pub(crate) fn new(rules: &Rules, capacity: u32, burst: usize, now: Ticks) -> Result<Self> {
        let shared = Arc::new(Shared::new(limits(rules, 1), TEMPLATE_KEY));
        let config = configuration(rules, capacity);
        Ok(Self {
            engine: Engine::new(&config, Arc::clone(&shared), now)
                .context("no memory for the connections")?,
            shared,
            snapshot: rules.snapshot()?,
            feed: Feed::new(burst),
        })
    }

    fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[WORKER.index()]
    }

    /// Opens every flow, as its ends do it: a datagram, or SYN and ACK; answered where the director sees answers.
    pub(crate) fn open(
        &mut self,
        rules: &Rules,
        clock: Clock,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> Result<()> {
        let Rules { shape, forwarding, .. } = rules;
        let before = self.books();
        let frames = |sender, segment| Frames::short(shape, sender, segment);
        let mut steps = vec![frames(Sender::Clients, Segment::Syn)];
        if forwarding.mode == Mode::Nat {
            steps.push(frames(Sender::Servers(DIRECTOR_MAC), Segment::SynAck));
        }
        if shape.protocol == Protocol::Tcp {
            steps.push(frames(Sender::Clients, Segment::Ack));
        }
        steps.iter().try_for_each(check)?;
        // A million at a time, so that none waits for its next packet until it times out.
        for start in (0..shape.flows).step_by(CHUNK) {
            let end = shape.flows.min(start + CHUNK as u64);
            for frames in &steps {
                for flow in start..end {
                    self.feed.write(frames, flow, shape.server_of(flow));
                    if self.feed.len() == self.feed.size() || flow + 1 == end {
                        self.process(clock.now());
                    }
                    if flow % STRIDE == 0 {
                        interrupt.check()?;
                        progress.far("connections opened", start, shape.flows);
                    }
                }
            }
        }
        let (opened, misses) = (self.count(Counter::ConnectionsOpened), self.books().misses - before.misses);
        if opened != shape.flows || misses != shape.flows {
            bail!(
                "{opened} of {} connections were opened, {misses} packets found none; dropped were: {:?}",
                shape.flows,
                self.drops()
            );
        }
        Ok(())
    }

    /// A worker's turn: the burst, the time's work, the counting of what was sent.
    #[inline(always)]
    pub(crate) fn process(&mut self, now: Ticks) {
        let Self { engine, snapshot, feed, shared } = self;
        engine.process(PORT, feed.burst.drain(..), snapshot, now, &mut feed.roundabout);
        engine.turn(snapshot, now, &mut feed.roundabout);
        feed.roundabout.flush(&shared.counters[WORKER.index()]);
    }

    /// A worker's turn without packets.
    #[inline(always)]
    pub(crate) fn idle(&mut self, now: Ticks) {
        let Self { engine, snapshot, feed, .. } = self;
        engine.turn(snapshot, now, &mut feed.roundabout);
    }

    /// A counter's value.
    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.counters().get(counter)
    }

    /// What it has counted so far.
    pub(crate) fn books(&self) -> Books {
        let counters = self.counters();
        Books {
            transmitted: counters.get(Counter::Transmitted),
            misses: counters.get(Counter::Misses),
            imbalance: counters.imbalance(),
        }
    }

    /// An error when packets are unaccounted for.
    pub(crate) fn check(&self) -> Result<()> {
        match self.books().imbalance {
            0 => Ok(()),
            imbalance => bail!("{imbalance} packets are unaccounted for"),
        }
    }

    /// Packets dropped so far, reasons without any left out.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        let count = |reason: &DropReason| (reason.label().to_owned(), self.counters().dropped(*reason));
        DropReason::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }
}

/// Preparation and engine.
#[derive(Debug)]
pub(crate) struct Fed<'a, G> {
    pub(crate) lab: &'a mut Lab,
    pub(crate) generator: G,
}

impl<G: Generator> Turns for Fed<'_, G> {
    #[inline]
    fn turn(&mut self, now: Ticks) {
        self.generator.fill(&mut self.lab.feed);
        self.lab.process(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Direction, Forwarding, FrameLength, Shape, TunnelKind};

    #[test]
    fn every_flow_of_every_shape_and_method_is_opened_as_predicted() {
        let interrupt = Interrupt::listen().unwrap();
        let forwardings = [
            (Mode::Dr, None),
            (Mode::Nat, None),
            (Mode::Tun, Some(TunnelKind::Ipip)),
            (Mode::Tun, Some(TunnelKind::Gue)),
            (Mode::Tun, Some(TunnelKind::Gre)),
        ];
        for (protocol, ipv6, services) in [
            (Protocol::Udp, false, 1),
            (Protocol::Tcp, false, 3),
            (Protocol::Tcp, true, 1),
            (Protocol::Udp, true, 2),
        ] {
            for (mode, tunnel) in forwardings {
                let frame = FrameLength::Fixed(80);
                let shape = Shape { protocol, ipv6, services, destinations: 3, frame, flows: 1000 };
                let forwarding = Forwarding::new(mode, tunnel, None).unwrap();
                assert!(mode != Mode::Nat || forwarding.direction == Direction::Both);
                let (clock, rules) = (Clock::start(), Rules::new(&shape, forwarding));
                let mut lab = Lab::new(&rules, 1200, BURST, clock.now()).unwrap();
                lab.open(&rules, clock, &interrupt, &mut Progress::new()).unwrap();
                let books = lab.books();
                let tcp = u64::from(protocol == Protocol::Tcp);
                let packets = 1000 * (1 + tcp + u64::from(mode == Mode::Nat));
                assert_eq!(books, Books { transmitted: packets, misses: 1000, imbalance: 0 }, "{mode:?}");
                assert_eq!(lab.drops(), BTreeMap::new());
            }
        }
    }
}
