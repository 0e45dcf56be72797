//! What parsing learns from a packet.

use crate::address::Address;
use crate::exception::PuntClass;
use crate::flow::{FlowKey, Tuple, port, protocol};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Flag bits of a TCP header's 14th byte (RFC 9293).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is significant.
    pub const URG: u8 = 0x20;
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

/// What parsing learned. Every offset and length in it has been checked against the first segment and the frame it was
/// made from, and holds for that frame only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers {
    /// Offset of the IP header in the frame.
    pub network: u16,
    /// Offset of what follows the IP header and its options or extension headers; 0 for a later fragment.
    pub transport: u16,
    /// Source port in host order; 0 where there is none.
    pub source_port: u16,
    /// Destination port in host order; 0 where there is none.
    pub destination_port: u16,
    /// Length of the IP packet in bytes, header included; Ethernet padding is not part of it.
    pub ip_length: u32,
    /// Identification of a fragment: 16 bits in IPv4 (there for every packet), 32 in IPv6 (0 when not a fragment).
    pub fragment_id: u32,
    /// Where a fragment's data belongs in the datagram's, in bytes.
    pub fragment_offset: u16,
    /// Length of a fragment's data in bytes; 0 for whole packets.
    pub fragment_length: u16,
    /// IP protocol number behind the options and extension headers. In a later IPv6 fragment, the fragment header's next
    /// header, which may be one more extension header.
    pub protocol: u8,
    /// TTL or hop limit as received.
    pub ttl: u8,
    /// TCP: the flags, see [`tcp`]. SCTP: SYN where the packet begins with INIT, RST where with ABORT, which open and end as those
    /// do. 0 for other protocols.
    pub tcp_flags: u8,
    /// ICMP and ICMPv6: the type. SCTP: the number of its [`super::sctp::Event`], 0 for a packet without a chunk. 0 for other
    /// protocols.
    pub icmp_type: u8,
    /// The address family.
    pub family: Family,
    pub(crate) flags: u8,
}

pub(super) const DONT_FRAGMENT: u8 = 1;
pub(super) const FIRST_FRAGMENT: u8 = 2;
pub(super) const LATER_FRAGMENT: u8 = 4;
pub(super) const MORE_FRAGMENTS: u8 = 8;
pub(super) const OPTIONS: u8 = 16;
const COLLECTED: u8 = 32;
const FOLLOWER: u8 = 64;
pub(super) const STEADY: u8 = 128;
/// IPv6 has no options in its header; there the bit says that a fragment header is all of its datagram's.
pub(super) const ATOMIC: u8 = OPTIONS;

/// Copies `N` bytes at `at`; zeros where the data ends before, which offsets made by parsing never see.
#[inline(always)]
pub(super) fn bytes<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    chunk(data, at).copied().unwrap_or([0; N])
}

/// The `N` bytes at `at`.
#[inline(always)]
pub(super) fn chunk<const N: usize>(data: &[u8], at: usize) -> Option<&[u8; N]> {
    data.get(at..at.wrapping_add(N))?.first_chunk()
}

/// An offset or length known to be below 64 Ki.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "masked; the caller has checked it")]
pub(super) const fn short(value: usize) -> u16 {
    (value & 0xffff) as u16
}

/// A length known to be below 4 Gi.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "masked; the caller has checked it")]
pub(super) const fn long(value: usize) -> u32 {
    (value & 0xffff_ffff) as u32
}

#[inline(always)]
pub(super) const fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

impl Headers {
    /// IPv4: the DF bit. IPv6 packets are never fragmented on the way: always true.
    #[inline(always)]
    #[must_use]
    pub const fn dont_fragment(&self) -> bool {
        self.flags & DONT_FRAGMENT != 0
    }

