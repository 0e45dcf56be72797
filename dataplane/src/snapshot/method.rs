//! How a destination is forwarded to, and what a tunnel puts before its packets.

use crate::connection::flags;
use crate::flow::protocol;
use crate::packet::{Family, checksum};
use std::net::IpAddr;

/// A forwarding method. A connection keeps the one it was opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// VS/DR: the frame's MAC addresses change, the packet does not but for its TTL.
    #[default]
    Direct,
    /// VS/NAT: the server's address and port replace the virtual ones, on the way back the other way round.
    Masquerade,
    /// VS/TUN: the packet travels inside another one.
    Tunnel(Tunnel),
}

/// What carries the packets to a tunnel's destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tunnel {
    /// The outer headers.
    pub kind: TunnelKind,
    /// Their checksum.
    pub checksum: TunnelChecksum,
    /// UDP port of GUE; not looked at for the others.
    pub port: u16,
}

/// The outer headers of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TunnelKind {
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213).
    #[default]
    Ipip,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue), version 0.
    Gue,
    /// Generic routing encapsulation (RFC 2784).
    Gre,
}

/// Which checksum the outer headers of GUE and GRE have; IP in IP has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TunnelChecksum {
    /// None: GUE over UDP checksum 0.
    #[default]
    None,
    /// Over all that the tunnel carries.
    Plain,
    /// GUE's remote checksum offload: of use to packets whose own checksum is still to be computed, which no forwarded one is.
    /// As with the kernel, they get the plain checksum.
    Remote,
}

impl Method {
    /// The method's bits in a connection's flag word, and that no reply is expected here where none is.
    #[inline(always)]
    #[must_use]
    pub const fn flags(self) -> u32 {
        match self {
            Self::Direct => flags::DIRECT | flags::NO_OUTPUT,
            Self::Masquerade => flags::MASQUERADE,
            Self::Tunnel(_) => flags::TUNNEL | flags::NO_OUTPUT,
        }
    }

    /// Whether a destination of the other address family than its service's can be reached.
    #[must_use]
    pub const fn crosses_families(self) -> bool {
        matches!(self, Self::Tunnel(_))
    }
}

/// Longest outer headers: IPv6, UDP, GUE.
const LONGEST: usize = 52;
const UDP: u16 = 8;
const GUE: u16 = 4;
const GRE: u16 = 4;
const GRE_CHECKSUM: u16 = 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const IPIP: u8 = 4;
const IPV6: u8 = 41;
const GRE_PROTOCOL: u8 = 47;

/// The outer headers to one destination, but for what is a packet's own: lengths, TTL, traffic class, fragment fields,
/// checksums and GUE's source port are 0. A cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub struct Encapsulation {
    /// Family of the outer IP header.
    pub outer: Family,
    /// What follows the outer IP header.
    pub tunnel: Tunnel,
    /// Length of all outer headers in bytes.
    pub length: u8,
    /// Of the outer IPv4 header as it stands in `bytes`; 0 for IPv6, whose header has no checksum.
    sum: u16,
    /// IPv4 in IPv4 and nothing between.
    plain: bool,
    bytes: [u8; LONGEST],
}

impl Encapsulation {
    /// Headers of `tunnel` from one address of the director to the server, for packets of the `inner` family; `None` when the
    /// addresses are of different families.
    #[must_use]
    pub fn new(tunnel: Tunnel, source: IpAddr, server: IpAddr, inner: Family) -> Option<Self> {
        let payload = match inner {
            Family::V4 => IPIP,
            Family::V6 => IPV6,
        };
        let next = match tunnel.kind {
            TunnelKind::Ipip => payload,
            TunnelKind::Gue => protocol::UDP,
            TunnelKind::Gre => GRE_PROTOCOL,
        };
        let mut bytes = [0; LONGEST];
        let (outer, header) = match (source, server) {
            (IpAddr::V4(source), IpAddr::V4(server)) => {
                bytes[0] = 0x45;
                bytes[9] = next;
                bytes[12..16].copy_from_slice(&source.octets());
                bytes[16..20].copy_from_slice(&server.octets());
                (Family::V4, 20)
            }
            (IpAddr::V6(source), IpAddr::V6(server)) => {
                bytes[0] = 0x60;
                bytes[6] = next;
                bytes[8..24].copy_from_slice(&source.octets());
                bytes[24..40].copy_from_slice(&server.octets());
                (Family::V6, 40)
            }
            _ => return None,
        };
        let more = match tunnel.kind {
            TunnelKind::Ipip => 0,
            TunnelKind::Gue => {
                bytes[header + 2..header + 4].copy_from_slice(&tunnel.port.to_be_bytes());
                // Version 0, no private fields, no flags.
                bytes[header + 9] = payload;
                UDP + GUE
            }
            TunnelKind::Gre => {
                let inner = match inner {
                    Family::V4 => ETHERTYPE_IPV4,
                    Family::V6 => ETHERTYPE_IPV6,
                };
                let checksum = tunnel.checksum != TunnelChecksum::None;
                bytes[header] = if checksum { 0x80 } else { 0 };
                bytes[header + 2..header + 4].copy_from_slice(&inner.to_be_bytes());
                if checksum { GRE + GRE_CHECKSUM } else { GRE }
            }
        };
        let length = u8::try_from(header).ok()?.saturating_add(u8::try_from(more).ok()?);
        let sum = if outer == Family::V4 { checksum::sum(bytes.get(..20)?) } else { 0 };
        let plain = (outer, inner, tunnel.kind) == (Family::V4, Family::V4, TunnelKind::Ipip);
        Some(Self { outer, tunnel, length, sum, plain, bytes })
    }

