//! `uvs-perf connections`: what new connections cost, from the first packet to the expiry.

mod cycle;
mod full;

use crate::cli::ConnectionsArguments;
use crate::engine::{PREPARATION, RAW, TWO_LINES, TwoLines, announce, capacity_for, figures, net};
use crate::interrupt::Interrupt;
use crate::lab::{Clock, Lab, Preparation, Rules, Turns, window};
use crate::machine::{Machine, pin, with_huge_heap};
use crate::progress::Progress;
use crate::results::{Control, Measurement};
use crate::table::{Table, grouped, millions};
use crate::traffic::{Forwarding, FrameLength, Mode, Shape};
use crate::window::Window;
use anyhow::{Result, bail};
use cycle::{Cycle, Lives};
use dataplane::counters::Counter;
use dataplane::id::Ticks;
use dataplane::snapshot::SchedulerKind;
use serde_json::json;
use std::time::Duration;

/// New connections for each second of a CPU.
const RATE: &str = "connections_per_cpu_second";
/// What one costs.
const COST: &str = "ns_per_connection";
/// Packets of one.
const PACKETS: &str = "packets_per_connection";
/// Turns between looks at the user's patience.
const STRIDE: u64 = 1 << 12;

/// Runs all measurements of one invocation.
pub(crate) fn run(arguments: &ConnectionsArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    let forwarding = Forwarding::new(arguments.mode, arguments.tunnel, None)?;
    if arguments.mode == Mode::Nat && arguments.scheduler != SchedulerKind::Rr {
        bail!("with --mode nat the server of a connection has to be known beforehand: leave --scheduler rr");
    }
    with_huge_heap()?;
    let machine = Machine::here()?;
    pin(arguments.cpu.unwrap_or_else(|| machine.last_cpu()))?;
    let mut shape = Shape {
        protocol: arguments.protocol,
        ipv6: arguments.ipv6,
        services: arguments.services,
        destinations: arguments.destinations,
        frame: FrameLength::Fixed(64),
        flows: 1,
    };
    shape.frame = FrameLength::Fixed(shape.headers().max(64));
    let rules = Rules { scheduler: arguments.scheduler, ..Rules::new(&shape, forwarding) };
    let mut results = Vec::new();
    for population in &arguments.population {
        Shape { flows: *population, ..shape }.check()?;
        results.push(if arguments.full {
            full::measure(arguments, &rules, *population, &machine, interrupt)?
        } else {
            measure(arguments, &rules, *population, &machine, interrupt)?
        });
    }
    print(&results);
    Ok(results)
}

fn measure(
    arguments: &ConnectionsArguments,
    rules: &Rules,
    population: u64,
    machine: &Machine,
    interrupt: &Interrupt,
) -> Result<Measurement> {
    let mut progress = Progress::new();
    let capacity = capacity_for(population)?;
    let bytes = announce(population, capacity, rules.shape.ipv6, &mut progress)?;
    let mut lab = Lab::new(rules, capacity, arguments.burst, Ticks(0))?;
    let cycle = Cycle::new(rules, population)?;
    let packets = cycle.packets();
    let mut preparation = Preparation::new(cycle.clone(), arguments.burst);
    let mut lives = Lives { lab: &mut lab, cycle };
    // Until as many come as go.
    let warm = population + population / 4;
    let mut turns = 0;
    while lives.cycle.opened() < warm {
        lives.turn(Ticks(0));
        turns += 1;
        if turns % STRIDE == 0 {
            interrupt.check()?;
            progress.far("connections opened", lives.cycle.opened(), warm);
        }
    }
    let loops = Loops::run(arguments, &mut preparation, &mut lives, population, interrupt, &mut progress)?;
    let open = lab.count(Counter::ConnectionsOpened) - lab.count(Counter::ConnectionsClosed);
    if open.abs_diff(population) > population / 20 + 512 {
        bail!("{open} connections are open, not about {population}; dropped were: {:?}", lab.drops());
    }
    let misses = lab.books().misses;
    if misses != lab.count(Counter::ConnectionsOpened) {
        bail!(
            "{misses} packets found no connection, but {} were opened",
            lab.count(Counter::ConnectionsOpened)
        );
    }
    let name = format!("connections {}", rules.forwarding.mode.name());
    let mut measurement = result(&name, arguments, rules, population, &loops, machine)?;
    let each = packets as f64;
    let ns = measurement.figures.ns_per_packet * each;
    measurement.quantities.extend([
        (RATE.to_owned(), measurement.figures.packets_per_cpu_second / each),
        (COST.to_owned(), ns),
        (PACKETS.to_owned(), each),
    ]);
    measurement.bytes_per_connection = Some(bytes);
    measurement.dropped = lab.drops();
    lab.check()?;
    Ok(measurement)
}

