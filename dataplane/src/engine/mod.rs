//! One worker's engine: its shard of the connection table and what it needs to forward bursts.

mod defence;
mod mesh;
mod shared;
mod sink;
mod upkeep;

pub use mesh::Mesh;
pub(crate) use shared::place;
pub use shared::{Place, Share, Shared, SharedLimits};
pub use sink::{Event, Redirect, Redirected, Sink};

use crate::address::Address;
use crate::connection::{HashKey, OutOfMemory, Region, RegionError, Size, Slab, Table};
use crate::counters::{Counter, DestinationCounts, DropReason, WorkerCounters};
use crate::exception::PuntClass;
use crate::ftp::Controls;
use crate::id::{DestinationSlot, PortId, ServiceSlot, Ticks, WorkerId};
use crate::packet::Packet;
use crate::pipeline::{Leaving, Lines, Owner, Parking, Piece, Slots, Turn};
use crate::scheduler::{Cursor, Localities, Random, Standings};
use crate::snapshot::Snapshot;
use crate::steering::Steering;
use crate::steering::fragments::{FragmentKey, FragmentMap, MOST_PIECES};
use crate::tokens::TokenBucket;
use defence::Defence;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use upkeep::Flush;

/// ICMP answers a worker makes per second, and at once (Linux: `icmp_msgs_per_sec`, `icmp_msgs_burst`).
const ICMP_PER_SECOND: u32 = 1000;
const ICMP_BURST: u32 = 50;

/// Wheel entries looked at in one turn.
const WHEEL_BUDGET: u32 = 256;

/// Remembered addresses looked at in one millisecond.
const LOCALITY_BUDGET: u32 = 64;

/// Template buckets looked at in one millisecond by worker 0.
const TEMPLATE_BUDGET: u32 = 64;

/// What an engine is made of. Sizes are this worker's alone.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// This worker.
    pub id: WorkerId,
    /// All workers.
    pub workers: u8,
    /// How flows are spread over workers.
    pub steering: Steering,
    /// By port: the NIC's RSS hash is the steering hash.
    pub trusted_rss: Box<[bool]>,
    /// IPv4 connections.
    pub connections_v4: u32,
    /// IPv6 connections.
    pub connections_v6: u32,
    /// Virtual services, as in [`SharedLimits`].
    pub services: usize,
    /// Early fragments held, and datagrams remembered.
    pub fragments: u32,
    /// Packets parked for unresolved next hops.
    pub parked: usize,
    /// Addresses that lblc and lblcr remember.
    pub localities: u32,
    /// Secret of the tables' hashes.
    pub hash_key: HashKey,
    /// Where this worker's random numbers begin: not the same for two workers, and known to nobody outside.
    pub seed: u64,
}

/// Why an engine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Not enough memory for a connection table.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// The table does not fit its memory.
    #[error(transparent)]
    Region(#[from] RegionError),
}

/// A connection table in memory of its own, with room for the replies of as many masqueraded connections as it holds.
fn table<A: Address>(connections: u32, config: &EngineConfig, now: Ticks) -> Result<Table<A>, EngineError> {
    let size = Size { capacity: connections, both_directions: true };
    let mut region = Region::anonymous(size.footprint::<A>().total())?;
    // Now, not when a worker first needs the page.
    region.touch();
    Ok(Table::create(region, size, config.hash_key, now)?)
}

/// Everything of an engine that does not depend on an address family.
#[derive(Debug)]
pub(crate) struct Core<P> {
    pub(crate) id: WorkerId,
    pub(crate) shared: Arc<Shared>,
    /// This worker's counts in `shared`, a pointer nearer.
    pub(crate) counts: Arc<[DestinationCounts]>,
    pub(crate) owner: Owner,
    pub(crate) cursors: Box<[Cursor]>,
    pub(crate) random: Random,
    pub(crate) localities: Localities,
    pub(crate) standings: Standings,
    pub(crate) parking: Parking<P>,
    pub(crate) fragments: FragmentMap<(P, PortId)>,
    /// The pieces behind the first one of a datagram, while that is on its way: they fare as it does.
    pub(crate) rest: Vec<Piece<P>>,
    /// A connection whose successor is being scheduled.
    pub(crate) leaving: Option<Leaving>,
    pub(crate) defence: Defence,
    hash_key: HashKey,
    workers: u8,
    /// FTP's control connections.
    pub(crate) controls: Controls,
    pub(crate) icmp_tokens: TokenBucket,
    /// Counts up in the IPv4 headers of frames made here.
    pub(crate) identification: u16,
}

