//! IPv4.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::packet::{checksum, options as recorded};

use super::super::tables::{Exit, Tables, Way};
use super::super::trace::Emitted;
use super::options::{self, Options};
use super::{Host, TTL, length, pieces, reset, send, send_to, word};

/// Bytes of a header without options.
const HEADER: usize = 20;
/// An ICMP error is no longer than this (RFC 1812 4.3.2.3).
const ERROR: usize = 576;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DONT_FRAGMENT: u8 = 0x40;

/// An ICMP error: type, code, and what follows the checksum.
#[derive(Debug, Clone, Copy)]
struct Error(u8, u8, u32);

fn source(packet: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15])
}

fn destination(packet: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19])
}

fn header(packet: &[u8]) -> usize {
    usize::from(packet[0] & 15) * 4
}

/// The packet without what padding follows it, when its header is right.
fn checked(packet: &[u8]) -> Option<&[u8]> {
    if packet.len() < HEADER || header(packet) < HEADER {
        return None;
    }
    let packet = packet.get(..usize::from(word(packet, 2)))?;
    let right = packet.len() >= header(packet) && checksum::header_valid(&packet[..header(packet)]);
    right.then_some(packet)
}

fn nobody(address: Ipv4Addr) -> bool {
    address.is_multicast() || address.is_broadcast() || address.is_unspecified() || address.is_loopback()
}

impl Host {
    pub(super) fn v4(&mut self, tables: &Tables, packet: &[u8], mark: u32) -> Vec<Emitted> {
        let Some(packet) = checked(packet) else { return Vec::new() };
        let (from, to) = (source(packet), destination(packet));
        if nobody(from) || nobody(to) || tables.is_own(from.into()) {
            return Vec::new();
        }
        match options::check(&packet[HEADER..header(packet)]) {
            Options::Right => {}
            Options::Wrong(place) => {
                return self.refuse(tables, packet, Error(12, 0, u32::from(place) << 24));
            }
            Options::Refused => return Vec::new(),
        }
        if !pieces::is_piece(packet) {
            return self.whole(tables, packet, &[packet.to_vec()], mark);
        }
        match self.pieces.add(packet) {
            Some(pieces) => self.whole(tables, &pieces::join(&pieces), &pieces, mark),
            None => Vec::new(),
        }
    }

    /// A datagram, with the pieces in which it came.
    fn whole(&mut self, tables: &Tables, packet: &[u8], pieces: &[Vec<u8>], mark: u32) -> Vec<Emitted> {
        match tables.way(destination(packet).into(), mark) {
            Way::Here => {
                let mut packet = packet.to_vec();
                let header = header(&packet);
                let came = [packet[10], packet[11]];
                let _ = recorded::record(&mut packet[..header], &host(&|own| tables.is_own(own.into())));
                if pieces.len() == 1 {
                    packet[10..12].copy_from_slice(&came);
                }
                self.deliver(tables, &packet)
            }
            Way::Waiting => Vec::new(),
            Way::Nowhere => self.refuse(tables, packet, Error(3, 0, 0)),
            Way::On(_) if packet[8] <= 1 => self.refuse(tables, packet, Error(11, 0, 0)),
            Way::On(exit) => self.forward(tables, packet, pieces, &exit),
        }
    }

    fn deliver(&mut self, tables: &Tables, packet: &[u8]) -> Vec<Emitted> {
        let (from, to) = (source(packet), destination(packet));
        let data = &packet[header(packet)..];
        let pseudo = checksum::pseudo_v4(from, to, packet[9], length(data.len()));
        match packet[9] {
            TCP if checksum::add(pseudo, checksum::sum(data)) == 0xffff => match reset(data) {
                Some(segment) => self.answer_segment(tables, packet, segment),
                None => Vec::new(),
            },
            UDP if data.len() >= 8 => {
                let right = word(data, 6) == 0 || checksum::add(pseudo, checksum::sum(data)) == 0xffff;
                if right { self.refuse(tables, packet, Error(3, 3, 0)) } else { Vec::new() }
            }
            ICMP if data.len() >= 8 && data[0] == 8 && checksum::sum(data) == 0xffff => {
                self.answer_echo(tables, packet)
            }
            TCP | UDP | ICMP => Vec::new(),
            _ => self.refuse(tables, packet, Error(3, 2, 0)),
        }
    }

    fn answer_segment(&mut self, tables: &Tables, packet: &[u8], mut segment: [u8; 20]) -> Vec<Emitted> {
        let (from, to) = (destination(packet), source(packet));
        let pseudo = checksum::pseudo_v4(from, to, TCP, 20);
        let sum = !checksum::add(pseudo, checksum::sum(&segment));
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        // The ECN bits are the sender's own affair.
        let mut answer = fresh(from, to, TCP, packet[1] & 0xfc, 0);
        answer[6] = DONT_FRAGMENT;
        finish(&mut answer, &repeated(tables, packet), &segment);
        send_to(tables, to.into(), &answer)
    }