    /// A piece of a datagram, not a whole one. IPv6 atomic fragments (RFC 6946) are whole.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.flags & (FIRST_FRAGMENT | LATER_FRAGMENT) != 0
    }

    /// An IPv6 packet with a fragment header that is all of its datagram (RFC 6946).
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_atomic(&self) -> bool {
        matches!(self.family, Family::V6) && self.flags & ATOMIC != 0
    }

    /// The piece that carries the transport header.
    #[inline(always)]
    #[must_use]
    pub const fn first_fragment(&self) -> bool {
        self.flags & FIRST_FRAGMENT != 0
    }

    /// A piece without transport header: ports are 0.
    #[inline(always)]
    #[must_use]
    pub const fn later_fragment(&self) -> bool {
        self.flags & LATER_FRAGMENT != 0
    }

    /// A piece that is not the last one.
    #[inline(always)]
    #[must_use]
    pub const fn more_fragments(&self) -> bool {
        self.flags & MORE_FRAGMENTS != 0
    }

    /// An IPv4 header with options.
    #[inline(always)]
    #[must_use]
    pub const fn has_options(&self) -> bool {
        self.flags & OPTIONS != 0
    }

    /// Neither a whole datagram as it came nor one without options: the straight way is not for it.
    #[inline(always)]
    #[must_use]
    pub const fn is_uncommon(&self) -> bool {
        self.flags & (FIRST_FRAGMENT | LATER_FRAGMENT | OPTIONS) != 0
    }

    /// These headers are of a first piece, with the rest of its datagram behind it, or have options.
    #[inline(always)]
    #[must_use]
    pub const fn needs_care(&self) -> bool {
        self.flags & (COLLECTED | OPTIONS) != 0
    }

    /// A whole datagram without options that any router sends on (its TTL is above 1) and that says nothing about its connection's
    /// state: UDP, or TCP with ACK and none of SYN, FIN and RST. What nearly all packets are.
    #[inline(always)]
    #[must_use]
    pub const fn is_steady(&self) -> bool {
        self.flags & STEADY != 0
    }

    /// An AH or ESP packet in the name of the IKE connection between the same addresses, which it follows: it has no ports of its own and
    /// opens nothing.
    #[inline(always)]
    #[must_use]
    pub const fn is_follower(&self) -> bool {
        self.flags & FOLLOWER != 0
    }

    /// AH and ESP go the way of the UDP connection of port 500 between the same addresses; other headers stay.
    #[must_use]
    pub(crate) const fn following(self) -> Self {
        match self.protocol {
            protocol::AH | protocol::ESP => Self {
                source_port: port::ISAKMP,
                destination_port: port::ISAKMP,
                protocol: protocol::UDP,
                flags: self.flags | FOLLOWER,
                ..self
            },
            _ => self,
        }
    }

    /// The length is that of the whole datagram, the rest that of its first piece.
    #[must_use]
    pub(crate) const fn is_collected(&self) -> bool {
        self.flags & COLLECTED != 0
    }

    /// The headers of a first piece, with the length of the whole datagram.
    #[must_use]
    pub(crate) const fn collected(self, ip_length: u32) -> Self {
        Self { ip_length, flags: self.flags | COLLECTED, ..self }
    }

    /// The headers of a datagram that has been put together behind these, a first piece's.
    #[must_use]
    pub(crate) fn united(self) -> Self {
        let (fragment_header, marked) = if self.family == Family::V6 { (8, ATOMIC) } else { (0, 0) };
        let flags = self.flags & !(COLLECTED | FIRST_FRAGMENT | MORE_FRAGMENTS | marked);
        Self { transport: self.transport.saturating_sub(fragment_header), flags, ..self }
    }

    /// The headers of a first piece with its own length.
    #[must_use]
    pub(crate) const fn alone(self, ip_length: u32) -> Self {
        Self { ip_length, flags: self.flags & !COLLECTED, ..self }
    }

    /// Length of the IP header with options or extension headers, in bytes; 0 for a later fragment.
    #[inline(always)]
    #[must_use]
    pub const fn header_length(&self) -> u16 {
        self.transport.saturating_sub(self.network)
    }

    /// Length in bytes of what follows the IP header and its options or extension headers, in a collected datagram's first piece that
    /// of the whole datagram; 0 for a later fragment.
    #[must_use]
    pub(crate) fn transport_length(&self) -> u16 {
        // A collected IPv6 datagram's length is without the fragment header that its first piece has.
        let fragment_header = if self.is_collected() && self.family == Family::V6 { 8 } else { 0 };
        let length = (self.ip_length + fragment_header).saturating_sub(self.header_length().into());
        if self.later_fragment() { 0 } else { u16::try_from(length).unwrap_or(u16::MAX) }
    }

    /// Source and destination; of [`Family::V4`] only.
    #[inline(always)]
    #[must_use]
    pub fn addresses_v4(&self, data: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
        let pair: [u8; 8] = bytes(data, usize::from(self.network) + 12);
        let bits = u64::from_be_bytes(pair);
        (Ipv4Addr::from_bits((bits >> 32) as u32), Ipv4Addr::from_bits((bits & 0xffff_ffff) as u32))
    }

    /// Source and destination; of [`Family::V6`] only.
    #[inline(always)]
    #[must_use]
    pub fn addresses_v6(&self, data: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
        let pair: [u8; 32] = bytes(data, usize::from(self.network) + 8);
        (Ipv6Addr::from(bytes::<16>(&pair, 0)), Ipv6Addr::from(bytes::<16>(&pair, 16)))
    }

    /// The tuple of an IPv4 packet; of [`Family::V4`] only.
    #[inline(always)]
    #[must_use]
    pub fn tuple_v4(&self, data: &[u8]) -> Tuple<Ipv4Addr> {
        let (source, destination) = self.addresses_v4(data);
        self.tuple(source, destination)
    }

    /// The tuple of an IPv6 packet; of [`Family::V6`] only.
    #[inline(always)]
    #[must_use]
    pub fn tuple_v6(&self, data: &[u8]) -> Tuple<Ipv6Addr> {
        let (source, destination) = self.addresses_v6(data);
        self.tuple(source, destination)
    }

    /// The tuple, of whichever family.
    #[inline]
    #[must_use]
    pub fn key(&self, data: &[u8]) -> FlowKey {
        match self.family {
            Family::V4 => FlowKey::V4(self.tuple_v4(data)),
            Family::V6 => FlowKey::V6(self.tuple_v6(data)),
        }
    }

    #[inline(always)]
    const fn tuple<A>(&self, source: A, destination: A) -> Tuple<A>
    where
        A: Copy,
    {
        Tuple {
            source,
            destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
        }
    }

    /// An ICMP message that reports an error: about another packet, and never to be answered by one.
    #[inline]
    #[must_use]
    pub const fn is_icmp_error(&self) -> bool {
        if self.later_fragment() {
            return false;
        }
        match (self.family, self.protocol) {
            (Family::V4, protocol::ICMP) => matches!(self.icmp_type, 3 | 4 | 5 | 11 | 12),
            (Family::V6, protocol::ICMPV6) => self.icmp_type < 128,
            _ => false,
        }
    }

    /// Ping, at the end that is to answer.
    #[inline]
    #[must_use]
    pub const fn is_echo_request(&self) -> bool {
        let echo = match (self.family, self.protocol) {
            (Family::V4, protocol::ICMP) => 8,
            (Family::V6, protocol::ICMPV6) => 128,
            _ => return false,
        };
        !self.later_fragment() && self.icmp_type == echo
    }

    /// The class of a packet that turned out to be for no service: routing protocols before everything else.
    #[inline]
    #[must_use]
    pub const fn punt_class(&self) -> PuntClass {
        const BGP: u16 = 179;
        let control = match self.protocol {
            protocol::OSPF | protocol::VRRP => true,
            protocol::TCP => self.source_port == BGP || self.destination_port == BGP,
            // BFD: single hop and echo (RFC 5881), multihop (RFC 5883).
            protocol::UDP => matches!(self.destination_port, 3784 | 3785 | 4784),
            _ => false,
        };
        if control { PuntClass::Control } else { PuntClass::Local }
    }

    /// Whether the source is an address no packet on a wire may come from (RFC 1122, 3.2.1.3; RFC 4291, 2.7): the kernel
    /// drops such packets before they reach a service, ICMP never answers them.
    #[inline]
    #[must_use]
    pub fn martian_source(&self, data: &[u8]) -> bool {
        match self.family {
            Family::V4 => {
                let source = self.addresses_v4(data).0;
                matches!(source.octets()[0], 0 | 127 | 224..=239) || source.is_broadcast()
            }
            Family::V6 => {
                let source = self.addresses_v6(data).0;
                source.is_unspecified() || source.is_multicast() || source.is_loopback()
            }
        }
    }
}

