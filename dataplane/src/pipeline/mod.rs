//! A packet's way through the director: the only hot path, read from top to bottom.
//!
//! A burst of at most [`BURST`] packets passes the stages **parse** → **own** → **look up** → **schedule** → **track** →
//! **rewrite** → **transmit** in groups of eight: while one group is parsed, the index buckets of the one before and the
//! connection lines of the one before that are on their way from memory, so that the processor works while it waits. `straight`
//! takes nearly all packets from there. What leaves that way is in the files beside: `live` (connections that end), `schedule` and
//! `persist` (new ones), `forward` (rewrite), `reply` (masqueraded servers' packets), `answer` (ICMP made here), `quoted` (ICMP
//! errors received), `pieces` (fragments), `parking` (unresolved next hops).

mod answer;
mod control;
mod forward;
mod lengths;
mod live;
mod outer;
mod own;
mod parking;
mod persist;
mod pieces;
mod quoted;
mod reply;
mod schedule;
mod straight;
mod track;

pub(crate) use live::Leaving;
pub(crate) use own::Owner;
pub(crate) use parking::Parking;
pub use pieces::Learned;
pub(crate) use pieces::{Lines, Piece};

use crate::connection::tcp::Sender;
use crate::connection::{Candidate, ConnectionId, FlowHash, Found, Table};
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Engine, Redirect, Redirected, Sink};
use crate::exception::PuntClass;
use crate::flow::protocol;
use crate::id::{DestinationSlot, PortId, Ticks};
use crate::packet::checksum::decrement_ttl;
use crate::packet::icmp::Report;
use crate::packet::{
    Family, Headers, KeptTuple, Packet, Plain, Refusal, WireAddress, destination_mac, options, parse_into,
};
use crate::snapshot::Snapshot;
use answer::Refused;
use forward::{How, Outgoing};
use own::{Addressee, Shard};
use schedule::{Fate, Opened};

/// Packets in a burst.
pub const BURST: usize = 32;

/// Packets that pass a stage together. Fewer, and their memory has not come when it is wanted; more, and the first and last
/// groups of a burst have nothing to overlap with.
const GROUP: usize = 8;

/// What the stages of one burst have in common.
pub(crate) struct Turn<'a, S> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Ticks,
    pub(crate) sink: &'a mut S,
}

/// A packet between stages. Slots are filled in place and used again: no stage copies one, because a copy made right after
/// its parts were written would wait for every one of them.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot<P> {
    packet: Option<P>,
    hash: FlowHash,
    tuple: KeptTuple,
    headers: Headers,
    candidate: Candidate,
    port: PortId,
    /// Workers to ask when this one has no connection for it.
    ask: u8,
}

impl<P> Slot<P> {
    /// Keeps the tuple of the packet whose headers the slot has.
    #[inline]
    fn keep(&mut self, data: &[u8]) {
        match self.headers.family {
            Family::V4 => WireAddress::keep(&self.headers.tuple_v4(data), &mut self.tuple),
            Family::V6 => WireAddress::keep(&self.headers.tuple_v6(data), &mut self.tuple),
        }
    }
}

/// The packets of flows that this worker owns, between stages, in order of arrival.
#[derive(Debug)]
pub(crate) struct Slots<P> {
    slots: [Slot<P>; BURST],
    /// Packets whose buckets were asked for.
    count: usize,
    /// Those of the groups before, the next to have their lines asked for.
    asked: usize,
    /// Those whose lines were asked for.
    looked_up: usize,
    /// Those that went on.
    finished: usize,
    /// Those that had no connection.
    misses: u64,
    /// Those that were forwarded.
    forwarded: u64,
}

impl<P> Slots<P> {
    pub(crate) fn new() -> Self {
        let empty = || Slot {
            packet: None,
            headers: Headers::default(),
            tuple: KeptTuple::default(),
            hash: FlowHash::default(),
            candidate: Candidate::default(),
            port: PortId(0),
            ask: 0,
        };
        Self {
            slots: std::array::from_fn(|_| empty()),
            count: 0,
            asked: 0,
            looked_up: 0,
            finished: 0,
            misses: 0,
            forwarded: 0,
        }
    }
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
        self.see(snapshot, now);
        let mut turn = Turn { snapshot, now, sink };
        let own = snapshot.ports.get(port.index()).map_or([0; 6], |view| view.mac);
        let (mut packets, mut bytes) = (0, 0);
        for packet in burst {
            packets += 1;
            bytes += packet.total_length() as u64;
            self.parse(port, own, packet, &mut turn);
            if self.slots.count - self.slots.asked >= GROUP {
                self.step(&mut turn);
            }
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
        self.see(snapshot, now);
        let mut turn = Turn { snapshot, now, sink };
        for redirected in burst {
            self.core.counters().add(Counter::RedirectedIn, 1);
            self.take_over(redirected, &mut turn);
        }
        self.flows(&mut turn);
    }

