//! From bytes to [`Headers`], believing nothing.
//!
//! Every length is checked against the one that encloses it: transport header against IP packet, IP packet against frame,
//! and everything that is read against the first segment. What contradicts itself is dropped with a reason, what is well
//! formed but not ours to forward is punted to the kernel.

use super::checksum;
use super::headers::{
    DONT_FRAGMENT, FIRST_FRAGMENT, Family, Headers, LATER_FRAGMENT, MORE_FRAGMENTS, OPTIONS, STEADY, be16,
    bytes, chunk, long, short, tcp,
};
use super::ipv6;
use super::sctp::{self, Chunks};
use crate::counters::DropReason;
use crate::exception::PuntClass;
use crate::flow::protocol;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A unicast IP packet: to a transport, an ICMP message, another protocol, or a fragment.
    Flow(Headers),
    /// For the kernel: not IP, not unicast, or of the neighbour protocols.
    Punt(PuntClass),
    /// To be dropped.
    Drop(DropReason),
}

/// A frame that is no flow. Kept small, since a `Result` of it goes through every step of the hot path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// For the kernel: not IP, not unicast, or of the neighbour protocols.
    Punt(PuntClass),
    /// To be dropped.
    Drop(DropReason),
}

/// What is read from a frame.
pub(super) type Result<T> = std::result::Result<T, Refusal>;

impl From<Refusal> for Parsed {
    #[inline(always)]
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Punt(class) => Self::Punt(class),
            Refusal::Drop(reason) => Self::Drop(reason),
        }
    }
}

/// What a transport header says, packed so that it stays in a register: ports in the low half, TCP flags and ICMP type above.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transport(u64);

impl Transport {
    const NOTHING: Self = Self(0);

    /// From the first four bytes of a header that begins with the ports.
    #[inline(always)]
    const fn ports(header: &[u8; 4]) -> Self {
        Self(u32::from_be_bytes(*header) as u64)
    }

    #[inline(always)]
    const fn with_tcp_flags(self, flags: u8) -> Self {
        Self(self.0 | (flags as u64) << 32)
    }

    const fn with_chunks(self, chunks: Chunks) -> Self {
        let flags = if chunks.init { tcp::SYN } else { 0 } | if chunks.abort { tcp::RST } else { 0 };
        Self(self.with_tcp_flags(flags).0 | Self::icmp(chunks.event as u8).0)
    }

    #[inline(always)]
    const fn icmp(kind: u8) -> Self {
        Self((kind as u64) << 40)
    }
}

const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_PROVIDER: u16 = 0x88a8;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The frame being parsed: its first segment, and how much there is beside.
pub(super) struct Frame<'a> {
    pub(super) data: &'a [u8],
    pub(super) total_length: usize,
    segments: u16,
}

impl Frame<'_> {
    /// Why the `needed` first bytes of the frame are not all in the first segment.
    #[cold]
    pub(super) fn short(&self, needed: usize) -> Refusal {
        let elsewhere = self.segments > 1 && needed <= self.total_length;
        Refusal::Drop(if elsewhere { DropReason::Segments } else { DropReason::Malformed })
    }
}

/// Where a transport header is, and how much of the IP packet is left from there.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: usize,
    pub(super) length: usize,
}

pub(super) const MALFORMED: Refusal = Refusal::Drop(DropReason::Malformed);
pub(super) const INVALID: Refusal = Refusal::Drop(DropReason::FragmentInvalid);

/// The frame's destination MAC address; zeros when the frame is shorter.
#[inline(always)]
#[must_use]
pub fn destination_mac(data: &[u8]) -> [u8; 6] {
    bytes(data, 0)
}

/// The frame's source MAC address; zeros when the frame is shorter.
#[inline(always)]
#[must_use]
pub fn source_mac(data: &[u8]) -> [u8; 6] {
    bytes(data, 6)
}

