//! A datagram that came in pieces, or is too long with its outer headers, and leaves through a tunnel: one outer packet carries it,
//! as in the kernel, which has put it together; and that one is cut. Where it is cut follows the kernel, too
//! (`ip_do_fragment`, `ip6_fragment`): at the borders of the pieces that came where offsets allow it, else into equal parts.

use super::Turn;
use super::lengths::make_whole;
use super::pieces::Piece;
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Sink};
use crate::id::{DestinationSlot, PortId};
use crate::packet::encapsulate::{Later, Wrapping, encapsulate};
use crate::packet::{Family, Headers, Packet, checksum};
use crate::steering::fragments::MOST_PIECES;

const IPV4: usize = 20;
const IPV6: usize = 40;
const FRAGMENT_HEADER: usize = 8;
const FRAGMENT: u8 = 44;
const MORE_FRAGMENTS: u16 = 0x2000;
/// What every link of IPv6 takes (RFC 8200, 5): pieces are not cut shorter.
const SHORTEST_V6: usize = 1280;

/// Where a datagram goes, and what fits there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) to: DestinationSlot,
    /// Port to send from.
    pub(super) out: PortId,
    /// Longest packet that fits inside the outer headers.
    pub(super) mtu: usize,
    /// Length of the longest piece that came.
    pub(super) longest: usize,
}

/// How an outer packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// As it is.
    Not,
    /// In packets of at most `limit` bytes; `borders`: where the pieces that came ended, if possible.
    Into { limit: usize, borders: bool },
}

impl Cut {
    /// Of an outer packet of `length` bytes on a link of `link` bytes, with an inner one of `pieces` pieces.
    fn of((inner, outer): (Family, Family), length: usize, link: usize, way: &Way, pieces: usize) -> Self {
        let several = pieces > 1;
        // What the kernel knows of the pieces that came outlives a tunnel of the same family.
        match (inner, outer) {
            (Family::V4, Family::V4) if several => Self::Into { limit: way.longest.min(link), borders: true },
            (Family::V6, Family::V6) if several => {
                Self::Into { limit: way.longest.max(SHORTEST_V6).min(link), borders: true }
            }
            _ if length <= link => Self::Not,
            _ => Self::Into { limit: link, borders: outer == Family::V4 },
        }
    }
}

/// The outer packet, as its parts lie in the pieces' frames.
struct Stream<'a> {
    /// Ethernet and outer IP header.
    front: &'a [u8],
    outer: Family,
    /// What follows it, in order.
    parts: [&'a [u8]; MOST_PIECES as usize],
    count: usize,
    length: usize,
    /// Of an outer IPv6 packet's fragments.
    identification: u32,
}

impl Stream<'_> {
    /// Copies what begins at `at`; whether there was enough.
    fn read(&self, at: usize, into: &mut [u8]) -> bool {
        let (mut skip, mut written) = (at, 0);
        for part in &self.parts[..self.count] {
            let rest = part.get(skip..).unwrap_or(&[]);
            skip = skip.saturating_sub(part.len());
            let length = rest.len().min(into.len() - written);
            into[written..written + length].copy_from_slice(&rest[..length]);
            written += length;
        }
        written == into.len()
    }

    /// Bytes of a fragment's headers behind the Ethernet header.
    const fn header(&self) -> usize {
        match self.outer {
            Family::V4 => IPV4,
            Family::V6 => IPV6 + FRAGMENT_HEADER,
        }
    }

    /// Whether the parts can be fragments as they are, with `room` bytes in each.
    fn has_borders(&self, room: usize) -> bool {
        let last = self.count - 1;
        let fits = |(index, part): (usize, &&[u8])| {
            part.len() <= room && (part.len().is_multiple_of(8) || (index == last && index > 0))
        };
        self.parts[..self.count].iter().enumerate().all(fits)
    }

    /// Length of the fragment that begins at `at`; 0 where none fits.
    fn next(&self, at: usize, cut: Cut) -> usize {
        let left = self.length - at;
        let Cut::Into { limit, borders } = cut else { return left };
        let room = limit.saturating_sub(self.header());
        if !borders || !self.has_borders(room) {
            return if left > room { room & !7 } else { left };
        }
        let ends = self.parts[..self.count].iter().scan(0, |end, part| {
            *end += part.len();
            Some(*end)
        });
        ends.into_iter().find(|end| *end > at).map_or(0, |end| end - at)
    }
}

impl<P: Packet> Core<P> {
    /// Sends the pieces of a datagram, first one first, or one packet that is too long, inside one outer packet.
    pub(super) fn send_as_one<S: Sink<P>>(
        &mut self,
        pieces: &mut Vec<Piece<P>>,
        headers: &Headers,
        way: &Way,
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let reason = match self.wrap_pieces(pieces, headers, way, turn) {
            Ok(cut) => match self.send_stream(pieces, way, cut, turn) {
                Some(true) => DropReason::Fragmented,
                Some(false) => DropReason::NoBuffer,
                None => DropReason::Segments,
            },
            Err(reason) => reason,
        };
        pieces.drain(..).for_each(|piece| self.discard(piece.packet, reason));
        reason == DropReason::Fragmented
    }

