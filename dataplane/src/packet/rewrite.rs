//! One end of a packet replaced: address, port and every checksum over them, incrementally (RFC 1624).
//!
//! Checksums are never verified: a wrong one stays wrong by the same difference, for the receiver to find.

use super::headers::{Family, Headers};
use super::{Packet, checksum, sctp};
use crate::address::Address;
use crate::flow::protocol;
use std::ops::Range;

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Destination,
}

/// The checksum of data in which `old` was replaced by `new` and a port by another one.
#[inline(always)]
fn updated<A: Address>(checksum: u16, (old, new): (A, A), (old_port, new_port): (u16, u16)) -> u16 {
    let skipped = 4 - A::LENGTH / 4;
    let mut sum = u64::from(!checksum) + u64::from(!old_port) + u64::from(new_port);
    for (old, new) in old.words().iter().zip(new.words()).skip(skipped) {
        sum += u64::from(!old) + u64::from(new);
    }
    !checksum::fold(sum)
}

/// A field of two bytes, to be read and written.
#[inline(always)]
fn field(data: &mut [u8], at: usize) -> Option<&mut [u8; 2]> {
    data.get_mut(at..at.wrapping_add(2))?.first_chunk_mut()
}

/// Replaces the address of an IP header in place, with the header checksum of IPv4, and returns the old one.
#[inline(always)]
pub(super) fn replace_address<A: Address>(data: &mut [u8], network: usize, end: End, new: A) -> Option<A> {
    let at = match (A::LENGTH, end) {
        (4, End::Source) => 12,
        (4, End::Destination) => 16,
        (_, End::Source) => 8,
        (_, End::Destination) => 24,
    };
    let bytes = data.get_mut(network + at..network + at + A::LENGTH)?;
    let old = A::read(bytes);
    new.write(bytes);
    if A::LENGTH == 4 {
        let field = field(data, network + 10)?;
        *field = updated(u16::from_be_bytes(*field), (old, new), (0, 0)).to_be_bytes();
    }
    Some(old)
}

/// Replaces one end of a packet: the address, and in whole packets and first fragments the port of TCP, UDP and SCTP too, with the
/// checksums. A whole datagram without a UDP checksum gets one, as the kernel gives it; a fragment of one stays without. A UDP
/// checksum that comes to 0 is written as 0xffff (RFC 768).
///
/// `headers` are what parsing said of this frame; they are of the family of `A`. `false`, with the packet half changed, when
/// they are not, which parsing excludes.
#[inline]
pub fn replace<A: Address>(data: &mut [u8], headers: &Headers, end: End, address: A, port: u16) -> bool {
    rewrite(data, headers, end, address, port).is_some()
}

#[inline(always)]
fn rewrite<A: Address>(data: &mut [u8], headers: &Headers, end: End, address: A, port: u16) -> Option<()> {
    debug_assert_eq!(A::LENGTH == 4, headers.family == Family::V4);
    let old = replace_address(data, headers.network.into(), end, address)?;
    if headers.later_fragment() || headers.is_follower() {
        return Some(());
    }
    let transport = usize::from(headers.transport);
    let checksum = match headers.protocol {
        protocol::TCP => transport + 16,
        protocol::UDP => transport + 6,
        protocol::SCTP => return replace_sctp_port(data, headers, end, port),
        _ => return Some(()),
    };
    let number = field(data, if end == End::Source { transport } else { transport + 2 })?;
    let old_port = u16::from_be_bytes(std::mem::replace(number, port.to_be_bytes()));
    let field = field(data, checksum)?;
    let before = u16::from_be_bytes(*field);
    let udp = headers.protocol == protocol::UDP;
    let after = if udp && before == 0 {
        if headers.is_fragment() {
            return Some(());
        }
        let Some(anew) = datagram_checksum(data, headers) else { return Some(()) };
        anew
    } else {
        updated(before, (old, address), (old_port, port))
    };
    let after = if udp && after == 0 { 0xffff } else { after };
    data.get_mut(checksum..checksum + 2)?.copy_from_slice(&after.to_be_bytes());
    Some(())
}

/// Replaces a port of an SCTP packet. Its checksum covers no address, but the whole packet: of a first fragment `headers` must have
/// the whole one's length.
#[cold]
fn replace_sctp_port(data: &mut [u8], headers: &Headers, end: End, port: u16) -> Option<()> {
    let transport = usize::from(headers.transport);
    let header = data.get_mut(transport..transport + sctp::HEADER)?.first_chunk_mut::<{ sctp::HEADER }>()?;
    let old = [header[0], header[1], header[2], header[3]];
    let [high, low] = port.to_be_bytes();
    let new = match end {
        End::Source => [high, low, old[2], old[3]],
        End::Destination => [old[0], old[1], high, low],
    };
    header[..4].copy_from_slice(&new);
    let checksum = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    let length = headers.transport_length();
    header[8..].copy_from_slice(&sctp::updated(checksum, old, new, length).to_le_bytes());
    Some(())
}

