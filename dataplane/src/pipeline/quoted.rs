//! ICMP: errors that quote a connection of ours go to its destination; everything else is the kernel's.

use super::Turn;
use crate::address::Address;
use crate::connection::Table;
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Engine, Redirect, Redirected, Sink};
use crate::flow::{FlowKey, Tuple};
use crate::id::PortId;
use crate::packet::{Headers, Packet, icmp};

impl<P: Packet> Engine<P> {
    /// An ICMP message. An error about a reply that a real server sent in the virtual address's name quotes VIP → client.
    #[cold]
    pub(super) fn icmp<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        turn: &mut Turn<'_, S>,
    ) {
        let Some(request) = icmp::quoted(packet.data(), &headers).map(|quoted| quoted.key.reversed()) else {
            return self.core.not_ours(port, packet, &headers, turn);
        };
        if self.core.owner.alone() {
            return self.relay(port, packet, headers, turn);
        }
        match self.core.owner.of(&request, None, port, turn.snapshot) {
            Some(owner) if owner == self.core.id => self.relay(port, packet, headers, turn),
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

    /// Sends an ICMP error to the destination of the connection it quotes; this worker owns that flow.
    pub(super) fn relay<S: Sink<P>>(
        &mut self,
        port: PortId,
        packet: P,
        headers: Headers,
        turn: &mut Turn<'_, S>,
    ) {
        match icmp::quoted(packet.data(), &headers).map(|quoted| quoted.key.reversed()) {
            Some(FlowKey::V4(request)) => self.core.relay(&self.v4, &request, port, packet, headers, turn),
            Some(FlowKey::V6(request)) => self.core.relay(&self.v6, &request, port, packet, headers, turn),
            None => self.core.not_ours(port, packet, &headers, turn),
        }
    }
}

impl<P: Packet> Core<P> {
    fn relay<A: Address, S: Sink<P>>(
        &mut self,
        table: &Table<A>,
        request: &Tuple<A>,
        port: PortId,
        packet: P,
        headers: Headers,
        turn: &mut Turn<'_, S>,
    ) {
        let found = table
            .find(table.hash(request), request)
            .filter(|found| !table.line(found.id).is_expired(turn.now));
        let Some(found) = found else {
            return self.not_ours(port, packet, &headers, turn);
        };
        let slot = table.line(found.id).destination();
        let Some(destination) = turn.snapshot.destination(slot).filter(|destination| destination.available)
        else {
            return self.discard(packet, DropReason::DestinationRemoved);
        };
        self.shared.destinations.of(self.id, slot).count_in(headers.ip_length.into());
        if self.forward(packet, port, &headers, slot, destination, turn) {
            self.counters().add(Counter::Forwarded, 1);
        }
    }
}
