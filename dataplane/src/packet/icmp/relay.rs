//! ICMP errors that go through: their own end and the quoted packet's are translated together.

use super::{Quoted, protocol};
use crate::address::Address;
use crate::flow::FlowKey;
use crate::packet::checksum;
use crate::packet::headers::{Family, Headers, be16, chunk, short};
use crate::packet::rewrite::{End, replace_address};

/// The ICMP message in its frame; `None` when it is not all in the first segment.
fn message<'a>(data: &'a [u8], headers: &Headers) -> Option<&'a [u8]> {
    data.get(headers.transport.into()..usize::from(headers.network) + headers.ip_length as usize)
}

/// The sum that an ICMP message is added to: ICMPv6 has a pseudo header.
fn pseudo(data: &[u8], headers: &Headers, length: usize) -> u16 {
    match headers.family {
        Family::V4 => 0,
        Family::V6 => {
            let (source, destination) = headers.addresses_v6(data);
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            checksum::pseudo_v6(source, destination, protocol::ICMPV6, length)
        }
    }
}

/// Whether the checksum of an ICMP message is right; `None` when it is not all in the first segment.
#[must_use]
pub fn checksum_valid(data: &[u8], headers: &Headers) -> Option<bool> {
    let message = message(data, headers)?;
    let sum = checksum::add(pseudo(data, headers, message.len()), checksum::sum(message));
    Some(sum == 0xffff)
}

/// Translates an ICMP error about a masqueraded connection: `end` of the error itself and the other end of the quoted packet
/// become `address`, the quoted port `port`. The quoted IPv4 header's checksum and the ICMP checksum are computed anew; the
/// quoted transport checksum, which a short quote does not have, stays, as the kernel leaves it.
///
/// `headers` and `quoted` are what was read from this frame. `false`, with the packet half changed, when the message is not all
/// in the first segment.
pub fn translate<A: Address>(
    data: &mut [u8],
    headers: &Headers,
    quoted: &Quoted,
    end: End,
    address: A,
    port: u16,
) -> bool {
    translated(data, headers, quoted, end, address, port).is_some()
}

fn translated<A: Address>(
    data: &mut [u8],
    headers: &Headers,
    quoted: &Quoted,
    end: End,
    address: A,
    port: u16,
) -> Option<()> {
    message(data, headers)?;
    replace_address(data, headers.network.into(), end, address, 0)?;
    let (inner, port_at) = match end {
        End::Destination => (End::Source, 0),
        End::Source => (End::Destination, 2),
    };
    let network = usize::from(quoted.network);
    replace_address(data, network, inner, address, 0)?;
    let transport = usize::from(quoted.transport);
    if headers.family == Family::V4 {
        checksum::fill_header(data.get_mut(network..transport)?);
    }
    if quoted.has_ports() {
        data.get_mut(transport + port_at..transport + port_at + 2)?.copy_from_slice(&port.to_be_bytes());
    }
    let at = usize::from(headers.transport);
    data.get_mut(at + 2..at + 4)?.fill(0);
    let message = message(data, headers)?;
    let sum = checksum::add(pseudo(data, headers, message.len()), checksum::sum(message));
    data.get_mut(at + 2..at + 4)?.copy_from_slice(&(!sum).to_be_bytes());
    Some(())
}

/// A packet quoted inside a tunnel's outer headers: what the tunnel's other end never got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnelled {
    /// Its tuple: from the client to the virtual service.
    pub key: FlowKey,
    /// Offset of its IP header in the frame.
    pub network: u16,
    /// Offset of its transport header.
    pub transport: u16,
    /// Whether the outer header had the don't-fragment bit.
    pub dont_fragment: bool,
}

/// Reads the packet inside a quoted tunnel packet: IPv4 in IPv4, by IPIP, GRE or GUE, as the kernel does. `None` for other quotes
/// and for those that end before the inner ports.
#[must_use]
pub fn tunnelled(data: &[u8], headers: &Headers, quoted: &Quoted) -> Option<Tunnelled> {
    const IPIP: u8 = 4;
    const GRE: u8 = 47;
    const GRE_CHECKSUM: u8 = 0x80;
    let FlowKey::V4(outer) = &quoted.key else { return None };
    let data = data.get(..usize::from(headers.network) + headers.ip_length as usize)?;
    let at = usize::from(quoted.transport);
    let network = match outer.protocol {
        IPIP => at,
        GRE => {
            let header = chunk::<4>(data, at)?;
            if be16(header[2], header[3]) != 0x0800 {
                return None;
            }
            at + if header[0] & GRE_CHECKSUM == 0 { 4 } else { 8 }
        }
        protocol::UDP => {
            // Version 0, data, and the private fields counted in words.
            let header = chunk::<4>(data, at + 8)?;
            if header[0] & 0xe0 != 0 || header[1] != IPIP {
                return None;
            }
            at + 8 + 4 + usize::from(header[0] & 0x1f) * 4
        }
        _ => return None,
    };
    let (key, transport) = super::quoted_v4(data, network)?;
    let dont_fragment = data.get(usize::from(quoted.network) + 6)? & 0x40 != 0;
    Some(Tunnelled { key, network: short(network), transport: short(transport), dont_fragment })
}