    /// Stage 1, parse: headers checked, flow and hash known, the index bucket on its way.
    #[inline(always)]
    fn parse<S: Sink<P>>(&mut self, port: PortId, own: [u8; 6], packet: P, turn: &mut Turn<'_, S>) {
        let Some(slot) = self.slots.slots.get_mut(self.slots.count) else {
            return self.make_room(port, own, packet, turn);
        };
        let plain = Plain::of(packet.data()).filter(|plain| plain.is_to(own));
        if plain.is_some_and(|plain| plain.read(packet.total_length(), &mut slot.headers, &mut slot.tuple)) {
            (slot.port, slot.ask) = (port, 0);
            self.divide(Family::V4, packet, turn);
        } else {
            self.parse_any(port, own, packet, turn);
        }
    }

    /// The same when all slots are taken.
    #[cold]
    fn make_room<S: Sink<P>>(&mut self, port: PortId, own: [u8; 6], packet: P, turn: &mut Turn<'_, S>) {
        self.flows(turn);
        self.parse_any(port, own, packet, turn);
    }

    /// The same for any frame.
    #[inline(never)]
    fn parse_any<S: Sink<P>>(&mut self, port: PortId, own: [u8; 6], packet: P, turn: &mut Turn<'_, S>) {
        let slot = &mut self.slots.slots[self.slots.count];
        let (length, segments) = (packet.total_length(), packet.segments());
        if let Err(refusal) = parse_into(&mut slot.headers, packet.data(), length, segments) {
            return self.core.no_flow(port, packet, refusal, turn);
        }
        if destination_mac(packet.data()) != own {
            match self.core.addressee(port, packet.data(), turn.snapshot) {
                Addressee::Us => {}
                Addressee::Everybody => {
                    return self.core.punt(slot.headers.punt_class(), port, packet, turn.sink);
                }
                Addressee::Other => return self.core.discard(packet, DropReason::OtherHost),
            }
        }
        if !slot.headers.is_steady()
            && (slot.headers.is_uncommon() || !matches!(slot.headers.protocol, protocol::TCP | protocol::UDP))
        {
            let headers = slot.headers;
            return self.unusual(port, packet, headers, turn);
        }
        (slot.port, slot.ask) = (port, 0);
        slot.keep(packet.data());
        let family = slot.headers.family;
        self.divide(family, packet, turn);
    }

    /// A packet that the next slot is about goes on, here or elsewhere.
    #[inline(always)]
    fn divide<S: Sink<P>>(&mut self, family: Family, packet: P, turn: &mut Turn<'_, S>) {
        if self.core.owner.alone() {
            self.admit(family, packet);
        } else {
            self.own(family, packet, turn);
        }
    }

