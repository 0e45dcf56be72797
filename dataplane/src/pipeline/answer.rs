//! ICMP errors made here: a new frame goes back the way the packet came, the packet itself counts as dropped.

use super::Turn;
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Sink};
use crate::id::PortId;
use crate::packet::icmp::{self, Report, Unsent};
use crate::packet::{Headers, Packet};
use std::net::IpAddr;

/// A packet that goes no further, and why.
pub(super) struct Refused<P> {
    pub(super) packet: P,
    pub(super) port: PortId,
    pub(super) headers: Headers,
    pub(super) reason: DropReason,
}

impl<P: Packet> Core<P> {
    /// Tells a packet's sender, from the virtual address, why it goes no further.
    #[cold]
    pub(super) fn answer<S: Sink<P>>(&mut self, refused: Refused<P>, report: Report, turn: &mut Turn<'_, S>) {
        let virtual_address = refused.headers.key(refused.packet.data()).destination();
        // Nobody but its owner speaks in an address's name.
        if !turn.snapshot.is_local(virtual_address) {
            return self.discard(refused.packet, refused.reason);
        }
        self.answer_from(refused, report, virtual_address, turn);
    }

    /// The same from an address of the director's own.
    #[cold]
    pub(super) fn answer_from<S: Sink<P>>(
        &mut self,
        mut refused: Refused<P>,
        report: Report,
        source: IpAddr,
        turn: &mut Turn<'_, S>,
    ) {
        self.put_together(&mut refused);
        if let Some(frame) = self.compose(&refused, report, source, turn) {
            turn.sink.transmit(refused.port, frame);
        }
        self.discard(refused.packet, refused.reason);
    }

    /// An ICMP error about a packet, back the way it came, where one may be sent.
    pub(super) fn compose<S: Sink<P>>(
        &mut self,
        refused: &Refused<P>,
        report: Report,
        source: IpAddr,
        turn: &mut Turn<'_, S>,
    ) -> Option<P> {
        let Refused { packet, headers, .. } = refused;
        if !icmp::may_answer(packet.data(), headers) {
            return None;
        }
        let frame = if self.icmp_tokens.take(turn.now) { turn.sink.allocate() } else { None };
        let Some(mut frame) = frame else {
            self.counters().add(Counter::IcmpSuppressed, 1);
            return None;
        };
        self.identification = self.identification.wrapping_add(1);
        let written = icmp::answer(packet.data(), headers, report, source, self.identification, &mut frame);
        match written {
            Ok(()) => {
                self.counters().add(Counter::Generated, 1);
                Some(frame)
            }
            Err(Unsent::Forbidden | Unsent::Impossible) => {
                self.counters().add(Counter::IcmpSuppressed, 1);
                None
            }
        }
    }
}
