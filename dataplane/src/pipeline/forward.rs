//! Stages 6 and 7, rewrite and transmit: VS/DR changes MAC addresses and the TTL and nothing else, VS/NAT the destination's
//! address and port, VS/TUN puts the packet inside another one.

use super::Turn;
use super::answer::Refused;
use super::parking::{Awaited, Parked};
use super::pieces::Piece;
use crate::address::Address;
use crate::connection::{Line, flags};
use crate::counters::{Counter, DropReason, PathMtu};
use crate::engine::{Core, Event, Sink};
use crate::exception::PuntClass;
use crate::flow::protocol;
use crate::id::{DestinationSlot, PortId};
use crate::packet::checksum::decrement_ttl;
use crate::packet::encapsulate::{Later, Wrapping, encapsulate};
use crate::packet::icmp::{self, Report, relay};
use crate::packet::rewrite::{self, End};
use crate::packet::{Family, Headers, Packet};
use crate::snapshot::{DestinationView, Encapsulation, NextHop};
use std::net::IpAddr;

/// How a connection's packets are changed on their way to the server: the method it was opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Not at all.
    Direct,
    /// This server's address and port replace the virtual ones.
    Masquerade {
        /// The server.
        server: IpAddr,
        /// Its port.
        port: u16,
    },
    /// The destination's outer headers go before them.
    Tunnel,
}

impl How {
    /// What a connection's flag word says.
    #[inline(always)]
    pub(super) fn of<A: Address>(line: &Line<A>) -> Self {
        match line.flags() & flags::METHOD {
            flags::MASQUERADE => Self::Masquerade { server: line.server().ip(), port: line.server_port() },
            flags::TUNNEL => Self::Tunnel,
            _ => Self::Direct,
        }
    }
}

/// A packet on its way to a destination.
pub(super) struct Outgoing<'a, P> {
    pub(super) packet: P,
    /// Port it came in by.
    pub(super) port: PortId,
    pub(super) headers: &'a Headers,
    pub(super) to: DestinationSlot,
    pub(super) destination: &'a DestinationView,
}

impl<P: Packet> Core<P> {
    /// Sends a packet of a virtual service on to its destination; `false` when it goes elsewhere. The order of the checks is
    /// the kernel's.
    #[inline(never)]
    pub(super) fn forward<S: Sink<P>>(
        &mut self,
        mut outgoing: Outgoing<'_, P>,
        how: How,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let Outgoing { headers, to, destination, .. } = outgoing;
        if headers.needs_care() {
            return self.forward_with_care(outgoing, how, turn);
        }
        let mtu = self.longest(&outgoing, how, turn);
        let NextHop::Resolved { destination_mac, source_mac } = destination.next_hop else {
            return self.held_up(outgoing, how, mtu, turn);
        };
        if headers.ttl <= 1 || headers.ip_length > mtu.into() {
            return self.held_up(outgoing, how, mtu, turn);
        }
        if let Err(reason) = self.change(&mut outgoing.packet, headers, (how, to), turn) {
            self.discard(outgoing.packet, reason);
            return false;
        }
        set_macs(outgoing.packet.data_mut(), destination_mac, source_mac);
        turn.sink.transmit(destination.port, outgoing.packet);
        true
    }

    /// The longest packet that reaches the destination in one piece: what the link takes, and for a tunnel what its outer
    /// headers leave of that and of the path MTU that was learnt.
    pub(super) fn longest<S>(&self, outgoing: &Outgoing<'_, P>, how: How, turn: &Turn<'_, S>) -> u16 {
        let Outgoing { headers, to, destination, .. } = outgoing;
        if how != How::Tunnel {
            return destination.mtu;
        }
        let Some(outer) = turn.snapshot.encapsulation(*to) else { return destination.mtu };
        let learnt = (!PathMtu::always_passes(headers.ip_length + u32::from(outer.length)))
            .then(|| self.shared.destinations.path_mtu(*to).get(destination.server, turn.now))
            .flatten();
        outer.payload(learnt.map_or(destination.mtu, |learnt| learnt.min(destination.mtu)))
    }

