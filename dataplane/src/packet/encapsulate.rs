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

const UDP: usize = 8;
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

/// Puts a packet whose TTL has been taken one from inside the outer headers of a tunnel. The Ethernet header moves to the front
/// with its VLAN tags, and what followed the packet as padding goes.
///
/// `headers` are what parsing said of the frame, with the length of the whole packet.
///
/// # Errors
/// Why it cannot be sent: no headroom, longer than a packet can be, or a checksum over data that is not in the first segment.
/// The packet is then half changed.
pub fn encapsulate<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    wrapping: &Wrapping<'_>,
) -> Result<(), DropReason> {
    let Wrapping { outer, dont_fragment, identification, later } = *wrapping;
    let network = usize::from(headers.network);
    let ip_length = headers.ip_length as usize;
    let end = (network + ip_length).saturating_sub(later.length);
    let overhead = usize::from(outer.length);
    let gue = outer.tunnel.kind == TunnelKind::Gue;
    let port = if gue { flow_port(&headers.key(packet.data())) } else { 0 };
    let inner = inner_of(packet.data(), headers);
    if packet.segments() == 1 && packet.total_length() > end {
        // A packet of one segment can always be cut.
        let _ = packet.set_length(end);
    }
    packet.prepend(overhead).ok_or(DropReason::Headroom)?;
    let data = packet.data_mut();
    data.copy_within(overhead..overhead + network, 0);
    let (ethernet, ip) = data.split_at_mut(network);
    if let Some(ethertype) = ethernet.last_chunk_mut() {
        *ethertype = if outer.outer == Family::V4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    }
    let length = overhead + ip_length;
    let payload = length - outer.ip_header();
    if length > usize::from(u16::MAX) {
        return Err(DropReason::OverMtu);
    }
    let Some(place) = ip.get_mut(..overhead) else { return Err(DropReason::Segments) };
    place.copy_from_slice(outer.headers());
    let identification = if dont_fragment { 0 } else { identification };
    match outer.outer {
        Family::V4 => {
            ip[1] = outer_class(inner.traffic_class);
            ip[2..4].copy_from_slice(&short(length).to_be_bytes());
            ip[4..6].copy_from_slice(&identification.to_be_bytes());
            ip[6] = if dont_fragment { 0x40 } else { 0 };
            ip[8] = inner.ttl;
            checksum::fill_header(&mut ip[..20]);
        }
        Family::V6 => {
            let class = outer_class(inner.traffic_class);
            ip[0] |= class >> 4;
            ip[1] |= class << 4;
            ip[4..6].copy_from_slice(&short(payload).to_be_bytes());
            ip[7] = inner.ttl;
        }
    }
    match outer.tunnel.kind {
        TunnelKind::Ipip => Ok(()),
        TunnelKind::Gue => fill_gue(ip, outer, payload, port, later),
        TunnelKind::Gre if outer.tunnel.checksum == TunnelChecksum::None => Ok(()),
        TunnelKind::Gre => {
            let here = outer.ip_header()..length.saturating_sub(later.length);
            let Some(gre) = ip.get_mut(here) else { return Err(DropReason::Segments) };
            let sum = !checksum::add(checksum::sum(gre), later.sum);
            gre[4..6].copy_from_slice(&sum.to_be_bytes());
            Ok(())
        }
    }
}

fn inner_of(data: &[u8], headers: &Headers) -> Inner {
    let [first, second] = bytes(data, headers.network.into());
    let ttl = usize::from(headers.network) + if headers.family == Family::V4 { 8 } else { 7 };
    let traffic_class = match headers.family {
        Family::V4 => second,
        Family::V6 => short(usize::from(be16(first, second) >> 4) & 0xff).to_be_bytes()[1],
    };
    Inner { traffic_class, ttl: bytes::<1>(data, ttl)[0] }
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
