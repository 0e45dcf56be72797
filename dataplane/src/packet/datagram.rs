//! Checksums of TCP and UDP over whole datagrams, which may lie in several segments of a buffer and in several fragments.

use super::headers::{Family, Headers};
use super::{Packet, checksum};
use crate::flow::protocol;
use std::ops::Range;

/// Where the checksum stands in a UDP header.
pub(super) const UDP_CHECKSUM: usize = 6;

/// A piece of a datagram, or a whole one: the packet, and its own headers.
pub type Part<'a, P> = (&'a P, &'a Headers);

/// Where a packet's part of its datagram is in its frame: the transport header in front, where it has that, and what follows.
fn place(headers: &Headers) -> Range<usize> {
    let end = usize::from(headers.network) + headers.ip_length as usize;
    let start = if headers.later_fragment() {
        end.saturating_sub(headers.fragment_length.into())
    } else {
        headers.transport.into()
    };
    start..end
}

/// Takes the bytes of a frame at `place` into a sum, over all its segments.
fn take<P: Packet>(sum: &mut checksum::Running, packet: &P, place: &Range<usize>) {
    let mut at = 0;
    for segment in std::iter::once(packet.data()).chain(packet.later_segments()) {
        let end = at + segment.len();
        let (from, until) = (place.start.max(at), place.end.min(end));
        if from < until
            && let Some(bytes) = segment.get(from - at..until - at)
        {
            sum.take(bytes);
        }
        at = end;
    }
}

/// The sum of a datagram with its pseudo header (RFC 9293, 3.1; RFC 768; RFC 8200, 8.1): 0xffff where its checksum is right. `parts`
/// are all of them, in order.
pub fn sum<'a, P: Packet + 'a>(parts: impl IntoIterator<Item = Part<'a, P>>) -> u16 {
    let mut parts = parts.into_iter();
    let Some((first, headers)) = parts.next() else { return 0 };
    let mut sum = checksum::Running::default();
    take(&mut sum, first, &place(headers));
    for (packet, headers) in parts {
        take(&mut sum, packet, &place(headers));
    }
    let length = u32::try_from(sum.length()).unwrap_or(u32::MAX);
    let data = first.data();
    let pseudo = match headers.family {
        Family::V4 => {
            let (source, destination) = headers.addresses_v4(data);
            let length = u16::try_from(length).unwrap_or(u16::MAX);
            checksum::pseudo_v4(source, destination, headers.protocol, length)
        }
        Family::V6 => {
            let (source, destination) = headers.addresses_v6(data);
            checksum::pseudo_v6(source, destination, headers.protocol, length)
        }
    };
    checksum::add(pseudo, sum.sum())
}

/// The checksum that a UDP datagram of these parts is to carry, where it carries none; 0 is written as 0xffff (RFC 768).
pub fn missing_udp_checksum<'a, P: Packet + 'a>(
    parts: impl IntoIterator<Item = Part<'a, P>, IntoIter: Clone>,
) -> Option<u16> {
    let parts = parts.into_iter();
    let (first, headers) = parts.clone().next()?;
    let at = usize::from(headers.transport) + UDP_CHECKSUM;
    let none = headers.protocol == protocol::UDP
        && !headers.later_fragment()
        && !headers.is_follower()
        && first.data().get(at..at + 2) == Some(&[0, 0]);
    none.then(|| match !sum(parts) {
        0 => 0xffff,
        checksum => checksum,
    })
}

/// Writes the checksum of a UDP datagram into its first part.
pub fn set_udp_checksum<P: Packet>(first: &mut P, headers: &Headers, checksum: u16) {
    let at = usize::from(headers.transport) + UDP_CHECKSUM;
    if let Some(field) = first.data_mut().get_mut(at..at + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Frame;
    use crate::packet::{HeapPacket, Parsed, parse};
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn headers(frame: &[u8]) -> Headers {
        match parse(frame, frame.len(), 1) {
            Parsed::Flow(headers) => headers,
            other => panic!("{other:?}"),
        }
    }

    /// A frame's IPv4 datagram in fragments of 8 bytes and more.
    fn fragments(frame: &[u8], most: usize) -> Vec<Vec<u8>> {
        let data = &frame[34..];
        let fragment = |(index, part): (usize, &[u8])| {
            let mut fragment = [&frame[..34], part].concat();
            let more = if (index + 1) * most < data.len() { 0x2000 } else { 0 };
            let bits = u16::try_from(index * most / 8).unwrap() | more;
            fragment[16..18].copy_from_slice(&u16::try_from(20 + part.len()).unwrap().to_be_bytes());
            fragment[20..22].copy_from_slice(&bits.to_be_bytes());
            checksum::fill_header(&mut fragment[14..34]);
            fragment
        };
        data.chunks(most).enumerate().map(fragment).collect()
    }

    fn chained(frame: &[u8], cuts: &[usize]) -> HeapPacket {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| 54 + cut % frame.len()).collect();
        cuts.retain(|cut| *cut < frame.len());
        cuts.sort_unstable();
        let first = cuts.first().copied().unwrap_or(frame.len());
        let ends = cuts.iter().skip(1).copied().chain([frame.len()]);
        let later: Vec<&[u8]> = cuts.iter().zip(ends).map(|(start, end)| &frame[*start..end]).collect();
        HeapPacket::chained(&frame[..first], &later)
    }

    fn ends(v6: bool) -> [SocketAddr; 2] {
        let ends =
            if v6 { ["[2001:db8::5]:4000", "[fd00::3]:53"] } else { ["10.1.0.5:4000", "192.168.10.3:53"] };
        ends.map(|end| end.parse().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 })
        })]

        #[test]
        fn a_right_checksum_is_right_in_any_chain_and_a_wrong_one_wrong(
            payload in proptest::collection::vec(any::<u8>(), 0..300), tcp: bool, v6: bool,
            cuts in proptest::collection::vec(any::<usize>(), 0..5), padding in 0_usize..6, flipped: usize,
        ) {
            let [source, destination] = ends(v6);
            let frame = Frame { payload, ..Frame::new(source, destination) };
            let mut frame = if tcp { frame.tcp(0x10) } else { frame.udp() };
            let (headers, length) = (headers(&frame), frame.len());
            // What pads an Ethernet frame is not the datagram's.
            frame.extend(vec![0x5a; padding]);
            prop_assert_eq!(sum([(&chained(&frame, &cuts), &headers)]), 0xffff);
            let transport = usize::from(headers.transport);
            frame[transport + flipped % (length - transport)] ^= 0x40;
            prop_assert_ne!(sum([(&chained(&frame, &cuts), &headers)]), 0xffff);
        }

        #[test]
        fn a_missing_checksum_is_that_of_the_whole(
            payload in proptest::collection::vec(any::<u8>(), 0..300), most in 1_usize..40,
        ) {
            let [source, destination] = ends(false);
            let whole = Frame { dont_fragment: false, payload, ..Frame::new(source, destination) }.udp();
            let mut parts = fragments(&whole, most * 8);
            let frames: Vec<_> = parts.iter().map(|part| HeapPacket::new(part)).collect();
            let all: Vec<_> = parts.iter().map(|part| headers(part)).collect();
            prop_assert_eq!(missing_udp_checksum(frames.iter().zip(&all)), None);
            parts[0][40..42].fill(0);
            let first = HeapPacket::new(&parts[0]);
            let frames = std::iter::once(&first).chain(&frames[1..]);
            let missing = missing_udp_checksum(frames.zip(&all));
            prop_assert_eq!(missing, Some(u16::from_be_bytes([whole[40], whole[41]])));
        }
    }
}
