//! A packet put inside another one: the outer headers of VS/TUN.

use super::headers::{Family, Headers, be16, bytes, short};
use super::{Packet, checksum};
use crate::counters::DropReason;
use crate::flow::FlowKey;
use crate::snapshot::{Encapsulation, TunnelChecksum, TunnelKind};
use crate::steering::toeplitz;

/// ECN codepoints (RFC 3168).
const ECN: u8 = 0b11;
const CONGESTION: u8 = 0b11;
const ECT_0: u8 = 0b10;
/// Ephemeral ports, from which GUE's source port is: the kernel's default range.
const FIRST_PORT: u16 = 32_768;
const PORTS: u16 = 28_232;

const ETHERNET: usize = 14;
/// Both MAC addresses of a frame.
const MACS: usize = 12;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
/// In an IPv4 header's fragment field.
const DONT_FRAGMENT: u32 = 0x4000;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// What the outer header copies from the inner one.
#[derive(Debug, Clone, Copy)]
struct Inner {
    traffic_class: u8,
    ttl: u8,
}

/// The traffic class of the outer header (RFC 6040, compatibility mode, as the kernel's IPVS has it): congestion that was
/// marked before the tunnel is not told inside it.
#[inline(always)]
const fn outer_class(inner: u8) -> u8 {
    if inner & ECN == CONGESTION { inner & !ECN | ECT_0 } else { inner }
}

/// GUE's source port: the same for all packets of a flow, so that routers and RSS spread flows and keep their order.
fn flow_port(key: &FlowKey) -> u16 {
    let folded = match key {
        FlowKey::V4(tuple) => {
            toeplitz::fold(tuple.source)
                ^ toeplitz::fold(tuple.destination)
                ^ tuple.source_port
                ^ tuple.destination_port.rotate_left(5)
        }
        FlowKey::V6(tuple) => {
            toeplitz::fold(tuple.source)
                ^ toeplitz::fold(tuple.destination)
                ^ tuple.source_port
                ^ tuple.destination_port.rotate_left(5)
        }
    };
    // Multiply-shift: the leading bits of the product spread over the range.
    let spread = (u32::from(folded.wrapping_mul(0x9E37)) * u32::from(PORTS)) >> 16;
    FIRST_PORT + short(spread as usize)
}

/// The outer headers of one packet.
#[derive(Debug, Clone, Copy)]
pub struct Wrapping<'a> {
    /// What the destination's packets have in common.
    pub outer: &'a Encapsulation,
    /// Whether the outer IPv4 header says so.
    pub dont_fragment: bool,
    /// For an outer IPv4 header without it.
    pub identification: u16,
    /// What follows the frame: the other pieces of its datagram.
    pub later: Later,
}

/// The end of a packet, in other frames than its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Later {
    /// Its bytes.
    pub length: usize,
    /// Their sum (RFC 1071); what comes before has an even length.
    pub sum: u16,
}

/// Puts a packet inside the outer headers of a tunnel, its TTL taken one from. The Ethernet header moves to the front with its
/// VLAN tags, and what followed the packet as padding goes. Returns where the frame's MAC addresses are now.
///
/// `headers` are what parsing said of the frame, with the length of the whole packet.
///
/// Headers are put together in registers and written by few wide stores: fields that are written one by one and then read
/// together, for a checksum or by a copy, wait until all of them have left the store buffer.
///
/// # Errors
/// Why it cannot be sent: no headroom, longer than a packet can be, or a checksum over data that is not in the first segment.
/// The packet is then half changed.
#[inline(always)]
pub fn encapsulate<'p, P: Packet>(
    packet: &'p mut P,
    headers: &Headers,
    wrapping: &Wrapping<'_>,
) -> Result<&'p mut [u8; MACS], DropReason> {
    let ip_length = headers.ip_length as usize;
    let untagged = usize::from(headers.network) == ETHERNET;
    let whole = packet.total_length() == ETHERNET + ip_length && wrapping.later.length == 0;
    if !wrapping.outer.is_plain() || !untagged || !whole || ip_length > usize::from(u16::MAX) - IPV4 {
        return encapsulate_uncommon(packet, headers, wrapping);
    }
    // IPv4 in IPv4, as nearly all tunnels have it: every header has its place in the frame.
    packet.prepend(IPV4).ok_or(DropReason::Headroom)?;
    let frame: &mut [u8; ETHERNET + 2 * IPV4] =
        packet.data_mut().first_chunk_mut().ok_or(DropReason::Segments)?;
    let ttl = checksum::decrement_ttl(frame, ETHERNET + IPV4, Family::V4).unwrap_or(0);
    let inner = Inner { traffic_class: frame[ETHERNET + IPV4 + 1], ttl };
    let (ethernet, ip) = frame.split_at_mut(ETHERNET);
    let (macs, ethertype) = ethernet.split_first_chunk_mut().ok_or(DropReason::Segments)?;
    let (outer, _) = ip.split_first_chunk_mut().ok_or(DropReason::Segments)?;
    macs.copy_from_slice(&outer[IPV4 - ETHERNET..][..MACS]);
    ethertype.copy_from_slice(&ETHERTYPE_IPV4);
    let fragment =
        if wrapping.dont_fragment { DONT_FRAGMENT } else { u32::from(wrapping.identification) << 16 };
    write_ipv4(outer, wrapping.outer, inner, short(IPV4 + ip_length), fragment);
    Ok(macs)
}