/// Reads the headers of a frame, see [`parse_into`].
#[must_use]
pub fn parse(data: &[u8], total_length: usize, segments: u16) -> Parsed {
    let mut headers = Headers::default();
    match parse_into(&mut headers, data, total_length, segments) {
        Ok(()) => Parsed::Flow(headers),
        Err(refusal) => refusal.into(),
    }
}

/// Reads the headers of a frame. `data` is its first segment from the Ethernet header on, `total_length` counts all
/// `segments`. Nothing is read beyond `data`, whatever lengths the frame claims.
///
/// Ethernet II with up to two VLAN tags (802.1Q, 802.1ad); IPv4 with options and a verified header checksum; IPv6 with at
/// most 8 extension headers in at most 256 bytes. Transport checksums are not looked at.
///
/// The answer is written field by field to where it stays: handing it back by value would copy, right after they were
/// written, bytes and words by wide loads, and each such load waits until all of them have left the store buffer.
///
/// # Errors
/// What is to be done with a frame that is no flow; `into` holds nothing of use then.
#[inline(always)]
pub fn parse_into(into: &mut Headers, data: &[u8], total_length: usize, segments: u16) -> Result<()> {
    let frame = &Frame { data, total_length, segments };
    // Untagged unicast first: with the offset of the IP header known, the rest is straight-line code.
    if let Some(ethernet) = data.first_chunk::<ETHERNET>()
        && ethernet[0] & 1 == 0
    {
        match be16(ethernet[12], ethernet[13]) {
            ETHERTYPE_IPV4 => return ipv4(into, frame, ETHERNET),
            ETHERTYPE_IPV6 => return ipv6::parse(into, frame, ETHERNET),
            _ => {}
        }
    }
    uncommon(into, frame)
}

/// Tagged, multicast and non-IP frames.
#[inline(never)]
fn uncommon(into: &mut Headers, frame: &Frame<'_>) -> Result<()> {
    let Some(ethernet) = frame.data.first_chunk::<ETHERNET>() else { return Err(frame.short(ETHERNET)) };
    let mut ethertype = be16(ethernet[12], ethernet[13]);
    let mut network = ETHERNET;
    while matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_PROVIDER) && network < ETHERNET + 8 {
        let Some(tag) = chunk::<4>(frame.data, network) else { return Err(frame.short(network + 4)) };
        ethertype = be16(tag[2], tag[3]);
        network += 4;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(into, frame, network)?,
        ETHERTYPE_IPV6 => ipv6::parse(into, frame, network)?,
        ETHERTYPE_ARP => return Err(Refusal::Punt(PuntClass::Control)),
        _ => return Err(Refusal::Punt(PuntClass::Local)),
    }
    if ethernet[0] & 1 == 0 { Ok(()) } else { Err(Refusal::Punt(multicast_class(frame.data, into))) }
}

/// The class of a multicast or broadcast packet: control for the routing protocols' link-local groups (224.0.0.0/24,
/// ff02::/16), local for all the rest.
fn multicast_class(data: &[u8], headers: &Headers) -> PuntClass {
    const IGMP: u8 = 2;
    const PIM: u8 = 103;
    let link_local = match headers.family {
        Family::V4 => matches!(headers.addresses_v4(data).1.octets(), [224, 0, 0, _]),
        Family::V6 => headers.addresses_v6(data).1.segments()[0] == 0xff02,
    };
    let control = match headers.protocol {
        IGMP | PIM | protocol::OSPF | protocol::VRRP => true,
        // Multicast listener discovery; neighbour discovery never comes here.
        protocol::ICMPV6 => matches!(headers.icmp_type, 130..=132 | 143),
        _ => false,
    };
    if link_local && control { PuntClass::Control } else { PuntClass::Local }
}

