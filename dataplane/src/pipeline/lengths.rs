//! Packets that need more than the straight way: datagrams in pieces, which leave in the pieces they came in; packets over the
//! next link's MTU that may be cut (RFC 791, 2.3); and IPv4 options, which a host on the way fills in.

use super::Turn;
use super::answer::Refused;
use super::forward::{How, Outgoing, set_macs};
use super::outer::Way;
use super::pieces::Piece;
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Sink};
use crate::id::PortId;
use crate::packet::{Family, Headers, Packet, checksum, datagram, options, remove_fragment_header};
use crate::snapshot::NextHop;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
/// What an ICMP error quotes of a packet at most, and so what a datagram is put together to: more than any answer takes.
const QUOTED_V4: usize = 576;
const QUOTED_V6: usize = 1280;
/// What an IPv6 datagram's pieces have and the datagram has not.
const FRAGMENT_HEADER: usize = 8;

/// How an IPv4 packet in a frame is made: read from what is about to leave, which may be another packet than came.
#[derive(Clone, Copy)]
struct Shape {
    /// Length of the IP header.
    header: usize,
    /// Length of what follows it.
    data: usize,
    /// Where that belongs in the datagram, in bytes.
    offset: usize,
    more: bool,
}

impl Shape {
    /// Of the IPv4 packet at `network`; `None` when it is not all in the first segment.
    fn of(frame: &[u8], network: usize) -> Option<Self> {
        let header = frame.get(network..)?.first_chunk::<20>()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let bits = u16::from_be_bytes([header[6], header[7]]);
        let header = usize::from(header[0] & 0x0f) * 4;
        let shape = Self {
            header,
            data: length.checked_sub(header)?,
            offset: usize::from(bits & 0x1fff) * 8,
            more: bits & MORE_FRAGMENTS != 0,
        };
        (network + length <= frame.len()).then_some(shape)
    }

    fn end(self) -> usize {
        self.offset + self.data
    }
}

/// Frames of one datagram that are ready to leave but for their length.
pub(super) struct Ready<'a, P> {
    pub(super) pieces: &'a [Piece<P>],
    /// Longest IP packet that may leave, in bytes.
    pub(super) limit: usize,
    /// Port to send from.
    pub(super) out: PortId,
}

impl<P: Packet> Core<P> {
    /// Sends on a packet that is in pieces, is too long, or has options; `false` when it goes elsewhere. Checks and their order are
    /// the kernel's, for the whole datagram.
    #[cold]
    #[inline(never)]
    pub(super) fn forward_with_care<S: Sink<P>>(
        &mut self,
        mut outgoing: Outgoing<'_, P>,
        how: How,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let Outgoing { headers, to, destination, .. } = outgoing;
        let mtu = self.longest(&outgoing, how, turn);
        let too_long = self.is_refused(&outgoing, how, mtu, turn);
        let NextHop::Resolved { destination_mac, source_mac } = destination.next_hop else {
            return self.held_up(outgoing, how, mtu, turn);
        };
        if headers.ttl <= 1 || too_long {
            return self.held_up(outgoing, how, mtu, turn);
        }
        if headers.has_options() {
            fill_options(&mut outgoing.packet, headers, turn);
        }
        let mut pieces = self.all_pieces(outgoing.packet, outgoing.port, headers);
        let lengths = || pieces.iter().map(|piece| piece.headers.ip_length);
        let (longest, several) = (lengths().max().unwrap_or(0), pieces.len() > 1);
        let fits = longest <= mtu.into();
        if how == How::Tunnel && (several || !fits) {
            if let Some(first) = pieces.first_mut() {
                set_macs(first.packet.data_mut(), destination_mac, source_mac);
            }
            let way = Way { to, out: destination.port, mtu: mtu.into(), longest: longest as usize };
            let sent = self.send_as_one(&mut pieces, headers, &way, turn);
            self.rest = pieces;
            return sent;
        }
        let mut changed = Ok(());
        for piece in &mut pieces {
            let Piece { packet, headers, .. } = piece;
            // A masqueraded first piece is changed as what it begins: SCTP's checksum is the whole packet's.
            let begins = headers.first_fragment() && matches!(how, How::Masquerade { .. });
            let headers = if begins { outgoing.headers } else { &*headers };
            changed = changed.and_then(|()| self.change(packet, headers, (how, to), turn));
            set_macs(packet.data_mut(), destination_mac, source_mac);
        }
        if matches!(how, How::Masquerade { .. }) {
            complete(&mut pieces);
        }
        let out = destination.port;
        let sent = match changed {
            Err(reason) => {
                pieces.drain(..).for_each(|piece| self.discard(piece.packet, reason));
                false
            }
            Ok(()) if fits => {
                pieces.drain(..).for_each(|piece| turn.sink.transmit(out, piece.packet));
                true
            }
            Ok(()) => {
                let limit = if several { longest.min(mtu.into()) } else { mtu.into() };
                let done = self.cut(&Ready { pieces: &pieces, limit: limit as usize, out }, turn);
                self.replaced(&mut pieces, done)
            }
        };
        self.rest = pieces;
        sent
    }