    /// The outer headers.
    #[inline(always)]
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&[])
    }

    /// The first `N` bytes of the outer headers; zeros behind their end.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn front<const N: usize>(&self) -> &[u8; N] {
        const { assert!(N <= LONGEST) };
        match self.bytes.first_chunk() {
            Some(front) => front,
            None => &[0; N],
        }
    }

    /// Whether it is of IPv4 packets in IPv4 packets, with nothing between the headers.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_plain(&self) -> bool {
        self.plain
    }

    /// The sum (RFC 1071) of an outer IPv4 header's words that all packets have in common.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn sum(&self) -> u16 {
        self.sum
    }

    /// Length of the outer IP header in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn ip_header(&self) -> usize {
        match self.outer {
            Family::V4 => 20,
            Family::V6 => 40,
        }
    }

    /// The longest packet that fits a link of `mtu` bytes.
    #[inline(always)]
    #[must_use]
    pub const fn payload(&self, mtu: u16) -> u16 {
        mtu.saturating_sub(self.length as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [&str; 2] = ["192.168.10.1", "172.16.5.4"];
    const V6: [&str; 2] = ["fd00:10::1", "fd00:10::4"];

    fn encapsulation(
        kind: TunnelKind,
        checksum: TunnelChecksum,
        [source, server]: [&str; 2],
        inner: Family,
    ) -> Encapsulation {
        let tunnel = Tunnel { kind, checksum, port: 6080 };
        Encapsulation::new(tunnel, source.parse().unwrap(), server.parse().unwrap(), inner).unwrap()
    }

    #[test]
    fn overhead_is_the_kernels() {
        use TunnelChecksum::{None, Plain, Remote};
        use TunnelKind::{Gre, Gue, Ipip};
        let overhead =
            |kind, checksum, ends, inner| 1500 - encapsulation(kind, checksum, ends, inner).payload(1500);
        for inner in [Family::V4, Family::V6] {
            assert_eq!(overhead(Ipip, None, V4, inner), 20);
            assert_eq!(overhead(Ipip, None, V6, inner), 40);
            assert_eq!([None, Plain, Remote].map(|sum| overhead(Gue, sum, V4, inner)), [32; 3]);
            assert_eq!([None, Plain].map(|sum| overhead(Gre, sum, V4, inner)), [24, 28]);
            assert_eq!([None, Plain].map(|sum| overhead(Gre, sum, V6, inner)), [44, 48]);
        }
    }

    #[test]
    fn inner_and_outer_families_are_told() {
        let header = |ends, inner| {
            let outer = encapsulation(TunnelKind::Ipip, TunnelChecksum::None, ends, inner);
            (outer.headers()[0] >> 4, outer.headers()[if outer.outer == Family::V4 { 9 } else { 6 }])
        };
        assert_eq!(header(V4, Family::V4), (4, 4));
        assert_eq!(header(V4, Family::V6), (4, 41));
        assert_eq!(header(V6, Family::V6), (6, 41));
        assert_eq!(header(V6, Family::V4), (6, 4));
        let mixed =
            Encapsulation::new(Tunnel::default(), V4[0].parse().unwrap(), V6[1].parse().unwrap(), Family::V6);
        assert_eq!(mixed, None);
    }

    #[test]
    fn what_forwarding_reads_of_a_destination_is_one_cache_line() {
        assert_eq!(size_of::<Encapsulation>(), 64);
        assert!(size_of::<crate::snapshot::DestinationView>() <= 64);
    }

    #[test]
    fn flags_are_the_kernels() {
        assert_eq!(Method::Direct.flags(), 0x83);
        assert_eq!(Method::Masquerade.flags(), 0);
        assert_eq!(Method::Tunnel(Tunnel::default()).flags(), 0x82);
    }
}
