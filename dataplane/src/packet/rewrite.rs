//! One end of a packet replaced: address, port and every checksum over them, incrementally (RFC 1624).
//!
//! Checksums are never verified: a wrong one stays wrong by the same difference, for the receiver to find.

use super::headers::{Family, Headers};
use super::{Packet, checksum, datagram, sctp};
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

impl End {
    /// Where its port is in a transport header.
    #[inline(always)]
    const fn port(self) -> Range<usize> {
        match self {
            Self::Source => 0..2,
            Self::Destination => 2..4,
        }
    }
}

/// What the sum over data grows by, in which `old` is replaced by `new`: less than four times 64 Ki.
#[inline(always)]
fn change<A: Address>(old: A, new: A) -> u32 {
    let ([a, b, c, d], [e, f, g, h]) = (old.words(), new.words());
    let mut sum = u64::from(!d) + u64::from(h);
    if A::LENGTH > 4 {
        sum += u64::from(!a) + u64::from(!b) + u64::from(!c) + u64::from(e) + u64::from(f) + u64::from(g);
        return checksum::fold(sum).into();
    }
    // Of two words there is no need to carry further before more is added.
    #[expect(clippy::cast_possible_truncation, reason = "two words of 32 bits make one of 33")]
    let (high, low) = ((sum >> 16) as u32, (sum & 0xffff) as u32);
    high + low
}

/// The checksum of data whose sum has grown (RFC 1624, equation 3).
#[inline(always)]
fn updated(checksum: u16, growth: u32) -> u16 {
    !checksum::fold_short(u32::from(!checksum) + growth)
}

/// Replaces the address of an IP header in place, takes `hops` from its TTL or hop limit as far as there are any, and puts right
/// the header checksum of IPv4; the [`change`] of the address.
#[inline(always)]
pub(super) fn replace_address<A: Address>(
    data: &mut [u8],
    network: usize,
    end: End,
    new: A,
    hops: u8,
) -> Option<u32> {
    if A::LENGTH == 4 {
        let header = data.get_mut(network..network + 20)?.first_chunk_mut::<20>()?;
        let place = header.get_mut(if end == End::Source { 12..16 } else { 16..20 })?;
        let change = change(A::read(place), new);
        new.write(place);
        // TTL, protocol and checksum are one word, read and written as one. The TTL is the high half of its 16 bits.
        let word = header.get_mut(8..12)?.first_chunk_mut::<4>()?;
        let old = u32::from_be_bytes(*word);
        let hops = u32::from(hops).min(old >> 24);
        let checksum = updated((old & 0xffff) as u16, change + hops * 0xfeff);
        *word = (((old & 0xffff_0000) - (hops << 24)) | u32::from(checksum)).to_be_bytes();
        return Some(change);
    }
    let header = data.get_mut(network..network + 40)?.first_chunk_mut::<40>()?;
    header[7] = header[7].saturating_sub(hops);
    let place = header.get_mut(if end == End::Source { 8..24 } else { 24..40 })?;
    let change = change(A::read(place), new);
    new.write(place);
    Some(change)
}

/// Replaces one end of a packet that is sent on: the address, and in whole packets and first fragments the port of TCP, UDP and SCTP
/// too, with the checksums; its TTL is one less. A whole datagram without a UDP checksum gets one, as the kernel gives it; that of a
/// first fragment's, which is over the other fragments too, is left to the caller ([`datagram::missing_udp_checksum`]). A UDP
/// checksum that comes to 0 is written as 0xffff (RFC 768).
///
/// `headers` are what parsing said of this frame; they are of the family of `A`. `false`, with the packet half changed, when
/// they are not, which parsing excludes.
#[inline(always)]
pub fn replace<P: Packet, A: Address>(
    packet: &mut P,
    headers: &Headers,
    end: End,
    address: A,
    port: u16,
) -> bool {
    rewrite(packet, headers, end, address, port).is_some()
}

#[inline(always)]
fn rewrite<P: Packet, A: Address>(
    packet: &mut P,
    headers: &Headers,
    end: End,
    address: A,
    port: u16,
) -> Option<()> {
    debug_assert_eq!(A::LENGTH == 4, headers.family == Family::V4);
    let data = packet.data_mut();
    let change = replace_address(data, headers.network.into(), end, address, 1)?;
    if headers.later_fragment() || headers.is_follower() {
        return Some(());
    }
    let transport = usize::from(headers.transport);
    match headers.protocol {
        protocol::TCP => {
            let header = data.get_mut(transport..transport + 18)?.first_chunk_mut::<18>()?;
            let number = header.get_mut(end.port())?.first_chunk_mut()?;
            let growth = change + replace_port(number, port);
            let field = header.last_chunk_mut()?;
            *field = updated(u16::from_be_bytes(*field), growth).to_be_bytes();
        }
        protocol::UDP => {
            let header = data.get_mut(transport..transport + 8)?.first_chunk_mut::<8>()?;
            let number = header.get_mut(end.port())?.first_chunk_mut()?;
            let growth = change + replace_port(number, port);
            let field = header.last_chunk_mut()?;
            let before = u16::from_be_bytes(*field);
            if before == 0 {
                if !headers.is_fragment() {
                    fill_udp_checksum(packet, headers);
                }
                return Some(());
            }
            let after = updated(before, growth);
            *field = if after == 0 { [0xff; 2] } else { after.to_be_bytes() };
        }
        protocol::SCTP => return replace_sctp_port(data, headers, end, port),
        _ => {}
    }
    Some(())
}