#[inline(always)]
fn ipv4(into: &mut Headers, frame: &Frame<'_>, network: usize) -> Result<()> {
    let Some(header) = chunk::<20>(frame.data, network) else { return Err(frame.short(network + 20)) };
    if header[0] != 0x45 {
        return with_options(into, frame, network, header);
    }
    if !checksum::plain_header_valid(header) {
        return Err(Refusal::Drop(DropReason::HeaderChecksum));
    }
    ipv4_checked(into, frame, network, header, 20)
}

/// An IPv4 packet whose header has the right version and checksum.
#[inline(always)]
fn ipv4_checked(
    into: &mut Headers,
    frame: &Frame<'_>,
    network: usize,
    header: &[u8; 20],
    header_length: usize,
) -> Result<()> {
    const DONT: u16 = 0x4000;
    const MORE: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;
    let ip_length = usize::from(be16(header[2], header[3]));
    if ip_length < header_length || network + ip_length > frame.total_length {
        return Err(MALFORMED);
    }
    let bits = be16(header[6], header[7]);
    let place = Place { offset: network + header_length, length: ip_length - header_length };
    let headers = Headers {
        network: short(network),
        transport: short(place.offset),
        source_port: 0,
        destination_port: 0,
        ip_length: long(ip_length),
        fragment_id: be16(header[4], header[5]).into(),
        fragment_offset: 0,
        fragment_length: 0,
        protocol: header[9],
        ttl: header[8],
        tcp_flags: 0,
        icmp_type: 0,
        family: Family::V4,
        flags: if bits & DONT == 0 { 0 } else { DONT_FRAGMENT }
            | if header_length > 20 { OPTIONS } else { 0 },
    };
    if bits & (MORE | OFFSET) != 0 {
        *into = headers;
        return fragment(into, frame, place, place, (bits & OFFSET) * 8, bits & MORE != 0);
    }
    *into = headers.whole(transport(frame, headers.family, headers.protocol, place, false)?);
    Ok(())
}

impl Headers {
    /// Of a whole datagram.
    #[inline(always)]
    pub(super) fn whole(self, transport: Transport) -> Self {
        let headers = self.with(transport);
        let opens_or_ends = tcp::SYN | tcp::FIN | tcp::RST;
        let steady = match headers.protocol {
            protocol::TCP => headers.tcp_flags & (opens_or_ends | tcp::ACK) == tcp::ACK,
            protocol::UDP => true,
            _ => false,
        };
        let steady = steady && headers.ttl > 1 && headers.flags & OPTIONS == 0;
        Self { flags: headers.flags | if steady { STEADY } else { 0 }, ..headers }
    }

    #[inline(always)]
    fn with(self, Transport(bits): Transport) -> Self {
        let [.., icmp_type, tcp_flags, a, b, c, d] = bits.to_be_bytes();
        Self { source_port: be16(a, b), destination_port: be16(c, d), tcp_flags, icmp_type, ..self }
    }
}

/// An IPv4 packet whose header is not the usual 20 bytes.
#[cold]
fn with_options(into: &mut Headers, frame: &Frame<'_>, network: usize, header: &[u8; 20]) -> Result<()> {
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(MALFORMED);
    }
    let Some(whole) = frame.data.get(network..network + length) else {
        return Err(frame.short(network + length));
    };
    if !checksum::header_valid(whole) {
        return Err(Refusal::Drop(DropReason::HeaderChecksum));
    }
    ipv4_checked(into, frame, network, header, length)
}

