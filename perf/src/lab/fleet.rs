//! Engines of several workers in this process, a shard each, with everything between them that real workers have: the counters
//! they share, the snapshot they read by epochs, the rings on which they hand packets to each other.

use super::{BURST, Feed, Generator, PORT, Rules, TEMPLATE_KEY, Turns, check, configuration, limits};
use crate::traffic::{Frames, Protocol, Segment, Sender};
use anyhow::{Context, Result, bail};
use dataplane::bench::{LeanPacket, Roundabout};
use dataplane::counters::{Counter, DropReason, WorkerCounters};
use dataplane::engine::{Engine, EngineConfig, Event, Mesh, Place, Redirected, Share, Shared, Sink};
use dataplane::exception::PuntClass;
use dataplane::id::{PortId, Ticks, WorkerId};
use dataplane::rcu::{self, Publisher, Reader};
use dataplane::snapshot::Snapshot;
use dataplane::steering::Steering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Addresses that a shard's lblc and lblcr remember.
const LOCALITIES: u32 = 1024;

/// A flow with what the NIC hashes of its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dealt {
    pub(crate) flow: u32,
    pub(crate) hash: u32,
}

/// What makes one shard. It may be made anywhere; where it is grown its memory lies.
#[derive(Debug)]
pub(crate) struct Seed {
    config: EngineConfig,
    shared: Arc<Shared>,
    reader: Reader<Snapshot>,
    mesh: Mesh<LeanPacket>,
    burst: usize,
}

/// What the shards have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) shared: Arc<Shared>,
    pub(crate) publisher: Publisher<Snapshot>,
}

/// A worker with its part of the connections.
#[derive(Debug)]
pub(crate) struct Shard {
    engine: Engine<LeanPacket>,
    shared: Arc<Shared>,
    reader: Reader<Snapshot>,
    mesh: Mesh<LeanPacket>,
    /// The next burst.
    feed: Feed,
    taken: Vec<Redirected<LeanPacket>>,
    id: WorkerId,
}

/// Prepares `workers` shards of `capacity` connections each. `shares` are what the workers have made of their own, or nothing.
pub(crate) fn seeds(
    rules: &Rules,
    steering: Steering,
    workers: u8,
    capacity: u32,
    burst: usize,
    shares: Option<Vec<Share>>,
) -> Result<(Common, Vec<Seed>)> {
    let limits = limits(rules, workers);
    let shares = shares.unwrap_or_else(|| (0..workers).map(|_| Share::new(limits)).collect());
    let shared = Arc::new(Shared::of(limits, TEMPLATE_KEY, shares));
    let (publisher, readers) = rcu::channel(rules.snapshot()?, workers.into());
    let seed = |(id, (reader, mesh))| {
        let config = EngineConfig {
            steering,
            workers,
            id: WorkerId(id),
            trusted_rss: Box::new([true]),
            localities: LOCALITIES,
            ..configuration(rules, capacity)
        };
        Seed { config, shared: Arc::clone(&shared), reader, mesh, burst }
    };
    let seeds = (0..workers).zip(readers.into_iter().zip(Mesh::make(workers))).map(seed).collect();
    Ok((Common { shared, publisher }, seeds))
}

impl Seed {
    /// Allocates the shard's memory, in this thread.
    pub(crate) fn grow(self, now: Ticks) -> Result<Shard> {
        let Self { config, shared, reader, mesh, burst } = self;
        let engine =
            Engine::new(&config, Arc::clone(&shared), now).context("no memory for the connections")?;
        let (feed, taken) = (Feed::new(burst), Vec::with_capacity(BURST));
        Ok(Shard { engine, shared, reader, mesh, feed, taken, id: config.id })
    }
}

impl Seed {
    /// Where the bells of the redirect rings lie.
    pub(crate) fn bells(&self) -> Place {
        self.mesh.place()
    }
}

/// Where a shard's packets go.
struct Outlets<'a> {
    roundabout: &'a mut Roundabout,
    mesh: &'a mut Mesh<LeanPacket>,
}

impl Sink<LeanPacket> for Outlets<'_> {
    #[inline(always)]
    fn transmit(&mut self, port: PortId, packet: LeanPacket) {
        self.roundabout.transmit(port, packet);
    }

    fn punt(&mut self, class: PuntClass, port: PortId, packet: LeanPacket) -> Result<(), LeanPacket> {
        self.roundabout.punt(class, port, packet)
    }

    fn redirect(&mut self, to: WorkerId, redirected: Redirected<LeanPacket>) -> Result<(), LeanPacket> {
        self.mesh.send(to, redirected)
    }

    fn allocate(&mut self) -> Option<LeanPacket> {
        self.roundabout.allocate()
    }

    fn event(&mut self, event: Event) -> bool {
        self.roundabout.event(event)
    }
}

