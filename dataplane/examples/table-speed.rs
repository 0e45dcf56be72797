//! How fast the connection table is, and how much memory it takes, at some populations.
//!
//! `cargo run --release -p dataplane --no-default-features --example table-speed -- [FLOWS]...` (default 1000 1000000
//! 10000000). Look-ups come in bursts of 32 random established flows, in stages, each with its update of the line. The cost
//! of making up the packets, measured alone, is taken off.

use dataplane::address::Address;
use dataplane::connection::tcp::State;
use dataplane::connection::{Candidate, FlowHash, HashKey, Line, NewConnection, Region, Size, Table, flags};
use dataplane::flow::Tuple;
use dataplane::id::{DestinationSlot, PortId, Ticks};
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

const BURST: usize = 32;
const TIMEOUT: u32 = 900_000;

fn scramble(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

fn low_half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn flow<A: Address>(number: u64) -> Tuple<A> {
    let random = scramble(number + 1);
    Tuple {
        source: A::from_words([0xFD00_0000, 0, (random >> 40) as u32, low_half(random)]),
        destination: A::from_words([0xFD00_0000, 0, 0, 0xC0A8_84FE]),
        source_port: ((random >> 32) & 0xFFFF) as u16,
        destination_port: 80,
        protocol: 6,
    }
}

fn connection<A: Address>(tuple: Tuple<A>, both_directions: bool) -> NewConnection<A> {
    NewConnection {
        tuple,
        server: A::from_words([0xFD00_0000, 0, 0, 0xC0A8_8440]),
        server_port: 80,
        state: State::Established,
        flags: flags::DIRECT | flags::NO_OUTPUT,
        timeout: TIMEOUT,
        destination: DestinationSlot(1),
        template: Line::<A>::NONE,
        side: Line::<A>::NONE,
        client_mac: [2, 0, 0, 0, 0, 1],
        ingress: PortId(0),
        both_directions,
    }
}

fn nanoseconds(start: Instant, count: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Rounds of which the least counts: the others were disturbed.
const ROUNDS: u64 = 40;
const BURSTS: u64 = 12_500;

fn best(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

struct Traffic {
    state: u64,
    flows: u64,
}

impl Traffic {
    #[inline(always)]
    fn burst<A: Address>(&mut self) -> [Tuple<A>; BURST] {
        [(); BURST].map(|()| {
            self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let random = scramble(self.state) >> 32;
            flow((random * self.flows) >> 32)
        })
    }
}

fn look_up<A: Address>(table: &mut Table<A>, tuples: &[Tuple<A>; BURST], now: Ticks) -> u32 {
    let mut hashes = [FlowHash::default(); BURST];
    for (hash, tuple) in hashes.iter_mut().zip(tuples) {
        *hash = table.hash(tuple);
        table.prefetch(*hash);
    }
    let mut candidates = [Candidate::default(); BURST];
    for (candidate, hash) in candidates.iter_mut().zip(&hashes) {
        *candidate = table.candidate(*hash);
    }
    let mut hits = 0;
    for ((candidate, hash), tuple) in candidates.iter().zip(&hashes).zip(tuples) {
        if let Some(found) = table.confirm(*candidate, tuple).or_else(|| table.find(*hash, tuple)) {
            table.touch(found.id, TIMEOUT, now);
            table.line(found.id).count_packet();
            hits += 1;
        }
    }
    hits
}

fn measure<A: Address>(flows: u64, both_directions: bool) -> Result<(), Box<dyn std::error::Error>> {
    let family = if A::LENGTH == 4 { "IPv4" } else { "IPv6" };
    let capacity = u32::try_from(flows)?;
    let size = Size { capacity, both_directions };
    let footprint = size.footprint::<A>();
    let mut region = Region::anonymous(footprint.total())?;
    let start = Instant::now();
    region.touch();
    let touched = start.elapsed();
    let mut now = Ticks(5_000);
    let mut table = Table::<A>::create(region, size, HashKey([0x1234_5678_9ABC_DEF0, 42]), now)?;

    let start = Instant::now();
    for first in (0..flows).step_by(BURST) {
        let mut batch = [(FlowHash::default(), flow::<A>(0)); BURST];
        for (offset, slot) in (0u64..).zip(&mut batch) {
            let tuple = flow::<A>(first + offset);
            *slot = (table.hash(&tuple), tuple);
            table.prefetch(slot.0);
        }
        for (hash, tuple) in batch.iter().take(usize::try_from(flows - first)?) {
            if table.find(*hash, tuple).is_none() {
                table.open(*hash, &connection(*tuple, both_directions), now)?;
            }
        }
    }
    let open = nanoseconds(start, flows);

    let bursts = BURSTS;
    let mut traffic = Traffic { state: 1, flows };
    let idle = best(|| {
        let start = Instant::now();
        for _ in 0..bursts {
            black_box(traffic.burst::<A>());
        }
        nanoseconds(start, bursts * BURST as u64)
    });
    let mut hits = 0;
    now = now.after(10);
    let hit = best(|| {
        let start = Instant::now();
        for _ in 0..bursts {
            let tuples = black_box(traffic.burst::<A>());
            hits += u64::from(look_up(&mut table, &tuples, now));
        }
        nanoseconds(start, bursts * BURST as u64)
    });
    let mut missing = Traffic { state: 7, flows: u64::from(u32::MAX) };
    let mut false_hits = 0;
    let miss = best(|| {
        let start = Instant::now();
        for _ in 0..bursts {
            let tuples = black_box(missing.burst::<A>()).map(|tuple| Tuple { destination_port: 81, ..tuple });
            false_hits += u64::from(look_up(&mut table, &tuples, now));
        }
        nanoseconds(start, bursts * BURST as u64)
    });
    assert_eq!((hits, false_hits), (bursts * BURST as u64 * ROUNDS, 0));

    // One turn of idle time: every entry of the wheel fires once and is filed again, none expires.
    let start = Instant::now();
    let (mut looked_at, mut expired) = (0u64, 0u64);
    let live = table.len();
    let half = now.after(TIMEOUT - 8);
    for id in 0..table.slab().used() {
        table.touch(dataplane::connection::ConnectionId(id), TIMEOUT, half);
    }
    let refresh = nanoseconds(start, live as u64);
    let start = Instant::now();
    let mut at = now;
    while half.after(1_000).since(at) > 0 {
        at = at.after(1);
        looked_at += u64::from(table.expire(at, u32::MAX, |_, _| expired += 1).looked_at);
    }
    let idle_wheel = start.elapsed();
    assert_eq!(expired, 0);
    let share = idle_wheel.as_secs_f64() / (f64::from(half.since(now)) / 1e3);
    let again = idle_wheel.as_nanos() as f64 / looked_at.max(1) as f64;

    let start = Instant::now();
    let mut closed = 0u64;
    at = half.after(TIMEOUT + 200);
    while table.expire(at, 256, |_, _| closed += 1).behind {}
    let expire = nanoseconds(start, closed.max(1));
    assert!(table.is_empty(), "{} left", table.len());

    println!(
        "{family} {flows:>10} flows{}: hit {:6.1} ns, miss {:6.1} ns (packets alone {idle:.1}), find+open {open:6.1} ns, \
         expire+close {expire:6.1} ns, wheel look again {again:5.1} ns = {:.3} % of a core at {live} idle, \
         refresh {refresh:.1} ns, {:.1} bytes each (lines {}, index {}, wheel {} MB), {:.2} s to touch",
        if both_directions { " both ways" } else { "" },
        hit - idle,
        miss - idle,
        share * 100.0,
        table.bytes_per_connection(),
        footprint.lines >> 20,
        footprint.index >> 20,
        footprint.wheel >> 20,
        touched.as_secs_f64(),
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut populations =
        std::env::args().skip(1).map(|text| text.parse()).collect::<Result<Vec<u64>, _>>()?;
    if populations.is_empty() {
        populations = vec![1_000, 1_000_000, 10_000_000];
    }
    for flows in populations {
        measure::<Ipv4Addr>(flows, false)?;
        measure::<Ipv4Addr>(flows, true)?;
        measure::<Ipv6Addr>(flows, false)?;
    }
    Ok(())
}
