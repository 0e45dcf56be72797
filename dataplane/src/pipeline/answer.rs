//! ICMP errors made here: a new frame goes back the way the packet came, the packet itself counts as dropped.

use super::Turn;
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Sink};
use crate::id::PortId;
use crate::packet::icmp::{self, Report, Unsent};
use crate::packet::options::{self, Echoed, Host, NotOurs};
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
        if let Some(frame) = self.compose(&mut refused, report, source, turn) {
            turn.sink.transmit(refused.port, frame);
        }
        self.discard(refused.packet, refused.reason);
    }

    /// An ICMP error about a packet, back the way it came, where one may be sent. The packet's options are filled in first, as by
    /// the kernel, which sees to them before it knows what becomes of the packet.
    pub(super) fn compose<S: Sink<P>>(
        &mut self,
        refused: &mut Refused<P>,
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
        let host =
            Host { milliseconds: turn.now.0, is_own: &|address| turn.snapshot.is_local(address.into()) };
        let written = options_of(packet, headers, source, &host).and_then(|options| {
            let identification = self.identification;
            let answer = icmp::Answer { report, source, identification, options: options.bytes() };
            icmp::answer(packet.data(), headers, &answer, &mut frame)
        });
        let counter = if written.is_ok() { Counter::Generated } else { Counter::IcmpSuppressed };
        self.counters().add(counter, 1);
        written.is_ok().then_some(frame)
    }
}

/// Offset of an IPv4 header's checksum.
const CHECKSUM: usize = 10;

/// Fills in a refused packet's options; those of the answer.
fn options_of<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    source: IpAddr,
    host: &Host<'_>,
) -> Result<Echoed, Unsent> {
    let IpAddr::V4(source) = source else { return Ok(Echoed::NONE) };
    if !headers.has_options() {
        return Ok(Echoed::NONE);
    }
    let header = packet.data_mut().get_mut(headers.network.into()..headers.transport.into());
    let header = header.ok_or(Unsent::Impossible)?;
    let came_with = [header[CHECKSUM], header[CHECKSUM + 1]];
    let echoed = options::record(header, host).and_then(|()| options::echoed(header, source, host));
    // The kernel computes the checksum where a packet leaves, which this one does not, and where it is put together.
    if !headers.is_collected() {
        header[CHECKSUM..CHECKSUM + 2].copy_from_slice(&came_with);
    }
    echoed.map_err(|NotOurs| Unsent::Forbidden)
}