impl Shard {
    /// A worker's turn: the burst, what other workers have sent, the time's work, the counting of what was sent.
    #[inline(always)]
    pub(crate) fn process(&mut self, now: Ticks) {
        let Self { engine, shared, reader, mesh, feed, taken, id } = self;
        reader.with(|snapshot| {
            let mut outlets = Outlets { roundabout: &mut feed.roundabout, mesh };
            engine.process(PORT, feed.burst.drain(..), snapshot, now, &mut outlets);
            if outlets.mesh.is_rung() {
                let mut from = 0;
                while let Some(sender) = outlets.mesh.next_sender(from) {
                    outlets.mesh.take(sender, BURST, taken);
                    engine.process_redirected(taken.drain(..), snapshot, now, &mut outlets);
                    from = sender + 1;
                }
            }
            engine.turn(snapshot, now, &mut outlets);
            feed.roundabout.flush(&shared.counters[id.index()]);
            mesh.ring();
        });
    }

    /// What it counts.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.id.index()]
    }

    /// Opens flows, all of which are this worker's: a datagram, or SYN and ACK.
    pub(crate) fn open(&mut self, rules: &Rules, flows: &[Dealt], now: Ticks) -> Result<()> {
        self.offer(rules, flows, &mut |shard| shard.process(now))?;
        let (opened, redirected) =
            (self.counters().get(Counter::ConnectionsOpened), self.counters().get(Counter::RedirectedOut));
        if opened != flows.len() as u64 || redirected != 0 {
            bail!(
                "worker {} opened {opened} of {} connections and redirected {redirected} packets; dropped were: {:?}",
                self.id.0,
                flows.len(),
                self.drops()
            );
        }
        Ok(())
    }

    /// Writes the first packets of flows, a burst at a time; `turn` is to process each.
    pub(crate) fn offer(
        &mut self,
        rules: &Rules,
        flows: &[Dealt],
        turn: &mut impl FnMut(&mut Self),
    ) -> Result<()> {
        if rules.shape.protocol == Protocol::Tcp {
            self.write(rules, Segment::Syn, flows, turn)?;
        }
        self.send(rules, flows, turn)
    }

    /// The same with packets of established flows.
    pub(crate) fn send(
        &mut self,
        rules: &Rules,
        flows: &[Dealt],
        turn: &mut impl FnMut(&mut Self),
    ) -> Result<()> {
        self.write(rules, Segment::Ack, flows, turn)
    }

    fn write(
        &mut self,
        rules: &Rules,
        segment: Segment,
        flows: &[Dealt],
        turn: &mut impl FnMut(&mut Self),
    ) -> Result<()> {
        let frames = Frames::short(&rules.shape, Sender::Clients, segment);
        check(&frames)?;
        for burst in flows.chunks(self.feed.size()) {
            burst.iter().for_each(|dealt| self.feed.write_hashed(&frames, *dealt));
            turn(self);
        }
        Ok(())
    }

    /// Packets dropped so far, reasons without any left out.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        let count = |reason: &DropReason| (reason.label().to_owned(), self.counters().dropped(*reason));
        DropReason::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }

    /// An error when packets are unaccounted for.
    pub(crate) fn check(&self) -> Result<()> {
        match self.counters().imbalance() {
            0 => Ok(()),
            imbalance => bail!("{imbalance} packets of worker {} are unaccounted for", self.id.0),
        }
    }
}

/// Packets of established flows, one of each in turn, in the order of the list.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    frames: Frames,
    flows: Arc<[Dealt]>,
    next: usize,
}

impl Round {
    pub(crate) fn new(rules: &Rules, flows: Arc<[Dealt]>) -> Result<Self> {
        let frames = Frames::short(&rules.shape, Sender::Clients, Segment::Ack);
        check(&frames)?;
        Ok(Self { frames, flows, next: 0 })
    }
}

impl Generator for Round {
    #[inline(always)]
    fn fill(&mut self, feed: &mut Feed) {
        for _ in 0..feed.size() {
            let Some(dealt) = self.flows.get(self.next) else { return };
            feed.write_hashed(&self.frames, *dealt);
            self.next = if self.next + 1 == self.flows.len() { 0 } else { self.next + 1 };
        }
    }
}

/// Preparation and a shard's turn.
#[derive(Debug)]
pub(crate) struct Running<'a, G> {
    pub(crate) shard: &'a mut Shard,
    pub(crate) generator: G,
}

impl<G: Generator> Turns for Running<'_, G> {
    #[inline]
    fn turn(&mut self, now: Ticks) {
        self.generator.fill(&mut self.shard.feed);
        self.shard.process(now);
    }
}
