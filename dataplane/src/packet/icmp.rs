//! ICMP errors: made here, and read from others (RFC 792, 4443; RFC 1122, 3.2.2).

pub mod relay;
#[cfg(test)]
mod tests;

use super::headers::{Family, Headers, be16, bytes, chunk, short};
use super::{Packet, checksum, destination_mac, ipv6, source_mac};
use crate::flow::{FlowKey, Tuple, protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is reported to a packet's sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// TTL or hop limit ran out: IPv4 11/0, IPv6 3/0.
    TimeExceeded,
    /// No destination for the service: IPv4 3/3, IPv6 1/4, for TCP too, as the kernel answers.
    PortUnreachable,
    /// Longer than the next link takes and not to be fragmented: IPv4 3/4, IPv6 2/0.
    TooBig {
        /// That link's IP MTU in bytes.
        mtu: u16,
    },
    /// What a router behind a tunnel said, told on to the packet's sender.
    Relayed {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
        /// The second half of the ICMP header.
        rest: u32,
    },
}

/// Why nobody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// The packet is one that must not be answered (RFC 1122, 3.2.2; RFC 4443, 2.4): about an ICMP error or redirect, a later
    /// fragment, to a group, or from what is no host's address.
    Forbidden,
    /// The answer does not fit the buffer, or the given source is of the other family.
    Impossible,
}

/// An IPv4 answer is at most 576 bytes long, an IPv6 one 1280, as the kernel has it: what every path carries.
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;
const ICMP: usize = 8;
const TTL: u8 = 64;
/// Internetwork control, as the kernel marks its ICMP errors, beside the type of service that the packet asked for (RFC 1812,
/// 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;
const SERVICE: u8 = 0x1e;

/// An ICMP error that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// What it says.
    pub report: Report,
    /// Who says it: the virtual address.
    pub source: IpAddr,
    /// For an IPv4 header, which goes without DF: the caller counts it up.
    pub identification: u16,
    /// For an IPv4 header: whole words, at most 40 bytes.
    pub options: &'a [u8],
}

/// Whether an error about this packet may be sent at all.
#[must_use]
pub fn may_answer(frame: &[u8], headers: &Headers) -> bool {
    let group = (destination_mac(frame)[0] | source_mac(frame)[0]) & 1 != 0;
    if group || headers.later_fragment() || headers.is_icmp_error() {
        return false;
    }
    if headers.martian_source(frame) {
        return false;
    }
    match headers.family {
        // Also for ICMP types that may be errors for all we know.
        Family::V4 => {
            let destination = headers.addresses_v4(frame).1;
            let group =
                destination.is_multicast() || destination.is_broadcast() || destination.is_unspecified();
            let unknown = headers.protocol == protocol::ICMP && headers.icmp_type > 18;
            !(group || unknown)
        }
        Family::V6 => {
            const REDIRECT: u8 = 137;
            let group = headers.addresses_v6(frame).1.is_multicast();
            let redirect = headers.protocol == protocol::ICMPV6 && headers.icmp_type == REDIRECT;
            !(group || redirect)
        }
    }
}