    fn answer_echo(&mut self, tables: &Tables, packet: &[u8]) -> Vec<Emitted> {
        let mut message = packet[header(packet)..].to_vec();
        message[0] = 0;
        message[2..4].fill(0);
        let sum = !checksum::sum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let (from, to) = (destination(packet), source(packet));
        let identification = self.next_identification();
        let mut answer = fresh(from, to, ICMP, packet[1], identification);
        finish(&mut answer, &repeated(tables, packet), &message);
        send_to(tables, to.into(), &answer)
    }

    /// Tells the sender by ICMP, unless the packet is an ICMP error itself (RFC 1122, 3.2.2).
    fn refuse(&mut self, tables: &Tables, packet: &[u8], error: Error) -> Vec<Emitted> {
        let data = &packet[header(packet)..];
        if packet[9] == ICMP && !data.first().is_some_and(|kind| matches!(kind, 0 | 8 | 13..=18)) {
            return Vec::new();
        }
        let (to, from) = (source(packet), destination(packet));
        let from =
            if tables.is_own(from.into()) { Some(IpAddr::V4(from)) } else { tables.source_for(to.into()) };
        let Some(IpAddr::V4(from)) = from else { return Vec::new() };
        // Of broken options none are known.
        let options = if error.0 == 12 { Vec::new() } else { repeated(tables, packet) };
        let quote = &packet[..packet.len().min(ERROR - HEADER - 8 - options.len())];
        let mut message = vec![error.0, error.1, 0, 0];
        message.extend(error.2.to_be_bytes());
        message.extend(quote);
        let sum = !checksum::sum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let tos = packet[1] & 0x1e | 0xc0;
        let identification = self.next_identification();
        let mut answer = fresh(from, to, ICMP, tos, identification);
        finish(&mut answer, &options, &message);
        send_to(tables, to.into(), &answer)
    }

    fn forward(&mut self, tables: &Tables, packet: &[u8], pieces: &[Vec<u8>], exit: &Exit) -> Vec<Emitted> {
        let mtu = usize::try_from(exit.mtu).unwrap_or(usize::MAX);
        let longest = pieces.iter().map(Vec::len).max().unwrap_or(0);
        if longest > mtu && packet[6] & DONT_FRAGMENT != 0 {
            return self.refuse(tables, packet, Error(3, 4, exit.mtu));
        }
        let mut whole = packet.to_vec();
        let _ = checksum::decrement_ttl(&mut whole, 0, dataplane::packet::Family::V4);
        if pieces.len() == 1 && longest <= mtu {
            return vec![send(exit, &whole)];
        }
        // Pieces of the size in which they came, or of the link's.
        let size = if pieces.len() > 1 { longest.min(mtu) } else { mtu };
        cut(&whole, size).iter().map(|piece| send(exit, piece)).collect()
    }
}

/// A packet in pieces of at most `mtu` bytes.
fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let header = header(packet);
    let step = (mtu.saturating_sub(header) & !7).max(8);
    let data = &packet[header..];
    let mut pieces = Vec::new();
    for (index, chunk) in data.chunks(step).enumerate() {
        let mut piece = packet[..header].to_vec();
        piece[2..4].copy_from_slice(&length(header + chunk.len()).to_be_bytes());
        let more = if index * step + chunk.len() < data.len() { 0x2000 } else { 0 };
        let offset = length(index * step / 8) | more | word(packet, 6) & 0x4000;
        piece[6..8].copy_from_slice(&offset.to_be_bytes());
        checksum::fill_header(&mut piece);
        piece.extend(chunk);
        pieces.push(piece);
    }
    pieces
}

/// Who fills options in; what time it is the replay does not compare.
fn host<'a>(is_own: &'a dyn Fn(Ipv4Addr) -> bool) -> recorded::Host<'a> {
    recorded::Host { milliseconds: 0, is_own }
}

/// The options that an answer to a packet for this host has.
fn repeated(tables: &Tables, packet: &[u8]) -> Vec<u8> {
    let is_own = |own: Ipv4Addr| tables.is_own(own.into());
    let own = destination(packet);
    let echoed = recorded::echoed(&packet[..header(packet)], own, &host(&is_own));
    echoed.ok().filter(|_| is_own(own)).map_or(Vec::new(), |echoed| echoed.bytes().to_vec())
}

/// A header of the host's own, without lengths and checksum.
fn fresh(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, tos: u8, identification: u16) -> Vec<u8> {
    let mut packet = vec![0, tos, 0, 0];
    packet.extend(identification.to_be_bytes());
    packet.extend([0, 0, TTL, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet
}

fn finish(packet: &mut Vec<u8>, options: &[u8], data: &[u8]) {
    packet.extend(options);
    let words = packet.len() / 4;
    packet[0] = 0x40 | u8::try_from(words).unwrap_or(15);
    let total = length(packet.len() + data.len());
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    checksum::fill_header(packet);
    packet.extend(data);
}
