//! IPv6, without extension headers.

use std::net::{IpAddr, Ipv6Addr};

use dataplane::packet::checksum;

use super::super::tables::{Tables, Way};
use super::super::trace::Emitted;
use super::{TTL, length, reset, send, send_to, word};

const HEADER: usize = 40;
/// An ICMPv6 error is no longer than this (RFC 4443, 2.4).
const ERROR: usize = 1280;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 58;

fn address(packet: &[u8], at: usize) -> Ipv6Addr {
    let octets: [u8; 16] = packet[at..at + 16].try_into().unwrap_or_default();
    octets.into()
}

pub(super) fn receive(tables: &Tables, packet: &[u8], mark: u32) -> Vec<Emitted> {
    if packet.len() < HEADER {
        return Vec::new();
    }
    let Some(packet) = packet.get(..HEADER + usize::from(word(packet, 4))) else { return Vec::new() };
    let (from, to) = (address(packet, 8), address(packet, 24));
    // Unlike in IPv4, own addresses from outside are nothing to Linux's IPv6.
    if from.is_multicast() || to.is_multicast() || from.is_unspecified() {
        return Vec::new();
    }
    match tables.way(to.into(), mark) {
        Way::Here => deliver(tables, packet),
        Way::Waiting => Vec::new(),
        Way::Nowhere => refuse(tables, packet, 1, 0, 0),
        Way::On(_) if packet[7] <= 1 => refuse(tables, packet, 3, 0, 0),
        Way::On(exit) if packet.len() > usize::try_from(exit.mtu).unwrap_or(usize::MAX) => {
            refuse(tables, packet, 2, 0, exit.mtu)
        }
        Way::On(exit) => {
            let mut packet = packet.to_vec();
            packet[7] -= 1;
            vec![send(&exit, &packet)]
        }
    }
}

fn right(packet: &[u8]) -> bool {
    let data = &packet[HEADER..];
    let bytes = u32::from(length(data.len()));
    let pseudo = checksum::pseudo_v6(address(packet, 8), address(packet, 24), packet[6], bytes);
    checksum::add(pseudo, checksum::sum(data)) == 0xffff
}

fn deliver(tables: &Tables, packet: &[u8]) -> Vec<Emitted> {
    let data = &packet[HEADER..];
    let (from, to) = (address(packet, 24), address(packet, 8));
    match packet[6] {
        TCP if right(packet) => match reset(data) {
            Some(segment) => own(tables, from, to, TCP, &segment, 16),
            None => Vec::new(),
        },
        UDP if data.len() >= 8 && right(packet) => refuse(tables, packet, 1, 4, 0),
        ICMP if data.len() >= 8 && data[0] == 128 && right(packet) => {
            let mut message = data.to_vec();
            message[0] = 129;
            own(tables, from, to, ICMP, &message, 2)
        }
        _ => Vec::new(),
    }
}

/// A packet of the host's own, with the checksum filled in at `checksum_at`.
fn own(
    tables: &Tables,
    from: Ipv6Addr,
    to: Ipv6Addr,
    protocol: u8,
    data: &[u8],
    checksum_at: usize,
) -> Vec<Emitted> {
    let mut data = data.to_vec();
    data[checksum_at..checksum_at + 2].fill(0);
    let pseudo = checksum::pseudo_v6(from, to, protocol, length(data.len()).into());
    let sum = !checksum::add(pseudo, checksum::sum(&data));
    data[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length(data.len()).to_be_bytes());
    packet.extend([protocol, TTL]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(data);
    send_to(tables, to.into(), &packet)
}

fn refuse(tables: &Tables, packet: &[u8], kind: u8, code: u8, mtu: u32) -> Vec<Emitted> {
    if packet[6] == ICMP && packet.get(HEADER).is_none_or(|kind| *kind < 128) {
        return Vec::new();
    }
    let (to, from) = (address(packet, 8), address(packet, 24));
    let from = if tables.is_own(from.into()) { Some(IpAddr::V6(from)) } else { tables.source_for(to.into()) };
    let Some(IpAddr::V6(from)) = from else { return Vec::new() };
    let mut message = vec![kind, code, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(&packet[..packet.len().min(ERROR - HEADER - 8)]);
    own(tables, from, to, ICMP, &message, 2)
}