    /// Neither a whole segment nor a whole datagram, or one with options.
    #[cold]
    fn unusual<S: Sink<P>>(
        &mut self,
        port: PortId,
        mut packet: P,
        mut headers: Headers,
        turn: &mut Turn<'_, S>,
    ) {
        if headers.is_fragment() {
            return self.piece(port, packet, headers, turn);
        }
        if headers.is_atomic() {
            let Some(whole) = lengths::without_fragment_header(&mut packet, &headers) else {
                return self.core.discard(packet, DropReason::Segments);
            };
            headers = whole;
        }
        let headers = headers.following();
        if matches!(headers.protocol, protocol::ICMP | protocol::ICMPV6) {
            self.icmp(port, packet, headers, turn);
        } else if !matches!(headers.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
            || (headers.has_options() && !options_are_ours(&packet, &headers))
        {
            self.core.not_ours(port, packet, &headers, turn);
        } else {
            let slot = &mut self.slots.slots[self.slots.count];
            (slot.headers, slot.port, slot.ask) = (headers, port, 0);
            slot.keep(packet.data());
            self.divide(headers.family, packet, turn);
        }
    }

    /// Another worker found this one to be the owner, or a fragment's home. It is never sent on as a whole: two workers on
    /// different snapshots cannot play ball with it.
    fn take_over<S: Sink<P>>(&mut self, redirected: Redirected<P>, turn: &mut Turn<'_, S>) {
        let Redirected { packet, port, redirect } = redirected;
        let mut headers = Headers::default();
        let (length, segments) = (packet.total_length(), packet.segments());
        if let Err(refusal) = parse_into(&mut headers, packet.data(), length, segments) {
            return self.core.no_flow(port, packet, refusal, turn);
        }
        match redirect {
            Redirect::FragmentToHome => self.piece_at_home(port, packet, headers, turn),
            Redirect::FragmentToOwner(learned) => self.piece_of_flow(port, packet, headers, learned, turn),
            Redirect::ToOwner if matches!(headers.protocol, protocol::ICMP | protocol::ICMPV6) => {
                self.relay(port, packet, headers, 0, turn);
            }
            Redirect::ToOwner => {
                let announced = control::may_be_announced(&headers, turn.snapshot);
                let ask = if announced { self.core.owner.others() } else { 0 };
                self.enter(port, packet, headers.following(), ask, turn);
            }
            Redirect::Ask { left, .. } if matches!(headers.protocol, protocol::ICMP | protocol::ICMPV6) => {
                self.relay(port, packet, headers, left, turn);
            }
            Redirect::Ask { left, learned: Some(learned) } => {
                self.piece_asked_about(port, packet, headers, (learned, left), turn);
            }
            Redirect::Ask { left, learned: None } => {
                self.enter(port, packet, headers.following(), left, turn);
            }
        }
    }

    /// Stage 2, own: packets of other workers' flows go to them.
    #[inline]
    fn own<S: Sink<P>>(&mut self, family: Family, packet: P, turn: &mut Turn<'_, S>) {
        let slot = &mut self.slots.slots[self.slots.count];
        let (port, headers) = (slot.port, &slot.headers);
        // A NIC does not know which ports a follower goes by.
        let hash = packet.rss_hash().filter(|_| !headers.is_follower());
        let owner = self.core.owner.of(&headers.key(packet.data()), hash, port, turn.snapshot);
        match owner {
            Shard::Of(owner) if owner == self.core.id => {
                if control::may_be_announced(headers, turn.snapshot) {
                    slot.ask = self.core.owner.others();
                }
                self.admit(family, packet);
            }
            Shard::Unknown => {
                slot.ask = self.core.owner.others();
                self.admit(family, packet);
            }
            Shard::Of(owner) => {
                let redirected = Redirected { packet, port, redirect: Redirect::ToOwner };
                self.core.redirect(owner, redirected, turn.sink);
            }
            Shard::Nobodys => self.core.not_ours(port, packet, headers, turn),
        }
    }

    /// A packet whose headers are known by other ways than parsing goes on to stage 3; `ask` workers are asked when no connection is
    /// there.
    pub(crate) fn enter<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        ask: u8,
        turn: &mut Turn<'_, S>,
    ) {
        if self.slots.count == BURST {
            self.flows(turn);
        }
        let slot = &mut self.slots.slots[self.slots.count];
        (slot.headers, slot.port, slot.ask) = (headers, port, ask);
        slot.keep(packet.data());
        self.admit(headers.family, packet);
    }

    /// The packet that the next slot is about is this worker's: its bucket is asked for.
    #[inline(always)]
    fn admit(&mut self, family: Family, packet: P) {
        let slot = &mut self.slots.slots[self.slots.count];
        match family {
            Family::V4 => {
                slot.hash = self.v4.hash(&WireAddress::kept(&slot.tuple));
                self.v4.prefetch(slot.hash);
            }
            Family::V6 => {
                slot.hash = self.v6.hash(&WireAddress::kept(&slot.tuple));
                self.v6.prefetch(slot.hash);
            }
        }
        slot.packet = Some(packet);
        self.slots.count += 1;
    }

