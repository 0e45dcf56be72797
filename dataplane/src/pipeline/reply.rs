//! What masqueraded servers answer: the virtual address and port take their places, and a route leads to the client.
//!
//! A reply goes where the routes say, as the kernel sends it. A client on the link itself need not be a known neighbour: its MAC was
//! remembered when its request came in by that port. Without any route at all, in a director without a twin, replies go back the
//! way the request came.

use super::answer::Refused;
use super::control::{self, Heard};
use super::forward::set_macs;
use super::lengths::{Ready, complete};
use super::parking::{Awaited, Parked};
use super::pieces::Piece;
use super::{Learned, Slot, Turn};
use crate::address::Address;
use crate::connection::tcp::Sender;
use crate::connection::{ConnectionId, Found, Line, Table, flags as connection_flags};
use crate::counters::DropReason;
use crate::engine::{Core, Redirect, Redirected, Sink};
use crate::id::{DestinationSlot, PortId};
use crate::packet::checksum::decrement_ttl;
use crate::packet::icmp::Report;
use crate::packet::rewrite::{End, replace};
use crate::packet::{Headers, Packet, WireAddress, tcp as flags};
use crate::snapshot::{NextHop, Snapshot};
use std::net::IpAddr;

/// How a client is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientHop {
    pub(super) next_hop: NextHop,
    /// Whose MAC is needed.
    pub(super) via: IpAddr,
    pub(super) port: PortId,
    pub(super) mtu: u16,
}

/// How the client of a connection is reached; `None` when that is the kernel's stack's affair.
pub(super) fn client_hop<A: Address>(line: &Line<A>, snapshot: &Snapshot) -> Option<ClientHop> {
    let tuple = line.tuple();
    let client = tuple.source.ip();
    let (mac, ingress) = line.client_link();
    let port = snapshot.ports.get(ingress.index());
    let back = port.map(|port| NextHop::Resolved { destination_mac: mac, source_mac: port.mac });
    if snapshot.routes.is_empty() {
        return Some(ClientHop { next_hop: back?, via: client, port: ingress, mtu: port?.mtu });
    }
    let route = snapshot.routes.of_flow(tuple.destination.ip(), client)?;
    let next_hop = match route.next_hop {
        NextHop::Local | NextHop::NoRoute => return None,
        NextHop::Unresolved if route.via.is_none() && route.port == ingress => {
            back.unwrap_or(NextHop::Unresolved)
        }
        next_hop => next_hop,
    };
    Some(ClientHop { next_hop, via: route.via.unwrap_or(client), port: route.port, mtu: route.mtu })
}

