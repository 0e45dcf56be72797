//! `uvs-perf engine`: the engine alone, in this process, without DPDK.
//!
//! Four loops take turns, window by window: the preparation of frames; two bare cache lines for each packet; the director's
//! table alone; preparation and engine. What the engine costs is the last less the first. The control loops have tables of their
//! own as long as memory allows.

mod established;
mod floor;
mod idle;
mod report;

use crate::cli::EngineArguments;
use crate::interrupt::Interrupt;
use crate::lab::{Clock, Fed, Lab, Preparation, Rules, Turns, window};
use crate::machine::{Machine, available_memory, pin, with_huge_heap};
use crate::progress::Progress;
use crate::results::{Measurement, Parameters};
use crate::table::grouped;
use crate::traffic::{Forwarding, FrameLength, Shape};
use crate::window::{Figures, Window, least_percent};
use anyhow::{Context, Result, bail};
use dataplane::address::Address;
use dataplane::connection::Size;
pub(crate) use established::Established;
use floor::LookUp;
pub(crate) use floor::{TwoLines, tuple};
use serde_json::json;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Names of the loops.
pub(crate) const PREPARATION: &str = "preparation";
pub(crate) const TWO_LINES: &str = "two bare cache lines";
const LOOK_UP: &str = "table look-up";
pub(crate) const RAW: &str = "preparation and engine";
/// Least capacity of a table.
const LEAST_CAPACITY: u64 = 1024;
/// Memory that is left to others.
const SPARE_MEMORY: u64 = 512 << 20;

/// Runs all measurements of one invocation.
pub(crate) fn run(arguments: &EngineArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    let forwarding = Forwarding::new(arguments.mode, arguments.tunnel, arguments.direction)?;
    with_huge_heap()?;
    let machine = Machine::here()?;
    pin(arguments.cpu.unwrap_or_else(|| machine.last_cpu()))?;
    let mut results = Vec::new();
    for flows in &arguments.flows {
        let mut shape = Shape {
            protocol: arguments.protocol,
            ipv6: arguments.ipv6,
            services: arguments.services,
            destinations: arguments.destinations,
            frame: FrameLength::Fixed(64),
            flows: *flows,
        };
        shape.frame = FrameLength::Fixed(shape.headers().max(64));
        shape.check()?;
        let rules = Rules::new(&shape, forwarding);
        results.push(match (arguments.ipv6, arguments.idle) {
            (_, true) => idle::measure(arguments, &rules, &machine, interrupt)?,
            (true, false) => measure::<Ipv6Addr>(arguments, &rules, &machine, interrupt)?,
            (false, false) => measure::<Ipv4Addr>(arguments, &rules, &machine, interrupt)?,
        });
    }
    if arguments.idle {
        idle::print(&results);
    } else {
        report::print(&results);
    }
    Ok(results)
}

/// Room for `flows` connections: as a worker's shard, an eighth more than what it is meant for.
pub(crate) fn capacity_for(flows: u64) -> Result<u32> {
    let capacity = (flows + flows / 8).max(LEAST_CAPACITY);
    u32::try_from(capacity)
        .ok()
        .filter(|capacity| *capacity <= Size::MAXIMUM)
        .with_context(|| format!("{} connections are more than one table takes", grouped(flows)))
}

/// What a table of this capacity takes in bytes.
pub(crate) fn table_bytes(capacity: u32, ipv6: bool) -> u64 {
    let size = Size { capacity, both_directions: true };
    let footprint = if ipv6 { size.footprint::<Ipv6Addr>() } else { size.footprint::<Ipv4Addr>() };
    footprint.total() as u64
}

/// Says what a table takes; refuses what the machine has no memory for.
pub(crate) fn announce(flows: u64, capacity: u32, ipv6: bool, progress: &mut Progress) -> Result<f64> {
    let bytes = table_bytes(capacity, ipv6);
    let each = bytes as f64 / f64::from(capacity);
    progress.step(&format!(
        "{} flows: a table for {} connections in {} MiB, {each:.1} bytes each",
        grouped(flows),
        grouped(capacity.into()),
        grouped(bytes >> 20),
    ));
    let available = available_memory();
    if bytes + SPARE_MEMORY > available {
        bail!(
            "the table takes {} MiB, and {} MiB of memory are free: give fewer --flows",
            grouped(bytes >> 20),
            grouped(available >> 20)
        );
    }
    Ok(each)
}

/// Windows of each loop, in the order in which they were run.
#[derive(Debug, Default)]
struct Windows {
    preparation: Vec<Window>,
    two_lines: Vec<Window>,
    look_up: Vec<Window>,
    raw: Vec<Window>,
}