    /// Stages 3 to 7 for what stage 2 admitted.
    #[inline]
    pub(crate) fn flows<S: Sink<P>>(&mut self, turn: &mut Turn<'_, S>) {
        if self.slots.count == 0 {
            return;
        }
        while self.slots.finished < self.slots.count {
            self.step(turn);
        }
        let Slots { count, misses, forwarded, .. } = self.slots;
        let counters = self.core.counters();
        counters.add(Counter::Hits, count as u64 - misses);
        counters.add(Counter::Misses, misses);
        counters.add(Counter::Forwarded, forwarded);
        (self.slots.misses, self.slots.forwarded) = (0, 0);
        (self.slots.count, self.slots.asked, self.slots.looked_up, self.slots.finished) = (0, 0, 0, 0);
    }

    /// Moves two groups on: one has its lines asked for, the one before goes through the other stages.
    #[inline(never)]
    fn step<S: Sink<P>>(&mut self, turn: &mut Turn<'_, S>) {
        let Slots { count, asked, looked_up, finished, .. } = self.slots;
        for slot in &mut self.slots.slots[looked_up..asked] {
            slot.candidate = match slot.headers.family {
                Family::V4 => self.v4.candidate(slot.hash),
                Family::V6 => self.v6.candidate(slot.hash),
            };
        }
        let Self { core, v4, v6, slots, .. } = self;
        let (mut misses, mut forwarded) = (slots.misses, slots.forwarded);
        // Packet by packet in order of arrival: a connection that one packet opens is there for the next.
        for slot in &mut slots.slots[finished..looked_up] {
            let Some(packet) = slot.packet.take() else { continue };
            let missed = match slot.headers.family {
                Family::V4 => core.finish(v4, packet, slot, misses > 0, &mut forwarded, turn),
                Family::V6 => core.finish(v6, packet, slot, misses > 0, &mut forwarded, turn),
            };
            misses += u64::from(missed);
        }
        (slots.misses, slots.forwarded) = (misses, forwarded);
        (slots.finished, slots.looked_up, slots.asked) = (looked_up, asked, count);
    }
}

