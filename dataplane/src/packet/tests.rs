//! Parsing against the generator, against etherparse, and against what no sender would send.

use super::sample::{Random, Sample};
use super::*;
use crate::counters::DropReason;
use crate::exception::PuntClass;
use crate::flow::protocol;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many random frames a test tries; `UVS_FRAMES` sets another number.
fn frames() -> u64 {
    let asked = std::env::var("UVS_FRAMES").ok().and_then(|count| count.parse().ok());
    asked.unwrap_or(if cfg!(miri) { 300 } else { 200_000 })
}

fn whole(frame: &[u8]) -> Parsed {
    parse(frame, frame.len(), 1)
}

fn addresses(frame: &[u8], headers: &Headers) -> (IpAddr, IpAddr) {
    match headers.family {
        Family::V4 => {
            let (source, destination) = headers.addresses_v4(frame);
            (source.into(), destination.into())
        }
        Family::V6 => {
            let (source, destination) = headers.addresses_v6(frame);
            (source.into(), destination.into())
        }
    }
}

/// What etherparse says of a frame it accepts.
#[derive(Debug, PartialEq, Eq)]
struct Opinion {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Ports, or the ICMP type.
    ports: (u16, u16),
    fragmented: bool,
}

fn second_opinion(frame: &[u8]) -> Option<Opinion> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination, protocol, fragmented): (IpAddr, IpAddr, _, _) = match packet.net? {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
            ip.payload_ip_number(),
            ip.is_payload_fragmented(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
            ip.payload().ip_number,
            ip.is_payload_fragmented(),
        ),
        NetSlice::Arp(_) => return None,
    };
    let ports = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) => (icmp.type_u8().into(), 0),
        Some(TransportSlice::Icmpv6(icmp)) => (icmp.type_u8().into(), 0),
        _ => (0, 0),
    };
    Some(Opinion { source, destination, protocol: protocol.0, ports, fragmented })
}

/// What parsing accepted is what etherparse reads there.
fn agrees(frame: &[u8], headers: &Headers) {
    let known = matches!(headers.protocol, protocol::TCP | protocol::UDP | protocol::ICMP | protocol::ICMPV6);
    if !known || headers.is_fragment() {
        return;
    }
    let (source, destination) = addresses(frame, headers);
    let ports = match headers.protocol {
        protocol::TCP | protocol::UDP => (headers.source_port, headers.destination_port),
        _ => (headers.icmp_type.into(), 0),
    };
    let Some(theirs) = second_opinion(frame) else {
        // etherparse knows three extension headers fewer than we follow, and some only once.
        assert!(headers.family == Family::V6 && headers.header_length() > 40, "only we accept {frame:02x?}");
        return;
    };
    let protocol = headers.protocol;
    assert_eq!(theirs, Opinion { source, destination, protocol, ports, fragmented: false }, "{frame:02x?}");
}

/// What parsing found malformed, etherparse does too, but for what it does not look at.
fn agrees_to_refuse(frame: &[u8]) {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return };
    let excused = match (&packet.net, &packet.transport) {
        // To it an IPv6 payload length of 0 means all there is, whatever follows; so does a UDP length of 0.
        (Some(NetSlice::Ipv6(ip)), _) if ip.header().payload_length() == 0 => true,
        (_, Some(TransportSlice::Udp(udp))) => udp.length() == 0,
        // SCTP's header and fragments are beyond it.
        (_, None) => true,
        _ => false,
    };
    assert!(excused, "only etherparse accepts {frame:02x?}");
}

#[test]
fn what_is_generated_is_understood() {
    let mut random = Random::new(1);
    for _ in 0..frames() / 4 {
        let Sample { frame, headers } = Sample::new(&mut random);
        assert_eq!(whole(&frame), Parsed::Flow(headers), "{frame:02x?}");
        agrees(&frame, &headers);
        assert!(second_opinion(&frame).is_some() || headers.family == Family::V6, "{frame:02x?}");
    }
}

#[test]
fn no_prefix_is_believed() {
    let mut random = Random::new(2);
    for _ in 0..frames() / 400 + 1 {
        let Sample { frame, headers } = Sample::new(&mut random);
        let end = usize::from(headers.network) + headers.ip_length as usize;
        for length in 0..frame.len() {
            let cut = &frame[..length];
            match whole(cut) {
                Parsed::Flow(seen) => assert!(seen == headers && length >= end),
                Parsed::Drop(reason) => assert_ne!(reason, DropReason::Segments),
                Parsed::Punt(class) => panic!("{class:?} {cut:02x?}"),
            }
            // The rest is in another segment: the same answer, or dropped for that.
            match parse(cut, frame.len(), 2) {
                Parsed::Flow(seen) => assert_eq!(seen, headers),
                other => assert_eq!(other, Parsed::Drop(DropReason::Segments), "{length} of {frame:02x?}"),
            }
        }
    }
}

