//! ICMP errors that quote a connection of ours: from the client's side to its destination, from a masqueraded server's side to
//! its client, about a tunnel's outer packet to the client too. Everything else is the kernel's.

use super::Turn;
use super::answer::Refused;
use super::forward::{How, Outgoing};
use super::own::Shard;
use super::reply::{ClientHop, client_hop};
use super::schedule::{Fate, Opened, Opener};
use crate::address::Address;
use crate::connection::{ConnectionId, Found, Line, Table, flags};
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Engine, Redirect, Redirected, Sink};
use crate::flow::{FlowKey, Tuple, protocol};
use crate::id::{DestinationSlot, PortId};
use crate::packet::checksum::decrement_ttl;
use crate::packet::icmp::relay::{self, Tunnelled};
use crate::packet::icmp::{self, Quoted, Report};
use crate::packet::rewrite::End;
use crate::packet::{Family, Headers, Packet, source_mac};
use crate::snapshot::Encapsulation;
use std::net::{IpAddr, Ipv4Addr};

/// An ICMP error between stages.
struct Error<P> {
    packet: P,
    /// Port it came in by.
    port: PortId,
    headers: Headers,
    quoted: Quoted,
    /// Workers to ask when this one has no connection for it.
    ask: u8,
}

impl<P: Packet> Engine<P> {
    /// An ICMP message. An error about a reply that a real server sent in the virtual address's name quotes VIP → client, one about
    /// a request to a masqueraded server client → server.
    #[cold]
    pub(super) fn icmp<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        turn: &mut Turn<'_, S>,
    ) {
        let Some(quoted) = icmp::quoted(packet.data(), &headers) else {
            return self.core.not_ours(port, packet, &headers, turn);
        };
        if self.core.owner.alone() {
            return self.relay(port, packet, headers, 0, turn);
        }
        let of = |request| self.core.owner.of(&request, None, port, turn.snapshot);
        let inside = relay::tunnelled(packet.data(), &headers, &quoted);
        let tunnel = inside.map(|inside| of(inside.key.followed())).filter(|shard| *shard != Shard::Nobodys);
        let plain = of(quoted.key.reversed().followed());
        let shard = tunnel.unwrap_or(plain);
        // What looks like a tunnel of ours may be what a service carries: then the owner of that is asked, too.
        let either = plain != Shard::Nobodys && plain != shard;
        let ask = if either || shard == Shard::Unknown { self.core.owner.others() } else { 0 };
        match shard {
            Shard::Of(owner) if owner != self.core.id => {
                let redirect = match ask {
                    0 => Redirect::ToOwner,
                    left => Redirect::Ask { left, learned: None },
                };
                self.core.redirect(owner, Redirected { packet, port, redirect }, turn.sink);
            }
            Shard::Of(_) | Shard::Unknown => self.relay(port, packet, headers, ask, turn),
            Shard::Nobodys => self.core.not_ours(port, packet, &headers, turn),
        }
    }

    /// An ICMP error of a flow that this worker owns, or may own: then `ask` others are asked.
    pub(super) fn relay<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        ask: u8,
        turn: &mut Turn<'_, S>,
    ) {
        let Some(quoted) = icmp::quoted(packet.data(), &headers) else {
            return self.core.not_ours(port, packet, &headers, turn);
        };
        let inside = relay::tunnelled(packet.data(), &headers, &quoted);
        let mut error = Error { packet, port, headers, quoted, ask };
        if let Some(inside) = inside {
            match self.core.outer_error(&self.v4, error, inside, turn) {
                Ok(()) => return,
                Err(other) => error = other,
            }
        }
        match quoted.key.reversed().followed() {
            FlowKey::V4(request) => self.core.relay(&mut self.v4, &request, error, turn),
            FlowKey::V6(request) => self.core.relay(&mut self.v6, &request, error, turn),
        }
    }
}