impl<P: Packet> Core<P> {
    /// Stages 4 to 7 for one packet; whether no connection was there for it. `changed`: connections were opened or closed since
    /// the candidate was found.
    #[inline(always)]
    fn finish<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        packet: P,
        slot: &Slot<P>,
        changed: bool,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let changed = changed && !slot.candidate.outlives_changes();
        let suggested = if changed { None } else { table.confirm(slot.candidate, &A::kept(&slot.tuple)) };
        let Some(found) = suggested.or_else(|| search(table, slot)) else {
            self.missed(table, packet, slot, forwarded, turn);
            return true;
        };
        match self.straight_on(table, found, packet, &slot.headers, forwarded, turn) {
            Ok(()) => false,
            Err(packet) => self.found(table, found, packet, slot, forwarded, turn),
        }
    }

    /// A packet of a connection, if that is good for it still; whether it was not.
    #[inline(never)]
    fn found<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        found: Found,
        mut packet: P,
        slot: &Slot<P>,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let usable = self.usable(table, found, &mut packet, &slot.headers, turn);
        if !usable {
            self.missed(table, packet, slot, forwarded, turn);
        } else if found.reverse {
            self.reply(table, found.id, packet, slot, forwarded, turn);
        } else {
            self.send_on(table, found.id, packet, slot, forwarded, turn);
        }
        !usable
    }

    /// A packet without a connection: a service may open one.
    #[inline(never)]
    fn missed<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        mut packet: P,
        slot: &Slot<P>,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) {
        let announced = self.announced(table, &packet, slot, turn).map(Opened::Connection);
        match announced.map_or_else(|| self.open(table, &packet, slot, turn), Ok) {
            Ok(Opened::Connection(id)) => {
                self.clamp(table.line(id), packet.data_mut(), &slot.headers, turn.snapshot);
                self.send_on(table, id, packet, slot, forwarded, turn);
            }
            Ok(Opened::Tracked(id)) => {
                self.clamp(table.line(id), packet.data_mut(), &slot.headers, turn.snapshot);
                self.send_tracked(table, id, packet, slot, forwarded, turn);
            }
            Ok(Opened::Once(to, how)) => self.send_once((to, how), packet, slot, forwarded, turn),
            Err(Fate::NotOurs) => {
                self.overhear(table, &packet, &slot.headers, turn);
                self.no_connection(packet, slot, turn);
            }
            Err(Fate::NoDestination) => {
                let reason = DropReason::NoDestination;
                let refused = Refused { packet, port: slot.port, headers: slot.headers, reason };
                self.answer(refused, Report::PortUnreachable, turn);
            }
            Err(Fate::Drop(reason)) => self.discard(packet, reason),
        }
        self.settle(turn.snapshot, turn.now);
    }

    /// Stages 5 to 7 for a packet of connection `id`.
    #[inline(always)]
    fn send_on<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        packet: P,
        slot: &Slot<P>,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) {
        let to = table.line(id).destination();
        if !turn.snapshot.destination(to).is_some_and(|destination| destination.available) {
            return self.unserved(table, id, packet, slot, forwarded, turn);
        }
        self.track(table, id, &slot.headers, Sender::Client, turn);
        self.send_tracked(table, id, packet, slot, forwarded, turn);
    }

    /// Stages 6 and 7 for a packet that connection `id`, whose destination is there, has seen.
    #[inline(always)]
    fn send_tracked<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        mut packet: P,
        slot: &Slot<P>,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) {
        let (line, headers) = (table.line(id), &slot.headers);
        let to = line.destination();
        self.shared.destinations.of(self.id, to).count_in(headers.ip_length.into());
        let how = How::of(line);
        let hop = turn.snapshot.hop(to);
        if how == How::Direct
            && !headers.needs_care()
            && headers.ttl > 1
            && headers.ip_length <= hop.longest.into()
        {
            let data = packet.data_mut();
            let _ = decrement_ttl(data, headers.network.into(), headers.family);
            if let Some(macs) = data.first_chunk_mut() {
                *macs = hop.macs;
            }
            turn.sink.transmit(hop.port, packet);
            *forwarded += 1;
            return;
        }
        let Some(destination) = turn.snapshot.destination(to) else {
            return self.discard(packet, DropReason::DestinationRemoved);
        };
        *forwarded += u64::from(if how == How::Direct {
            let outgoing = Outgoing { packet, port: slot.port, headers, to, destination };
            self.forward(outgoing, How::Direct, turn)
        } else {
            self.send_changed(table, id, packet, slot, (to, destination, how), turn)
        });
    }

    /// Stages 6 and 7 for a packet that leaves no connection behind.
    fn send_once<S: Sink<P>>(
        &mut self,
        (to, how): (DestinationSlot, How),
        packet: P,
        slot: &Slot<P>,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) {
        let Some(destination) = turn.snapshot.destination(to) else {
            return self.discard(packet, DropReason::DestinationRemoved);
        };
        self.shared.destinations.of(self.id, to).count_in(slot.headers.ip_length.into());
        let outgoing = Outgoing { packet, port: slot.port, headers: &slot.headers, to, destination };
        *forwarded += u64::from(self.forward(outgoing, how, turn));
    }

    /// Not a flow: for the kernel's stack, or for nobody.
    #[cold]
    fn no_flow<S: Sink<P>>(&mut self, port: PortId, packet: P, refusal: Refusal, turn: &mut Turn<'_, S>) {
        match refusal {
            Refusal::Drop(reason) => self.discard(packet, reason),
            Refusal::Punt(class) => self.punt(class, port, packet, turn.sink),
        }
    }

    /// Not a virtual service's: the kernel's stack decides.
    #[inline(never)]
    pub(crate) fn not_ours<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: &Headers,
        turn: &mut Turn<'_, S>,
    ) {
        let destination = headers.key(packet.data()).destination();
        // Ping stays local: a virtual address answers it under a flood of what is for no service, too.
        let stray = !headers.is_echo_request() && turn.snapshot.virtual_addresses.contains(destination);
        let class = match headers.punt_class() {
            PuntClass::Local if stray => PuntClass::Stray,
            class => class,
        };
        self.punt(class, port, packet, turn.sink);
    }
}

/// The connection of a packet that no candidate was right for.
#[inline(never)]
fn search<A: WireAddress, P>(table: &Table<A>, slot: &Slot<P>) -> Option<Found> {
    table.find(slot.hash, &A::kept(&slot.tuple))
}

/// Whether options ask for nothing but what the director does; the host's stack sees to others.
fn options_are_ours<P: Packet>(packet: &P, headers: &Headers) -> bool {
    let header = packet.data().get(headers.network.into()..headers.transport.into());
    header.is_some_and(options::acceptable)
}