    /// Puts the first piece inside outer headers that are right for all of them.
    fn wrap_pieces<S: Sink<P>>(
        &mut self,
        pieces: &mut [Piece<P>],
        headers: &Headers,
        way: &Way,
        turn: &Turn<'_, S>,
    ) -> Result<Cut, DropReason> {
        let outer = turn.snapshot.encapsulation(way.to).ok_or(DropReason::NoRoute)?;
        let length = usize::from(outer.length) + headers.ip_length as usize;
        if length > usize::from(u16::MAX) {
            return Err(DropReason::OverMtu);
        }
        let count = pieces.len();
        let (first, others) = pieces.split_first_mut().ok_or(DropReason::Segments)?;
        let mut later = Later::default();
        for piece in others {
            let part = piece.part().ok_or(DropReason::Segments)?;
            later.length += part.len();
            later.sum = checksum::add(later.sum, checksum::sum(part));
        }
        let whole = if count > 1 { make_whole(&mut first.packet, headers) } else { Some(*headers) };
        let whole = whole.ok_or(DropReason::Segments)?;
        let link = way.mtu + usize::from(outer.length);
        let cut = Cut::of((headers.family, outer.outer), length, link, way, count);
        // Fragments need an identification, which a header with the don't-fragment bit has not.
        let dont_fragment = cut == Cut::Not
            && headers.family == Family::V4
            && headers.dont_fragment()
            && turn.snapshot.settings.pmtu_disc;
        self.identification = self.identification.wrapping_add(1);
        let identification = self.identification;
        encapsulate(&mut first.packet, &whole, &Wrapping { outer, dont_fragment, identification, later })?;
        Ok(cut)
    }

    /// Sends the outer packet; whether there were buffers for all of it, `None` where it is not all in first segments.
    fn send_stream<S: Sink<P>>(
        &mut self,
        pieces: &[Piece<P>],
        way: &Way,
        cut: Cut,
        turn: &mut Turn<'_, S>,
    ) -> Option<bool> {
        let outer = turn.snapshot.encapsulation(way.to)?.outer;
        let identification = u32::try_from(self.random.bits() >> 32).ok()?;
        let stream = stream_of(pieces, outer, identification)?;
        let mut at = 0;
        while at < stream.length {
            let length = stream.next(at, cut);
            let Some(mut frame) = turn.sink.allocate().filter(|_| length > 0) else { return Some(false) };
            // Also where one fragment takes everything (RFC 6946), as the kernel does.
            let numbered = cut != Cut::Not && outer == Family::V6;
            let front = stream.front.len() + if numbered { FRAGMENT_HEADER } else { 0 };
            if !frame.set_length(front + length) || !write(frame.data_mut(), &stream, (at, length), front) {
                return Some(false);
            }
            self.counters().add(Counter::Generated, 1);
            turn.sink.transmit(way.out, frame);
            at += length;
        }
        Some(true)
    }
}

/// The outer packet: all of the first frame, and the data of the others.
fn stream_of<P: Packet>(pieces: &[Piece<P>], outer: Family, identification: u32) -> Option<Stream<'_>> {
    let (first, others) = pieces.split_first()?;
    let header = if outer == Family::V4 { IPV4 } else { IPV6 };
    if first.packet.segments() != 1 {
        return None;
    }
    let (front, start) = first.packet.data().split_at_checked(usize::from(first.headers.network) + header)?;
    let mut parts: [&[u8]; MOST_PIECES as usize] = [&[]; MOST_PIECES as usize];
    let (head, places) = parts.split_first_mut()?;
    *head = start;
    if others.len() > places.len() {
        return None;
    }
    for (place, piece) in places.iter_mut().zip(others) {
        *place = piece.part()?;
    }
    let length = parts.iter().map(|part| part.len()).sum();
    Some(Stream { front, outer, parts, count: pieces.len(), length, identification })
}

/// Writes `length` bytes of the outer packet's data from `at` on behind `front` bytes of headers.
fn write(frame: &mut [u8], stream: &Stream<'_>, (at, length): (usize, usize), front: usize) -> bool {
    let Some((headers, data)) = frame.split_at_mut_checked(front) else { return false };
    let Some((copied, fragment)) = headers.split_at_mut_checked(stream.front.len()) else { return false };
    copied.copy_from_slice(stream.front);
    let is_fragment = length < stream.length || !fragment.is_empty();
    if is_fragment && number(copied, fragment, stream, (at, length)).is_none() {
        return false;
    }
    stream.read(at, data)
}

/// Makes headers a fragment's.
fn number(
    copied: &mut [u8],
    fragment: &mut [u8],
    stream: &Stream<'_>,
    (at, length): (usize, usize),
) -> Option<()> {
    let (offset, more) = (u16::try_from(at).ok()?, at + length < stream.length);
    match stream.outer {
        Family::V4 => {
            let header = copied.last_chunk_mut::<IPV4>()?;
            let total = u16::try_from(IPV4 + length).ok()?;
            header[2..4].copy_from_slice(&total.to_be_bytes());
            let bits = (offset / 8) | if more { MORE_FRAGMENTS } else { 0 };
            header[6..8].copy_from_slice(&bits.to_be_bytes());
            checksum::fill_header(header);
        }
        Family::V6 => {
            let header = copied.last_chunk_mut::<IPV6>()?;
            let next = std::mem::replace(&mut header[6], FRAGMENT);
            let payload = u16::try_from(FRAGMENT_HEADER + length).ok()?;
            header[4..6].copy_from_slice(&payload.to_be_bytes());
            let fragment = fragment.first_chunk_mut::<FRAGMENT_HEADER>()?;
            fragment[..2].copy_from_slice(&[next, 0]);
            fragment[2..4].copy_from_slice(&(offset | u16::from(more)).to_be_bytes());
            fragment[4..].copy_from_slice(&stream.identification.to_be_bytes());
        }
    }
    Some(())
}
