//! `uvs-perf flood`: SYNs of ever new clients that never answer, beside traffic of established connections.
//!
//! The director's clock is a virtual one: the flood takes the given seconds of it, however fast it is dealt with.

mod mix;

use crate::cli::FloodArguments;
use crate::engine::{PREPARATION, RAW, announce, figures, net};
use crate::interrupt::Interrupt;
use crate::lab::{BURST, Clock, Generator, Lab, Preparation, Rules, Turns};
use crate::machine::{Machine, pin, thread_cpu, with_huge_heap};
use crate::progress::Progress;
use crate::results::{Control, Measurement, Quantities};
use crate::table::{Table, grouped};
use crate::traffic::{Forwarding, FrameLength, Frames, Mode, Protocol, Segment, Sender, Shape};
use crate::window::Window;
use anyhow::{Result, bail};
use dataplane::counters::Counter;
use dataplane::id::Ticks;
use dataplane::snapshot::Settings;
use mix::{Flood, Mix};
use serde_json::json;
use std::time::Instant;

/// The control run's name.
const CONTROL: &str = "established flows alone";
/// Parts that the flood is measured in, so that disturbed ones can be left out.
const PARTS: u64 = 20;
/// Connections of honest clients that are tried at the end.
const HONEST: u64 = 10_000;
/// Established packets of the control run, in packets of the flood's.
const ROUNDS: u64 = 1 << 17;

/// Runs the flood.
pub(crate) fn run(arguments: &FloodArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    let shape = shape(arguments);
    shape.check()?;
    if shape.flows >= u64::from(arguments.table) {
        bail!("{} established flows leave no room in a table of {}", shape.flows, arguments.table);
    }
    with_huge_heap()?;
    let machine = Machine::here()?;
    pin(arguments.cpu.unwrap_or_else(|| machine.last_cpu()))?;
    let settings = Settings {
        drop_entry: arguments.drop_entry,
        drop_packet: arguments.drop_packet,
        evict_half_open: arguments.evict_half_open,
        secure_tcp: arguments.secure_tcp,
        ..Settings::default()
    };
    let rules = Rules { settings, ..Rules::new(&shape, Forwarding::new(Mode::Dr, None, None)?) };
    let measurement = measure(arguments, &rules, &machine, interrupt)?;
    print(&measurement);
    Ok(vec![measurement])
}

fn shape(arguments: &FloodArguments) -> Shape {
    let mut shape = Shape {
        protocol: Protocol::Tcp,
        ipv6: arguments.ipv6,
        services: 1,
        destinations: arguments.destinations,
        frame: FrameLength::Fixed(64),
        flows: arguments.flows,
    };
    shape.frame = FrameLength::Fixed(shape.headers().max(64));
    shape
}

fn measure(
    arguments: &FloodArguments,
    rules: &Rules,
    machine: &Machine,
    interrupt: &Interrupt,
) -> Result<Measurement> {
    let mut progress = Progress::new();
    let shape = &rules.shape;
    let bytes = announce(shape.flows, arguments.table, shape.ipv6, &mut progress)?;
    let clock = Clock::start();
    let mut lab = Lab::new(rules, arguments.table, BURST, clock.now())?;
    lab.open(rules, clock, interrupt, &mut progress)?;
    // From here on the clock is the flood's.
    let start = clock.now();
    let flood = Flood::new(arguments, start);
    let alone = alone(rules, &mut lab, start, interrupt)?;
    let before = Standing::of(&lab);
    let mut mix = Mix::new(rules, arguments.weight)?;
    let mut preparation = Preparation::new(mix.clone(), BURST);
    let (mut raw, mut prepared) = (Vec::new(), Vec::new());
    for part in 1..=PARTS {
        let until = flood.syns * part / PARTS;
        progress.far("SYNs", mix.sent, flood.syns);
        interrupt.check()?;
        let turns = (until - mix.sent.min(until)).div_ceil(mix.syns_per_burst().max(1));
        prepared.push(timed(turns, || preparation.turn(Ticks(0))));
        let window = timed(turns, || {
            mix.fill(&mut lab.feed);
            lab.process(flood.at(mix.sent));
        });
        progress.window(&window);
        raw.push(window);
    }
    let after = Standing::of(&lab);
    let now = flood.at(mix.sent);
    let net = net(&raw, &prepared, machine)?;
    let mut measurement = Measurement::new("flood", parameters(arguments, rules), machine, &net);
    measurement.control = Some(Control::new(CONTROL, alone, &net));
    for (name, windows) in [(PREPARATION, &prepared), (RAW, &raw)] {
        measurement.parts.insert(name.to_owned(), figures(name, windows, machine)?);
    }
    measurement.bytes_per_connection = Some(bytes);
    let evicted = evicted(rules, &mut lab, now);
    let offered = mix.established;
    measurement.quantities = Quantities::from([
        // A SYN of the flood never finds a connection, so that what did was an established flow's.
        ("established_goodput".to_owned(), (after.hits - before.hits) as f64 / offered as f64),
        ("established_evicted".to_owned(), evicted as f64),
        ("half_open_closed".to_owned(), (after.closed - before.closed).saturating_sub(evicted) as f64),
        ("evicted_half_open".to_owned(), (after.evicted - before.evicted) as f64),
        ("flood_syns".to_owned(), mix.sent as f64),
        ("flood_opened".to_owned(), (after.opened - before.opened) as f64),
        ("honest_accepted".to_owned(), honest(rules, &mut lab, &mut mix, now)?),
    ]);
    measurement.dropped = lab.drops();
    lab.check()?;
    Ok(measurement)
}

