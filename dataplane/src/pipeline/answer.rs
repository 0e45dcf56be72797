//! ICMP errors made here: a new frame goes back the way the packet came, the packet itself counts as dropped.

use super::Turn;
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Sink};
use crate::id::PortId;
use crate::packet::icmp::{self, Report, Unsent};
use crate::packet::{Headers, Packet};

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
        self.tell_sender(&refused, report, turn);
        self.discard(refused.packet, refused.reason);
    }

    fn tell_sender<S: Sink<P>>(&mut self, refused: &Refused<P>, report: Report, turn: &mut Turn<'_, S>) {
        let Refused { packet, port, headers, .. } = refused;
        if !icmp::may_answer(packet.data(), headers) {
            return;
        }
        if !self.icmp_tokens.take(turn.now) {
            return self.counters().add(Counter::IcmpSuppressed, 1);
        }
        let Some(mut frame) = turn.sink.allocate() else {
            return self.counters().add(Counter::IcmpSuppressed, 1);
        };
        let virtual_address = headers.key(packet.data()).destination();
        self.identification = self.identification.wrapping_add(1);
        let written =
            icmp::answer(packet.data(), headers, report, virtual_address, self.identification, &mut frame);
        match written {
            Ok(()) => {
                self.counters().add(Counter::Generated, 1);
                turn.sink.transmit(*port, frame);
            }
            Err(Unsent::Forbidden | Unsent::Impossible) => self.counters().add(Counter::IcmpSuppressed, 1),
        }
    }
}
