//! What runs under valgrind: workers in threads of their own, each with a heap and a stack as in the director, one turn at a time. Where
//! the trace is at is told by writing to marks.

use super::super::deal;
use super::{MANAGEMENT, PHASE, Phase};
use crate::cli::TracedArguments;
use crate::lab::{Dealt, Rules, Seed, Shard, limits, seeds};
use crate::traffic::{Forwarding, FrameLength, GATEWAY_MAC, Shape};
use anyhow::{Context, Result, bail};
use dataplane::counters::Counter;
use dataplane::engine::Share;
use dataplane::id::{DestinationSlot, Ticks};
use dataplane::snapshot::NextHop;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A byte for each agent, and behind them one for each phase: writing to one says who works from now on, or what for.
static MARKS: [AtomicU8; 512] = [const { AtomicU8::new(0) }; 512];

/// Nobody's work.
const NOBODY: usize = 0;
/// Longest life of a connection without packets in milliseconds, with what the wheel rounds up.
const LONGEST: u32 = 1_000_000;
/// Turns of a worker at the end; each closes a bounded number of connections.
const LAST_TURNS: u32 = 256;

fn mark(what: usize) {
    MARKS[what].store(1, Relaxed);
}

/// What a worker is to do next.
enum Order {
    /// Opens these flows: a packet each, or two.
    Open(Arc<[Dealt]>),
    /// Takes a burst of these flows' packets.
    Burst(Arc<[Dealt]>),
    /// Turns without packets.
    Idle(u32),
}

/// A worker's thread as seen from here.
struct Hand {
    orders: Sender<(Order, Ticks)>,
    done: Receiver<Result<[u64; 3]>>,
}

