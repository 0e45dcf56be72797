//! `uvs-perf engine`: the engine alone, in this process, without DPDK.
//!
//! Four loops take turns, window by window: the preparation of frames; two bare cache lines for each packet; the director's
//! table alone; preparation and engine. What the engine costs is the last less the first.

mod floor;
mod lab;
mod order;
mod packet;
mod timing;

use crate::cli::EngineArguments;
use crate::interrupt::Interrupt;
use crate::machine::{Machine, pin, with_huge_heap};
use crate::progress::Progress;
use crate::results::{Control, Measurement, Parameters};
use crate::table::{Table, grouped, millions};
use crate::traffic::{Protocol, Shape};
use crate::window::{Figures, LEAST_SHARE, Window};
use anyhow::{Context, Result, bail};
use dataplane::address::Address;
use dataplane::connection::Size;
use floor::{LookUp, TwoLines};
use lab::{Lab, Source};
use serde_json::json;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use timing::{Clock, Turns, window};

/// Names of the loops.
const PREPARATION: &str = "preparation";
const TWO_LINES: &str = "two bare cache lines";
const LOOK_UP: &str = "table look-up";
const RAW: &str = "preparation and engine";
/// Least capacity of a table.
const LEAST_CAPACITY: u64 = 1024;

/// Runs all measurements of one invocation.
pub(crate) fn run(arguments: &EngineArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    with_huge_heap()?;
    let machine = Machine::here()?;
    pin(arguments.cpu.unwrap_or_else(|| machine.last_cpu()))?;
    let mut results = Vec::new();
    for flows in &arguments.flows {
        let shape = Shape {
            protocol: arguments.protocol,
            ipv6: arguments.ipv6,
            services: arguments.services,
            frame: if arguments.ipv6 && arguments.protocol == Protocol::Tcp { 74 } else { 64 },
            flows: *flows,
        };
        shape.check()?;
        results.push(if arguments.ipv6 {
            measure::<Ipv6Addr>(arguments, &shape, &machine, interrupt)?
        } else {
            measure::<Ipv4Addr>(arguments, &shape, &machine, interrupt)?
        });
    }
    print(&results);
    Ok(results)
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
    shape: &Shape,
    machine: &Machine,
    interrupt: &Interrupt,
) -> Result<Measurement> {
    let mut progress = Progress::new();
    if arguments.destinations == 0 {
        bail!("without destinations nothing is forwarded");
    }
    // As a worker's shard: an eighth more than what it is meant for.
    let capacity = u32::try_from((shape.flows + shape.flows / 8).max(LEAST_CAPACITY))
        .context("more connections than one table takes")?;
    let bytes = Size { capacity, both_directions: true }.footprint::<A>().total();
    let bytes_per_connection = bytes as f64 / f64::from(capacity);
    progress.step(&format!(
        "{} flows: a table for {} connections in {} MiB, {bytes_per_connection:.1} bytes each",
        grouped(shape.flows),
        grouped(capacity.into()),
        grouped(bytes as u64 >> 20),
    ));
    let (clock, burst) = (Clock::start(), arguments.burst);
    let mut lab = Lab::new(shape, arguments.destinations, capacity, burst, clock.now())?;
    lab.open(shape, clock, interrupt, &mut progress)?;
    progress.step("filling the tables of the control loops");
    let mut source = Source::new(shape, burst)?;
    let mut two_lines = TwoLines::new(usize::try_from(shape.flows)?, burst);
    let mut look_up = LookUp::<A>::new(shape, capacity, burst, clock.now())?;
    let length = Duration::from_secs_f64(arguments.seconds / arguments.windows as f64);
    let (count, seconds) = (arguments.windows, length.as_secs_f64());
    progress.step(&format!("measuring four loops in {count} windows of {seconds:.2} s each"));
    let before = lab.books();
    let mut windows = Windows::default();
    for _ in 0..count {
        interrupt.check()?;
        windows.preparation.push(settled(&mut source, burst, length, clock));
        windows.two_lines.push(settled(&mut two_lines, burst, length, clock));
        windows.look_up.push(settled(&mut look_up, burst, length, clock));
        let raw = settled(&mut lab, burst, length, clock);
        progress.window(&raw);
        windows.raw.push(raw);
    }
    let after = lab.books();
    if after.misses != before.misses {
        let misses = grouped(after.misses - before.misses);
        progress.step(&format!("{misses} packets found no connection: not all traffic was established"));
    }
    if after.imbalance != 0 {
        bail!("{} packets are unaccounted for", after.imbalance);
    }
    let mut measurement = summary(arguments, shape, &windows, machine)?;
    measurement.bytes_per_connection = Some(bytes_per_connection);
    measurement.dropped = lab.drops();
    Ok(measurement)
}

