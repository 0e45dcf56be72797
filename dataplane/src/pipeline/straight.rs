//! Nearly all packets: steady ones of established connections, to a next hop that is known. Nothing of this is done otherwise than
//! in the stages that the other packets pass; what cannot be so here is only left out.

use super::Turn;
use super::control::speaks;
use super::forward::set_macs;
use crate::address::Address;
use crate::connection::{ConnectionId, Found, Line, Table, flags};
use crate::counters::{DropReason, PathMtu};
use crate::engine::{Core, Sink};
use crate::flow::protocol;
use crate::packet::checksum::decrement_ttl;
use crate::packet::rewrite::{End, replace};
use crate::packet::{Headers, Packet, WireAddress};
use crate::snapshot::{Exit, Timeouts};

/// The timeout of a connection that a steady packet leaves as it is.
#[inline(always)]
const fn steady_timeout(headers: &Headers, timeouts: &Timeouts) -> u32 {
    if headers.protocol == protocol::UDP { timeouts.udp } else { timeouts.tcp }
}

impl<P: Packet> Core<P> {
    /// Sends such a packet on, and counts it as forwarded if it went.
    ///
    /// # Errors
    /// The packet, when it is none of these; nothing was changed.
    #[inline(always)]
    pub(super) fn straight_on<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        found: Found,
        mut packet: P,
        headers: &Headers,
        forwarded: &mut u64,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), P> {
        let line = table.line(found.id);
        if !headers.is_steady() || !line.is_steady() || line.is_expired(turn.now) {
            return Err(packet);
        }
        if found.reverse {
            let sent = self.straight_back(table, found.id, packet, headers, turn)?;
            *forwarded += u64::from(sent);
            return Ok(());
        }
        match line.flags() & flags::METHOD {
            flags::DIRECT => {}
            flags::TUNNEL => {
                let sent = self.straight_into_tunnel(table, found.id, packet, headers, turn)?;
                *forwarded += u64::from(sent);
                return Ok(());
            }
            flags::MASQUERADE => {
                let sent = self.straight_to_server(table, found.id, packet, headers, turn)?;
                *forwarded += u64::from(sent);
                return Ok(());
            }
            _ => return Err(packet),
        }
        let to = line.destination();
        let hop = turn.snapshot.hop(to);
        let passes = headers.ip_length <= hop.longest.into();
        let Some(counts) = self.counts.get(to.index()).filter(|_| passes) else { return Err(packet) };
        line.count_packet();
        counts.count_in(headers.ip_length.into());
        let timeout = steady_timeout(headers, &turn.snapshot.timeouts);
        if !line.touch(timeout, turn.now) {
            table.change_timeout(found.id, timeout, turn.now);
        }
        let data = packet.data_mut();
        let _ = decrement_ttl(data, headers.network.into(), headers.family);
        if let Some(macs) = data.first_chunk_mut() {
            *macs = hop.macs;
        }
        turn.sink.transmit(hop.port, packet);
        *forwarded += 1;
        Ok(())
    }

    /// The same for VS/TUN.
    #[inline(never)]
    fn straight_into_tunnel<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        mut packet: P,
        headers: &Headers,
        turn: &mut Turn<'_, S>,
    ) -> Result<bool, P> {
        let (snapshot, line) = (turn.snapshot, table.line(id));
        let to = line.destination();
        let (hop, outer) = (snapshot.hop(to), snapshot.encapsulation(to));
        let (Some(outer), Some(counts)) = (outer, self.counts.get(to.index())) else { return Err(packet) };
        let length = headers.ip_length + u32::from(outer.length);
        let narrow = || !self.shared.destinations.path_mtu(to).is_unknown();
        if length > hop.longest.into() || (!PathMtu::always_passes(length) && narrow()) {
            return Err(packet);
        }
        line.count_packet();
        counts.count_in(headers.ip_length.into());
        table.touch(id, steady_timeout(headers, &snapshot.timeouts), turn.now);
        match self.wrap(&mut packet, headers, outer, turn) {
            Ok(macs) => *macs = hop.macs,
            Err(reason) => {
                self.discard(packet, reason);
                return Ok(false);
            }
        }
        turn.sink.transmit(hop.port, packet);
        Ok(true)
    }

    /// The same for VS/NAT.
    #[inline(never)]
    fn straight_to_server<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        mut packet: P,
        headers: &Headers,
        turn: &mut Turn<'_, S>,
    ) -> Result<bool, P> {
        let line = table.line(id);
        if is_spoken_of(line, headers, headers.destination_port) {
            return Err(packet);
        }
        let to = line.destination();
        let hop = turn.snapshot.hop(to);
        let passes = headers.ip_length <= hop.longest.into();
        let Some(counts) = self.counts.get(to.index()).filter(|_| passes) else { return Err(packet) };
        line.count_packet();
        counts.count_in(headers.ip_length.into());
        let (server, port) = (line.server(), line.server_port());
        table.touch(id, steady_timeout(headers, &turn.snapshot.timeouts), turn.now);
        if !replace(&mut packet, headers, End::Destination, server, port) {
            self.discard(packet, DropReason::Segments);
            return Ok(false);
        }
        if let Some(macs) = packet.data_mut().first_chunk_mut() {
            *macs = hop.macs;
        }
        turn.sink.transmit(hop.port, packet);
        Ok(true)
    }

    /// The same for what masqueraded servers answer.
    #[inline(never)]
    fn straight_back<A: WireAddress, S: Sink<P>>(
        &mut self,
        table: &mut Table<A>,
        id: ConnectionId,
        mut packet: P,
        headers: &Headers,
        turn: &mut Turn<'_, S>,
    ) -> Result<bool, P> {
        let (snapshot, line) = (turn.snapshot, table.line(id));
        let tuple = line.tuple();
        let told = line.flags() & (flags::METHOD | flags::NO_OUTPUT) == flags::MASQUERADE
            && !is_spoken_of(line, headers, tuple.destination_port)
            && (headers.protocol == protocol::TCP || line.template() == Line::<A>::NONE)
            && snapshot.index.has_family(A::LENGTH != 4);
        let (client_mac, ingress) = line.client_link();
        let (Some(port), true) = (snapshot.ports.get(ingress.index()), told) else { return Err(packet) };
        let (macs, out, longest) = match snapshot.routes.exit(tuple.destination, tuple.source) {
            _ if snapshot.routes.is_empty() => (None, ingress, port.mtu),
            Exit::Known(hop) => (Some(&hop.macs), hop.port, hop.longest),
            Exit::OnLink { port, longest } if *port == ingress => (None, ingress, *longest),
            _ => return Err(packet),
        };
        let passes = headers.ip_length <= longest.into();
        let counts = self.counts.get(line.destination().index()).filter(|_| passes);
        let Some(counts) = counts else { return Err(packet) };
        counts.count_out(headers.ip_length.into());
        table.touch(id, steady_timeout(headers, &snapshot.timeouts), turn.now);
        replace(&mut packet, headers, End::Source, tuple.destination, tuple.destination_port);
        let data = packet.data_mut();
        match (macs, data.first_chunk_mut()) {
            (Some(macs), Some(place)) => *place = *macs,
            _ => set_macs(data, client_mac, port.mac),
        }
        turn.sink.transmit(out, packet);
        Ok(true)
    }
}

/// Whether a packet is of an FTP control connection, or of a data connection that one announced.
#[inline(always)]
fn is_spoken_of<A: Address>(line: &Line<A>, headers: &Headers, control_port: u16) -> bool {
    line.side() != Line::<A>::NONE || speaks(headers, control_port)
}
