//! A datagram that came in pieces and leaves through a tunnel: the kernel has put it together, so that one outer packet carries it,
//! which leaves in pieces as long as those that came.

use super::Turn;
use super::lengths::alone;
use super::pieces::Piece;
use crate::counters::Counter;
use crate::engine::{Core, Sink};
use crate::flow::protocol;
use crate::id::{DestinationSlot, PortId};
use crate::packet::{Family, Headers, Packet, checksum};
use crate::snapshot::{TunnelChecksum, TunnelKind};
use crate::steering::fragments::MOST_PIECES;

const HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;

/// The outer packet, as its parts lie in the pieces' frames.
struct Stream<'a> {
    /// Ethernet and outer IP header.
    front: &'a [u8],
    /// What follows it, in order.
    parts: [&'a [u8]; MOST_PIECES as usize],
    length: usize,
}

impl Stream<'_> {
    /// Copies what begins at `at`; whether there was enough.
    fn read(&self, at: usize, into: &mut [u8]) -> bool {
        let (mut skip, mut written) = (at, 0);
        for part in &self.parts {
            let rest = part.get(skip..).unwrap_or(&[]);
            skip = skip.saturating_sub(part.len());
            let length = rest.len().min(into.len() - written);
            into[written..written + length].copy_from_slice(&rest[..length]);
            written += length;
        }
        written == into.len()
    }

    /// Sum of all that follows the outer IP header.
    fn sum(&self) -> u16 {
        let (mut sum, mut at) = (0, 0);
        for part in &self.parts {
            let of_part = checksum::sum(part);
            sum = checksum::add(sum, if at % 2 == 0 { of_part } else { of_part.swap_bytes() });
            at += part.len();
        }
        sum
    }

    /// Where the checksum field of GUE or GRE is behind the outer IP header, and what belongs there; while the sum is taken the
    /// field is 0. `network`: where the outer IP header begins.
    fn tunnel_checksum(&self, kind: TunnelKind, network: usize) -> Option<(usize, u16)> {
        match kind {
            TunnelKind::Ipip => None,
            TunnelKind::Gre => Some((4, !self.sum())),
            TunnelKind::Gue => {
                let addresses = checksum::sum(self.front.get(network + 12..network + HEADER)?);
                let length = u16::try_from(self.length).ok()?;
                let pseudo = checksum::add(addresses, checksum::add(u16::from(protocol::UDP), length));
                let sum = !checksum::add(pseudo, self.sum());
                Some((6, if sum == 0 { 0xffff } else { sum }))
            }
        }
    }
}

impl<P: Packet> Core<P> {
    /// Sends the pieces of an IPv4 datagram, first one first, inside one outer IPv4 packet of at most `limit` bytes at a time; `None`,
    /// with nothing changed, where each is to have an outer packet of its own.
    pub(super) fn send_as_one<S: Sink<P>>(
        &mut self,
        pieces: &mut Vec<Piece<P>>,
        headers: &Headers,
        (to, out): (DestinationSlot, PortId),
        limit: usize,
        turn: &mut Turn<'_, S>,
    ) -> Option<bool> {
        // A checksum over all that follows is to be had only when all of it is at hand.
        let mut outer = *turn.snapshot.encapsulation(to)?;
        let sum = std::mem::take(&mut outer.tunnel.checksum) != TunnelChecksum::None;
        let both_v4 = outer.outer == Family::V4 && headers.family == Family::V4;
        let whole = usize::try_from(headers.ip_length).ok()?;
        let fits = whole + usize::from(outer.length) <= usize::from(u16::MAX);
        if !both_v4 || !fits {
            return None;
        }
        let overhead = usize::from(outer.length);
        let network = usize::from(headers.network);
        let first = pieces.first_mut()?;
        let present = network + alone(first.packet.data(), headers).ip_length as usize;
        let inner = first.packet.data_mut().get_mut(network..headers.transport.into())?;
        inner.get_mut(2..4)?.copy_from_slice(&u16::try_from(whole).ok()?.to_be_bytes());
        inner.get_mut(6..8)?.fill(0);
        checksum::fill_header(inner);
        let changed = self.wrap(&mut first.packet, headers, &outer, turn);
        let present = present + overhead;
        if sum
            && changed.is_ok()
            && let Some(stream) = stream_of(pieces, network, present)
            && let Some((at, sum)) = stream.tunnel_checksum(outer.tunnel.kind, network)
        {
            let field = network + HEADER + at;
            let field = pieces.first_mut()?.packet.data_mut().get_mut(field..field + 2)?;
            field.copy_from_slice(&sum.to_be_bytes());
        }
        let sent = changed.is_ok() && self.send_stream(pieces, (network, present), (limit, out), turn);
        Some(self.replaced(pieces, sent))
    }

    fn send_stream<S: Sink<P>>(
        &self,
        pieces: &[Piece<P>],
        (network, present): (usize, usize),
        (limit, out): (usize, PortId),
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let Some(stream) = stream_of(pieces, network, present) else { return false };
        let room = limit.saturating_sub(HEADER) & !7;
        let mut at = 0;
        while at < stream.length {
            let length = room.min(stream.length - at);
            let Some(mut frame) = turn.sink.allocate().filter(|_| length > 0) else { return false };
            let more = at + length < stream.length;
            if !frame.set_length(network + HEADER + length) || !write(frame.data_mut(), &stream, at, more) {
                return false;
            }
            self.counters().add(Counter::Generated, 1);
            turn.sink.transmit(out, frame);
            at += length;
        }
        true
    }
}

/// The outer packet: all of the first frame up to `present`, and the data of the others.
fn stream_of<P: Packet>(pieces: &[Piece<P>], network: usize, present: usize) -> Option<Stream<'_>> {
    let (first, others) = pieces.split_first()?;
    let (front, start) = first.packet.data().get(..present)?.split_at_checked(network + HEADER)?;
    let mut parts: [&[u8]; MOST_PIECES as usize] = [&[]; MOST_PIECES as usize];
    let (head, places) = parts.split_first_mut()?;
    *head = start;
    if others.len() > places.len() {
        return None;
    }
    for (place, Piece { packet, headers, .. }) in places.iter_mut().zip(others) {
        let data = packet.data();
        let at = usize::from(headers.network);
        let header = usize::from(data.get(at)? & 0x0f) * 4;
        *place = data.get(at + header..at + headers.ip_length as usize)?;
    }
    let length = parts.iter().map(|part| part.len()).sum();
    Some(Stream { front, parts, length })
}

/// Writes the fragment that begins at `at` of the outer packet's data.
fn write(frame: &mut [u8], stream: &Stream<'_>, at: usize, more: bool) -> bool {
    let Some((front, data)) = frame.split_at_mut_checked(stream.front.len()) else { return false };
    front.copy_from_slice(stream.front);
    let Some(header) = front.last_chunk_mut::<HEADER>() else { return false };
    let (Ok(total), Ok(offset)) = (u16::try_from(HEADER + data.len()), u16::try_from(at / 8)) else {
        return false;
    };
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[6..8].copy_from_slice(&(offset | if more { MORE_FRAGMENTS } else { 0 }).to_be_bytes());
    checksum::fill_header(header);
    stream.read(at, data)
}