/// Other tunnels than of IPv4 in IPv4, frames with tags or padding, and pieces.
#[inline(never)]
fn encapsulate_uncommon<'p, P: Packet>(
    packet: &'p mut P,
    headers: &Headers,
    wrapping: &Wrapping<'_>,
) -> Result<&'p mut [u8; MACS], DropReason> {
    let Wrapping { outer, dont_fragment, identification, later } = *wrapping;
    let network = usize::from(headers.network);
    let ip_length = headers.ip_length as usize;
    let end = (network + ip_length).saturating_sub(later.length);
    let overhead = usize::from(outer.length);
    let length = overhead + ip_length;
    if length > usize::from(u16::MAX) {
        return Err(DropReason::OverMtu);
    }
    let gue = outer.tunnel.kind == TunnelKind::Gue;
    let port = if gue { flow_port(&headers.key(packet.data())) } else { 0 };
    let ttl = checksum::decrement_ttl(packet.data_mut(), network, headers.family).unwrap_or(0);
    let inner = Inner { traffic_class: traffic_class(packet.data(), headers), ttl };
    if packet.total_length() > end && packet.segments() == 1 {
        // A packet of one segment can always be cut.
        let _ = packet.set_length(end);
    }
    packet.prepend(overhead).ok_or(DropReason::Headroom)?;
    let data = packet.data_mut();
    data.copy_within(overhead..overhead + network, 0);
    let (ethernet, ip) = data.split_at_mut_checked(network).ok_or(DropReason::Segments)?;
    let ethertype = ethernet.last_chunk_mut().ok_or(DropReason::Segments)?;
    *ethertype = if outer.outer == Family::V4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    match outer.outer {
        Family::V4 => {
            let fragment = if dont_fragment { DONT_FRAGMENT } else { u32::from(identification) << 16 };
            let place = ip.first_chunk_mut().ok_or(DropReason::Segments)?;
            write_ipv4(place, outer, inner, short(length), fragment);
        }
        Family::V6 => {
            let place = ip.first_chunk_mut().ok_or(DropReason::Segments)?;
            write_ipv6(place, outer, inner, short(length - IPV6));
        }
    }
    if outer.tunnel.kind != TunnelKind::Ipip {
        fill_tunnel(ip, outer, length, port, later)?;
    }
    ethernet.first_chunk_mut().ok_or(DropReason::Segments)
}

