//! What names a flow: protocol and the two ends.

use crate::address::Address;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol numbers the director knows.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// ESP (RFC 4303).
    pub const ESP: u8 = 50;
    /// AH (RFC 4302).
    pub const AH: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// OSPF (RFC 2328).
    pub const OSPF: u8 = 89;
    /// VRRP (RFC 9568).
    pub const VRRP: u8 = 112;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
}

/// Ports the director knows.
pub mod port {
    /// FTP's data port (RFC 959).
    pub const FTP_DATA: u16 = 20;
    /// FTP's control port.
    pub const FTP: u16 = 21;
    /// IKE's port (RFC 7296).
    pub const ISAKMP: u16 = 500;
}

/// The 5-tuple as a packet carries it. Ports in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple<A> {
    /// Sender.
    pub source: A,
    /// Receiver.
    pub destination: A,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// Ports and protocol of a tuple as one number: bits 0-7 protocol, 8-23 destination port, 24-39 source port.
pub(crate) const fn names(source_port: u16, destination_port: u16, protocol: u8) -> u64 {
    (source_port as u64) << 24 | (destination_port as u64) << 8 | protocol as u64
}

impl<A: Address> Tuple<A> {
    /// The two addresses, to be compared as one.
    #[inline(always)]
    pub(crate) fn ends(&self) -> A::Ends {
        A::join(self.source, self.destination)
    }

    /// Ports and protocol, see [`names`].
    #[inline(always)]
    pub(crate) const fn names(&self) -> u64 {
        names(self.source_port, self.destination_port, self.protocol)
    }

    /// Back from [`Tuple::names`]; other bits of `names` do not matter.
    #[inline(always)]
    pub(crate) const fn named(source: A, destination: A, names: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits")]
        let (source_port, destination_port, protocol) =
            ((names >> 24) as u16, (names >> 8) as u16, names as u8);
        Self { source, destination, source_port, destination_port, protocol }
    }

    fn followed(self) -> Self {
        match self.protocol {
            protocol::AH | protocol::ESP => Self {
                source_port: port::ISAKMP,
                destination_port: port::ISAKMP,
                protocol: protocol::UDP,
                ..self
            },
            _ => self,
        }
    }

    /// The same flow seen from the other end.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// A tuple of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowKey {
    /// IPv4.
    V4(Tuple<Ipv4Addr>),
    /// IPv6.
    V6(Tuple<Ipv6Addr>),
}

impl FlowKey {
    /// The flow that decides about this one's packets: AH and ESP follow the IKE connection between the same addresses.
    #[must_use]
    pub fn followed(self) -> Self {
        match self {
            Self::V4(tuple) => Self::V4(tuple.followed()),
            Self::V6(tuple) => Self::V6(tuple.followed()),
        }
    }

    /// The receiver.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::V4(tuple) => tuple.destination.ip(),
            Self::V6(tuple) => tuple.destination.ip(),
        }
    }

    /// The sender.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(tuple) => tuple.source.ip(),
            Self::V6(tuple) => tuple.source.ip(),
        }
    }

    /// The same flow seen from the other end.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::V4(tuple) => Self::V4(tuple.reversed()),
            Self::V6(tuple) => Self::V6(tuple.reversed()),
        }
    }
}