    /// Changes a packet that leaves: its TTL and what the method asks for.
    pub(super) fn change<S>(
        &mut self,
        packet: &mut P,
        headers: &Headers,
        (how, to): (How, DestinationSlot),
        turn: &Turn<'_, S>,
    ) -> Result<(), DropReason> {
        match how {
            How::Direct => {
                let _ = decrement_ttl(packet.data_mut(), headers.network.into(), headers.family);
                Ok(())
            }
            How::Masquerade { server, port } => {
                let done = match server {
                    IpAddr::V4(server) => redirect(packet, headers, server, port),
                    IpAddr::V6(server) => redirect(packet, headers, server, port),
                };
                if done { Ok(()) } else { Err(DropReason::Segments) }
            }
            How::Tunnel => {
                let outer = turn.snapshot.encapsulation(to).ok_or(DropReason::NoRoute)?;
                self.wrap(packet, headers, outer, turn).map(|_| ())
            }
        }
    }

    /// Puts a packet inside a tunnel's outer headers, its TTL taken one from; where the frame's MAC addresses are then.
    #[inline(always)]
    pub(super) fn wrap<'p, S>(
        &mut self,
        packet: &'p mut P,
        headers: &Headers,
        outer: &Encapsulation,
        turn: &Turn<'_, S>,
    ) -> Result<&'p mut [u8; 12], DropReason> {
        // IPv6 in IPv4 goes without, as in the kernel.
        let dont_fragment =
            headers.family == Family::V4 && headers.dont_fragment() && turn.snapshot.settings.pmtu_disc;
        self.identification = self.identification.wrapping_add(1);
        let (identification, later) = (self.identification, Later::default());
        encapsulate(packet, headers, &Wrapping { outer, dont_fragment, identification, later })
    }

    /// Not straight on: no way, or a local one, or the packet's fault, or the next hop's MAC is not known yet. `mtu` is that for
    /// the packet as it came. `true` when it went on in fragments.
    #[cold]
    pub(super) fn held_up<S: Sink<P>>(
        &mut self,
        outgoing: Outgoing<'_, P>,
        how: How,
        mtu: u16,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let too_long = outgoing.headers.ip_length > mtu.into();
        let refused = self.is_refused(&outgoing, how, mtu, turn);
        let resolved = matches!(outgoing.destination.next_hop, NextHop::Resolved { .. });
        if resolved && outgoing.headers.ttl > 1 && too_long && !refused {
            return self.forward_with_care(outgoing, how, turn);
        }
        let Outgoing { packet, port, headers, to, destination } = outgoing;
        let headers = *headers;
        match destination.next_hop {
            NextHop::NoRoute => self.discard(packet, DropReason::NoRoute),
            NextHop::Local => self.punt(PuntClass::Local, port, packet, turn.sink),
            _ if headers.ttl <= 1 => {
                let refused = Refused { packet, port, headers, reason: DropReason::TtlExceeded };
                self.answer_for(refused, Report::TimeExceeded, (how, to), turn);
            }
            _ if refused => {
                let mut packet = packet;
                // The kernel finds out after it has decremented the TTL.
                let _ = decrement_ttl(packet.data_mut(), headers.network.into(), headers.family);
                let refused = Refused { packet, port, headers, reason: DropReason::OverMtu };
                self.answer_for(refused, Report::TooBig { mtu }, (how, to), turn);
            }
            _ => {
                let awaited = Awaited::Destination { slot: to, how };
                let mut pieces = self.all_pieces(packet, port, &headers);
                if let Some(first) = pieces.first_mut() {
                    // SCTP's checksum is over the whole datagram, whose length would be lost with its other pieces.
                    first.headers = headers;
                }
                for Piece { packet, port, headers } in pieces.drain(..) {
                    self.park(Parked { packet, port, headers, awaited, deadline: turn.now }, turn);
                }
                self.rest = pieces;
            }
        }
        false
    }

    /// Tells the sender, from the virtual address. What says something to the client in the virtual address's name counts as the
    /// server's, but with masquerading, where the kernel looks for the server's own address.
    fn answer_for<S: Sink<P>>(
        &mut self,
        mut refused: Refused<P>,
        report: Report,
        (how, to): (How, DestinationSlot),
        turn: &mut Turn<'_, S>,
    ) {
        let virtual_address = refused.headers.key(refused.packet.data()).destination();
        let own = turn.snapshot.is_local(virtual_address);
        self.put_together(&mut refused);
        let frame = if own { self.compose(&mut refused, report, virtual_address, turn) } else { None };
        if let Some(frame) = frame {
            // One-packet scheduling leaves no connection that the answer could be of.
            let service = turn.snapshot.destination(to).and_then(|view| turn.snapshot.service(view.service));
            let connected = service.is_none_or(|service| !service.one_packet);
            if connected && !matches!(how, How::Masquerade { .. }) {
                let length = frame.total_length().saturating_sub(refused.headers.network.into());
                self.shared.destinations.of(self.id, to).count_out(length as u64);
            }
            turn.sink.transmit(refused.port, frame);
        }
        self.discard(refused.packet, refused.reason);
    }

    /// The next hop has no MAC yet.
    #[cold]
    pub(super) fn park<S: Sink<P>>(&mut self, parked: Parked<P>, turn: &mut Turn<'_, S>) {
        let event = match parked.awaited {
            Awaited::Destination { slot, .. } => Event::Unresolved(slot),
            Awaited::Neighbour { port, address } => Event::UnresolvedNeighbour(port, address),
        };
        if !self.parking.waits_for(&parked.awaited) && !turn.sink.event(event) {
            self.counters().add(Counter::EventsLost, 1);
        }
        match self.parking.park(parked, turn.now) {
            Ok(()) => self.counters().add(Counter::Parked, 1),
            Err(packet) => self.discard(packet, DropReason::ParkedFull),
        }
    }

    /// Forwards what is resolved by now and drops what has waited long enough.
    pub(crate) fn unpark<S: Sink<P>>(&mut self, turn: &mut Turn<'_, S>) {
        let (snapshot, now) = (turn.snapshot, turn.now);
        let ready = |parked: &Parked<P>| {
            let resolved = match parked.awaited {
                Awaited::Destination { slot, .. } => snapshot
                    .destination(slot)
                    .is_none_or(|view| !view.available || view.next_hop != NextHop::Unresolved),
                Awaited::Neighbour { address, .. } => {
                    snapshot.routes.find(address).is_none_or(|view| view.next_hop != NextHop::Unresolved)
                }
            };
            resolved || now.reached(parked.deadline)
        };
        while let Some(parked) = self.parking.take(ready) {
            self.leave_parking(parked, turn);
        }
    }

    fn leave_parking<S: Sink<P>>(&mut self, parked: Parked<P>, turn: &mut Turn<'_, S>) {
        let Parked { mut packet, port, headers, awaited, .. } = parked;
        match awaited {
            Awaited::Destination { slot: to, how } => {
                let Some(destination) = turn.snapshot.destination(to).filter(|view| view.available) else {
                    return self.discard(packet, DropReason::DestinationRemoved);
                };
                if destination.next_hop == NextHop::Unresolved {
                    return self.discard(packet, DropReason::NeighbourUnresolved);
                }
                let outgoing = Outgoing { packet, port, headers: &headers, to, destination };
                if self.forward(outgoing, how, turn) {
                    self.counters().add(Counter::Forwarded, 1);
                }
            }
            Awaited::Neighbour { port, address } => {
                match turn.snapshot.routes.find(address).map(|view| view.next_hop) {
                    Some(NextHop::Resolved { destination_mac, source_mac }) => {
                        set_macs(packet.data_mut(), destination_mac, source_mac);
                        turn.sink.transmit(port, packet);
                        self.counters().add(Counter::Forwarded, 1);
                    }
                    Some(NextHop::Unresolved) => self.discard(packet, DropReason::NeighbourUnresolved),
                    _ => self.discard(packet, DropReason::NoRoute),
                }
            }
        }
    }
}

/// Makes a packet, or an ICMP error about one, the server's, with a TTL that is one less.
fn redirect<P: Packet, A: Address>(packet: &mut P, headers: &Headers, server: A, port: u16) -> bool {
    if !matches!(headers.protocol, protocol::ICMP | protocol::ICMPV6) {
        return rewrite::replace(packet, headers, End::Destination, server, port);
    }
    let data = packet.data_mut();
    let _ = decrement_ttl(data, headers.network.into(), headers.family);
    icmp::quoted(data, headers)
        .is_some_and(|quoted| relay::translate(data, headers, &quoted, End::Destination, server, port))
}

/// Writes both MAC addresses of a frame.
#[inline(always)]
pub(super) fn set_macs(data: &mut [u8], destination: [u8; 6], source: [u8; 6]) {
    if let Some(macs) = data.first_chunk_mut::<12>() {
        let (to, from) = macs.split_at_mut(6);
        to.copy_from_slice(&destination);
        from.copy_from_slice(&source);
    }
}