/// One worker's engine. Pure: it does no I/O, reads no clock and draws no random number.
#[derive(Debug)]
pub struct Engine<P> {
    pub(crate) core: Core<P>,
    pub(crate) v4: Table<Ipv4Addr>,
    pub(crate) v6: Table<Ipv6Addr>,
    pub(crate) slots: Slots<P>,
    /// Pieces of datagrams that come one after the other.
    pub(crate) lines: Lines<P>,
    /// When [`Engine::turn`] last did its millisecond's work.
    ticked: Ticks,
    /// More connections have timed out than one turn closes.
    behind: bool,
    revision: u64,
    /// Removals of destinations up to this revision have had their connections closed, or `flush` is at it.
    flushed: u64,
    flush: Option<Flush>,
    /// Milliseconds since the defences were decided on.
    undecided: u32,
}

impl<P: Packet> Engine<P> {
    /// An engine with its tables in anonymous memory.
    ///
    /// # Errors
    /// The memory is not to be had.
    pub fn new(config: &EngineConfig, shared: Arc<Shared>, now: Ticks) -> Result<Self, EngineError> {
        let mut random = Random::seeded(config.seed);
        let destinations = shared.destinations.capacity();
        Ok(Self {
            core: Core {
                id: config.id,
                counts: shared.destinations.own(config.id),
                shared,
                owner: Owner::new(config.workers, config.steering, config.trusted_rss.clone()),
                cursors: vec![Cursor::start(config.id); config.services].into_boxed_slice(),
                localities: Localities::new(config.localities, config.services, random.bits()),
                standings: Standings::new(config.id, config.services, destinations),
                random,
                parking: Parking::new(config.parked),
                fragments: FragmentMap::new(config.fragments, config.fragments, config.hash_key.0),
                rest: Vec::with_capacity(MOST_PIECES.into()),
                leaving: None,
                defence: Defence::default(),
                hash_key: config.hash_key,
                workers: config.workers,
                controls: Controls::default(),
                icmp_tokens: TokenBucket::new(ICMP_PER_SECOND, ICMP_BURST, now),
                identification: 0,
            },
            v4: table(config.connections_v4, config, now)?,
            v6: table(config.connections_v6, config, now)?,
            slots: Slots::new(),
            lines: Lines::new(config.workers),
            ticked: now,
            behind: false,
            revision: 0,
            flushed: 0,
            flush: None,
            undecided: 0,
        })
    }

    /// The IPv4 connections, for listings by other threads.
    #[must_use]
    pub fn connections_v4(&self) -> Arc<Slab<Ipv4Addr>> {
        self.v4.slab()
    }

    /// The IPv6 connections, for listings by other threads.
    #[must_use]
    pub fn connections_v6(&self) -> Arc<Slab<Ipv6Addr>> {
        self.v6.slab()
    }

    /// To be called before a snapshot is used.
    #[inline(always)]
    pub(crate) fn see(&mut self, snapshot: &Snapshot, now: Ticks) {
        if snapshot.revision != self.revision {
            self.adopt(snapshot, now);
        }
    }

    /// Work that is due by time: expiry, parked packets, fragments. To be called once a turn, traffic or not.
    pub fn turn<S: Sink<P>>(&mut self, snapshot: &Snapshot, now: Ticks, sink: &mut S) {
        self.see(snapshot, now);
        let mut turn = Turn { snapshot, now, sink };
        if self.core.parking.len() > 0 {
            self.core.unpark(&mut turn);
        }
        if now != self.ticked || self.behind {
            self.behind = self.expire(snapshot, now);
        }
        if now != self.ticked {
            let elapsed = now.since(self.ticked);
            self.ticked = now;
            self.upkeep(snapshot, now, elapsed);
            self.forget_pieces(now);
            self.core.tidy(snapshot, now);
            let refused = self.v4.wheel_full() + self.v6.wheel_full();
            self.core.counters().set(Counter::WheelFull, refused);
        }
        self.core.counters().set_in_flight(self.core.in_flight() + self.lines.len() as u64);
    }

    /// Closes what has timed out, a bounded number in a turn; whether more is due.
    fn expire(&mut self, snapshot: &Snapshot, now: Ticks) -> bool {
        let Self { core, v4, v6, .. } = self;
        let v4 = v4.expire(now, WHEEL_BUDGET, |_, line| core.account_closed(line, snapshot, now));
        let v6 = v6.expire(now, WHEEL_BUDGET, |_, line| core.account_closed(line, snapshot, now));
        v4.behind || v6.behind
    }