impl<P: Packet> Core<P> {
    /// A packet of a masqueraded server. Checks come in the order in which a forwarding kernel makes them: TTL and MTU before the
    /// connection hears of the packet.
    #[inline(never)]
    pub(super) fn reply<A: Address, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        packet: P,
        slot: &Slot<P>,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) {
        let headers = &slot.headers;
        // Without any service there is no director in the packet's way.
        let in_the_way = turn.snapshot.index.has_family(A::LENGTH != 4);
        let Some(hop) = client_hop(table.line(id), turn.snapshot).filter(|_| in_the_way) else {
            return self.not_ours(slot.port, packet, headers, turn);
        };
        if headers.ttl <= 1 {
            return self.refuse(
                packet,
                slot.port,
                headers,
                DropReason::TtlExceeded,
                Report::TimeExceeded,
                turn,
            );
        }
        let long = headers.ip_length > hop.mtu.into() || headers.needs_care();
        if long && headers.dont_fragment() && self.exceeds(&packet, headers, hop.mtu) {
            let report = Report::TooBig { mtu: hop.mtu };
            return self.refuse(packet, slot.port, headers, DropReason::OverMtu, report, turn);
        }
        let mut packet = packet;
        let mut changed = None;
        if control::speaks(headers, table.line(id).tuple().destination_port) {
            match self.server_speaks(table, id, &mut packet, headers, hop.mtu, turn) {
                Heard::Passes(headers) => changed = headers,
                Heard::Dropped(reason) => return self.discard(packet, reason),
                Heard::TooLong(growth) => {
                    // The server is to leave room for it.
                    let report = Report::TooBig { mtu: hop.mtu.saturating_sub(growth) };
                    return self.refuse(packet, slot.port, headers, DropReason::OverMtu, report, turn);
                }
            }
        }
        let headers = changed.as_ref().unwrap_or(headers);
        let destination = table.line(id).destination();
        self.shared.destinations.of(self.id, destination).count_out(headers.ip_length.into());
        self.track(table, id, headers, Sender::Server, turn);
        self.keep_control(table, id, turn.now);
        let tuple = table.line(id).tuple();
        if headers.needs_care() || headers.ip_length > hop.mtu.into() {
            let end = (tuple.destination, tuple.destination_port);
            *forwarded += u64::from(self.reply_with_care((packet, slot.port, headers), end, hop, turn));
            return;
        }
        replace(&mut packet, headers, End::Source, tuple.destination, tuple.destination_port);
        *forwarded += u64::from(self.send_to_client(packet, slot.port, headers, hop, turn));
    }

    /// A reply in pieces, or one that has to be cut.
    #[cold]
    fn reply_with_care<A: Address, S: Sink<P>>(
        &mut self,
        (packet, port, whole): (P, PortId, &Headers),
        (virtual_address, virtual_port): (A, u16),
        hop: ClientHop,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let mut pieces = self.all_pieces(packet, port, whole);
        let longest = pieces.iter().map(|piece| piece.headers.ip_length).max().unwrap_or(0);
        for Piece { packet, headers, .. } in &mut pieces {
            let headers = if headers.first_fragment() { whole } else { &*headers };
            replace(packet, headers, End::Source, virtual_address, virtual_port);
            if let NextHop::Resolved { destination_mac, source_mac } = hop.next_hop {
                set_macs(packet.data_mut(), destination_mac, source_mac);
            }
        }
        complete(&mut pieces);
        let sent = if longest <= hop.mtu.into() {
            let mut sent = true;
            for Piece { packet, port, headers } in pieces.drain(..) {
                sent &= self.send_to_client(packet, port, &headers, hop, turn);
            }
            sent
        } else if matches!(hop.next_hop, NextHop::Resolved { .. }) {
            let several = pieces.len() > 1;
            let limit = if several { longest.min(hop.mtu.into()) } else { hop.mtu.into() } as usize;
            let done = self.cut(&Ready { pieces: &pieces, limit, out: hop.port }, turn);
            self.replaced(&mut pieces, done)
        } else {
            pieces.drain(..).for_each(|piece| self.discard(piece.packet, DropReason::NeighbourUnresolved));
            false
        };
        self.rest = pieces;
        sent
    }

    /// A packet that no service wants may be a reply that a server sends itself in the name of an address that is not the
    /// director's own, past which the kernel would let it go: the connection hears of it, and the host's routes lead on.
    pub(super) fn overhear<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        packet: &P,
        headers: &Headers,
        turn: &Turn<'_, S>,
    ) {
        let request = A::tuple(headers, packet.data()).reversed();
        let snapshot = turn.snapshot;
        let virtual_ =
            snapshot.marks.cover(&request) || snapshot.virtual_addresses.contains(request.destination.ip());
        // An IPv4 stack takes a packet from its own address for a martian and drops it; IPv6 has no such rule.
        let martian = A::LENGTH == 4 && snapshot.is_local(request.destination.ip());
        let in_the_way = snapshot.index.has_family(A::LENGTH != 4);
        if !virtual_ || martian || !in_the_way {
            return;
        }
        let found = table.find(table.hash(&request), &request).filter(|found| !found.reverse);
        let Some(Found { id, .. }) = found.filter(|found| !table.line(found.id).is_expired(turn.now)) else {
            return;
        };
        let line = table.line(id);
        let past_us = line.flags() & connection_flags::METHOD != connection_flags::MASQUERADE;
        if past_us && line.destination() != DestinationSlot::NONE {
            self.shared.destinations.of(self.id, line.destination()).count_out(headers.ip_length.into());
            self.track(table, id, headers, Sender::Server, turn);
        }
    }

    /// A packet of no connection, which no service wants either.
    #[inline(never)]
    pub(super) fn no_connection<S: Sink<P>>(&mut self, packet: P, slot: &Slot<P>, turn: &mut Turn<'_, S>) {
        let (port, headers) = (slot.port, &slot.headers);
        if slot.ask > 0 {
            let learned = headers.is_fragment().then(|| Learned::of(headers));
            let redirect = Redirect::Ask { left: slot.ask - 1, learned };
            let next = self.owner.after(self.id);
            let mut rest = std::mem::take(&mut self.rest);
            self.redirect(next, Redirected { packet, port, redirect }, turn.sink);
            for Piece { packet, port, .. } in rest.drain(..) {
                self.redirect(next, Redirected { packet, port, redirect }, turn.sink);
            }
            self.rest = rest;
            return;
        }
        let servers = &turn.snapshot.servers;
        let spoken_to = headers.tcp_flags & flags::RST == 0 && !headers.is_follower();
        if turn.snapshot.settings.nat_icmp_send && !servers.is_empty() && spoken_to {
            let source = headers.key(packet.data()).source();
            if servers.in_service(headers.protocol, source, headers.source_port) {
                return self.tell_server(packet, port, headers, turn);
            }
        }
        self.not_ours(port, packet, headers, turn);
    }

    /// `nat_icmp_send`: a server that speaks of no connection is told so. The kernel forwards first, so that the TTL is one less.
    #[cold]
    fn tell_server<S: Sink<P>>(
        &mut self,
        mut packet: P,
        port: PortId,
        headers: &Headers,
        turn: &mut Turn<'_, S>,
    ) {
        if headers.ttl <= 1 {
            return self.not_ours(port, packet, headers, turn);
        }
        let _ = decrement_ttl(packet.data_mut(), headers.network.into(), headers.family);
        self.refuse(packet, port, headers, DropReason::NoConnection, Report::PortUnreachable, turn);
    }

    /// Sends a packet that is done to the client; `false` when it has to wait.
    pub(super) fn send_to_client<S: Sink<P>>(
        &mut self,
        mut packet: P,
        ingress: PortId,
        headers: &Headers,
        hop: ClientHop,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let ClientHop { next_hop, via, port, .. } = hop;
        if let NextHop::Resolved { destination_mac, source_mac } = next_hop {
            set_macs(packet.data_mut(), destination_mac, source_mac);
            turn.sink.transmit(port, packet);
            return true;
        }
        let awaited = Awaited::Neighbour { port, address: via };
        self.park(Parked { packet, port: ingress, headers: *headers, awaited, deadline: turn.now }, turn);
        false
    }

    /// A server's packet goes no further: it is told from the director's address on the way back to it, or by the kernel's stack
    /// where no such address is known.
    #[cold]
    pub(super) fn refuse<S: Sink<P>>(
        &mut self,
        packet: P,
        port: PortId,
        headers: &Headers,
        reason: DropReason,
        report: Report,
        turn: &mut Turn<'_, S>,
    ) {
        let server = headers.key(packet.data()).source();
        match turn.snapshot.routes.find(server).and_then(|route| route.source) {
            Some(source) => {
                let refused = Refused { packet, port, headers: *headers, reason };
                self.answer_from(refused, report, source, turn);
            }
            None => self.not_ours(port, packet, headers, turn),
        }
    }
}