/// Runs all phases.
pub(crate) fn run(arguments: &TracedArguments) -> Result<()> {
    let shape = Shape {
        protocol: arguments.protocol,
        ipv6: false,
        services: 1,
        destinations: arguments.destinations,
        frame: FrameLength::Fixed(64),
        flows: 1,
    };
    let forwarding = Forwarding::new(arguments.mode, None, Some(crate::traffic::Direction::In))?;
    let rules = Rules { scheduler: arguments.scheduler, ..Rules::new(&shape, forwarding) };
    let workers = arguments.workers;
    let steering = arguments.steering.into();
    let burst = arguments.burst;
    let rounds = arguments.rounds;
    let wanted = (rounds + 2) * burst;
    // Twice as many as are needed, so that no worker has too few.
    let hashes = deal::hashes(&rules, deal::fields(steering), wanted as u64 * u64::from(workers) * 2)?;
    let queues = deal::deal(&hashes, workers);
    if let Some(queue) = queues.iter().find(|queue| queue.len() < wanted) {
        bail!("a worker has {} flows, and {wanted} are needed", queue.len());
    }
    let limits = limits(&rules, workers);
    let (gives, shares) = channel();
    let (mut hands, mut plots) = (Vec::new(), Vec::new());
    for number in 1..=usize::from(workers) {
        let (orders, ordered) = channel::<(Order, Ticks)>();
        let (says, done) = channel();
        let (plant, planted) = channel::<Seed>();
        let (gives, rules) = (gives.clone(), rules);
        std::thread::spawn(move || {
            // The one who asks has gone when nobody listens.
            let _ = gives.send((number, Share::new(limits)));
            drop(gives);
            let Ok(seed) = planted.recv() else { return };
            match seed.grow(Ticks(1)) {
                Ok(mut shard) => {
                    let _ = says.send(Ok([0; 3]));
                    for (order, now) in ordered {
                        let _ = says.send(obey(&mut shard, &rules, &order, now, number));
                    }
                }
                Err(error) => drop(says.send(Err(error))),
            }
        });
        hands.push(Hand { orders, done });
        plots.push(plant);
    }
    drop(gives);
    let mut shares: Vec<(usize, Share)> = shares.into_iter().collect();
    shares.sort_by_key(|(number, _)| *number);
    let shares = shares.into_iter().map(|(_, share)| share).collect();
    let capacity = u32::try_from(wanted * 2)?.max(1024);
    let mut editor = rules.editor()?;
    let (mut common, seeds) = seeds(&rules, steering, workers, capacity, burst, Some(shares))?;
    let mut places = common.shared.places();
    places.extend(common.publisher.places());
    places.extend(seeds.first().map(Seed::bells));
    for (plant, seed) in plots.iter().zip(seeds) {
        plant.send(seed).ok().context("a worker's thread has ended")?;
    }
    hands.iter().try_for_each(|hand| hand.answer().map(drop))?;
    let mut out = std::io::stdout().lock();
    for (name, range) in places {
        writeln!(out, "place {} {} {name}", range.start, range.end)?;
    }
    writeln!(out, "marks {}", MARKS.as_ptr().addr())?;
    out.flush()?;
    // Whoever reads has to know the marks before it meets them.
    std::thread::sleep(Duration::from_millis(200));

    let all = |orders: &dyn Fn(usize) -> Order, now: Ticks| -> Result<[u64; 3]> {
        let mut sum = [0; 3];
        for (worker, hand) in hands.iter().enumerate() {
            let counted = hand.ask(orders(worker), now)?;
            sum.iter_mut().zip(counted).for_each(|(sum, one)| *sum += one);
        }
        Ok(sum)
    };
    let part =
        |worker: usize, round: usize| -> Arc<[Dealt]> { queues[worker][round * burst..][..burst].into() };
    let mut say = |phase: Phase, units: u64| writeln!(out, "units {} {units}", phase as usize);
    let now = Ticks(2);
    mark(PHASE + Phase::WarmUp as usize);
    for round in 0..2 {
        all(&|worker| Order::Open(part(worker, round)), now)?;
        all(&|worker| Order::Burst(part(worker, round)), now)?;
    }
    common.publisher.publish(editor.publish()).context("a worker stands still")?;
    all(&|worker| Order::Burst(part(worker, 0)), now)?;
    mark(PHASE + Phase::NewConnections as usize);
    let mut opened = 0;
    for round in 2..rounds + 2 {
        opened += all(&|worker| Order::Open(part(worker, round)), now)?[0];
    }
    say(Phase::NewConnections, opened)?;
    mark(PHASE + Phase::Established as usize);
    let mut packets = 0;
    for round in 0..rounds {
        packets += all(&|worker| Order::Burst(part(worker, round)), now)?[1];
    }
    say(Phase::Established, packets)?;
    mark(PHASE + Phase::Publications as usize);
    for round in 0..rounds {
        mark(MANAGEMENT.into());
        let source_mac = [2, 0, 0, 0, 0, u8::try_from(round % 250)?];
        let hop = NextHop::Resolved { destination_mac: GATEWAY_MAC, source_mac };
        editor.set_next_hop(DestinationSlot(0), hop, crate::lab::PORT, 1500);
        common.publisher.publish(editor.publish()).context("a worker stands still")?;
        mark(NOBODY);
        all(&|worker| Order::Burst(part(worker, round)), now)?;
    }
    say(Phase::Publications, rounds as u64 * u64::from(workers))?;
    mark(PHASE + Phase::Redirects as usize);
    let mut redirected = 0;
    for round in 0..rounds {
        let other = |worker: usize| (worker + 1 + round % (queues.len() - 1)) % queues.len();
        redirected += all(&|worker| Order::Burst(part(other(worker), round)), now)?[2];
    }
    all(&|_| Order::Idle(1), now)?;
    say(Phase::Redirects, redirected)?;
    mark(PHASE + Phase::Expiry as usize);
    let open: u64 = common.shared.counters.iter().map(|one| one.get(Counter::ConnectionsOpened)).sum();
    all(&|_| Order::Idle(LAST_TURNS), now.after(LONGEST))?;
    let closed: u64 = common.shared.counters.iter().map(|one| one.get(Counter::ConnectionsClosed)).sum();
    if closed != open {
        bail!("{closed} of {open} connections have timed out");
    }
    say(Phase::Expiry, closed)?;
    mark(PHASE + Phase::WarmUp as usize);
    Ok(())
}

impl Hand {
    fn ask(&self, order: Order, now: Ticks) -> Result<[u64; 3]> {
        self.orders.send((order, now)).ok().context("a worker's thread has ended")?;
        self.answer()
    }

    fn answer(&self) -> Result<[u64; 3]> {
        self.done.recv().context("a worker's thread has ended")?
    }
}

/// Does as told; connections opened, packets received and packets redirected meanwhile. Only the turns themselves are marked.
fn obey(shard: &mut Shard, rules: &Rules, order: &Order, now: Ticks, agent: usize) -> Result<[u64; 3]> {
    let counted = |shard: &Shard| {
        [Counter::ConnectionsOpened, Counter::Received, Counter::RedirectedOut]
            .map(|counter| shard.counters().get(counter))
    };
    let before = counted(shard);
    let mut turn = |shard: &mut Shard| {
        mark(agent);
        shard.process(now);
        mark(NOBODY);
    };
    match order {
        Order::Open(flows) => shard.offer(rules, flows, &mut turn)?,
        Order::Burst(flows) => shard.send(rules, flows, &mut turn)?,
        Order::Idle(turns) => (0..*turns).for_each(|_| turn(shard)),
    }
    let after = counted(shard);
    Ok([0, 1, 2].map(|counter| after[counter] - before[counter]))
}