    /// Drops what is held, so that every packet is accounted for when the worker ends.
    pub fn stop(&mut self) {
        self.drop_pieces(DropReason::Shutdown);
        let Core { parking, shared, id, .. } = &mut self.core;
        let counters = &shared.counters[id.index()];
        for packet in parking.drain() {
            counters.drop_one(DropReason::Shutdown);
            drop(packet);
        }
        counters.set_in_flight(0);
    }
}

impl<P: Packet> Core<P> {
    #[inline(always)]
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.id.index()]
    }

    /// Drops a packet.
    #[inline]
    pub(crate) fn discard(&mut self, packet: P, reason: DropReason) {
        self.counters().drop_one(reason);
        drop(packet);
        if !self.rest.is_empty() {
            self.discard_rest(reason);
        }
    }

    /// The rest of a datagram fares as its first piece.
    #[cold]
    fn discard_rest(&mut self, reason: DropReason) {
        let counters = &self.shared.counters[self.id.index()];
        self.rest.drain(..).for_each(|_| counters.drop_one(reason));
    }

    /// Hands a frame to the kernel's stack.
    pub(crate) fn punt<S: Sink<P>>(&mut self, class: PuntClass, port: PortId, packet: P, sink: &mut S) {
        let mut rest = std::mem::take(&mut self.rest);
        self.punt_one(class, port, packet, sink);
        for piece in rest.drain(..) {
            self.punt_one(class, piece.port, piece.packet, sink);
        }
        self.rest = rest;
    }

    fn punt_one<S: Sink<P>>(&mut self, class: PuntClass, port: PortId, packet: P, sink: &mut S) {
        let (counter, full) = match class {
            PuntClass::Control => (Counter::PuntedControl, DropReason::PuntControlFull),
            PuntClass::Local => (Counter::PuntedLocal, DropReason::PuntLocalFull),
            PuntClass::Stray => (Counter::PuntedStray, DropReason::PuntStrayFull),
        };
        match sink.punt(class, port, packet) {
            Ok(()) => self.counters().add(counter, 1),
            Err(packet) => self.discard(packet, full),
        }
    }

    /// Hands a packet to another worker.
    pub(crate) fn redirect<S: Sink<P>>(&mut self, to: WorkerId, redirected: Redirected<P>, sink: &mut S) {
        let fragment =
            !matches!(redirected.redirect, Redirect::ToOwner | Redirect::Ask { learned: None, .. });
        match sink.redirect(to, redirected) {
            Ok(()) => {
                self.counters().add(Counter::RedirectedOut, 1);
                if fragment {
                    self.counters().add(Counter::RedirectedFragments, 1);
                }
            }
            Err(packet) => self.discard(packet, DropReason::RedirectFull),
        }
    }

    /// Packets this engine holds back.
    fn in_flight(&self) -> u64 {
        (self.parking.len() + self.fragments.in_flight()) as u64
    }

    /// The worker where the pieces of a datagram meet.
    pub(crate) fn home_of(&self, key: &FragmentKey) -> WorkerId {
        key.home(self.hash_key.0, self.workers)
    }

    /// A millisecond's housekeeping: the schedulers' caches, and templates on worker 0.
    fn tidy(&mut self, snapshot: &Snapshot, now: Ticks) {
        self.localities.tidy(snapshot, now, LOCALITY_BUDGET, &self.shared.destinations);
        self.counters().set(Counter::LocalityFull, self.localities.refused());
        if self.id == WorkerId(0) {
            let destinations = &self.shared.destinations;
            self.shared.templates.sweep(now, TEMPLATE_BUDGET, &mut |slot: DestinationSlot| {
                destinations.shared(slot).templates.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
    }

    /// Takes note of what is new since `revision`: settings, and services whose scheduler or thresholds read counts, which this
    /// worker shares from now on.
    fn follow(&mut self, snapshot: &Snapshot, revision: u64, now: Ticks) {
        self.localities.configure(&snapshot.settings);
        snapshot.newly_shared(revision, |service: ServiceSlot| {
            let Some(view) = snapshot.service(service) else { return };
            self.localities.begin(view, now);
            for candidate in &view.candidates {
                self.shared.destinations.fold(self.id, candidate.slot);
            }
        });
    }
}
