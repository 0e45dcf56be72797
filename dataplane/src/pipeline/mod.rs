//! A packet's way through the director: the only hot path, read from top to bottom.
//!
//! Stages run over bursts of at most [`BURST`] packets: **parse** → **own** → **look up** → **schedule** → **track** →
//! **rewrite** → **transmit**. Each stage asks for the memory that the next one needs, so that a burst overlaps its cache
//! misses. What leaves the straight way is in the files beside: `schedule` (new connections), `forward` (rewrite),
//! `answer` (ICMP made here), `quoted` (ICMP errors received), `pieces` (fragments), `parking` (unresolved next hops).

mod answer;
mod forward;
mod own;
mod parking;
mod pieces;
mod quoted;
mod schedule;
mod track;

pub(crate) use own::Owner;
pub(crate) use parking::Parking;
pub use pieces::Learned;

use crate::address::Address;
use crate::connection::{Candidate, ConnectionId, FlowHash, Found, Table};
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Engine, Redirect, Redirected, Sink};
use crate::exception::PuntClass;
use crate::flow::{FlowKey, Tuple, protocol};
use crate::id::{PortId, Ticks};
use crate::packet::icmp::Report;
use crate::packet::{Headers, Packet, Parsed};
use crate::snapshot::Snapshot;
use answer::Refused;
use schedule::Fate;

/// Packets in a burst.
pub const BURST: usize = 32;

/// What the stages of one burst have in common.
pub(crate) struct Turn<'a, S> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Ticks,
    pub(crate) sink: &'a mut S,
}

/// A packet of a flow that this worker owns, between stages.
#[derive(Debug)]
pub(crate) struct Work<P, A> {
    packet: P,
    port: PortId,
    headers: Headers,
    tuple: Tuple<A>,
    hash: FlowHash,
    candidate: Candidate,
    found: Option<Found>,
}

impl<P: Packet> Engine<P> {
    /// Takes a burst received on `port` and hands every packet on: to `sink`, to a place it waits in, or to its drop counter.
    pub fn process<S: Sink<P>>(
        &mut self,
        port: PortId,
        burst: impl Iterator<Item = P>,
        snapshot: &Snapshot,
        now: Ticks,
        sink: &mut S,
    ) {
        let mut turn = Turn { snapshot, now, sink };
        let (mut packets, mut bytes) = (0, 0);
        for packet in burst {
            packets += 1;
            bytes += packet.total_length() as u64;
            self.parse(port, packet, &mut turn);
        }
        let counters = self.core.counters();
        counters.add(Counter::Received, packets);
        counters.add(Counter::ReceivedBytes, bytes);
        self.flows(&mut turn);
    }

    /// Takes packets over from other workers.
    pub fn process_redirected<S: Sink<P>>(
        &mut self,
        burst: impl Iterator<Item = Redirected<P>>,
        snapshot: &Snapshot,
        now: Ticks,
        sink: &mut S,
    ) {
        let mut turn = Turn { snapshot, now, sink };
        for redirected in burst {
            self.core.counters().add(Counter::RedirectedIn, 1);
            self.take_over(redirected, &mut turn);
        }
        self.flows(&mut turn);
    }

    /// Stage 1, parse: headers checked, flow and hash known, the index bucket on its way.
    #[inline]
    fn parse<S: Sink<P>>(&mut self, port: PortId, packet: P, turn: &mut Turn<'_, S>) {
        let core = &mut self.core;
        let headers = match crate::packet::parse(packet.data(), packet.total_length(), packet.segments()) {
            Parsed::Flow(headers) => headers,
            Parsed::Punt(class) => return core.punt(class, port, packet, turn.sink),
            Parsed::Drop(reason) => return core.discard(packet, reason),
        };
        match core.addressee(port, packet.data(), turn.snapshot) {
            own::Addressee::Us => {}
            own::Addressee::Everybody => return core.punt(headers.punt_class(), port, packet, turn.sink),
            own::Addressee::Other => return core.discard(packet, DropReason::OtherHost),
        }
        if headers.is_fragment() {
            return self.piece(port, packet, headers, turn);
        }
        match headers.protocol {
            protocol::TCP | protocol::UDP => self.own(port, packet, headers, turn),
            protocol::ICMP | protocol::ICMPV6 => self.icmp(port, packet, headers, turn),
            _ => core.not_ours(port, packet, &headers, turn),
        }
    }

    /// Another worker found this one to be the owner, or a fragment's home. It is never sent on as a whole: two workers on
    /// different snapshots cannot play ball with it.
    fn take_over<S: Sink<P>>(&mut self, redirected: Redirected<P>, turn: &mut Turn<'_, S>) {
        let Redirected { packet, port, redirect } = redirected;
        let headers = match crate::packet::parse(packet.data(), packet.total_length(), packet.segments()) {
            Parsed::Flow(headers) => headers,
            Parsed::Punt(class) => return self.core.punt(class, port, packet, turn.sink),
            Parsed::Drop(reason) => return self.core.discard(packet, reason),
        };
        match redirect {
            Redirect::FragmentToHome => self.piece_at_home(port, packet, headers, turn),
            Redirect::FragmentToOwner(learned) => self.piece_of_flow(port, packet, headers, learned),
            Redirect::ToOwner if matches!(headers.protocol, protocol::ICMP | protocol::ICMPV6) => {
                self.relay(port, packet, headers, turn);
            }
            Redirect::ToOwner => {
                let key = headers.key(packet.data());
                self.admit(port, packet, headers, key);
            }
        }
    }