/// Reads a transport header; `first` says that it is in the first piece of a datagram.
#[inline(always)]
pub(super) fn transport(
    frame: &Frame<'_>,
    family: Family,
    protocol: u8,
    place: Place,
    first: bool,
) -> Result<Transport> {
    let Place { offset, length } = place;
    Ok(match protocol {
        protocol::TCP => {
            let Some(tcp) = chunk::<20>(frame.data, offset) else { return Err(too_short(frame, place, 20)) };
            let header_length = usize::from(tcp[12] >> 4) * 4;
            if header_length < 20 || header_length > length {
                return Err(MALFORMED);
            }
            Transport::ports(&[tcp[0], tcp[1], tcp[2], tcp[3]]).with_tcp_flags(tcp[13])
        }
        protocol::UDP => {
            let Some(udp) = chunk::<8>(frame.data, offset) else { return Err(too_short(frame, place, 8)) };
            // A datagram may be shorter than the packet around it, never longer; a first fragment's is longer.
            let datagram = usize::from(be16(udp[4], udp[5]));
            if datagram < 8 || length < 8 || (datagram > length && !first) {
                return Err(MALFORMED);
            }
            Transport::ports(&[udp[0], udp[1], udp[2], udp[3]])
        }
        _ => return other_transport(frame, family, protocol, place),
    })
}

/// Headers that are neither TCP's nor UDP's.
fn other_transport(frame: &Frame<'_>, family: Family, protocol: u8, place: Place) -> Result<Transport> {
    let Place { offset, length } = place;
    Ok(match protocol {
        protocol::SCTP => {
            let Some(sctp) = chunk::<12>(frame.data, offset) else { return Err(too_short(frame, place, 12)) };
            if length < 12 {
                return Err(MALFORMED);
            }
            let ports = Transport::ports(&[sctp[0], sctp[1], sctp[2], sctp[3]]);
            let end = frame.data.len().min(offset + length);
            match sctp::chunks(frame.data.get(offset..end).unwrap_or_default(), length) {
                Ok(Some(chunks)) => ports.with_chunks(chunks),
                Ok(None) => ports,
                Err(needed) => return Err(frame.short(offset + needed)),
            }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let Some(icmp) = chunk::<8>(frame.data, offset) else { return Err(too_short(frame, place, 8)) };
            if length < 8 {
                return Err(MALFORMED);
            }
            // Neighbour discovery (RFC 4861) is the kernel's, to whichever address.
            if family == Family::V6 && protocol == protocol::ICMPV6 && matches!(icmp[0], 133..=137) {
                return Err(Refusal::Punt(PuntClass::Control));
            }
            Transport::icmp(icmp[0])
        }
        _ => Transport::NOTHING,
    })
}

/// A transport header of `needed` bytes that the first segment does not have: the packet's fault, or the buffer's?
#[cold]
fn too_short(frame: &Frame<'_>, place: Place, needed: usize) -> Refusal {
    if place.length < needed { MALFORMED } else { frame.short(place.offset + needed) }
}

/// Reads a fragment whose IP header is read: `piece` is its data, `offset` where that belongs, `place` the transport header of a first piece: behind
/// the extension headers that its data may begin with.
#[cold]
pub(super) fn fragment(
    headers: &mut Headers,
    frame: &Frame<'_>,
    piece: Place,
    place: Place,
    offset: u16,
    more: bool,
) -> Result<()> {
    // An empty piece, one that leaves a gap no other can fill, or one that ends beyond the longest datagram.
    let end = usize::from(offset) + piece.length;
    if piece.length == 0 || (more && !piece.length.is_multiple_of(8)) || end > usize::from(u16::MAX) {
        return Err(INVALID);
    }
    headers.fragment_offset = offset;
    headers.fragment_length = short(piece.length);
    headers.flags |= if more { MORE_FRAGMENTS } else { 0 };
    if offset != 0 {
        headers.flags |= LATER_FRAGMENT;
        headers.transport = 0;
        // RFC 1858: no later piece may reach into where the transport header's ports and flags are.
        let covers = headers.protocol == protocol::TCP && offset < 20;
        return if covers { Err(INVALID) } else { Ok(()) };
    }
    headers.flags |= FIRST_FRAGMENT;
    let transport = transport(frame, headers.family, headers.protocol, place, true);
    *headers =
        headers.with(transport.map_err(|refusal| if refusal == MALFORMED { INVALID } else { refusal })?);
    Ok(())
}
