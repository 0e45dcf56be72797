//! The parts of a packet's way that need no engine: parse, hash, look-up, checksums, steering.

use crate::director::Shape;
use dataplane::address::Address;
use dataplane::connection::tcp::State;
use dataplane::connection::{Candidate, FlowHash, HashKey, NewConnection, Region, Size, Table, flags};
use dataplane::flow::{Tuple, protocol};
use dataplane::id::{DestinationSlot, PortId, Ticks};
use dataplane::packet::{checksum, parse};
use dataplane::pipeline::BURST;
use dataplane::steering::toeplitz::{self, KEY_LENGTH, PeriodicHash, Toeplitz};
use std::error::Error;
use std::hint::black_box;

/// Frames that are parsed.
#[derive(Debug)]
pub struct Parse(Vec<Vec<u8>>);

impl Parse {
    /// A burst of frames of this shape.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        Self((0..32).map(|flow| shape.request(flow, ACK)).collect())
    }

    /// Parses all of them.
    #[inline]
    pub fn run(&self) {
        for frame in &self.0 {
            let _ = black_box(parse(black_box(frame), frame.len(), 1));
        }
    }
}

/// TCP's ACK flag.
pub const ACK: u8 = 0x10;
/// TCP's FIN flag.
pub const FIN: u8 = 0x01;
/// TCP's SYN flag.
pub const SYN: u8 = 0x02;

/// A table with connections, and tuples that are in it.
#[derive(Debug)]
pub struct LookUp<A: Address> {
    table: Table<A>,
    tuples: Vec<Tuple<A>>,
    next: usize,
    work: Vec<(Tuple<A>, FlowHash, Candidate)>,
}

impl<A: Address> LookUp<A> {
    /// A table with so many connections.
    ///
    /// # Errors
    /// No memory.
    pub fn new(connections: u32) -> Result<Self, Box<dyn Error>> {
        let now = Ticks(1);
        let size = Size { capacity: connections + connections / 8 + 64, both_directions: true };
        let region = Region::anonymous(size.footprint::<A>().total())?;
        let mut table = Table::<A>::create(region, size, HashKey([3, 5]), now)?;
        let tuple = |flow: u32| Tuple {
            source: A::from_words([flow, 0, 0, 0xc612_0000 + flow]),
            destination: A::from_words([0, 0, 0, 0xc613_0001]),
            source_port: 1024,
            destination_port: 80,
            protocol: protocol::TCP,
        };
        // A prime stride: neighbours in time are no neighbours in memory.
        let order = (0..connections).map(|flow| flow.wrapping_mul(0x9E37_79B1) % connections.max(1));
        for flow in 0..connections {
            let tuple = tuple(flow);
            let new = NewConnection {
                tuple,
                server: tuple.destination,
                server_port: tuple.destination_port,
                state: State::Established,
                flags: flags::DIRECT | flags::NO_OUTPUT,
                timeout: 900_000,
                destination: DestinationSlot(0),
                template: u32::MAX,
                side: u32::MAX,
                client_mac: [0; 6],
                ingress: PortId(0),
                both_directions: false,
            };
            if table.open(table.hash(&tuple), &new, now).is_err() {
                return Err("the table is full".into());
            }
        }
        let tuples = order.map(tuple).collect();
        Ok(Self { table, tuples, next: 0, work: Vec::with_capacity(BURST) })
    }

    fn burst(&mut self) -> usize {
        let first = self.next;
        self.next = if first + 2 * BURST > self.tuples.len() { 0 } else { first + BURST };
        first
    }

    /// The keyed hash of a burst of tuples.
    #[inline]
    pub fn hash(&mut self) {
        let first = self.burst();
        for tuple in &self.tuples[first..first + BURST] {
            black_box(self.table.hash(black_box(tuple)));
        }
    }

    /// Hash, bucket, line and comparison of a burst, each stage for all packets.
    #[inline]
    pub fn find(&mut self) {
        let first = self.burst();
        self.work.clear();
        for tuple in &self.tuples[first..first + BURST] {
            let hash = self.table.hash(tuple);
            self.table.prefetch(hash);
            self.work.push((*tuple, hash, Candidate::default()));
        }
        for (_, hash, candidate) in &mut self.work {
            *candidate = self.table.candidate(*hash);
        }
        for (tuple, hash, candidate) in &self.work {
            black_box(self.table.confirm(*candidate, tuple).or_else(|| self.table.find(*hash, tuple)));
        }
    }
}

/// Bytes that are summed.
#[derive(Debug)]
pub struct Checksums(Vec<u8>);

impl Checksums {
    /// So many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self((0..=u8::MAX).cycle().take(bytes).collect())
    }

    /// RFC 1071's sum over all of them, [`BURST`] times.
    #[inline]
    pub fn sum(&self) {
        for _ in 0..BURST {
            black_box(checksum::sum(black_box(&self.0)));
        }
    }

    /// RFC 1624's update after a changed address and port, [`BURST`] times.
    #[inline]
    pub fn update(&self) {
        for round in 0..BURST {
            let address = checksum::update_32(black_box(0x1234), 0xc613_0001, black_box(0x0a01_0001));
            black_box(checksum::update_16(address, 80, black_box(8080)));
            black_box(round);
        }
    }
}

/// The hash of receive-side scaling.
#[derive(Debug)]
pub struct Steer {
    any_key: Toeplitz,
    own_key: PeriodicHash,
    input: [u8; 12],
}

impl Default for Steer {
    fn default() -> Self {
        let key: [u8; KEY_LENGTH] = toeplitz::key();
        let input = [198, 18, 0, 1, 198, 19, 0, 1, 4, 0, 0, 80];
        Self { any_key: Toeplitz::new(&key), own_key: PeriodicHash::new(toeplitz::PERIOD), input }
    }
}

impl Steer {
    /// With any key, over addresses and ports, [`BURST`] times.
    #[inline]
    pub fn any_key(&self) {
        for _ in 0..BURST {
            black_box(self.any_key.hash(black_box(&self.input)));
        }
    }

    /// With our key, [`BURST`] times.
    #[inline]
    pub fn own_key(&self) {
        for _ in 0..BURST {
            let address = std::net::Ipv4Addr::from_bits(black_box(0xc612_0001));
            black_box(self.own_key.of(toeplitz::fold(address) ^ black_box(1024)));
        }
    }
}