    /// Whether a packet is too long for the next link and must not be cut. A datagram that came in pieces counts whole in IPv4, as
    /// the kernel has put it together; in IPv6 its longest piece does, because that is what will leave.
    pub(super) fn is_refused<S>(
        &self,
        outgoing: &Outgoing<'_, P>,
        how: How,
        mtu: u16,
        turn: &Turn<'_, S>,
    ) -> bool {
        let Outgoing { packet, headers, .. } = outgoing;
        obeys_dont_fragment(headers, how, turn) && self.exceeds(packet, headers, mtu)
    }

    /// Whether a packet, or what of a datagram in pieces counts, is longer than `mtu`.
    pub(super) fn exceeds(&self, packet: &P, headers: &Headers, mtu: u16) -> bool {
        if headers.family == Family::V4 || !headers.is_collected() {
            return headers.ip_length > mtu.into();
        }
        let rest = self.rest.iter().map(|piece| piece.headers.ip_length);
        rest.chain([alone(packet.data(), headers).ip_length]).any(|length| length > mtu.into())
    }

    /// The first piece of a datagram, or a whole one, and the rest, each with headers of its own. What is in the first piece alone
    /// of their options is not in the others. They have the first one's TTL, as when the kernel has put a datagram together: what is
    /// said of that one holds for all.
    pub(super) fn all_pieces(&mut self, packet: P, port: PortId, headers: &Headers) -> Vec<Piece<P>> {
        let mut pieces = std::mem::take(&mut self.rest);
        for Piece { packet, headers: own, .. } in &mut pieces {
            own.ttl = headers.ttl;
            let Some(header) = packet.data_mut().get_mut(usize::from(own.network)..) else { continue };
            follow_first(header, own.family, headers.ttl);
        }
        pieces.insert(0, Piece { headers: alone(packet.data(), headers), packet, port });
        pieces
    }

    /// Sends IPv4 packets in shorter ones; `false` when that is not to be had, with some of them sent perhaps.
    pub(super) fn cut<S: Sink<P>>(&self, ready: &Ready<'_, P>, turn: &mut Turn<'_, S>) -> bool {
        let Ready { pieces, limit, out } = ready;
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return false };
        let network = usize::from(first.headers.network);
        let shape = |piece: &Piece<P>| Shape::of(piece.packet.data(), network);
        let (Some(head), Some(tail)) = (shape(first), shape(last)) else { return false };
        let room = limit.saturating_sub(head.header);
        let mut at = head.offset;
        while at < tail.end() {
            let left = tail.end() - at;
            let length = if left > room { room & !7 } else { left };
            let Some(mut frame) = turn.sink.allocate().filter(|_| length > 0) else { return false };
            let more = left > length || tail.more;
            if !frame.set_length(network + head.header + length)
                || !write(frame.data_mut(), pieces, (network, head), (at, length, more))
            {
                return false;
            }
            self.counters().add(Counter::Generated, 1);
            turn.sink.transmit(*out, frame);
            at += length;
        }
        true
    }

    /// Counts packets that left in fragments, or did not; which it was.
    pub(super) fn replaced(&mut self, pieces: &mut Vec<Piece<P>>, done: bool) -> bool {
        let reason = if done { DropReason::Fragmented } else { DropReason::NoBuffer };
        pieces.drain(..).for_each(|piece| self.discard(piece.packet, reason));
        done
    }

    /// Puts as much of a datagram together in its first piece as an ICMP error quotes, as the kernel has put it together.
    pub(super) fn put_together(&self, refused: &mut Refused<P>) {
        let Refused { packet, headers, .. } = refused;
        if self.rest.is_empty() {
            return;
        }
        let network = usize::from(headers.network);
        let mut at = network + alone(packet.data(), headers).ip_length as usize;
        let most = match headers.family {
            Family::V4 => QUOTED_V4,
            Family::V6 => QUOTED_V6 + FRAGMENT_HEADER,
        };
        let whole = headers.ip_length as usize + FRAGMENT_HEADER;
        if packet.set_length(network + most.min(whole)) {
            for part in self.rest.iter().map_while(Piece::part) {
                let Some(room) = packet.data_mut().get_mut(at..) else { break };
                let length = part.len().min(room.len());
                room[..length].copy_from_slice(&part[..length]);
                at += length;
            }
        }
        // IPv4 headers stay in place.
        let whole = make_whole(packet, headers).filter(|whole| whole.family == Family::V6);
        refused.headers = whole.unwrap_or(refused.headers);
    }
}

/// Makes a later piece's IP header one that the first piece's could have been cut into.
fn follow_first(packet: &mut [u8], family: Family, ttl: u8) {
    let length = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    match (family, packet) {
        (Family::V6, [_, _, _, _, _, _, _, limit, ..]) => *limit = ttl,
        (Family::V4, packet) => {
            let Some(header) = packet.get_mut(..length).filter(|header| header.len() >= 20) else { return };
            header[8] = ttl;
            if length > 20 {
                options::for_later_fragment(header);
            }
            checksum::fill_header(header);
        }
        _ => {}
    }
}