/// Replaces a port; what the sum over it grows by.
#[inline(always)]
fn replace_port(number: &mut [u8; 2], port: u16) -> u32 {
    let old = u16::from_be_bytes(std::mem::replace(number, port.to_be_bytes()));
    u32::from(!old) + u32::from(port)
}

/// A whole datagram without a checksum.
#[cold]
fn fill_udp_checksum<P: Packet>(packet: &mut P, headers: &Headers) {
    if let Some(checksum) = datagram::missing_udp_checksum([(&*packet, headers)]) {
        datagram::set_udp_checksum(packet, headers, checksum);
    }
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
    match headers.family {
        Family::V4 => {
            data.get_mut(network + 2..network + 4)?.copy_from_slice(&ip_length.to_be_bytes());
            checksum::fill_header(data.get_mut(network..transport)?);
        }
        Family::V6 => {
            let payload = ip_length.checked_sub(40)?;
            data.get_mut(network + 4..network + 6)?.copy_from_slice(&payload.to_be_bytes());
        }
    }
    data.get_mut(transport + 16..transport + 18)?.fill(0);
    let resized = Headers { ip_length: ip_length.into(), ..*headers };
    let checksum = !datagram::sum([(&*packet, &resized)]);
    packet.data_mut().get_mut(transport + 16..transport + 18)?.copy_from_slice(&checksum.to_be_bytes());
    Some(resized)
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
        prop_assert!(replace(&mut packet, &headers, end, address, port));
        let mut other = frame.clone();
        let place = if end == End::Source { &mut other.source } else { &mut other.destination };
        *place = SocketAddr::new(address.ip(), port);
        other.ttl = frame.ttl.saturating_sub(1);
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
            prop_assert!(replace(&mut packet, &headers, End::Destination, Ipv4Addr::from_bits(new.0), new.1));
            let IpAddr::V4(back) = destination.ip() else { unreachable!() };
            prop_assert!(replace(&mut packet, &headers, End::Destination, back, destination.port()));
            checksum::decrement_ttl(&mut bytes, 14, Family::V4).unwrap();
            checksum::decrement_ttl(&mut bytes, 14, Family::V4).unwrap();
            prop_assert_eq!(packet.data(), bytes);
        }
    }

    fn replaced(bytes: &[u8], end: End, address: Ipv4Addr, port: u16) -> Vec<u8> {
        let mut packet = HeapPacket::new(bytes);
        assert!(replace(&mut packet, &headers(bytes), end, address, port));
        packet.data().to_vec()
    }

    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 3);

    fn ends() -> [SocketAddr; 2] {
        ["10.1.0.5:4000", "10.0.0.100:53"].map(|end| end.parse().unwrap())
    }

    #[test]
    fn udp_without_a_checksum_gets_one_when_it_is_whole() {
        let [client, service] = ends();
        for payload in [vec![1, 2, 3], vec![], (0..=255).collect()] {
            let mut bytes = frame(client, service, payload.clone()).udp();
            bytes[40..42].fill(0);
            let server = SocketAddr::new(SERVER.into(), 5353);
            let anew = Frame { ttl: 63, ..frame(client, server, payload) }.udp();
            assert_eq!(replaced(&bytes, End::Destination, SERVER, 5353), anew);
            // The same in a chain of buffers.
            for cut in 42..bytes.len() {
                let (middle, end) = bytes[cut..].split_at((bytes.len() - cut) / 2);
                let mut chained = HeapPacket::chained(&bytes[..cut], &[middle, end]);
                assert!(replace(&mut chained, &headers(&bytes), End::Destination, SERVER, 5353));
                assert_eq!(chained.to_vec(), anew);
            }
        }
    }

    #[test]
    fn a_first_fragment_without_a_udp_checksum_is_left_without() {
        let [client, service] = ends();
        let mut bytes = frame(client, service, vec![1; 8]).udp();
        bytes[40..42].fill(0);
        bytes[20] = 0x20;
        checksum::fill_header(&mut bytes[14..34]);
        assert!(headers(&bytes).first_fragment());
        let bytes = replaced(&bytes, End::Destination, SERVER, 5353);
        assert_eq!((&bytes[36..38], &bytes[40..42]), (&5353_u16.to_be_bytes()[..], &[0, 0][..]));
    }

    #[test]
    fn a_udp_checksum_that_comes_to_nothing_is_written_as_ones() {
        let [client, service] = ends();
        for without in [false, true] {
            let zeros = (0..=u16::MAX).filter(|word| {
                let mut bytes = frame(client, service, word.to_be_bytes().to_vec()).udp();
                if without {
                    bytes[40..42].fill(0);
                }
                replaced(&bytes, End::Destination, SERVER, 5353)[40..42] == [0xff; 2]
            });
            assert_eq!(zeros.count(), 1, "one of all words makes the checksum 0");
        }
    }

    #[test]
    fn a_later_fragment_has_no_port() {
        let [client, service] = ends();
        let mut before = frame(client, service, vec![9; 64]).udp();
        before[20..22].copy_from_slice(&[0, 50]);
        checksum::fill_header(&mut before[14..34]);
        assert!(headers(&before).later_fragment());
        let after = replaced(&before, End::Source, Ipv4Addr::new(10, 0, 0, 1), 80);
        assert_eq!(after[34..], before[34..]);
        assert!(checksum::header_valid(&after[14..34]));
        assert_eq!(after[26..30], [10, 0, 0, 1]);
    }
}