    /// Stage 2, own: packets of other workers' flows go to them.
    #[inline]
    fn own<S: Sink<P>>(&mut self, port: PortId, packet: P, headers: Headers, turn: &mut Turn<'_, S>) {
        let key = headers.key(packet.data());
        if self.core.owner.alone() {
            return self.admit(port, packet, headers, key);
        }
        match self.core.owner.of(&key, packet.rss_hash(), port, turn.snapshot) {
            Some(owner) if owner == self.core.id => self.admit(port, packet, headers, key),
            Some(owner) => {
                self.core.redirect(
                    owner,
                    Redirected { packet, port, redirect: Redirect::ToOwner },
                    turn.sink,
                );
            }
            None => self.core.not_ours(port, packet, &headers, turn),
        }
    }

    /// The packet is this worker's: its bucket is asked for.
    #[inline(always)]
    fn admit(&mut self, port: PortId, packet: P, headers: Headers, key: FlowKey) {
        match key {
            FlowKey::V4(tuple) => {
                let hash = self.v4.hash(&tuple);
                self.v4.prefetch(hash);
                self.work_v4.push(Work {
                    packet,
                    port,
                    headers,
                    tuple,
                    hash,
                    candidate: Candidate::default(),
                    found: None,
                });
            }
            FlowKey::V6(tuple) => {
                let hash = self.v6.hash(&tuple);
                self.v6.prefetch(hash);
                self.work_v6.push(Work {
                    packet,
                    port,
                    headers,
                    tuple,
                    hash,
                    candidate: Candidate::default(),
                    found: None,
                });
            }
        }
    }

    /// Stages 3 to 7 for what stage 2 admitted.
    #[inline]
    pub(crate) fn flows<S: Sink<P>>(&mut self, turn: &mut Turn<'_, S>) {
        if !self.work_v4.is_empty() {
            look_up(&self.v4, &mut self.work_v4);
            finish(&mut self.core, &mut self.v4, &mut self.work_v4, turn);
        }
        if !self.work_v6.is_empty() {
            look_up(&self.v6, &mut self.work_v6);
            finish(&mut self.core, &mut self.v6, &mut self.work_v6, turn);
        }
    }
}

/// Stage 3, look up: first all buckets, then all connection lines.
#[inline]
fn look_up<P, A: Address>(table: &Table<A>, work: &mut [Work<P, A>]) {
    for item in work.iter_mut() {
        item.candidate = table.candidate(item.hash);
    }
    for item in work {
        item.found = table.find_at(item.candidate, item.hash, &item.tuple);
    }
}

/// Stages 4 to 7, packet by packet in order of arrival: a connection that one packet opens is there for the next.
#[inline]
fn finish<P: Packet, A: Address, S: Sink<P>>(
    core: &mut Core<P>,
    table: &mut Table<A>,
    work: &mut Vec<Work<P, A>>,
    turn: &mut Turn<'_, S>,
) {
    let (mut hits, mut misses) = (0, 0);
    for mut item in work.drain(..) {
        if misses > 0 {
            // Connections were opened or closed since stage 3 looked.
            item.found = table.find(item.hash, &item.tuple);
        }
        let usable = item.found.filter(|found| core.usable(table, *found, &item.headers, turn));
        let id = match usable {
            Some(found) => {
                hits += 1;
                Ok(found.id)
            }
            None => {
                misses += 1;
                core.open(table, &item, turn)
            }
        };
        match id {
            Ok(id) => core.send_on(table, id, item, turn),
            Err(fate) => core.refuse(fate, item, turn),
        }
    }
    core.counters().add(Counter::Hits, hits);
    core.counters().add(Counter::Misses, misses);
}

impl<P: Packet> Core<P> {
    /// Stages 5 to 7 for a packet of connection `id`.
    #[inline]
    fn send_on<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        item: Work<P, A>,
        turn: &mut Turn<'_, S>,
    ) {
        let slot = table.line(id).destination();
        let Some(destination) = turn.snapshot.destination(slot).filter(|destination| destination.available)
        else {
            return self.discard(item.packet, DropReason::DestinationRemoved);
        };
        self.track(table, id, &item.headers, turn);
        self.shared.destinations.of(self.id, slot).count_in(item.headers.ip_length.into());
        let virtual_address = item.tuple.destination.ip();
        self.forward(item.packet, item.port, item.headers, virtual_address, slot, destination, turn);
    }

    /// A packet for which there is no connection, and none was opened.
    #[cold]
    fn refuse<A: Address, S: Sink<P>>(&mut self, fate: Fate, item: Work<P, A>, turn: &mut Turn<'_, S>) {
        let Work { packet, port, headers, tuple, .. } = item;
        match fate {
            Fate::NotOurs => self.not_ours(port, packet, &headers, turn),
            Fate::NoDestination => {
                let (virtual_address, reason) = (tuple.destination.ip(), DropReason::NoDestination);
                let refused = Refused { packet, port, headers, virtual_address, reason };
                self.answer(refused, Report::PortUnreachable, turn);
            }
            Fate::Drop(reason) => self.discard(packet, reason),
        }
    }

    /// Not a virtual service's: the kernel's stack decides.
    pub(crate) fn not_ours<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: &Headers,
        turn: &mut Turn<'_, S>,
    ) {
        let destination = headers.key(packet.data()).destination();
        let class = match headers.punt_class() {
            PuntClass::Local if turn.snapshot.virtual_addresses.contains(destination) => PuntClass::Stray,
            class => class,
        };
        self.punt(class, port, packet, turn.sink);
    }
}