/// Writes an outer IPv4 header; `fragment` is its identification and its fragment field.
#[inline(always)]
fn write_ipv4(place: &mut [u8; IPV4], outer: &Encapsulation, inner: Inner, length: u16, fragment: u32) {
    let class = outer_class(inner.traffic_class);
    let first = u64::from(class) << 48 | u64::from(length) << 32 | u64::from(fragment);
    let sum = u32::from(outer.sum()) + u32::from(class) + u32::from(length) + (u32::from(inner.ttl) << 8);
    let checksum = !checksum::fold_short(sum + (fragment >> 16) + (fragment & 0xffff));
    let second = u64::from(inner.ttl) << 56 | u64::from(checksum) << 32;
    let template = outer.front::<IPV4>();
    let (words, destination) = place.as_chunks_mut();
    if let ([one, two], ([in_common, also], to)) = (words, template.as_chunks()) {
        *one = (first | u64::from_be_bytes(*in_common)).to_be_bytes();
        *two = (second | u64::from_be_bytes(*also)).to_be_bytes();
        destination.copy_from_slice(to);
    }
}

/// Writes an outer IPv6 header; `length` is that of what follows it.
#[inline(always)]
fn write_ipv6(place: &mut [u8; IPV6], outer: &Encapsulation, inner: Inner, length: u16) {
    let class = outer_class(inner.traffic_class);
    let first = u64::from(class) << 52 | u64::from(length) << 16 | u64::from(inner.ttl);
    *place = *outer.front();
    if let (Some(word), Some(template)) = (place.first_chunk_mut(), outer.front::<IPV6>().first_chunk()) {
        *word = (first | u64::from_be_bytes(*template)).to_be_bytes();
    }
}

/// Writes what stands between the outer IP header and the packet.
#[inline(never)]
fn fill_tunnel(
    ip: &mut [u8],
    outer: &Encapsulation,
    length: usize,
    port: u16,
    later: Later,
) -> Result<(), DropReason> {
    let headers = outer.ip_header()..usize::from(outer.length);
    let template = outer.headers().get(headers.clone()).ok_or(DropReason::Segments)?;
    ip.get_mut(headers).ok_or(DropReason::Segments)?.copy_from_slice(template);
    match outer.tunnel.kind {
        TunnelKind::Gue => fill_gue(ip, outer, length - outer.ip_header(), port, later),
        TunnelKind::Gre if outer.tunnel.checksum != TunnelChecksum::None => {
            let here = outer.ip_header()..length.saturating_sub(later.length);
            let gre = ip.get_mut(here).ok_or(DropReason::Segments)?;
            let sum = !checksum::add(checksum::sum(gre), later.sum);
            gre[4..6].copy_from_slice(&sum.to_be_bytes());
            Ok(())
        }
        TunnelKind::Gre | TunnelKind::Ipip => Ok(()),
    }
}

fn traffic_class(data: &[u8], headers: &Headers) -> u8 {
    let [first, second] = bytes(data, headers.network.into());
    match headers.family {
        Family::V4 => second,
        Family::V6 => short(usize::from(be16(first, second) >> 4) & 0xff).to_be_bytes()[1],
    }
}