impl<P: Packet> Core<P> {
    fn relay<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        request: &Tuple<A>,
        error: Error<P>,
        turn: &mut Turn<'_, S>,
    ) {
        // Without any service there is no director in the packet's way.
        if !turn.snapshot.index.has_family(A::LENGTH != 4) {
            return self.not_ours(error.port, error.packet, &error.headers, turn);
        }
        let found = table
            .find(table.hash(request), request)
            .filter(|found| !table.line(found.id).is_expired(turn.now));
        let Some(Found { id, reverse }) = found else {
            let Error { packet, port, headers, quoted, ask } = error;
            if ask == 0 {
                self.count_past_us(table, request, &headers, turn);
                if !quoted.has_ports() {
                    // What only follows a connection opens none.
                    return self.not_ours(port, packet, &headers, turn);
                }
                return self.unknown_to_us(table, request, (port, packet, headers), turn);
            }
            let redirect = Redirect::Ask { left: ask - 1, learned: None };
            let next = self.owner.after(self.id);
            return self.redirect(next, Redirected { packet, port, redirect }, turn.sink);
        };
        let masqueraded = table.line(id).flags() & flags::METHOD == flags::MASQUERADE;
        if masqueraded {
            // What is computed anew must have been right.
            match relay::checksum_valid(error.packet.data(), &error.headers) {
                Some(true) => {}
                Some(false) => return self.discard(error.packet, DropReason::IcmpChecksum),
                None => return self.discard(error.packet, DropReason::Segments),
            }
        }
        if reverse {
            self.error_to_client(table, id, error, turn);
        } else {
            self.error_to_server(table, id, error, turn);
        }
    }

    /// A server that answers clients itself, or a router on the way to it, tells a client of its request: that is the kernel's to
    /// forward, and the server's in the counts.
    fn count_past_us<A: Address, S>(
        &self,
        table: &Table<A>,
        request: &Tuple<A>,
        headers: &Headers,
        turn: &Turn<'_, S>,
    ) {
        let quoted = request.reversed();
        let found = table.find(table.hash(&quoted), &quoted);
        if let Some(found) =
            found.filter(|found| !found.reverse && !table.line(found.id).is_expired(turn.now))
        {
            let line = table.line(found.id);
            let past_us = line.flags() & flags::METHOD != flags::MASQUERADE;
            if past_us && line.destination() != DestinationSlot::NONE {
                self.shared.destinations.of(self.id, line.destination()).count_out(headers.ip_length.into());
            }
        }
    }

    fn error_to_server<A: Address, S: Sink<P>>(
        &mut self,
        table: &Table<A>,
        id: ConnectionId,
        error: Error<P>,
        turn: &mut Turn<'_, S>,
    ) {
        let Error { packet, port, headers, .. } = error;
        let line = table.line(id);
        self.error_to_destination((port, packet, headers), line.destination(), How::of(line), turn);
    }

    /// Other than for the connection's own packets, it does not matter whether the destination was removed.
    fn error_to_destination<S: Sink<P>>(
        &mut self,
        (port, packet, headers): (PortId, P, Headers),
        to: DestinationSlot,
        how: How,
        turn: &mut Turn<'_, S>,
    ) {
        let Some(destination) = turn.snapshot.destination(to) else {
            return self.not_ours(port, packet, &headers, turn);
        };
        self.shared.destinations.of(self.id, to).count_in(headers.ip_length.into());
        let outgoing = Outgoing { packet, port, headers: &headers, to, destination };
        if self.forward(outgoing, how, turn) {
            self.counters().add(Counter::Forwarded, 1);
        }
    }

    /// An error about a connection that is not there: with `schedule_icmp` it opens one (`ip_vs_try_to_schedule`).
    fn unknown_to_us<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        tuple: &Tuple<A>,
        (port, packet, headers): (PortId, P, Headers),
        turn: &mut Turn<'_, S>,
    ) {
        let settings = &turn.snapshot.settings;
        if !settings.schedule_icmp
            || !matches!(tuple.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
        {
            return self.not_ours(port, packet, &headers, turn);
        }
        let opener = Opener {
            tuple: *tuple,
            hash: table.hash(tuple),
            port,
            client_mac: source_mac(packet.data()),
            first: None,
        };
        let (to, how) = match self.open_for(table, &opener, turn) {
            Ok(Opened::Connection(id) | Opened::Tracked(id)) => {
                (table.line(id).destination(), How::of(table.line(id)))
            }
            Ok(Opened::Once(to, how)) => (to, how),
            Err(Fate::NotOurs) => return self.not_ours(port, packet, &headers, turn),
            Err(Fate::NoDestination) => return self.discard(packet, DropReason::NoDestination),
            Err(Fate::Drop(reason)) => return self.discard(packet, reason),
        };
        self.error_to_destination((port, packet, headers), to, how, turn);
    }

    /// From a masqueraded server, or from a router on the way to it: the client hears it from the virtual address.
    fn error_to_client<A: Address, S: Sink<P>>(
        &mut self,
        table: &Table<A>,
        id: ConnectionId,
        error: Error<P>,
        turn: &mut Turn<'_, S>,
    ) {
        let Error { mut packet, port, headers, quoted, .. } = error;
        let line = table.line(id);
        let receiver = headers.key(packet.data()).destination();
        let local = turn.snapshot.is_local(receiver);
        let hop = client_hop(line, turn.snapshot);
        if headers.ttl <= 1 && !local {
            return self.discard(packet, DropReason::TtlExceeded);
        }
        self.shared.destinations.of(self.id, line.destination()).count_out(headers.ip_length.into());
        let Some(hop) = hop.filter(|_| !local) else {
            return self.not_ours(port, packet, &headers, turn);
        };
        if headers.ip_length > hop.mtu.into() {
            return self.discard(packet, DropReason::OverMtu);
        }
        let Tuple { destination, destination_port, .. } = line.tuple();
        let data = packet.data_mut();
        if !relay::translate(data, &headers, &quoted, End::Source, destination, destination_port) {
            return self.discard(packet, DropReason::Segments);
        }
        let _ = decrement_ttl(data, headers.network.into(), headers.family);
        let sent = self.send_to_client(packet, port, &headers, hop, turn);
        self.counters().add(Counter::Forwarded, u64::from(sent));
    }

    /// A router's word about a tunnel's outer packet, to the director: it is learnt from, and told on to the client about the packet
    /// inside, from the virtual address.
    ///
    /// # Errors
    /// The error, when it is about no tunnel of this worker's connections.
    fn outer_error<S: Sink<P>>(
        &mut self,
        table: &Table<Ipv4Addr>,
        error: Error<P>,
        inside: Tunnelled,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Error<P>> {
        let FlowKey::V4(request) = inside.key.followed() else { return Err(error) };
        let found = table
            .find(table.hash(&request), &request)
            .filter(|found| !found.reverse && !table.line(found.id).is_expired(turn.now));
        let outer = found.and_then(|found| turn.snapshot.encapsulation(table.line(found.id).destination()));
        let (Some(found), Some(outer)) = (found, outer.filter(|outer| sent_by_us(outer, &error))) else {
            return Err(error);
        };
        self.tunnel_error(table.line(found.id), outer, error, inside, turn);
        Ok(())
    }

    fn tunnel_error<S: Sink<P>>(
        &mut self,
        line: &Line<Ipv4Addr>,
        outer: &Encapsulation,
        error: Error<P>,
        inside: Tunnelled,
        turn: &mut Turn<'_, S>,
    ) {
        let Error { packet, port, headers, quoted, .. } = error;
        match relay::checksum_valid(packet.data(), &headers) {
            Some(true) => {}
            Some(false) => return self.discard(packet, DropReason::IcmpChecksum),
            None => return self.discard(packet, DropReason::Segments),
        }
        let (slot, request) = (line.destination(), line.tuple());
        let mut rest = 0;
        if (quoted.icmp_type, quoted.icmp_code) == (3, 4) {
            let view = turn.snapshot.destination(slot).copied().unwrap_or_default();
            let path = self.shared.destinations.path_mtu(slot);
            let packets = self.shared.destinations.totals(slot).in_packets;
            let mtu = u16::try_from(quoted.mtu).unwrap_or(u16::MAX);
            let told = path.learn(view.server, mtu, view.mtu, packets, turn.now);
            if !inside.dont_fragment {
                return self.discard(packet, DropReason::Consumed);
            }
            rest = outer.payload(told).into();
        }
        let quote = u64::from(headers.ip_length) - u64::from(inside.network - headers.network);
        self.shared.destinations.of(self.id, slot).count_out(quote);
        let report = Report::Relayed { kind: quoted.icmp_type, code: quoted.icmp_code, rest };
        let hop = client_hop(line, turn.snapshot);
        let mut packet = packet;
        let headers = unwrap(&mut packet, &headers, &inside, &request);
        let refused = Refused { packet, port, headers, reason: DropReason::Consumed };
        match hop {
            Some(hop) => self.tell_client(refused, report, request.destination.into(), (hop, slot), turn),
            None => self.discard(refused.packet, DropReason::NoRoute),
        }
    }

    /// Sends an ICMP error about `refused` to a client that is not where the packet came from.
    fn tell_client<S: Sink<P>>(
        &mut self,
        mut refused: Refused<P>,
        report: Report,
        source: IpAddr,
        (hop, slot): (ClientHop, DestinationSlot),
        turn: &mut Turn<'_, S>,
    ) {
        if let Some(frame) = self.compose(&mut refused, report, source, turn) {
            // The kernel counts the quote and the message it becomes.
            let length = frame.total_length().saturating_sub(refused.headers.network.into());
            self.shared.destinations.of(self.id, slot).count_out(length as u64);
            self.send_to_client(frame, refused.port, &refused.headers, hop, turn);
        }
        self.discard(refused.packet, refused.reason);
    }
}

/// Takes an ICMP error and a tunnel's outer headers from around the packet they quote, as far as it is quoted; its headers.
fn unwrap<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    inside: &Tunnelled,
    request: &Tuple<Ipv4Addr>,
) -> Headers {
    let network = usize::from(headers.network);
    let end = network + headers.ip_length as usize;
    let inner = usize::from(inside.network);
    let data = packet.data_mut();
    let ttl = data.get(inner + 8).copied().unwrap_or_default();
    let icmp_type =
        data.get(usize::from(inside.transport)).copied().filter(|_| request.protocol == protocol::ICMP);
    if inner >= network && end <= data.len() {
        data.copy_within(inner..end, network);
    }
    Headers {
        network: headers.network,
        transport: headers.network + (inside.transport - inside.network),
        source_port: request.source_port,
        destination_port: request.destination_port,
        ip_length: headers.ip_length - u32::from(inside.network - headers.network),
        protocol: request.protocol,
        ttl,
        icmp_type: icmp_type.unwrap_or_default(),
        family: Family::V4,
        ..Headers::default()
    }
}

/// Whether the quoted outer header is one that the director makes for this destination.
fn sent_by_us<P: Packet>(outer: &Encapsulation, error: &Error<P>) -> bool {
    let FlowKey::V4(quoted) = &error.quoted.key else { return false };
    let data = error.packet.data();
    let Some(header) = outer.headers().first_chunk::<20>() else { return false };
    let ends = [quoted.source.octets(), quoted.destination.octets()].concat();
    let to_us = error.headers.key(data).destination() == IpAddr::V4(quoted.source);
    outer.outer == Family::V4 && header[9] == quoted.protocol && header[12..] == ends[..] && to_us
}