/// The checksum of a whole UDP datagram whose own is 0; `None` when it is not all in the first segment.
#[cold]
fn datagram_checksum(data: &[u8], headers: &Headers) -> Option<u16> {
    let (network, transport) = (usize::from(headers.network), usize::from(headers.transport));
    let datagram = data.get(transport..network + headers.ip_length as usize)?;
    let addresses = match headers.family {
        Family::V4 => data.get(network + 12..network + 20)?,
        Family::V6 => data.get(network + 8..network + 40)?,
    };
    let length = u16::try_from(datagram.len()).ok()?;
    let pseudo = checksum::add(checksum::sum(addresses), checksum::add(u16::from(protocol::UDP), length));
    Some(!checksum::add(pseudo, checksum::sum(datagram)))
}

/// Replaces a part of a TCP segment's text by another of whatever length, with the lengths and checksums; the headers of the packet
/// that it becomes. `None`, with the packet unchanged, when the buffer has no room or the segment is not all in it.
pub fn resize<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    place: Range<usize>,
    text: &[u8],
) -> Option<Headers> {
    let (network, transport) = (usize::from(headers.network), usize::from(headers.transport));
    let end = network + headers.ip_length as usize;
    let new_end = (end + text.len()).checked_sub(place.len())?;
    let ip_length = u16::try_from(new_end - network).ok()?;
    if place.start < transport + 20 || place.end > end || packet.segments() != 1 || end > packet.data().len()
    {
        return None;
    }
    if !packet.set_length(end.max(new_end)) {
        return None;
    }
    let data = packet.data_mut();
    data.copy_within(place.end..end, place.start + text.len());
    data.get_mut(place.start..place.start + text.len())?.copy_from_slice(text);
    // It shrinks without a new place; what was padding goes too.
    let _ = packet.set_length(new_end);
    let data = packet.data_mut();
    let addresses = match headers.family {
        Family::V4 => {
            data.get_mut(network + 2..network + 4)?.copy_from_slice(&ip_length.to_be_bytes());
            checksum::fill_header(data.get_mut(network..transport)?);
            network + 12..network + 20
        }
        Family::V6 => {
            let payload = ip_length.checked_sub(40)?;
            data.get_mut(network + 4..network + 6)?.copy_from_slice(&payload.to_be_bytes());
            network + 8..network + 40
        }
    };
    let addresses = checksum::sum(data.get(addresses)?);
    let segment = data.get_mut(transport..new_end)?;
    segment.get_mut(16..18)?.fill(0);
    let length = u16::try_from(segment.len()).ok()?;
    let pseudo = checksum::add(addresses, checksum::add(u16::from(protocol::TCP), length));
    let sum = !checksum::add(pseudo, checksum::sum(segment));
    segment.get_mut(16..18)?.copy_from_slice(&sum.to_be_bytes());
    Some(Headers { ip_length: ip_length.into(), ..*headers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Frame;
    use crate::packet::{HeapPacket, Packet, Parsed, WireAddress, parse};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    fn headers(frame: &[u8]) -> Headers {
        match parse(frame, frame.len(), 1) {
            Parsed::Flow(headers) => headers,
            other => panic!("{other:?}"),
        }
    }

    fn built(frame: Frame, tcp: bool) -> Vec<u8> {
        if tcp { frame.tcp(0x18) } else { frame.udp() }
    }

    /// Rewriting a right packet gives the packet that would have been built so at first.
    fn equals_building_anew<A: WireAddress>(
        frame: &Frame,
        tcp: bool,
        end: End,
        address: A,
        port: u16,
    ) -> Result<(), TestCaseError> {
        let mut packet = HeapPacket::new(&built(frame.clone(), tcp));
        let headers = headers(packet.data());
        prop_assert!(replace(packet.data_mut(), &headers, end, address, port));
        let mut other = frame.clone();
        let place = if end == End::Source { &mut other.source } else { &mut other.destination };
        *place = SocketAddr::new(address.ip(), port);
        prop_assert_eq!(packet.data(), built(other, tcp));
        Ok(())
    }

    fn frame(source: SocketAddr, destination: SocketAddr, payload: Vec<u8>) -> Frame {
        Frame { payload, ..Frame::new(source, destination) }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 1024 })
        })]

        #[test]
        fn ipv4_equals_recomputation(
            ends: [(u32, u16); 2], new: (u32, u16), tcp: bool, at_source: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let [source, destination] =
                ends.map(|(address, port)| SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(address)), port));
            let end = if at_source { End::Source } else { End::Destination };
            equals_building_anew(&frame(source, destination, payload), tcp, end, Ipv4Addr::from_bits(new.0), new.1)?;
        }

        #[test]
        fn ipv6_equals_recomputation(
            ends: [(u128, u16); 2], new: (u128, u16), tcp: bool, at_source: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let [source, destination] =
                ends.map(|(address, port)| SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(address)), port));
            let end = if at_source { End::Source } else { End::Destination };
            equals_building_anew(&frame(source, destination, payload), tcp, end, Ipv6Addr::from_bits(new.0), new.1)?;
        }

        #[test]
        fn there_and_back_is_the_packet_itself(
            ends: [(u32, u16); 2], new: (u32, u16), tcp: bool, wrong: u16,
        ) {
            let [source, destination] =
                ends.map(|(address, port)| SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(address)), port));
            let mut bytes = built(frame(source, destination, vec![7; 9]), tcp);
            // Any checksum but the two ways to write 0, right or wrong.
            let at = if tcp { 34 + 16 } else { 34 + 6 };
            bytes[at..at + 2].copy_from_slice(&(wrong % 0xfffe + 1).to_be_bytes());
            let mut packet = HeapPacket::new(&bytes);
            let headers = headers(packet.data());
            prop_assert!(replace(packet.data_mut(), &headers, End::Destination, Ipv4Addr::from_bits(new.0), new.1));
            let IpAddr::V4(back) = destination.ip() else { unreachable!() };
            prop_assert!(replace(packet.data_mut(), &headers, End::Destination, back, destination.port()));
            prop_assert_eq!(packet.data(), bytes);
        }
    }

    #[test]
    fn udp_without_a_checksum_gets_one_when_it_is_whole() {
        let ends: [SocketAddr; 2] = ["10.1.0.5:4000", "10.0.0.100:53"].map(|end| end.parse().unwrap());
        let server = Ipv4Addr::new(192, 168, 10, 3);
        let mut bytes = frame(ends[0], ends[1], vec![1, 2, 3]).udp();
        bytes[40..42].fill(0);
        let mut first_piece = bytes.clone();
        let whole = headers(&bytes);
        assert!(replace(&mut bytes, &whole, End::Destination, server, 5353));
        let anew = frame(ends[0], SocketAddr::new(server.into(), 5353), vec![1, 2, 3]).udp();
        assert_eq!(bytes, anew);

        first_piece[17] += 5;
        first_piece.extend([0; 5]);
        first_piece[20] = 0x20;
        checksum::fill_header(&mut first_piece[14..34]);
        let piece = headers(&first_piece);
        assert!(piece.first_fragment());
        assert!(replace(&mut first_piece, &piece, End::Destination, server, 5353));
        assert_eq!((&first_piece[36..38], &first_piece[40..42]), (&5353_u16.to_be_bytes()[..], &[0, 0][..]));
    }

    #[test]
    fn a_udp_checksum_that_comes_to_nothing_is_written_as_ones() {
        let ends = ["10.1.0.5:4000", "10.0.0.100:53"].map(|end| end.parse().unwrap());
        let server = Ipv4Addr::new(192, 168, 10, 3);
        let zero = (0..=u16::MAX).find_map(|word| {
            let mut bytes = frame(ends[0], ends[1], word.to_be_bytes().to_vec()).udp();
            let headers = headers(&bytes);
            replace(&mut bytes, &headers, End::Destination, server, 5353);
            (bytes[40..42] == [0xff; 2]).then_some(bytes)
        });
        assert!(zero.is_some(), "one of all words makes the checksum 0");
    }

    #[test]
    fn a_later_fragment_has_no_port() {
        let ends: [SocketAddr; 2] = ["10.1.0.5:4000", "10.0.0.100:53"].map(|end| end.parse().unwrap());
        let mut bytes = frame(ends[0], ends[1], vec![9; 64]).udp();
        bytes[20..22].copy_from_slice(&[0, 50]);
        checksum::fill_header(&mut bytes[14..34]);
        let headers = headers(&bytes);
        let before = bytes.clone();
        assert!(headers.later_fragment());
        assert!(replace(&mut bytes, &headers, End::Source, Ipv4Addr::new(10, 0, 0, 1), 80));
        assert_eq!(bytes[34..], before[34..]);
        assert!(checksum::header_valid(&bytes[14..34]));
        assert_eq!(bytes[26..30], [10, 0, 0, 1]);
    }
}