/// A window after a tenth of one that brings the loop's memory back into the caches.
fn settled(turns: &mut impl Turns, burst: usize, length: Duration, clock: Clock) -> Window {
    window(turns, burst, length / 10, clock);
    window(turns, burst, length, clock)
}

fn summary(
    arguments: &EngineArguments,
    shape: &Shape,
    windows: &Windows,
    machine: &Machine,
) -> Result<Measurement> {
    let figures = |name: &str, windows: &[Window]| {
        Figures::of(windows, machine.tsc_ghz).with_context(|| {
            let least = LEAST_SHARE * 100.0;
            format!("{name} never had {least:.0} % of its CPU: other programs run on this machine")
        })
    };
    let net = net(&windows.raw, &windows.preparation, machine.tsc_ghz)
        .context("no engine window counts: other programs run on this machine")?;
    let parameters = [
        ("protocol", json!(shape.protocol.name())),
        ("ipv6", json!(shape.ipv6)),
        ("flows", json!(shape.flows)),
        ("services", json!(shape.services)),
        ("destinations", json!(arguments.destinations)),
        ("frame", json!(shape.frame)),
        ("burst", json!(arguments.burst)),
        ("seconds", json!(arguments.seconds)),
        ("windows", json!(arguments.windows)),
    ];
    let parameters: Parameters =
        parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut measurement = Measurement::new("engine dr", parameters, machine, &net);
    measurement.control = Some(Control::new(TWO_LINES, figures(TWO_LINES, &windows.two_lines)?, &net));
    for (name, windows) in
        [(PREPARATION, &windows.preparation), (LOOK_UP, &windows.look_up), (RAW, &windows.raw)]
    {
        measurement.parts.insert(name.to_owned(), figures(name, windows)?);
    }
    Ok(measurement)
}

/// The engine alone: each window less the preparation's window beside it.
fn net(raw: &[Window], preparation: &[Window], tsc_ghz: f64) -> Option<Figures> {
    let pairs = raw.iter().zip(preparation).filter(|(raw, preparation)| raw.counts() && preparation.counts());
    let ns: Vec<f64> =
        pairs.map(|(raw, preparation)| raw.ns_per_packet() - preparation.ns_per_packet()).collect();
    let rates: Vec<f64> = ns.iter().map(|ns| 1e9 / ns).collect();
    Figures::from_samples(&ns, &rates, raw.len() - ns.len(), tsc_ghz)
}

fn print(results: &[Measurement]) {
    let mut table = Table::new(&[
        "flows",
        "engine ns",
        "spread",
        "cycles",
        "packets/CPU-s",
        "raw ns",
        "preparation ns",
        "two bare lines ns",
        "table look-up ns",
        "bytes/connection",
        "windows",
        "discarded",
    ]);
    for result in results {
        let ns = |figures: Option<&Figures>| {
            figures.map_or_else(String::new, |figures| format!("{:.1}", figures.ns_per_packet))
        };
        let figures = &result.figures;
        let [fastest, slowest] = figures.spread_ns;
        table.row([
            result.parameters["flows"].as_u64().map_or_else(String::new, grouped),
            ns(Some(figures)),
            format!("{fastest:.1}-{slowest:.1}"),
            format!("{:.0}", figures.cycles_per_packet),
            millions(figures.packets_per_cpu_second),
            ns(result.parts.get(RAW)),
            ns(result.parts.get(PREPARATION)),
            ns(result.control.as_ref().map(|control| &control.figures)),
            ns(result.parts.get(LOOK_UP)),
            format!("{:.1}", result.bytes_per_connection.unwrap_or_default()),
            figures.windows.to_string(),
            figures.windows_discarded.to_string(),
        ]);
    }
    print!("{table}");
    for result in results.iter().filter(|result| !result.dropped.is_empty()) {
        println!("dropped at {} flows: {:?}", result.parameters["flows"], result.dropped);
    }
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
        let net = net(&raw, &preparation, 2.0).unwrap();
        assert!((net.ns_per_packet - 45.0).abs() < 0.01, "{net:?}");
        assert!((net.packets_per_cpu_second - 1e9 / 45.0).abs() < 1e6);
        assert_eq!((net.windows, net.windows_discarded), (2, 1));
    }
}