/// Writes into `packet` the ICMP error about `frame` to the packet's sender, back the way it came: MAC addresses swapped, VLAN tags
/// kept, TTL 64.
///
/// `frame` is the first segment, `headers` what parsing said of it. The packet is quoted as far as it fits, as it is now: where
/// the kernel finds out after it has decremented the TTL, the caller has done so too.
///
/// # Errors
/// [`Unsent`]; `packet` is then unspecified.
pub fn answer<P: Packet>(
    frame: &[u8],
    headers: &Headers,
    answer: &Answer<'_>,
    packet: &mut P,
) -> Result<(), Unsent> {
    if !may_answer(frame, headers) {
        return Err(Unsent::Forbidden);
    }
    let network = usize::from(headers.network);
    let (header, longest) = match headers.family {
        Family::V4 => (20 + answer.options.len(), LONGEST_V4),
        Family::V6 => (40, LONGEST_V6),
    };
    let original = frame.get(network..).ok_or(Unsent::Impossible)?;
    let quote = original.len().min(headers.ip_length as usize).min(longest - header - ICMP);
    if !packet.set_length(network + header + ICMP + quote) {
        return Err(Unsent::Impossible);
    }
    let data = packet.data_mut();
    let link = frame.get(12..network).ok_or(Unsent::Impossible)?;
    let (ethernet, ip) = data.split_at_mut_checked(network).ok_or(Unsent::Impossible)?;
    let Some((macs, tags)) = ethernet.split_first_chunk_mut::<12>() else { return Err(Unsent::Impossible) };
    macs[..6].copy_from_slice(&source_mac(frame));
    macs[6..].copy_from_slice(&destination_mac(frame));
    tags.copy_from_slice(link);

    let (ip_header, icmp) = ip.split_at_mut_checked(header).ok_or(Unsent::Impossible)?;
    let (icmp_header, quoted) = icmp.split_first_chunk_mut::<ICMP>().ok_or(Unsent::Impossible)?;
    quoted.copy_from_slice(&original[..quote]);
    *icmp_header = icmp_head(headers.family, answer.report);
    let length = short(ICMP + quote);
    let pseudo = match (headers.family, answer.source) {
        (Family::V4, IpAddr::V4(source)) => {
            let ends = (source, headers.addresses_v4(frame).0);
            let service = original.get(1).map_or(0, |tos| tos & SERVICE);
            fill_v4(ip_header, ends, length, service | PRECEDENCE, answer).ok_or(Unsent::Impossible)?;
            0
        }
        (Family::V6, IpAddr::V6(source)) => {
            let destination = headers.addresses_v6(frame).0;
            fill_v6(ip_header, source, destination, length);
            checksum::pseudo_v6(source, destination, protocol::ICMPV6, length.into())
        }
        _ => return Err(Unsent::Impossible),
    };
    let sum = checksum::add(pseudo, checksum::sum(icmp));
    if let Some(field) = icmp.get_mut(2..4) {
        field.copy_from_slice(&(!sum).to_be_bytes());
    }
    Ok(())
}

/// The first eight bytes of the message, checksum 0.
const fn icmp_head(family: Family, report: Report) -> [u8; 8] {
    let (kind, code) = match (family, report) {
        (Family::V4, Report::TimeExceeded) => (11, 0),
        (Family::V4, Report::PortUnreachable) => (3, 3),
        (Family::V4, Report::TooBig { .. }) => (3, 4),
        (Family::V6, Report::TimeExceeded) => (3, 0),
        (Family::V6, Report::PortUnreachable) => (1, 4),
        (Family::V6, Report::TooBig { .. }) => (2, 0),
        (_, Report::Relayed { kind, code, .. }) => (kind, code),
    };
    let [a, b, c, d] = match report {
        Report::TooBig { mtu } => (mtu as u32).to_be_bytes(),
        Report::Relayed { rest, .. } => rest.to_be_bytes(),
        _ => [0; 4],
    };
    [kind, code, 0, 0, a, b, c, d]
}

fn fill_v4(
    header: &mut [u8],
    (source, destination): (Ipv4Addr, Ipv4Addr),
    length: u16,
    tos: u8,
    answer: &Answer<'_>,
) -> Option<()> {
    let words = u8::try_from(header.len() / 4).ok().filter(|words| *words <= 15)?;
    let total = length.checked_add(u16::try_from(header.len()).ok()?)?;
    let (fixed, options) = header.split_first_chunk_mut::<20>()?;
    fixed.fill(0);
    fixed[0] = 0x40 | words;
    fixed[1] = tos;
    fixed[2..4].copy_from_slice(&total.to_be_bytes());
    fixed[4..6].copy_from_slice(&answer.identification.to_be_bytes());
    fixed[8] = TTL;
    fixed[9] = protocol::ICMP;
    fixed[12..16].copy_from_slice(&source.octets());
    fixed[16..20].copy_from_slice(&destination.octets());
    options.copy_from_slice(answer.options);
    checksum::fill_header(header);
    Some(())
}

fn fill_v6(header: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr, length: u16) {
    let Some(header) = header.first_chunk_mut::<40>() else { return };
    header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6] = protocol::ICMPV6;
    header[7] = TTL;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
}