#[test]
fn mutated_frames_are_refused_or_read_alike() {
    let mut random = Random::new(3);
    let mut outcomes = [0_u64; 3];
    for _ in 0..frames() {
        let Sample { mut frame, headers } = Sample::new(&mut random);
        for _ in 0..random.below(4) {
            // Most of what matters is in the first bytes; a repaired header checksum gets mutations further.
            let reach = if random.one_in(2) { 60 } else { 160 };
            let at = random.below(frame.len().min(reach));
            frame[at] = if random.one_in(2) { random.byte() } else { frame[at] ^ (1 << random.below(8)) };
        }
        if headers.family == Family::V4 && random.one_in(2) {
            let start = usize::from(headers.network);
            let end = start + usize::from(frame[start] & 0x0f) * 4;
            if let Some(header) = frame.get_mut(start..end) {
                checksum::fill_header(header);
            }
        }
        if random.one_in(4) {
            frame.truncate(random.below(frame.len() + 1));
        }
        let more = if random.one_in(4) { random.below(200) } else { 0 };
        match parse(&frame, frame.len() + more, if more > 0 { 2 } else { 1 }) {
            Parsed::Flow(headers) => {
                outcomes[0] += 1;
                within(&frame, more, &headers);
                if more == 0 {
                    agrees(&frame, &headers);
                }
                let _ = (headers.key(&frame), headers.punt_class(), headers.martian_source(&frame));
                if let Some(quoted) = icmp::quoted(&frame, &headers) {
                    assert!(usize::from(quoted.transport) <= frame.len() && quoted.network > headers.network);
                }
            }
            Parsed::Punt(_) => outcomes[1] += 1,
            Parsed::Drop(reason) => {
                outcomes[2] += 1;
                if reason == DropReason::Malformed && more == 0 {
                    agrees_to_refuse(&frame);
                }
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > frames() / 200), "{outcomes:?}");
}

#[test]
fn random_bytes_are_survived() {
    let mut random = Random::new(4);
    for _ in 0..frames() {
        let length = random.below(120);
        let mut frame = random.bytes(length);
        if frame.len() > 16 && random.one_in(2) {
            frame[0] &= 0xfe;
            let starts = [[0x08, 0x00, 0x45], [0x86, 0xdd, 0x60], [0x81, 0x00, 0x00], [0x08, 0x06, 0x00]];
            frame[12..15].copy_from_slice(&starts[random.below(4)]);
        }
        let more = random.below(2) * random.below(70_000);
        if let Parsed::Flow(headers) = parse(&frame, frame.len() + more, 1 + u16::from(more > 0)) {
            within(&frame, more, &headers);
        }
    }
}

/// Every promise of [`Headers`].
fn within(frame: &[u8], more: usize, headers: &Headers) {
    let (network, transport) = (usize::from(headers.network), usize::from(headers.transport));
    let end = network + headers.ip_length as usize;
    assert!(end <= frame.len() + more, "{headers:?}");
    assert!((14..=22).contains(&network));
    if headers.later_fragment() {
        assert_eq!((transport, headers.source_port, headers.destination_port), (0, 0, 0));
    } else {
        let needed = match headers.protocol {
            protocol::TCP => 20,
            protocol::UDP | protocol::ICMP | protocol::ICMPV6 => 8,
            protocol::SCTP => 12,
            _ => 0,
        };
        assert!(transport >= network + 20 && transport + needed <= frame.len().min(end), "{headers:?}");
    }
    let fragment_end = usize::from(headers.fragment_offset) + usize::from(headers.fragment_length);
    assert!(fragment_end <= 65_535 && headers.is_fragment() == (headers.fragment_length > 0));
}

/// A frame with this destination MAC address, EtherType and payload.
fn ethernet(destination: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &[2, 0, 0, 0, 0, 1], &ethertype.to_be_bytes(), payload].concat()
}

fn ipv4(protocol: u8, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 1, 0, 5];
    header.extend(destination.octets());
    header[2..4].copy_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    checksum::fill_header(&mut header);
    header.extend_from_slice(payload);
    header
}

fn ipv6(next: u8, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    header.extend([next, 255]);
    header.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    header.extend(destination.octets());
    header.extend_from_slice(payload);
    header
}

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 9];
const BROADCAST: [u8; 6] = [0xff; 6];
const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

