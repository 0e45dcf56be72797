//! `uvs-perf ndr` and `uvs-perf latency`: what a director takes without loss, and how long a packet is on its way, by a generator on
//! bare metal; without a profile by one on this machine.

mod level;
pub(crate) mod pktgen;
pub(crate) mod search;
pub(crate) mod terminal;

use crate::cli::{LatencyArguments, NdrArguments};
use crate::interrupt::Interrupt;
use crate::link;
use crate::machine::Machine;
use crate::profile::{Kind, Profile};
use crate::progress::Progress;
use crate::results::{Measurement, Parameters};
use crate::table::{Table, millions};
use crate::window::Figures;
use anyhow::{Context, Result, bail};
use level::Level;
use pktgen::Pktgen;
use serde_json::json;
use std::path::Path;

/// The lowest rate that pktgen keeps, in percent of the link's speed.
const LEAST_RATE: f64 = 0.01;

/// The no-drop rate.
pub(crate) fn ndr(arguments: &NdrArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    let Some(profile) = &arguments.profile else { return link::ndr(arguments, interrupt) };
    let profile = read(profile)?;
    let pktgen = Pktgen::new(&profile, interrupt)?;
    let most = profile.traffic.rates.last().copied().unwrap_or(100.0);
    let mut progress = Progress::new();
    let trial = |rate| {
        // A process for each trial: pktgen 23.06 catches up with what an earlier rate owed.
        let level = pktgen.run(&[rate], false, interrupt)?.pop().context("pktgen measured nothing")?;
        let allowed = arguments.loss / 100.0 * level.sent as f64;
        progress.step(&format!("{rate:.2} %: {} of {} packets lost", level.lost(), level.sent));
        Ok((level.sent > 0 && level.lost() as f64 <= allowed, level))
    };
    let found = search::no_drop_rate(LEAST_RATE, most, arguments.resolution, trial)?;
    let trials = found.tried.len();
    let Some(level) = found.best else {
        bail!(
            "packets are lost even at {LEAST_RATE} %: does the director know the service, and do replies come back?"
        )
    };
    let mut result = measurement("ndr", &pktgen, &profile, &level)?;
    result.quantities.insert("no_drop_rate_percent".to_owned(), level.rate);
    result.quantities.insert("no_drop_packets_per_second".to_owned(), level.sent_per_second);
    result.quantities.insert("trials".to_owned(), trials as f64);
    print(std::slice::from_ref(&level));
    Ok(vec![result])
}

/// Latencies at each of the profile's rates, or at one.
pub(crate) fn latency(arguments: &LatencyArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    let Some(profile) = &arguments.profile else { return link::latency(arguments, interrupt) };
    let profile = read(profile)?;
    let rates = arguments.rate.map_or_else(|| profile.traffic.rates.clone(), |rate| vec![rate]);
    let pktgen = Pktgen::new(&profile, interrupt)?;
    let levels = pktgen.run(&rates, true, interrupt)?;
    print(&levels);
    levels.iter().map(|level| measurement("latency", &pktgen, &profile, level)).collect()
}

/// A profile whose generator paces and measures.
fn read(path: &Path) -> Result<Profile> {
    let profile = Profile::read(path)?;
    if profile.generator.kind() == Kind::Testpmd {
        bail!(
            "dpdk-testpmd keeps no rate and measures no time: name pktgen in the profile (generator.program), or leave \
             --profile out for a link on this machine"
        );
    }
    Ok(profile)
}

/// A level as a result. A polling worker takes all of its CPU, so a worker second is a CPU second.
fn measurement(name: &str, pktgen: &Pktgen, profile: &Profile, level: &Level) -> Result<Measurement> {
    let traffic = &profile.traffic;
    let machine = Machine::here()?;
    let rate = level.received_per_second.max(1.0);
    let figures =
        Figures::from_samples(&[f64::from(traffic.workers) * 1e9 / rate], &[rate], 0, machine.tsc_ghz)
            .context("no figures")?;
    let parameters = [
        ("generator", json!(pktgen.name())),
        ("protocol", json!(traffic.protocol)),
        ("flows", json!(traffic.flows)),
        ("frame", json!(traffic.frame)),
        ("workers", json!(traffic.workers)),
        ("rate_percent", json!(level.rate)),
        ("seconds", json!(traffic.seconds)),
    ];
    let parameters: Parameters =
        parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut result = Measurement::new(name, parameters, &machine, &figures);
    result.quantities.insert("offered_packets_per_second".to_owned(), level.sent_per_second);
    result.quantities.insert("lost_packets".to_owned(), level.lost() as f64);
    if let Some(times) = level.latency {
        result.times.insert("latency".to_owned(), times);
    }
    Ok(result)
}

fn print(levels: &[Level]) {
    let mut table =
        Table::new(&["rate %", "sent/s", "received/s", "lost", "p50 µs", "p99 µs", "p99.9 µs", "p99.99 µs"]);
    for level in levels {
        let micros = |ns: Option<u64>| ns.map_or_else(String::new, |ns| format!("{:.1}", ns as f64 / 1e3));
        let times = level.latency;
        table.row([
            format!("{:.2}", level.rate),
            millions(level.sent_per_second),
            millions(level.received_per_second),
            level.lost().to_string(),
            micros(times.map(|times| times.p50)),
            micros(times.map(|times| times.p99)),
            micros(times.map(|times| times.p99_9)),
            micros(times.map(|times| times.p99_99)),
        ]);
    }
    print!("{table}");
}