/// A packet that an ICMP error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// Its tuple as quoted: seen from the packet, not from the error.
    pub key: FlowKey,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// The next-hop MTU of IPv4 3/4 and IPv6 2/0; 0 in other errors.
    pub mtu: u32,
    /// Offset of the quoted IP header in the frame.
    pub network: u16,
    /// Offset of the quoted transport header, of which at least the ports are there.
    pub transport: u16,
}

impl Quoted {
    /// Whether the quoted protocol has ports.
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        let protocol = match &self.key {
            FlowKey::V4(tuple) => tuple.protocol,
            FlowKey::V6(tuple) => tuple.protocol,
        };
        matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
    }
}

/// Reads the quote of an ICMP error that the director relays: IPv4 destination unreachable, source quench and time exceeded,
/// IPv6 every error, as the kernel. `None` for other messages, for quotes of later
/// fragments and for quotes too short to tell the flow: the ports are needed, 4 bytes behind the quoted IP header.
#[must_use]
pub fn quoted(data: &[u8], headers: &Headers) -> Option<Quoted> {
    if headers.later_fragment() {
        return None;
    }
    let at = usize::from(headers.transport);
    let head = chunk::<ICMP>(data, at)?;
    let end = data.len().min(usize::from(headers.network) + headers.ip_length as usize);
    let data = data.get(..end)?;
    let network = at + ICMP;
    let mtu = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let (key, transport, mtu) = match (headers.family, headers.protocol, head[0]) {
        (Family::V4, protocol::ICMP, 3 | 4 | 11) => {
            let (key, transport) = quoted_v4(data, network)?;
            (key, transport, if (head[0], head[1]) == (3, 4) { mtu & 0xffff } else { 0 })
        }
        (Family::V6, protocol::ICMPV6, ..128) => {
            let (key, transport) = quoted_v6(data, network)?;
            (key, transport, if head[0] == 2 { mtu } else { 0 })
        }
        _ => return None,
    };
    Some(Quoted {
        key,
        icmp_type: head[0],
        icmp_code: head[1],
        mtu,
        network: short(network),
        transport: short(transport),
    })
}

fn quoted_v4(data: &[u8], network: usize) -> Option<(FlowKey, usize)> {
    let header = chunk::<20>(data, network)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let offset = be16(header[6], header[7]) & 0x1fff;
    if header[0] >> 4 != 4 || length < 20 || offset != 0 {
        return None;
    }
    let transport = network + length;
    let tuple = Tuple {
        source: Ipv4Addr::from(bytes::<4>(header, 12)),
        destination: Ipv4Addr::from(bytes::<4>(header, 16)),
        ..quoted_ports(data, transport, header[9])?
    };
    Some((FlowKey::V4(tuple), transport))
}

fn quoted_v6(data: &[u8], network: usize) -> Option<(FlowKey, usize)> {
    let header = chunk::<40>(data, network)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (protocol, transport) = ipv6::quoted_transport(data, network + 40, header[6])?;
    let ports = quoted_ports(data, transport, protocol)?;
    let tuple = Tuple {
        source: Ipv6Addr::from(bytes::<16>(header, 8)),
        destination: Ipv6Addr::from(bytes::<16>(header, 24)),
        source_port: ports.source_port,
        destination_port: ports.destination_port,
        protocol,
    };
    Some((FlowKey::V6(tuple), transport))
}

/// The quoted ports, in a tuple whose addresses are to be filled in; protocols without ports have 0.
fn quoted_ports(data: &[u8], transport: usize, protocol: u8) -> Option<Tuple<Ipv4Addr>> {
    let ports = match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => *chunk::<4>(data, transport)?,
        _ if transport > data.len() => return None,
        _ => [0; 4],
    };
    Some(Tuple {
        source: Ipv4Addr::UNSPECIFIED,
        destination: Ipv4Addr::UNSPECIFIED,
        source_port: be16(ports[0], ports[1]),
        destination_port: be16(ports[2], ports[3]),
        protocol,
    })
}
