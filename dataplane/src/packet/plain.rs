//! Nearly all frames, read as a few words: untagged, IPv4 without options, a whole TCP segment or UDP datagram. What is read
//! here means the same as in [`super::parse_into`], which takes every other frame.

use super::checksum;
use super::headers::{DONT_FRAGMENT, Family, Headers, KeptTuple, STEADY, be16, tcp};
use crate::flow::protocol;
use zerocopy::byteorder::{LittleEndian, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The start of such a frame. Words are little-endian: sums do not care, and what is left is swapped where it is used.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start {
    /// Destination address, and two bytes of the source address.
    destination: U64<LittleEndian>,
    source: U32<LittleEndian>,
    ethertype: [u8; 2],
    /// Version, header length, type of service, length of the packet.
    version: U32<LittleEndian>,
    /// Identification, flags, fragment offset.
    fragment: U32<LittleEndian>,
    /// TTL, protocol, checksum.
    ttl: U32<LittleEndian>,
    ends: U64<LittleEndian>,
    ports: U32<LittleEndian>,
    /// UDP: the datagram's length and checksum. TCP: the sequence number.
    transport: [u8; 4],
}

/// A frame that is long enough to be such a one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain<'a> {
    start: &'a Start,
    rest: &'a [u8],
}

const ETHERNET: u16 = 14;
const IPV4: u16 = 20;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

impl<'a> Plain<'a> {
    #[inline(always)]
    pub(crate) fn of(data: &'a [u8]) -> Option<Self> {
        Start::ref_from_prefix(data).ok().map(|(start, rest)| Self { start, rest })
    }

    /// Whether the frame is to the station with this address.
    #[inline(always)]
    pub(crate) fn is_to(&self, own: [u8; 6]) -> bool {
        let [a, b, c, d, e, f] = own;
        (self.start.destination.get() ^ u64::from_le_bytes([a, b, c, d, e, f, 0, 0])) << 16 == 0
    }