/// Windows of the loops.
#[derive(Debug, Default)]
struct Loops {
    preparation: Vec<Window>,
    two_lines: Vec<Window>,
    raw: Vec<Window>,
}

impl Loops {
    fn run(
        arguments: &ConnectionsArguments,
        preparation: &mut impl Turns,
        raw: &mut impl Turns,
        population: u64,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> Result<Self> {
        let (clock, burst, count) = (Clock::start(), arguments.burst, arguments.windows);
        let mut two_lines = TwoLines::new(population, burst)?;
        let length = Duration::from_secs_f64(arguments.seconds / count as f64);
        let seconds = length.as_secs_f64();
        progress.step(&format!("measuring in {count} windows of {seconds:.2} s of each loop"));
        let mut loops = Self::default();
        for _ in 0..count {
            interrupt.check()?;
            loops.preparation.push(window(preparation, burst, length, clock));
            loops.two_lines.push(window(&mut two_lines, burst, length, clock));
            let window = window(raw, burst, length, clock);
            progress.window(&window);
            loops.raw.push(window);
        }
        Ok(loops)
    }
}

fn result(
    name: &str,
    arguments: &ConnectionsArguments,
    rules: &Rules,
    population: u64,
    loops: &Loops,
    machine: &Machine,
) -> Result<Measurement> {
    let mut parameters = rules.parameters();
    parameters.remove("flows");
    for (name, value) in [
        ("population", json!(population)),
        ("burst", json!(arguments.burst)),
        ("seconds", json!(arguments.seconds)),
        ("windows", json!(arguments.windows)),
    ] {
        parameters.insert(name.to_owned(), value);
    }
    let net = net(&loops.raw, &loops.preparation, machine)?;
    let mut measurement = Measurement::new(name, parameters, machine, &net);
    let floor = figures(TWO_LINES, &loops.two_lines, machine)?;
    measurement.control = Some(Control::new(TWO_LINES, floor, &net));
    for (name, windows) in [(PREPARATION, &loops.preparation), (RAW, &loops.raw)] {
        measurement.parts.insert(name.to_owned(), figures(name, windows, machine)?);
    }
    Ok(measurement)
}

fn print(results: &[Measurement]) {
    let mut table = Table::new(&[
        "connections",
        "scheduler",
        "destinations",
        "new/CPU-s",
        "ns each",
        "packets each",
        "ns/packet",
        "spread",
        "two bare lines ns",
        "windows",
        "discarded",
    ]);
    for result in results {
        let figures = &result.figures;
        let quantity = |name: &str, otherwise: f64| result.quantities.get(name).copied().unwrap_or(otherwise);
        let parameter = |name: &str| result.parameters.get(name);
        let [fastest, slowest] = figures.spread_ns;
        table.row([
            parameter("population").and_then(serde_json::Value::as_u64).map_or_else(String::new, grouped),
            parameter("scheduler").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned(),
            parameter("destinations").and_then(serde_json::Value::as_u64).map_or_else(String::new, grouped),
            millions(quantity(RATE, figures.packets_per_cpu_second)),
            format!("{:.1}", quantity(COST, figures.ns_per_packet)),
            format!("{:.0}", quantity(PACKETS, 1.0)),
            format!("{:.1}", figures.ns_per_packet),
            format!("{fastest:.1}-{slowest:.1}"),
            result
                .control
                .as_ref()
                .map_or_else(String::new, |control| format!("{:.1}", control.figures.ns_per_packet)),
            figures.windows.to_string(),
            figures.windows_discarded.to_string(),
        ]);
    }
    print!("{table}");
    for result in results.iter().filter(|result| !result.dropped.is_empty()) {
        println!("dropped at {}: {:?}", result.parameters["population"], result.dropped);
    }
}
