//! Nearly all packets: steady ones of established connections, by direct routing, to a next hop that is known. Nothing of this is
//! done otherwise than in the stages that the other packets pass; what cannot be so here is only left out.

use super::Turn;
use crate::connection::{Found, Table, flags};
use crate::engine::{Core, Sink};
use crate::flow::protocol;
use crate::packet::checksum::decrement_ttl;
use crate::packet::{Headers, Packet, WireAddress};

impl<P: Packet> Core<P> {
    /// Sends such a packet on.
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
        turn: &mut Turn<'_, S>,
    ) -> Result<(), P> {
        let line = table.line(found.id);
        let to = line.destination();
        let hop = turn.snapshot.hop(to);
        let straight = headers.is_steady()
            && line.is_steady()
            && !found.reverse
            && line.flags() & flags::METHOD == flags::DIRECT
            && headers.ip_length <= hop.longest.into()
            && !line.is_expired(turn.now);
        let Some(counts) = self.counts.get(to.index()).filter(|_| straight) else { return Err(packet) };
        line.count_packet();
        let timeouts = &turn.snapshot.timeouts;
        let timeout = if headers.protocol == protocol::UDP { timeouts.udp } else { timeouts.tcp };
        table.touch(found.id, timeout, turn.now);
        counts.count_in(headers.ip_length.into());
        let data = packet.data_mut();
        let _ = decrement_ttl(data, headers.network.into(), headers.family);
        if let Some(macs) = data.first_chunk_mut() {
            *macs = hop.macs;
        }
        turn.sink.transmit(hop.port, packet);
        Ok(())
    }
}
