//! Builds frames byte by byte, checksums included.

use crate::flow::protocol;
use crate::packet::checksum;
use std::net::{IpAddr, SocketAddr};

/// A frame to build. Every field has a usual value; set what the case is about.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Ethernet destination.
    pub destination_mac: [u8; 6],
    /// Ethernet source.
    pub source_mac: [u8; 6],
    /// Sender.
    pub source: SocketAddr,
    /// Receiver; of the sender's family.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4 don't-fragment.
    pub dont_fragment: bool,
    /// TCP flags.
    pub tcp_flags: u8,
    /// TCP options; filled up with zeros to whole words, of which a header has room for ten.
    pub tcp_options: Vec<u8>,
    /// Bytes behind the transport header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame between two ends, with the director's and a client's MAC.
    #[must_use]
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            destination_mac: [2, 0, 0, 0, 0x84, 0x1e],
            source_mac: [2, 0, 0, 0, 0x84, 0x0a],
            source,
            destination,
            ttl: 64,
            id: 1,
            dont_fragment: true,
            tcp_flags: 0,
            tcp_options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// A TCP segment with `flags`.
    #[must_use]
    pub fn tcp(mut self, flags: u8) -> Vec<u8> {
        self.tcp_flags = flags;
        let options = self.tcp_options.len().min(40).next_multiple_of(4);
        self.tcp_options.resize(options, 0);
        let words = u8::try_from(5 + options / 4).unwrap_or(15);
        let mut segment = Vec::with_capacity(20 + options + self.payload.len());
        segment.extend(self.source.port().to_be_bytes());
        segment.extend(self.destination.port().to_be_bytes());
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, words << 4, self.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(&self.tcp_options);
        segment.extend(&self.payload);
        self.transport(protocol::TCP, segment, 16)
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(self) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(8 + self.payload.len());
        datagram.extend(self.source.port().to_be_bytes());
        datagram.extend(self.destination.port().to_be_bytes());
        datagram.extend(length_of(8 + self.payload.len()).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(&self.payload);
        self.transport(protocol::UDP, datagram, 6)
    }

    /// An SCTP packet; the payload is its chunks.
    #[must_use]
    pub fn sctp(self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(12 + self.payload.len());
        packet.extend(self.source.port().to_be_bytes());
        packet.extend(self.destination.port().to_be_bytes());
        packet.extend([0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0]);
        packet.extend(&self.payload);
        let checksum = crate::packet::sctp::checksum(&packet).to_le_bytes();
        packet[8..12].copy_from_slice(&checksum);
        self.ip(protocol::SCTP, &packet)
    }

    /// An IP packet of any protocol around `payload`, as it is.
    #[must_use]
    pub fn ip(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(54 + payload.len());
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend(length_of(20 + payload.len()).to_be_bytes());
                frame.extend(self.id.to_be_bytes());
                frame.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                checksum::fill_header(&mut frame[14..34]);
            }
            (source, destination) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length_of(payload.len()).to_be_bytes());
                frame.extend([protocol, self.ttl]);
                frame.extend(octets_v6(source));
                frame.extend(octets_v6(destination));
            }
        }
        frame.extend(payload);
        frame
    }

    fn transport(&self, protocol: u8, mut segment: Vec<u8>, checksum_at: usize) -> Vec<u8> {
        let pseudo = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                checksum::pseudo_v4(source, destination, protocol, length_of(segment.len()))
            }
            (source, destination) => {
                let (source, destination) = (octets_v6(source).into(), octets_v6(destination).into());
                checksum::pseudo_v6(source, destination, protocol, length_of(segment.len()).into())
            }
        };
        let sum = !checksum::add(pseudo, checksum::sum(&segment));
        segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        self.ip(protocol, &segment)
    }
}

fn length_of(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
