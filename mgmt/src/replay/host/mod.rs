//! The host's own stack, as far as it answers or routes what a director does not take.
//!
//! The engine *punts* a packet that is for this host but for no service: in a running director the kernel behind the port's twin
//! then answers or forwards it. The recorded director was that kernel. A punt equals what the recorded kernel emitted exactly when
//! this model, given the punted frame, emits the same frames:
//!
//! | punted | emitted |
//! | --- | --- |
//! | TCP to an own address, right checksum, no RST | RST as RFC 9293 3.5.2 has it: TTL 64, identification 0, DF, no window |
//! | UDP to an own address, right checksum | ICMP 3/3 (IPv6: 1/4) from that address |
//! | echo request to an own address | echo reply, TTL 64 |
//! | any other protocol to an own address | ICMP 3/2 |
//! | anything to another address | the packet with a TTL less by one, by route and neighbour; in pieces when too long without DF |
//! | … that cannot be sent on | ICMP 11/0, 3/4, 3/0 from the address of the link back to the sender |
//! | IPv4 with broken options | ICMP 12/0, pointing at the octet; source routes are dropped |
//! | from an own address (IPv4), with wrong lengths or header checksum, to a group | nothing |
//!
//! Pieces of a datagram are put together first (IPVS has its packets reassembled before it looks at them) and leave in the sizes
//! in which they came.

mod options;
mod pieces;
mod v4;
mod v6;

use dataplane::id::PortId;

use super::tables::{Exit, Tables, Way};
use super::trace::Emitted;
use pieces::Pieces;

/// Bytes of an Ethernet header without tags.
const ETHERNET: usize = 14;
/// TTL of what the host sends itself.
const TTL: u8 = 64;

/// The stack.
#[derive(Debug, Default)]
pub struct Host {
    pieces: Pieces,
    identification: u16,
}

impl Host {
    /// What the stack emits for a frame that came in by `port`; `mark` is the firewall mark of the packet, 0 for none.
    pub fn receive(&mut self, tables: &Tables, port: PortId, frame: &[u8], mark: u32) -> Vec<Emitted> {
        let own = tables.view().links.get(&port).map(|link| link.mac);
        if frame.len() <= ETHERNET || own.is_none_or(|own| frame[..6] != own) {
            return Vec::new();
        }
        let packet = &frame[ETHERNET..];
        match packet[0] >> 4 {
            4 => self.v4(tables, packet, mark),
            6 => v6::receive(tables, packet, mark),
            _ => Vec::new(),
        }
    }

    /// A packet that the host makes, on its way.
    fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }
}

/// Puts packets on the link that leads to their destination.
fn send(exit: &Exit, packet: &[u8]) -> Emitted {
    let kind: [u8; 2] =
        if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    let mut frame = Vec::with_capacity(ETHERNET + packet.len());
    frame.extend(exit.destination_mac);
    frame.extend(exit.source_mac);
    frame.extend(kind);
    frame.extend(packet);
    Emitted { link: exit.port.index(), frame }
}

/// Sends to a destination if a way leads there.
fn send_to(tables: &Tables, destination: std::net::IpAddr, packet: &[u8]) -> Vec<Emitted> {
    match tables.way(destination, 0) {
        Way::On(exit) => vec![send(&exit, packet)],
        Way::Here | Way::Waiting | Way::Nowhere => Vec::new(),
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// The reset that answers a segment, checksum 0; none for a reset or a broken header.
fn reset(segment: &[u8]) -> Option<[u8; 20]> {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let header = usize::from(segment.get(12)? >> 4) * 4;
    let flags = *segment.get(13)?;
    if flags & RST != 0 || header < 20 || header > segment.len() {
        return None;
    }
    let mut answer = [0; 20];
    answer[..2].copy_from_slice(&segment[2..4]);
    answer[2..4].copy_from_slice(&segment[..2]);
    answer[12] = 5 << 4;
    if flags & ACK != 0 {
        answer[4..8].copy_from_slice(&segment[8..12]);
        answer[13] = RST;
    } else {
        let occupied =
            (segment.len() - header) + usize::from(flags & SYN != 0) + usize::from(flags & FIN != 0);
        let next = long(segment, 4).wrapping_add(u32::try_from(occupied).unwrap_or(u32::MAX));
        answer[8..12].copy_from_slice(&next.to_be_bytes());
        answer[13] = RST | ACK;
    }
    Some(answer)
}

#[cfg(test)]
mod tests;