/// The UDP header in front of GUE, with its checksum over everything that follows.
fn fill_gue(
    ip: &mut [u8],
    outer: &Encapsulation,
    payload: usize,
    port: u16,
    later: Later,
) -> Result<(), DropReason> {
    let (header, udp) = ip.split_at_mut(outer.ip_header());
    udp[..2].copy_from_slice(&port.to_be_bytes());
    udp[4..6].copy_from_slice(&short(payload).to_be_bytes());
    if outer.tunnel.checksum == TunnelChecksum::None {
        return Ok(());
    }
    let here = payload.saturating_sub(later.length);
    let Some(datagram) = udp.get_mut(..here) else { return Err(DropReason::Segments) };
    // The pseudo header: both addresses, the protocol and the length.
    let addresses = if outer.outer == Family::V4 { &header[12..20] } else { &header[8..40] };
    let pseudo = checksum::add(
        checksum::sum(addresses),
        checksum::add(u16::from(crate::flow::protocol::UDP), short(payload)),
    );
    let sum = !checksum::add(checksum::add(pseudo, checksum::sum(datagram)), later.sum);
    let sum = if sum == 0 { 0xffff } else { sum };
    datagram[UDP - 2..UDP].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Frame;
    use crate::packet::{HeapPacket, Parsed, parse};
    use crate::snapshot::Tunnel;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    /// The outer IP header, field by field.
    fn outer_header(ends: (IpAddr, IpAddr), class: u8, length: u16, ttl: u8, id: u16, df: bool) -> Vec<u8> {
        let class = if class & 3 == 3 { class & 0xfc | 2 } else { class };
        match ends {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = vec![0x45, class];
                header.extend(length.to_be_bytes());
                header.extend(if df { [0; 2] } else { id.to_be_bytes() });
                header.extend([if df { 0x40 } else { 0 }, 0, ttl, 4, 0, 0]);
                header.extend([from.octets(), to.octets()].concat());
                checksum::fill_header(&mut header);
                header
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = (6 << 28 | u32::from(class) << 20).to_be_bytes().to_vec();
                header.extend((length - 40).to_be_bytes());
                header.extend([4, ttl]);
                header.extend([from.octets(), to.octets()].concat());
                header
            }
            _ => unreachable!("of one family"),
        }
    }

    /// A piece has no more in its frame than its own bytes, even if padding makes the frame as long as the datagram.
    #[test]
    fn a_padded_first_piece_is_cut_to_its_own_length() {
        let [client, service] =
            ["10.1.0.5:4000", "10.0.0.100:53"].map(|end| end.parse::<SocketAddr>().unwrap());
        let bytes = Frame { payload: vec![7; 40], ..Frame::new(client, service) }.udp();
        let Parsed::Flow(headers) = parse(&bytes, bytes.len(), 1) else { panic!("no flow") };
        let mut packet = HeapPacket::new(&bytes);
        let ends = (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(192, 0, 2, 2).into());
        let outer = Encapsulation::new(Tunnel::default(), ends.0, ends.1, Family::V4).unwrap();
        let later = Later { length: 16, sum: 0 };
        let wrapping = Wrapping { outer: &outer, dont_fragment: false, identification: 1, later };
        encapsulate(&mut packet, &headers, &wrapping).unwrap();
        assert_eq!(packet.data().len(), bytes.len() + IPV4 - 16);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 1024 })
        })]

        #[test]
        fn an_outer_header_equals_its_fields(
            v4: [u32; 2], v6: [u128; 2], outer_v6: bool, class: u8, id: u16, df: bool, ttl in 2_u8..,
            tags in 0_usize..3, payload in proptest::collection::vec(any::<u8>(), 0..80), padding in 0_usize..4,
        ) {
            let ends = if outer_v6 {
                (Ipv6Addr::from_bits(v6[0]).into(), Ipv6Addr::from_bits(v6[1]).into())
            } else {
                (Ipv4Addr::from_bits(v4[0]).into(), Ipv4Addr::from_bits(v4[1]).into())
            };
            let [client, service] = ["10.1.0.5:4000", "10.0.0.100:53"].map(|end| end.parse::<SocketAddr>().unwrap());
            let mut bytes = Frame { payload, ttl, ..Frame::new(client, service) }.udp();
            bytes[15] = class;
            checksum::fill_header(&mut bytes[14..34]);
            for _ in 0..tags {
                bytes.splice(12..12, [0x81, 0, 0, 7]);
            }
            let network = 14 + 4 * tags;
            let ip_length = bytes.len() - network;
            bytes.extend(std::iter::repeat_n(0xee, padding));
            let Parsed::Flow(headers) = parse(&bytes, bytes.len(), 1) else { panic!("no flow") };
            let mut packet = HeapPacket::new(&bytes);
            let mut inner = bytes[network..network + ip_length].to_vec();
            prop_assert_eq!(checksum::decrement_ttl(&mut inner, 0, Family::V4), Some(ttl - 1));

            let outer = Encapsulation::new(Tunnel::default(), ends.0, ends.1, Family::V4).unwrap();
            let later = Later::default();
            let wrapping = Wrapping { outer: &outer, dont_fragment: df, identification: id, later };
            prop_assert!(encapsulate(&mut packet, &headers, &wrapping).is_ok());

            let length = u16::try_from(usize::from(outer.length) + ip_length).unwrap();
            let mut expected = bytes[..network].to_vec();
            expected[network - 2..].copy_from_slice(if outer_v6 { &[0x86, 0xdd] } else { &[8, 0] });
            expected.extend(outer_header(ends, class, length, ttl - 1, id, df));
            expected.extend(inner);
            prop_assert_eq!(packet.data(), expected);
        }
    }
}
