//! Frames for tests: a deterministic generator that knows what it has made.

use super::headers::{
    ATOMIC, DONT_FRAGMENT, FIRST_FRAGMENT, Family, Headers, LATER_FRAGMENT, MORE_FRAGMENTS, OPTIONS, STEADY,
    tcp,
};
use super::{checksum, sctp};
use crate::flow::protocol;

/// xorshift64*: small, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from((self.next() >> 32) % bound as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    fn pick(&mut self, choices: &[u8]) -> u8 {
        choices[self.below(choices.len())]
    }
}

/// A well-formed unicast IP packet in a frame, and what parsing is to say of it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) frame: Vec<u8>,
    pub(crate) headers: Headers,
}

/// What is asked of a fragment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Whole,
    /// IPv6 with a fragment header that says it is whole (RFC 6946).
    Atomic,
    First,
    Later {
        offset: u16,
        more: bool,
    },
}

impl Sample {
    pub(crate) fn new(random: &mut Random) -> Self {
        let family = if random.one_in(2) { Family::V6 } else { Family::V4 };
        let mut frame = random.bytes(12);
        // Neither station is a group.
        frame[0] &= 0xfe;
        frame[6] &= 0xfe;
        for _ in 0..random.below(5).saturating_sub(2) {
            frame.extend(if random.one_in(2) { [0x81, 0x00] } else { [0x88, 0xa8] });
            frame.extend(random.bytes(2));
        }
        frame.extend(if family == Family::V4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        let piece = match random.below(8) {
            0 => Piece::First,
            1 => {
                let offset = u16::try_from(24 + random.below(7000) * 8).unwrap();
                Piece::Later { offset, more: random.one_in(2) }
            }
            2 if family == Family::V6 => Piece::Atomic,
            _ => Piece::Whole,
        };
        let protocol =
            random.pick(&[protocol::TCP, protocol::UDP, protocol::ICMP, protocol::SCTP, 47, protocol::TCP]);
        let mut headers = Headers {
            network: u16::try_from(frame.len()).unwrap(),
            transport: 0,
            source_port: 0,
            destination_port: 0,
            ip_length: 0,
            fragment_id: 0,
            fragment_offset: 0,
            fragment_length: 0,
            protocol: if protocol == protocol::ICMP && family == Family::V6 {
                protocol::ICMPV6
            } else {
                protocol
            },
            ttl: random.byte(),
            tcp_flags: 0,
            icmp_type: 0,
            family,
            flags: 0,
        };
        let payload = transport(random, &mut headers, piece);
        match family {
            Family::V4 => ipv4(random, &mut frame, &mut headers, piece, &payload),
            Family::V6 => ipv6(random, &mut frame, &mut headers, piece, &payload),
        }
        match piece {
            Piece::Whole | Piece::Atomic => headers.flags |= steady(&headers),
            Piece::First => headers.flags |= FIRST_FRAGMENT | MORE_FRAGMENTS,
            Piece::Later { offset, more } => {
                headers.flags |= LATER_FRAGMENT | if more { MORE_FRAGMENTS } else { 0 };
                headers.fragment_offset = offset;
                headers.transport = 0;
            }
        }
        // Ethernet pads short frames.
        if random.one_in(2) {
            let padding = 60_usize.saturating_sub(frame.len()) + random.below(3);
            frame.extend(random.bytes(padding));
        }
        Self { frame, headers }
    }

    /// A plain TCP segment, as almost all packets are.
    pub(crate) fn tcp_v4() -> Self {
        let mut random = Random::new(1);
        loop {
            let sample = Self::new(&mut random);
            let Headers { family, protocol, network, transport, .. } = sample.headers;
            if (family, protocol, network, transport) == (Family::V4, protocol::TCP, 14, 34) {
                return sample;
            }
        }
    }
}

/// Headers of an IPv4 fragment of UDP in an untagged frame, without ports.
pub(crate) fn fragment(identification: u32, offset: u16, length: u16, more: bool) -> Headers {
    let place = if offset == 0 { FIRST_FRAGMENT } else { LATER_FRAGMENT };
    Headers {
        network: 14,
        transport: if offset == 0 { 34 } else { 0 },
        source_port: 0,
        destination_port: 0,
        ip_length: 20 + u32::from(length),
        fragment_id: identification,
        fragment_offset: offset,
        fragment_length: length,
        protocol: protocol::UDP,
        ttl: 64,
        tcp_flags: 0,
        icmp_type: 0,
        family: Family::V4,
        flags: place | if more { MORE_FRAGMENTS } else { 0 },
    }
}

/// The mark of a whole packet that only passes.
fn steady(headers: &Headers) -> u8 {
    let says_nothing = match headers.protocol {
        protocol::TCP => {
            let flags = [tcp::SYN, tcp::FIN, tcp::RST, tcp::ACK].map(|flag| headers.tcp_flags & flag != 0);
            flags == [false, false, false, true]
        }
        number => number == protocol::UDP,
    };
    if says_nothing && headers.ttl >= 2 && !headers.has_options() { STEADY } else { 0 }
}

/// The transport header and its data.
fn transport(random: &mut Random, headers: &mut Headers, piece: Piece) -> Vec<u8> {
    let length = 8 * random.below(9) + 8;
    if matches!(piece, Piece::Later { .. }) {
        return random.bytes(length);
    }
    let mut data = random.bytes(length + 64);
    match headers.protocol {
        protocol::TCP => {
            let words = 5 + random.below(11);
            data[12] = u8::try_from(words << 4).unwrap() | (data[12] & 0x0f);
            data.truncate(words * 4 + length);
            headers.tcp_flags = data[13];
        }
        protocol::UDP => {
            data.truncate(8 + length);
            let claimed = if piece == Piece::First { 1400 } else { data.len() - random.below(length) };
            data[4..6].copy_from_slice(&u16::try_from(claimed).unwrap().to_be_bytes());
        }
        protocol::ICMP | protocol::ICMPV6 => {
            // Neighbour discovery is no flow.
            data[0] = random.pick(&[0, 1, 2, 3, 4, 5, 8, 11, 12, 128, 129]);
            headers.icmp_type = data[0];
        }
        protocol::SCTP => {}
        _ => {}
    }
    if matches!(headers.protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
        headers.source_port = u16::from_be_bytes([data[0], data[1]]);
        headers.destination_port = u16::from_be_bytes([data[2], data[3]]);
    }
    if piece == Piece::First {
        data.resize(data.len().next_multiple_of(8), 0);
    } else if piece == Piece::Whole && headers.protocol == protocol::SCTP {
        data.truncate(12 + random.below(9));
    }
    if headers.protocol == protocol::SCTP
        && let Some(chunks) = sctp::chunks(&data, data.len()).unwrap()
    {
        headers.icmp_type = chunks.event as u8;
        headers.tcp_flags = if chunks.init { tcp::SYN } else { 0 } | if chunks.abort { tcp::RST } else { 0 };
    }
    data
}

fn ipv4(random: &mut Random, frame: &mut Vec<u8>, headers: &mut Headers, piece: Piece, payload: &[u8]) {
    let start = frame.len();
    let options = if random.one_in(4) { 1 + random.below(10) } else { 0 };
    let length = 20 + options * 4;
    headers.ip_length = u32::try_from(length + payload.len()).unwrap();
    frame.push(u8::try_from(0x45 + options).unwrap());
    frame.extend(random.bytes(length - 1));
    let header = &mut frame[start..];
    header[2..4].copy_from_slice(&u16::try_from(headers.ip_length).unwrap().to_be_bytes());
    headers.fragment_id = u16::from_be_bytes([header[4], header[5]]).into();
    let dont_fragment = random.one_in(2);
    headers.flags = if dont_fragment { DONT_FRAGMENT } else { 0 } | if options > 0 { OPTIONS } else { 0 };
    let bits = u16::from(dont_fragment) << 14 | fragment_bits(headers, piece, payload.len(), 3, 13);
    header[6..8].copy_from_slice(&bits.to_be_bytes());
    header[8] = headers.ttl;
    header[9] = headers.protocol;
    checksum::fill_header(header);
    headers.transport = u16::try_from(frame.len()).unwrap();
    frame.extend_from_slice(payload);
}

fn fragment_bits(headers: &mut Headers, piece: Piece, length: usize, shift: u32, more_bit: u32) -> u16 {
    let (offset, more) = match piece {
        Piece::Whole | Piece::Atomic => return 0,
        Piece::First => (0, true),
        Piece::Later { offset, more } => (offset, more),
    };
    headers.fragment_length = u16::try_from(length).unwrap();
    offset >> shift | u16::from(more) << more_bit
}

fn ipv6(random: &mut Random, frame: &mut Vec<u8>, headers: &mut Headers, piece: Piece, payload: &[u8]) {
    headers.flags = DONT_FRAGMENT | if piece == Piece::Atomic { ATOMIC } else { 0 };
    // Extension headers as (number, bytes), the first eight bytes' next header to be filled in.
    let mut chain: Vec<(u8, Vec<u8>)> = Vec::new();
    if random.one_in(6) {
        chain.push((0, extension(random, 8)));
    }
    while random.one_in(5) && chain.len() < 4 {
        let number = random.pick(&[43, 60, 51]);
        chain.push((number, extension(random, if number == 51 { 4 } else { 8 })));
    }
    let mut unfragmentable = chain.len();
    if piece != Piece::Whole {
        let mut bytes = random.bytes(8);
        bytes[2..4].fill(0);
        chain.push((44, bytes));
        unfragmentable += 1;
        if piece == Piece::First && random.one_in(3) {
            chain.push((60, extension(random, 8)));
        }
    }
    let behind: usize = chain[unfragmentable..].iter().map(|(_, bytes)| bytes.len()).sum();
    let bits = fragment_bits(headers, piece, behind + payload.len(), 0, 0);
    let numbers: Vec<u8> = chain.iter().map(|(number, _)| *number).chain([headers.protocol]).collect();
    for (index, (number, bytes)) in chain.iter_mut().enumerate() {
        bytes[0] = numbers[index + 1];
        if *number == 44 && piece != Piece::Atomic {
            bytes[2..4].copy_from_slice(&bits.to_be_bytes());
            headers.fragment_id = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        }
    }
    let length = chain.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + payload.len();
    headers.ip_length = u32::try_from(40 + length).unwrap();
    frame.extend([0x60 | (random.byte() & 0x0f), random.byte(), random.byte(), random.byte()]);
    frame.extend(u16::try_from(length).unwrap().to_be_bytes());
    frame.extend([numbers[0], headers.ttl]);
    frame.extend(random.bytes(32));
    for (_, bytes) in &chain {
        frame.extend_from_slice(bytes);
    }
    headers.transport = u16::try_from(frame.len()).unwrap();
    frame.extend_from_slice(payload);
}

/// An extension header with its length in units of `unit` bytes, and no segments left where it is a routing header.
fn extension(random: &mut Random, unit: usize) -> Vec<u8> {
    let units = 1 + random.below(4);
    let mut bytes = random.bytes(8 * units);
    // Authentication headers count 4-byte units and leave out two of them, the others 8-byte units and leave out one.
    let claimed = if unit == 4 { 2 * units - 2 } else { units - 1 };
    bytes[1] = u8::try_from(claimed).unwrap();
    bytes[3] = 0;
    bytes
}
