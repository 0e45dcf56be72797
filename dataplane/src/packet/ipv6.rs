//! IPv6 and its extension headers (RFC 8200), followed within bounds.

use super::headers::{ATOMIC, DONT_FRAGMENT, Family, Headers, be16, chunk, long, short};
use super::parse::{self, Frame, INVALID, MALFORMED, Place, Refusal, Result};
use crate::counters::DropReason;
use crate::exception::PuntClass;

/// More extension headers than this, or longer ones together, are dropped: no honest sender comes near.
const MOST_HEADERS: usize = 8;
const MOST_BYTES: usize = 256;

const HEADER: usize = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

const TOO_MANY: Refusal = Refusal::Drop(DropReason::ExtensionHeaders);

#[inline(always)]
pub(super) fn parse(into: &mut Headers, frame: &Frame<'_>, network: usize) -> Result<()> {
    let Some(header) = chunk::<8>(frame.data, network) else { return Err(frame.short(network + HEADER)) };
    if frame.data.len() < network + HEADER {
        return Err(frame.short(network + HEADER));
    }
    let length = usize::from(be16(header[4], header[5]));
    let place = Place { offset: network + HEADER, length };
    // A payload length of 0 is a jumbogram, or nothing at all.
    if header[0] >> 4 != 6 || length == 0 || place.offset + length > frame.total_length {
        return Err(MALFORMED);
    }
    let headers = Headers {
        network: short(network),
        transport: short(place.offset),
        source_port: 0,
        destination_port: 0,
        ip_length: long(HEADER + length),
        fragment_id: 0,
        fragment_offset: 0,
        fragment_length: 0,
        protocol: header[6],
        ttl: header[7],
        tcp_flags: 0,
        icmp_type: 0,
        family: Family::V6,
        flags: DONT_FRAGMENT,
    };
    if is_extension(headers.protocol) {
        *into = headers;
        return extended(into, frame, place);
    }
    *into = headers.whole(parse::transport(frame, Family::V6, headers.protocol, place, false)?);
    Ok(())
}

/// A packet with extension headers, `place` being the first.
#[cold]
fn extended(headers: &mut Headers, frame: &Frame<'_>, mut place: Place) -> Result<()> {
    if let Some(Piece { data, offset, more }) = extensions(frame, headers, &mut place)? {
        let piece = Place { offset: data, length: place.length + place.offset - data };
        return parse::fragment(headers, frame, piece, place, offset, more);
    }
    *headers = headers.whole(parse::transport(frame, Family::V6, headers.protocol, place, false)?);
    Ok(())
}

/// What a fragment header says of a piece.
#[derive(Clone, Copy)]
struct Piece {
    /// Offset in the frame of the data behind the fragment header.
    data: usize,
    /// Offset in the datagram.
    offset: u16,
    more: bool,
}

/// Walks the extension headers, moving `place` and `headers` behind them. Stops behind the fragment header of a later
/// piece, since what follows there is no header.
fn extensions(frame: &Frame<'_>, headers: &mut Headers, place: &mut Place) -> Result<Option<Piece>> {
    let first = place.offset;
    let mut piece = None;
    let mut fragment_seen = false;
    for count in 0..=MOST_HEADERS {
        let next = headers.protocol;
        if !is_extension(next) {
            headers.transport = short(place.offset);
            return Ok(piece);
        }
        // Hop-by-hop options come first or not at all; two fragment headers are nobody's doing but an attacker's.
        if count == MOST_HEADERS || (next == HOP_BY_HOP && count > 0) || (next == FRAGMENT && fragment_seen) {
            return Err(TOO_MANY);
        }
        // The header chain must be whole in the first piece (RFC 7112).
        let cut = if piece.is_some() { INVALID } else { MALFORMED };
        if place.length < 8 {
            return Err(cut);
        }
        let Some(header) = chunk::<8>(frame.data, place.offset) else {
            return Err(frame.short(place.offset + 8));
        };
        let length = extension_length(next, header[1]);
        if place.offset + length - first > MOST_BYTES {
            return Err(TOO_MANY);
        }
        if length > place.length {
            return Err(cut);
        }
        if place.offset + length > frame.data.len() {
            return Err(frame.short(place.offset + length));
        }
        // With segments left, the address in the header is not where the packet is going: the kernel's to judge.
        if next == ROUTING && header[3] != 0 {
            return Err(Refusal::Punt(PuntClass::Local));
        }
        place.offset += length;
        place.length -= length;
        headers.protocol = header[0];
        if next == FRAGMENT {
            fragment_seen = true;
            let bits = be16(header[2], header[3]);
            let (offset, more) = (bits & 0xfff8, bits & 1 != 0);
            // An atomic fragment (RFC 6946) is a whole packet.
            if offset == 0 && !more {
                headers.flags |= ATOMIC;
            } else {
                headers.fragment_id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                piece = Some(Piece { data: place.offset, offset, more });
            }
            if offset != 0 {
                return Ok(piece);
            }
        }
    }
    Err(TOO_MANY)
}

/// Where the transport header of a quoted packet is, and its protocol; `None` for a later fragment, and for a chain that is
/// cut short or goes beyond the bounds.
pub(super) fn quoted_transport(data: &[u8], start: usize, next: u8) -> Option<(u8, usize)> {
    let (mut at, mut next) = (start, next);
    for _ in 0..=MOST_HEADERS {
        if !is_extension(next) {
            return Some((next, at));
        }
        let header = chunk::<8>(data, at)?;
        if next == FRAGMENT && be16(header[2], header[3]) & 0xfff8 != 0 {
            return None;
        }
        at += extension_length(next, header[1]);
        next = header[0];
        if at - start > MOST_BYTES {
            return None;
        }
    }
    None
}

/// Takes the fragment header out of a packet that has one, as putting its datagram together does (RFC 8200, 4.5): what follows moves
/// up, the frame's last 8 bytes are then of no meaning. The payload length is `payload`. `false`, with nothing changed, when there is
/// none.
pub(crate) fn remove_fragment_header(data: &mut [u8], network: usize, payload: u16) -> bool {
    let (mut field, mut at) = (network + 6, network + HEADER);
    for _ in 0..=MOST_HEADERS {
        let (Some(next), Some(header)) = (data.get(field).copied(), chunk::<8>(data, at).copied()) else {
            return false;
        };
        if next == FRAGMENT {
            data[field] = header[0];
            data[network + 4..network + 6].copy_from_slice(&payload.to_be_bytes());
            data.copy_within(at + 8.., at);
            return true;
        }
        if !is_extension(next) {
            return false;
        }
        field = at;
        at += extension_length(next, header[1]);
    }
    false
}

const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Length in bytes of an extension header, from its second byte.
fn extension_length(protocol: u8, field: u8) -> usize {
    match protocol {
        FRAGMENT => 8,
        AUTHENTICATION => (usize::from(field) + 2) * 4,
        _ => (usize::from(field) + 1) * 8,
    }
}