fn measure<A: Address>(
    arguments: &EngineArguments,
    rules: &Rules,
    machine: &Machine,
    interrupt: &Interrupt,
) -> Result<Measurement> {
    let mut progress = Progress::new();
    let shape = &rules.shape;
    let capacity = capacity_for(shape.flows)?;
    let bytes_per_connection = announce(shape.flows, capacity, shape.ipv6, &mut progress)?;
    let (clock, burst) = (Clock::start(), arguments.burst);
    let mut lab = Lab::new(rules, capacity, burst, clock.now())?;
    lab.open(rules, clock, interrupt, &mut progress)?;
    progress.step("filling the tables of the control loops");
    let mut preparation = Preparation::new(Established::new(rules)?, burst);
    let mut two_lines = affordable(TwoLines::bytes(shape.flows), TWO_LINES, &mut progress)
        .then(|| TwoLines::new(shape.flows, burst))
        .transpose()?;
    let mut look_up = affordable(table_bytes(capacity, shape.ipv6), LOOK_UP, &mut progress)
        .then(|| LookUp::<A>::new(shape, capacity, burst, clock.now()))
        .transpose()?;
    let length = Duration::from_secs_f64(arguments.seconds / arguments.windows as f64);
    let (count, seconds) = (arguments.windows, length.as_secs_f64());
    progress.step(&format!("measuring in {count} windows of {seconds:.2} s of each loop"));
    let before = lab.books();
    let mut windows = Windows::default();
    let mut fed = Fed { lab: &mut lab, generator: Established::new(rules)? };
    for _ in 0..count {
        interrupt.check()?;
        windows.preparation.push(settled(&mut preparation, burst, length, clock));
        windows.two_lines.extend(two_lines.as_mut().map(|loops| settled(loops, burst, length, clock)));
        windows.look_up.extend(look_up.as_mut().map(|loops| settled(loops, burst, length, clock)));
        let raw = settled(&mut fed, burst, length, clock);
        progress.window(&raw);
        windows.raw.push(raw);
    }
    let after = lab.books();
    if after.misses != before.misses {
        let misses = grouped(after.misses - before.misses);
        progress.step(&format!("{misses} packets found no connection: not all traffic was established"));
    }
    let mut measurement = report::summary(rules, parameters(arguments, rules), &windows, machine)?;
    measurement.bytes_per_connection = Some(bytes_per_connection);
    measurement.dropped = lab.drops();
    if arguments.expire {
        drop((two_lines, look_up));
        let cost = idle::expire(&mut lab, clock.now(), interrupt, &mut progress)?;
        measurement.quantities.insert("ns_per_expired_connection".to_owned(), cost);
    }
    lab.check()?;
    Ok(measurement)
}

/// Whether there is memory for a control loop's tables.
fn affordable(bytes: u64, what: &str, progress: &mut Progress) -> bool {
    let fits = bytes + SPARE_MEMORY <= available_memory();
    if !fits {
        progress.step(&format!("`{what}` is left out: no memory for {} MiB more", grouped(bytes >> 20)));
    }
    fits
}

/// A window after a tenth of one that brings the loop's memory back into the caches.
pub(crate) fn settled(turns: &mut impl Turns, burst: usize, length: Duration, clock: Clock) -> Window {
    window(turns, burst, length / 10, clock);
    window(turns, burst, length, clock)
}

fn parameters(arguments: &EngineArguments, rules: &Rules) -> Parameters {
    let mut parameters = rules.parameters();
    for (name, value) in [
        ("burst", json!(arguments.burst)),
        ("seconds", json!(arguments.seconds)),
        ("windows", json!(arguments.windows)),
    ] {
        parameters.insert(name.to_owned(), value);
    }
    parameters
}

/// Figures of a loop's windows; an error when none counts.
pub(crate) fn figures(name: &str, windows: &[Window], machine: &Machine) -> Result<Figures> {
    Figures::of(windows, machine.tsc_ghz).with_context(|| {
        let least = least_percent();
        format!("{name} never had {least:.0} % of its CPU: other programs run on this machine")
    })
}

/// The engine alone: each window less the preparation's window beside it.
pub(crate) fn net(raw: &[Window], preparation: &[Window], machine: &Machine) -> Result<Figures> {
    let pairs = raw.iter().zip(preparation).filter(|(raw, preparation)| raw.counts() && preparation.counts());
    let ns: Vec<f64> =
        pairs.map(|(raw, preparation)| raw.ns_per_packet() - preparation.ns_per_packet()).collect();
    let rates: Vec<f64> = ns.iter().map(|ns| 1e9 / ns).collect();
    Figures::from_samples(&ns, &rates, raw.len() - ns.len(), machine.tsc_ghz)
        .context("no engine window counts: other programs run on this machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preparation_is_subtracted_window_by_window() {
        let window = |ns: u64, share: u64| Window {
            packets: 1_000_000,
            wall: Duration::from_millis(ns * 100 / share),
            cpu: vec![Duration::from_millis(ns)],
        };
        let raw = [window(50, 100), window(70, 100), window(60, 50)];
        let preparation = [window(10, 100), window(20, 100), window(10, 100)];
        let machine = Machine { tsc_ghz: 2.0, ..Machine::here().unwrap() };
        let net = net(&raw, &preparation, &machine).unwrap();
        assert!((net.ns_per_packet - 45.0).abs() < 0.01, "{net:?}");
        assert!((net.packets_per_cpu_second - 1e9 / 45.0).abs() < 1e6);
        assert_eq!((net.windows, net.windows_discarded), (2, 1));
    }

    #[test]
    fn a_table_has_room_for_skew_and_no_more_than_can_be() {
        assert_eq!(capacity_for(1).unwrap(), 1024);
        assert_eq!(capacity_for(8_000).unwrap(), 9_000);
        assert!(capacity_for(u64::from(u32::MAX)).unwrap_err().to_string().contains("4,294,967,295"));
    }
}