/// Makes the header of a datagram's first piece that of the whole datagram, whose headers it answers; `None` where that is not all in
/// the first segment.
pub(super) fn make_whole<P: Packet>(packet: &mut P, headers: &Headers) -> Option<Headers> {
    let network = usize::from(headers.network);
    match headers.family {
        Family::V4 => {
            let length = u16::try_from(headers.ip_length).ok()?;
            let header = packet.data_mut().get_mut(network..headers.transport.into())?;
            header.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
            let bits = if headers.dont_fragment() { DONT_FRAGMENT } else { 0 };
            header.get_mut(6..8)?.copy_from_slice(&bits.to_be_bytes());
            checksum::fill_header(header);
        }
        Family::V6 => {
            let payload = u16::try_from(headers.ip_length.checked_sub(40)?).ok()?;
            let length = packet.total_length().checked_sub(FRAGMENT_HEADER)?;
            let removed = remove_fragment_header(packet.data_mut(), network, payload);
            if !removed || !packet.set_length(length) {
                return None;
            }
        }
    }
    Some(headers.united())
}

/// Takes the fragment header from an atomic fragment, as the kernel does, which puts it together with nothing.
pub(super) fn without_fragment_header<P: Packet>(packet: &mut P, headers: &Headers) -> Option<Headers> {
    let ip_length = headers.ip_length.checked_sub(8)?;
    make_whole(packet, &Headers { ip_length, ..*headers })
}

/// Writes one fragment: `length` bytes of the datagram from `at` on.
fn write<P: Packet>(
    frame: &mut [u8],
    pieces: &[Piece<P>],
    (network, head): (usize, Shape),
    (at, length, more): (usize, usize, bool),
) -> bool {
    let start = network + head.header;
    let Some(header) = pieces.first().and_then(|first| first.packet.data().get(..start)) else {
        return false;
    };
    let Some((to, data)) = frame.split_at_mut_checked(start) else { return false };
    to.copy_from_slice(header);
    let ip = &mut to[network..];
    if at > head.offset {
        options::for_later_fragment(ip);
    }
    let (Ok(total), Ok(offset)) = (u16::try_from(head.header + length), u16::try_from(at / 8)) else {
        return false;
    };
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[6..8].copy_from_slice(&(offset | if more { MORE_FRAGMENTS } else { 0 }).to_be_bytes());
    checksum::fill_header(ip);
    let mut written = 0;
    for piece in pieces {
        let frame = piece.packet.data();
        let Some(shape) = Shape::of(frame, network) else { return false };
        let (from, until) = (shape.offset.max(at), shape.end().min(at + length));
        if from < until {
            let source = network + shape.header + (from - shape.offset);
            data[from - at..until - at].copy_from_slice(&frame[source..source + (until - from)]);
            written += until - from;
        }
    }
    written == length
}

/// A masqueraded datagram in pieces that has no UDP checksum gets one, as the kernel gives it.
pub(super) fn complete<P: Packet>(pieces: &mut [Piece<P>]) {
    if pieces.len() < 2 {
        return;
    }
    let missing = datagram::missing_udp_checksum(pieces.iter().map(|piece| (&piece.packet, &piece.headers)));
    if let (Some(checksum), Some(Piece { packet, headers, .. })) = (missing, pieces.first_mut()) {
        datagram::set_udp_checksum(packet, headers, checksum);
    }
}

/// Whether a packet that is too long is refused instead of cut. Tunnels without path MTU discovery fragment their outer packet,
/// whatever the inner one says.
fn obeys_dont_fragment<S>(headers: &Headers, how: How, turn: &Turn<'_, S>) -> bool {
    let ignored = how == How::Tunnel && headers.family == Family::V4 && !turn.snapshot.settings.pmtu_disc;
    headers.dont_fragment() && !ignored
}

/// The headers of a first piece as it is, where those of the whole datagram went with it.
pub(super) fn alone(data: &[u8], headers: &Headers) -> Headers {
    if !headers.is_collected() {
        return *headers;
    }
    let data_at = |header: u16| usize::from(headers.network) + usize::from(header);
    let length = match headers.family {
        Family::V4 => data.get(data_at(2)..data_at(4)),
        Family::V6 => data.get(data_at(4)..data_at(6)),
    };
    let length = length.and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let header = if headers.family == Family::V4 { 0 } else { 40 };
    headers.alone(u32::from(length) + header)
}

/// Fills in what an IPv4 header's options ask of a host on the way. Those that are not acceptable never come here, but in ICMP
/// errors, which keep them.
fn fill_options<P: Packet, S>(packet: &mut P, headers: &Headers, turn: &Turn<'_, S>) {
    let header = packet.data_mut().get_mut(headers.network.into()..headers.transport.into());
    let host =
        options::Host { milliseconds: turn.now.0, is_own: &|address| turn.snapshot.is_local(address.into()) };
    if let Some(header) = header {
        let _ = options::record(header, &host);
    }
}