#[test]
fn what_is_not_forwarded_has_its_class() {
    let nd = |kind: u8| [kind, 0, 0, 0, 0, 0, 0, 0];
    let listener = [&[protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0][..], &nd(143)].concat();
    let cases = [
        ("ARP", ethernet(BROADCAST, 0x0806, &[0; 28]), PuntClass::Control),
        ("LLDP", ethernet([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, &[0; 28]), PuntClass::Local),
        ("802.3 length", ethernet([1, 0x80, 0xc2, 0, 0, 0], 0x0026, &[0; 38]), PuntClass::Local),
        ("three tags", ethernet(OWN, 0x88a8, &[0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0]), PuntClass::Local),
        (
            "VRRP",
            ethernet([1, 0, 0x5e, 0, 0, 18], 0x0800, &ipv4(112, LINK_LOCAL, &[0; 20])),
            PuntClass::Control,
        ),
        (
            "mDNS",
            ethernet([1, 0, 0x5e, 0, 0, 251], 0x0800, &ipv4(17, LINK_LOCAL, &[0, 1, 0, 2, 0, 8, 0, 0])),
            PuntClass::Local,
        ),
        (
            "IGMP elsewhere",
            ethernet([1, 0, 0x5e, 1, 0, 1], 0x0800, &ipv4(2, Ipv4Addr::new(239, 1, 0, 1), &[0; 8])),
            PuntClass::Local,
        ),
        (
            "broadcast",
            ethernet(BROADCAST, 0x0800, &ipv4(17, Ipv4Addr::BROADCAST, &[0, 1, 0, 2, 0, 8, 0, 0])),
            PuntClass::Local,
        ),
        (
            "neighbour solicitation",
            ethernet([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &ipv6(58, GROUP6, &nd(135))),
            PuntClass::Control,
        ),
        ("unicast solicitation", ethernet(OWN, 0x86dd, &ipv6(58, VIP6, &nd(135))), PuntClass::Control),
        (
            "listener report",
            ethernet([0x33, 0x33, 0, 0, 0, 22], 0x86dd, &ipv6(0, GROUP6, &listener)),
            PuntClass::Control,
        ),
        (
            "source route",
            ethernet(
                OWN,
                0x86dd,
                &ipv6(43, VIP6, &[6, 2, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6]),
            ),
            PuntClass::Local,
        ),
    ];
    for (name, frame, class) in cases {
        assert_eq!(whole(&frame), Parsed::Punt(class), "{name}");
    }
}

#[test]
fn a_flow_for_no_service_has_its_class() {
    let base = Sample::tcp_v4().headers;
    let class = |protocol, source_port, destination_port| {
        Headers { protocol, source_port, destination_port, ..base }.punt_class()
    };
    for control in [
        (6, 179, 5000),
        (6, 5000, 179),
        (17, 49152, 3784),
        (17, 1, 3785),
        (17, 1, 4784),
        (89, 0, 0),
        (112, 0, 0),
    ] {
        assert_eq!(class(control.0, control.1, control.2), PuntClass::Control, "{control:?}");
    }
    for local in [(6, 22, 5000), (17, 3784, 53), (17, 179, 179), (1, 0, 0)] {
        assert_eq!(class(local.0, local.1, local.2), PuntClass::Local, "{local:?}");
    }
}

#[test]
fn lies_have_their_reasons() {
    use DropReason::{ExtensionHeaders, FragmentInvalid, HeaderChecksum, Malformed};
    let udp = [0x10, 0, 0, 53, 0, 8, 0, 0];
    let fragment = |bits: u16, payload: &[u8]| {
        let mut packet = ipv4(6, VIP, payload);
        packet[6..8].copy_from_slice(&bits.to_be_bytes());
        checksum::fill_header(&mut packet[..20]);
        ethernet(OWN, 0x0800, &packet)
    };
    let with = |mut packet: Vec<u8>, at: usize, value: u8| {
        packet[at] = value;
        checksum::fill_header(&mut packet[..20]);
        ethernet(OWN, 0x0800, &packet)
    };
    let fragment6 = |head: [u8; 8], payload: &[u8]| {
        ethernet(OWN, 0x86dd, &ipv6(44, VIP6, &[&head[..], payload].concat()))
    };
    let mut bad_sum = ethernet(OWN, 0x0800, &ipv4(17, VIP, &udp));
    bad_sum[24] ^= 1;
    let options = |count: usize| {
        let mut chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        let last = chain.len() - 8;
        chain[last] = protocol::UDP;
        ethernet(OWN, 0x86dd, &ipv6(60, VIP6, &[&chain[..], &udp].concat()))
    };
    let long = [&[protocol::UDP, 32][..], &[0; 262], &udp].concat();
    let cases = [
        ("empty", Vec::new(), Malformed),
        ("Ethernet alone", ethernet(OWN, 0x0800, &[]), Malformed),
        ("half a tag", ethernet(OWN, 0x8100, &[0, 1]), Malformed),
        ("version 5", with(ipv4(17, VIP, &udp), 0, 0x55), Malformed),
        ("header of 16 bytes", with(ipv4(17, VIP, &udp), 0, 0x44), Malformed),
        ("options beyond the packet", with(ipv4(17, VIP, &udp), 0, 0x4f), Malformed),
        ("longer than the frame", with(ipv4(17, VIP, &udp), 3, 29), Malformed),
        ("shorter than its header", with(ipv4(17, VIP, &udp), 3, 19), Malformed),
        ("checksum", bad_sum, HeaderChecksum),
        ("UDP length 7", ethernet(OWN, 0x0800, &ipv4(17, VIP, &[0, 1, 0, 2, 0, 7, 0, 0])), Malformed),
        ("UDP length beyond", ethernet(OWN, 0x0800, &ipv4(17, VIP, &[0, 1, 0, 2, 0, 9, 0, 0])), Malformed),
        ("UDP cut", ethernet(OWN, 0x0800, &ipv4(17, VIP, &udp[..7])), Malformed),
        ("TCP cut", ethernet(OWN, 0x0800, &ipv4(6, VIP, &[0x50; 19])), Malformed),
        ("TCP header of 16 bytes", ethernet(OWN, 0x0800, &ipv4(6, VIP, &[0x40; 20])), Malformed),
        ("TCP options beyond", ethernet(OWN, 0x0800, &ipv4(6, VIP, &[0x60; 20])), Malformed),
        ("ICMP cut", ethernet(OWN, 0x0800, &ipv4(1, VIP, &[8; 7])), Malformed),
        ("SCTP cut", ethernet(OWN, 0x0800, &ipv4(132, VIP, &[8; 11])), Malformed),
        ("TCP in padding", [ethernet(OWN, 0x0800, &ipv4(6, VIP, &[])), vec![0x50; 40]].concat(), Malformed),
        ("ping of death", fragment(0x1fff, &[0; 16]), FragmentInvalid),
        ("piece of 9 bytes with more", fragment(0x2010, &[0; 9]), FragmentInvalid),
        ("empty piece", fragment(0x0010, &[]), FragmentInvalid),
        ("tiny first piece", fragment(0x2000, &[0x50; 16]), FragmentInvalid),
        ("piece over the TCP flags", fragment(0x0001, &[0; 16]), FragmentInvalid),
        ("jumbogram", ethernet(OWN, 0x86dd, &ipv6(17, VIP6, &[])), Malformed),
        ("nine headers", options(9), ExtensionHeaders),
        ("264 bytes of headers", ethernet(OWN, 0x86dd, &ipv6(60, VIP6, &long)), ExtensionHeaders),
        (
            "hop-by-hop later",
            ethernet(
                OWN,
                0x86dd,
                &ipv6(60, VIP6, &[&[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat()),
            ),
            ExtensionHeaders,
        ),
        (
            "two fragment headers",
            fragment6([44, 0, 0, 0, 0, 0, 0, 1], &[&[17, 0, 0, 1, 0, 0, 0, 2][..], &udp].concat()),
            ExtensionHeaders,
        ),
        (
            "extension header cut",
            ethernet(OWN, 0x86dd, &ipv6(60, VIP6, &[17, 1, 0, 0, 0, 0, 0, 0])),
            Malformed,
        ),
        (
            "chain cut in the first piece",
            fragment6([60, 0, 0, 1, 0, 0, 0, 1], &[17, 1, 0, 0, 0, 0, 0, 0]),
            FragmentInvalid,
        ),
        ("tiny IPv6 first piece", fragment6([6, 0, 0, 1, 0, 0, 0, 1], &[0x50; 16]), FragmentInvalid),
        ("IPv6 piece of 9 bytes with more", fragment6([17, 0, 1, 1, 0, 0, 0, 1], &[0; 9]), FragmentInvalid),
    ];
    for (name, frame, reason) in cases {
        assert_eq!(whole(&frame), Parsed::Drop(reason), "{name}");
    }
    assert!(matches!(whole(&options(8)), Parsed::Flow(headers) if headers.destination_port == 53));
}

#[test]
fn sources_no_host_has() {
    let Sample { mut frame, headers } = Sample::tcp_v4();
    for (source, martian) in [
        ([0, 1, 2, 3], true),
        ([127, 0, 0, 1], true),
        ([224, 0, 0, 1], true),
        ([239, 255, 0, 1], true),
        ([255; 4], true),
        ([10, 0, 0, 1], false),
        ([223, 0, 0, 1], false),
        ([240, 0, 0, 1], false),
    ] {
        frame[26..30].copy_from_slice(&source);
        assert_eq!(headers.martian_source(&frame), martian, "{source:?}");
    }
}