/// What an engine has counted.
#[derive(Debug, Clone, Copy)]
struct Standing {
    hits: u64,
    opened: u64,
    closed: u64,
    evicted: u64,
}

impl Standing {
    fn of(lab: &Lab) -> Self {
        Self {
            hits: lab.count(Counter::Hits),
            opened: lab.count(Counter::ConnectionsOpened),
            closed: lab.count(Counter::ConnectionsClosed),
            evicted: lab.count(Counter::EvictedHalfOpen),
        }
    }
}

/// Does something so often, and says what it took.
fn timed(turns: u64, mut turn: impl FnMut()) -> Window {
    let (cpu, start) = (thread_cpu(), Instant::now());
    (0..turns).for_each(|_| turn());
    let packets = turns * BURST as u64;
    Window { packets, wall: start.elapsed(), cpu: vec![thread_cpu().saturating_sub(cpu)] }
}

/// The control run: the established flows before the flood.
fn alone(rules: &Rules, lab: &mut Lab, now: Ticks, interrupt: &Interrupt) -> Result<crate::window::Figures> {
    let machine = Machine::here()?;
    let mut generator = crate::engine::Established::new(rules)?;
    let mut preparation = Preparation::new(generator.clone(), BURST);
    let (mut raw, mut prepared) = (Vec::new(), Vec::new());
    let turns = ROUNDS / BURST as u64;
    for _ in 0..PARTS {
        interrupt.check()?;
        prepared.push(timed(turns, || preparation.turn(now)));
        raw.push(timed(turns, || {
            generator.fill(&mut lab.feed);
            lab.process(now);
        }));
    }
    net(&raw, &prepared, &machine)
}

/// How many of the established flows have no connection any more: each sends one packet more.
fn evicted(rules: &Rules, lab: &mut Lab, now: Ticks) -> u64 {
    let frames = Frames::short(&rules.shape, Sender::Clients, Segment::Ack);
    let before = lab.books().misses;
    for flow in 0..rules.shape.flows {
        lab.feed.write(&frames, flow, 0);
        if lab.feed.len() == lab.feed.size() || flow + 1 == rules.shape.flows {
            lab.process(now);
        }
    }
    lab.books().misses - before
}

/// The share of honest clients that get a connection while the flood goes on: each sends a SYN, and an ACK some bursts later.
fn honest(rules: &Rules, lab: &mut Lab, mix: &mut Mix, now: Ticks) -> Result<f64> {
    let frames = |segment| Frames::short(&rules.shape, Sender::Clients, segment);
    let (syn, ack) = (frames(Segment::Syn), frames(Segment::Ack));
    let first = mix.next_client();
    let mut accepted = 0;
    for start in (0..HONEST).step_by(BURST) {
        let group = first + start..first + HONEST.min(start + BURST as u64);
        group.clone().for_each(|flow| lab.feed.write(&syn, flow, 0));
        lab.process(now);
        mix.skip(group.end);
        mix.fill(&mut lab.feed);
        lab.process(now);
        let before = lab.count(Counter::Hits);
        group.for_each(|flow| lab.feed.write(&ack, flow, 0));
        lab.process(now);
        accepted += lab.count(Counter::Hits) - before;
    }
    Ok(accepted as f64 / HONEST as f64)
}

fn parameters(arguments: &FloodArguments, rules: &Rules) -> crate::results::Parameters {
    let mut parameters = rules.parameters();
    for (name, value) in [
        ("table", json!(arguments.table)),
        ("times", json!(arguments.times)),
        ("duration", json!(arguments.duration)),
        ("weight", json!(arguments.weight)),
        ("evict_half_open", json!(arguments.evict_half_open)),
        ("drop_entry", json!(arguments.drop_entry)),
        ("drop_packet", json!(arguments.drop_packet)),
        ("secure_tcp", json!(arguments.secure_tcp)),
    ] {
        parameters.insert(name.to_owned(), value);
    }
    parameters
}

fn print(result: &Measurement) {
    let quantity = |name: &str| result.quantities.get(name).copied().unwrap_or_default();
    let count = |name: &str| format!("{:.0}", quantity(name));
    let share = |name: &str| format!("{:.2} %", quantity(name) * 100.0);
    let mut table = Table::new(&["SYN flood", ""]);
    let mut row = |what: &str, value: String| table.row([what.to_owned(), value]);
    row("room in the table", result.parameters["table"].as_u64().map_or_else(String::new, grouped));
    row("established flows", result.parameters["flows"].as_u64().map_or_else(String::new, grouped));
    row("SYNs of the flood", count("flood_syns"));
    row("of them opened a connection", count("flood_opened"));
    row("half-open connections closed", count("half_open_closed"));
    row("of them evicted for new clients", count("evicted_half_open"));
    row("established packets delivered", share("established_goodput"));
    row("established connections evicted", count("established_evicted"));
    row("honest new clients accepted at the end", share("honest_accepted"));
    row("ns/packet, flood and established", format!("{:.1}", result.figures.ns_per_packet));
    if let Some(control) = &result.control {
        row("ns/packet, established before", format!("{:.1}", control.figures.ns_per_packet));
    }
    row("parts discarded", result.figures.windows_discarded.to_string());
    print!("{table}");
    if !result.dropped.is_empty() {
        println!("dropped: {:?}", result.dropped);
    }
}
