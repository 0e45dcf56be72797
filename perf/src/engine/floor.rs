//! What memory alone costs: the least any director can do for a packet of one of many flows.

use crate::lab::{Order, Turns};
use crate::traffic::{Client, Shape};
use anyhow::{Context, Result};
use dataplane::address::Address;
use dataplane::connection::tcp::State;
use dataplane::connection::{Candidate, FlowHash, HashKey, NewConnection, Region, Size, Table, flags};
use dataplane::flow::Tuple;
use dataplane::id::{DestinationSlot, PortId, Ticks};
use std::hint::black_box;
use std::net::IpAddr;

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct CacheLine([usize; 8]);

/// Two dependent cache lines for each packet, fetched for a whole burst at a time: an index of 8 flows a line, and a line for
/// each flow. No hash, no comparison.
#[derive(Debug)]
pub(crate) struct TwoLines {
    index: Vec<CacheLine>,
    lines: Vec<CacheLine>,
    order: Order,
    burst: usize,
    found: Vec<usize>,
}

impl TwoLines {
    /// What it takes in bytes.
    pub(crate) const fn bytes(flows: u64) -> u64 {
        flows * size_of::<CacheLine>() as u64 * 9 / 8
    }

    pub(crate) fn new(flows: u64, burst: usize) -> Result<Self> {
        let flows = usize::try_from(flows)?;
        let bucket = |bucket| CacheLine(std::array::from_fn(|slot| 8 * bucket + slot));
        Ok(Self {
            index: (0..flows.div_ceil(8)).map(bucket).collect(),
            lines: (0..flows).map(|flow| CacheLine([flow; 8])).collect(),
            order: Order::new(flows as u64),
            burst,
            found: Vec::with_capacity(burst),
        })
    }
}

impl Turns for TwoLines {
    /// The loads of a loop do not depend on each other, so the processor has all of a burst under way without being asked.
    #[inline]
    fn turn(&mut self, _now: Ticks) {
        self.found.clear();
        for _ in 0..self.burst {
            let flow = self.order.next_index();
            self.found.push(self.index[flow / 8].0[flow % 8]);
        }
        let mut sum = 0;
        for flow in &self.found {
            sum ^= self.lines[*flow].0[3];
        }
        black_box(sum);
    }
}

/// The director's own table alone: hash, bucket, line, comparison; nothing is parsed, tracked or sent.
#[derive(Debug)]
pub(super) struct LookUp<A: Address> {
    table: Table<A>,
    shape: Shape,
    order: Order,
    burst: usize,
    work: Vec<(Tuple<A>, FlowHash, Candidate)>,
}

impl<A: Address> LookUp<A> {
    /// A table of this capacity with all flows in it.
    pub(super) fn new(shape: &Shape, capacity: u32, burst: usize, now: Ticks) -> Result<Self> {
        let size = Size { capacity, both_directions: true };
        let region = Region::anonymous(size.footprint::<A>().total())?;
        let mut table = Table::<A>::create(region, size, HashKey([3, 5]), now)?;
        for flow in 0..shape.flows {
            let tuple = tuple::<A>(shape, flow);
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
            table.open(table.hash(&tuple), &new, now).context("the table of the control loop is full")?;
        }
        let (order, work) = (Order::new(shape.flows), Vec::with_capacity(burst));
        Ok(Self { table, shape: *shape, order, burst, work })
    }
}

impl<A: Address> Turns for LookUp<A> {
    #[inline]
    fn turn(&mut self, _now: Ticks) {
        self.work.clear();
        for _ in 0..self.burst {
            let tuple = tuple::<A>(&self.shape, self.order.next());
            let hash = self.table.hash(&tuple);
            self.table.prefetch(hash);
            self.work.push((tuple, hash, Candidate::default()));
        }
        for (_, hash, candidate) in &mut self.work {
            *candidate = self.table.candidate(*hash);
        }
        let mut sum = 0;
        for (tuple, hash, candidate) in &self.work {
            sum ^= self
                .table
                .confirm(*candidate, tuple)
                .or_else(|| self.table.find(*hash, tuple))
                .map_or(0, |found| found.id.0);
        }
        black_box(sum);
    }
}

/// A flow's tuple, from the client to the service.
#[inline(always)]
pub(crate) fn tuple<A: Address>(shape: &Shape, flow: u64) -> Tuple<A> {
    let client = Client::of(flow).end(shape.ipv6);
    let service = shape.service(shape.service_of(flow));
    Tuple {
        source: of_family(client.ip()),
        destination: of_family(service.ip()),
        source_port: client.port(),
        destination_port: service.port(),
        protocol: shape.protocol.number(),
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the bits are taken apart")]
fn of_family<A: Address>(address: IpAddr) -> A {
    match address {
        IpAddr::V4(v4) => A::from_words([0, 0, 0, v4.to_bits()]),
        IpAddr::V6(v6) => A::from_words([96, 64, 32, 0].map(|shift| (v6.to_bits() >> shift) as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{FrameLength, Protocol};
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn every_flow_is_found_in_the_control_table() {
        fn check<A: Address>(ipv6: bool) {
            let frame = FrameLength::Fixed(80);
            let shape =
                Shape { protocol: Protocol::Tcp, ipv6, services: 2, destinations: 1, frame, flows: 500 };
            let look_up = LookUp::<A>::new(&shape, 600, 32, Ticks(1)).unwrap();
            for flow in 0..500 {
                let tuple = tuple::<A>(&shape, flow);
                assert!(look_up.table.find(look_up.table.hash(&tuple), &tuple).is_some());
            }
        }
        check::<Ipv4Addr>(false);
        check::<Ipv6Addr>(true);
    }

    #[test]
    fn the_index_of_bare_lines_leads_to_every_line() {
        let two_lines = TwoLines::new(100, 32).unwrap();
        assert!((0..100).all(|flow| two_lines.index[flow / 8].0[flow % 8] == flow));
        assert_eq!(two_lines.lines.len(), 100);
    }
}