    /// Reads a frame of `total_length` bytes in all its segments; `false` when it is not such a one, or not well formed:
    /// `headers` and `tuple` are as they were then.
    #[inline(always)]
    pub(crate) fn read(&self, total_length: usize, headers: &mut Headers, tuple: &mut KeptTuple) -> bool {
        const VERSION_AND_HEADER_LENGTH: u8 = 0x45;
        /// MF and the offset; DF. Of the word's bytes as a little-endian number.
        const PIECE: u32 = 0xff3f_0000;
        const DONT: u32 = 0x0040_0000;
        const OPENS_OR_ENDS: u8 = tcp::SYN | tcp::FIN | tcp::RST;
        let Start { ethertype, version, fragment, ttl, ends, ports, transport, .. } = self.start;
        let (version, fragment, ttl, ends) = (version.get(), fragment.get(), ttl.get(), ends.get());
        let sum = [version, fragment, ttl].into_iter().map(u64::from).sum::<u64>()
            + (ends >> 32)
            + (ends & 0xffff_ffff);
        let [first, _, length_high, length_low] = version.to_le_bytes();
        let ip_length = u16::from_be_bytes([length_high, length_low]);
        let [ttl, protocol, ..] = ttl.to_le_bytes();
        // The transport header's length, or the datagram's, which may be shorter than the packet around it.
        let (inner, tcp_flags, steady) = match protocol {
            protocol::UDP => {
                let length = be16(transport[0], transport[1]);
                if length < 8 {
                    return false;
                }
                (length, 0, true)
            }
            protocol::TCP => {
                let Some([_, _, _, _, offset, flags, ..]) = self.rest.first_chunk::<12>() else {
                    return false;
                };
                if *offset < 0x50 {
                    return false;
                }
                (u16::from(offset >> 4) * 4, *flags, flags & (OPENS_OR_ENDS | tcp::ACK) == tcp::ACK)
            }
            _ => return false,
        };
        let well_formed = *ethertype == ETHERTYPE_IPV4
            && first == VERSION_AND_HEADER_LENGTH
            && checksum::total_valid(sum)
            && fragment & PIECE == 0
            && usize::from(ETHERNET) + usize::from(ip_length) <= total_length
            && u32::from(IPV4) + u32::from(inner) <= u32::from(ip_length);
        if !well_formed {
            return false;
        }
        let steady = steady && ttl > 1;
        let ports = ports.get().swap_bytes();
        tuple.ends[0] = ends.swap_bytes();
        tuple.names = u64::from(ports) << 8 | u64::from(protocol);
        let [source_high, source_low, destination_high, destination_low] = ports.to_be_bytes();
        let [id_high, id_low, ..] = fragment.to_le_bytes();
        *headers = Headers {
            network: ETHERNET,
            transport: ETHERNET + IPV4,
            source_port: be16(source_high, source_low),
            destination_port: be16(destination_high, destination_low),
            ip_length: ip_length.into(),
            fragment_id: be16(id_high, id_low).into(),
            fragment_offset: 0,
            fragment_length: 0,
            protocol,
            ttl,
            tcp_flags,
            icmp_type: 0,
            family: Family::V4,
            flags: if fragment & DONT == 0 { 0 } else { DONT_FRAGMENT } | if steady { STEADY } else { 0 },
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Random, Sample};
    use super::super::{Parsed, WireAddress, parse};
    use super::*;
    use std::net::Ipv4Addr;

    fn read(frame: &[u8], total_length: usize) -> Option<(Headers, KeptTuple)> {
        let (mut headers, mut tuple) = (Headers::default(), KeptTuple::default());
        let plain = Plain::of(frame)?;
        plain.read(total_length, &mut headers, &mut tuple).then_some((headers, tuple))
    }

    /// What is read here is what parsing says; whether anything was.
    fn agrees(frame: &[u8], total_length: usize, segments: u16) -> bool {
        let Some((headers, tuple)) = read(frame, total_length) else { return false };
        let own = <[u8; 6]>::try_from(&frame[..6]).unwrap();
        if own[0] & 1 == 0 {
            assert_eq!(parse(frame, total_length, segments), Parsed::Flow(headers), "{frame:02x?}");
        }
        assert_eq!(Ipv4Addr::kept(&tuple), headers.tuple_v4(frame));
        true
    }

    #[test]
    fn what_is_read_as_words_is_what_parsing_says() {
        let mut random = Random::new(7);
        let (frames, mut plain, mut wanted) = (if cfg!(miri) { 200 } else { 200_000 }, 0, 0);
        for _ in 0..frames {
            let Sample { mut frame, headers } = Sample::new(&mut random);
            let usual = headers.family == Family::V4 && headers.network == ETHERNET && !headers.is_uncommon();
            let carried = matches!(headers.protocol, protocol::TCP | protocol::UDP);
            wanted += u32::from(usual && carried);
            plain += u32::from(agrees(&frame, frame.len(), 1));
            let length = frame.len();
            let longer = length + random.below(3000);
            agrees(&frame[..random.below(length + 1)], longer, 2);
            for _ in 0..1 + random.below(3) {
                frame[random.below(length.min(60))] = random.byte();
            }
            agrees(&frame, length, 1);
            agrees(&frame, random.below(length + 1), 1);
        }
        assert_eq!(plain, wanted, "every frame of this kind is read here");
    }

    #[test]
    fn damage_that_keeps_the_checksum_right_is_judged_alike() {
        let mut random = Random::new(8);
        for _ in 0..if cfg!(miri) { 200 } else { 200_000 } {
            let Sample { mut frame, headers } = Sample::new(&mut random);
            if headers.family != Family::V4 || headers.network != ETHERNET {
                continue;
            }
            for _ in 0..1 + random.below(3) {
                let place = 14 + random.below((frame.len() - 14).min(40));
                frame[place] = random.byte();
            }
            let end = 14 + usize::from(frame[14] & 15).max(5) * 4;
            if let Some(header) = frame.get_mut(14..end) {
                checksum::fill_header(header);
            }
            let length = frame.len();
            agrees(&frame, length, 1);
        }
    }

    #[test]
    fn a_frame_is_to_the_station_whose_address_it_carries() {
        let frame: Vec<u8> = (1..=60).collect();
        let plain = Plain::of(&frame).unwrap();
        assert!(plain.is_to([1, 2, 3, 4, 5, 6]));
        for at in 0..6 {
            let mut other = [1, 2, 3, 4, 5, 6];
            other[at] ^= 0x80;
            assert!(!plain.is_to(other));
        }
        assert!(Plain::of(&frame[..41]).is_none());
    }
}