/// What names a packet's flow, kept for a later stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptTuple {
    /// The words of [`Address::Ends`] of its family.
    pub(crate) ends: [u64; 4],
    /// Ports and protocol, see [`crate::flow::names`].
    pub(crate) names: u64,
}

/// An address that can be read from a frame of its family.
pub trait WireAddress: Address {
    /// The tuple of a packet of this family.
    fn tuple(headers: &Headers, data: &[u8]) -> Tuple<Self>;

    /// Keeps a tuple.
    fn keep(tuple: &Tuple<Self>, place: &mut KeptTuple);

    /// The tuple that was kept.
    fn kept(place: &KeptTuple) -> Tuple<Self>;
}

impl WireAddress for Ipv4Addr {
    #[inline(always)]
    fn tuple(headers: &Headers, data: &[u8]) -> Tuple<Self> {
        headers.tuple_v4(data)
    }

    #[inline(always)]
    fn keep(tuple: &Tuple<Self>, place: &mut KeptTuple) {
        place.ends[0] = tuple.ends();
        place.names = tuple.names();
    }

    #[inline(always)]
    fn kept(place: &KeptTuple) -> Tuple<Self> {
        let (source, destination) = Self::split(place.ends[0]);
        Tuple::named(source, destination, place.names)
    }
}

impl WireAddress for Ipv6Addr {
    #[inline(always)]
    fn tuple(headers: &Headers, data: &[u8]) -> Tuple<Self> {
        headers.tuple_v6(data)
    }

    #[inline(always)]
    fn keep(tuple: &Tuple<Self>, place: &mut KeptTuple) {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let halves = |address: Self| [(address.to_bits() >> 64) as u64, address.to_bits() as u64];
        let ([a, b], [c, d]) = (halves(tuple.source), halves(tuple.destination));
        *place = KeptTuple { ends: [a, b, c, d], names: tuple.names() };
    }

    #[inline(always)]
    fn kept(place: &KeptTuple) -> Tuple<Self> {
        let [a, b, c, d] = place.ends;
        let address = |high, low| Self::from_bits(u128::from(high) << 64 | u128::from(low));
        Tuple::named(address(a, b), address(c, d), place.names)
    }
}
