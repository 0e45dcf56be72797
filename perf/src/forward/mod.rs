//! `uvs-perf forward`: the real director on a vdev that replays a capture file, beside `dpdk-testpmd` on the same.

mod configuration;
pub(crate) mod devices;
pub(crate) mod director;
pub(crate) mod far;
pub(crate) mod files;
mod metal;
pub(crate) mod plan;
pub(crate) mod poller;
pub(crate) mod testpmd;

use crate::child::TemporaryDirectory;
use crate::cli::{ForwardArguments, Link, RunArguments, TrafficArguments};
use crate::interrupt::Interrupt;
use crate::lab::Rules;
use crate::machine::{Machine, free_hugepages_mib, is_root};
use crate::profile::Profile;
use crate::progress::Progress;
use crate::results::{Control, Measurement, Parameters};
use crate::table::{Table, grouped, millions};
use crate::traffic::{Forwarding, Mode, Shape};
use crate::window::{Figures, Window, least_percent};
use anyhow::{Context, Result, bail};
use director::Director;
use far::Far;
use metal::Metal;
use plan::Plan;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testpmd::{Role, Testpmd};

/// The control run's name.
pub(crate) const CONTROL: &str = "dpdk-testpmd macswap";
/// The director and the control take turns this often, so that a drift of the machine meets both.
const ROUNDS: usize = 2;

/// Runs all measurements of one invocation.
pub(crate) fn run(arguments: &ForwardArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    if !is_root() {
        bail!("the director's memory and threads need root: run uvs-perf forward as root, or through sudo");
    }
    let machine = Machine::here()?;
    let uvsd = named_or_beside(arguments.run.uvsd.as_deref(), "uvsd")?;
    let mut results = Vec::new();
    for flows in &arguments.run.traffic.flows {
        results.push(measure(arguments, *flows, &uvsd, &machine, interrupt)?);
    }
    Ok(results)
}

/// The program that the user names, or the one of that name that was installed with this one.
pub(crate) fn named_or_beside(path: Option<&Path>, name: &str) -> Result<PathBuf> {
    path.map_or_else(|| beside_this_program(name), |path| Ok(path.to_owned()))
}

/// A program that was installed with this one.
pub(crate) fn beside_this_program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(own.with_file_name(name))
}

/// Flows, and how they are forwarded.
pub(crate) fn rules(arguments: &TrafficArguments, flows: u64) -> Result<Rules> {
    let shape = Shape {
        protocol: arguments.protocol,
        ipv6: arguments.ipv6,
        services: arguments.services,
        destinations: arguments.destinations,
        frame: arguments.frame,
        flows,
    };
    let forwarding = Forwarding::new(arguments.mode, arguments.tunnel, arguments.direction)?;
    // Whoever writes servers' packets has to know which server the director will choose.
    Ok(match forwarding.mode {
        Mode::Nat => Rules::hashed(&shape, forwarding),
        Mode::Dr | Mode::Tun => Rules::new(&shape, forwarding),
    })
}

/// What a run needs, refused where it cannot be.
pub(crate) fn plan(arguments: &RunArguments, flows: u64, machine: &Machine) -> Result<Plan> {
    let workers = usize::from(arguments.workers);
    let metal = match &arguments.profile {
        Some(_) if arguments.link != Link::Pci => bail!("--profile is for --link pci"),
        Some(path) => Some(Metal::new(Profile::read(path)?)?),
        None => None,
    };
    let cpus = match (&arguments.cpus, &metal) {
        (Some(cpus), _) if cpus.len() != workers => bail!("{} CPUs for {workers} workers", cpus.len()),
        (Some(cpus), _) => cpus.clone(),
        (None, Some(metal)) => metal.cpus(workers)?,
        (None, None) if workers > machine.cpus => {
            bail!("{workers} workers do not fit on {} CPUs", machine.cpus)
        }
        (None, None) => (machine.cpus - workers..machine.cpus).collect(),
    };
    let rules = rules(&arguments.traffic, flows)?;
    let mut plan = Plan {
        rules,
        link: arguments.link,
        spread: arguments.spread,
        cpus,
        machine_cpus: machine.cpus,
        hugepages: false,
        configures_services: true,
        metal,
    };
    plan.check()?;
    plan.hugepages = free_hugepages_mib() >= plan.all_memory_mib();
    Ok(plan)
}

fn measure(
    arguments: &ForwardArguments,
    flows: u64,
    uvsd: &Path,
    machine: &Machine,
    interrupt: &Interrupt,
) -> Result<Measurement> {
    let directory = TemporaryDirectory::new()?;
    let mut progress = Progress::new();
    let plan = plan(&arguments.run, flows, machine)?;
    let devices = plan.devices(directory.path());
    progress.step(&format!("writing {} flows", grouped(flows)));
    plan.write(directory.path())?;
    if !plan.hugepages {
        progress.without_hugepages(plan.all_memory_mib() / 2);
    }
    let length = Duration::from_secs_f64(arguments.seconds / arguments.windows as f64);
    let (mut windows, mut control) = (Vec::new(), Vec::new());
    let mut dropped = BTreeMap::new();
    for round in 0..ROUNDS {
        // The first rounds take what does not divide evenly.
        let count = (arguments.windows + ROUNDS - 1 - round) / ROUNDS;
        if count == 0 {
            break;
        }
        progress.step("starting uvsd");
        let start = || Director::start(uvsd, &plan, &devices, &directory, interrupt);
        let (mut director, far) = Far::beside(start, &plan, &devices, &directory, interrupt)?;
        director.warm_up(flows, interrupt, &mut progress)?;
        progress.step(&format!("measuring uvsd in {count} windows of {:.1} s", length.as_secs_f64()));
        let before = director.counts()?;
        windows.extend(poller::watch(&mut director, count, length, interrupt, &mut progress)?);
        for (reason, count) in director.counts()?.drops_since(&before) {
            *dropped.entry(reason).or_insert(0) += count;
        }
        director.end()?;
        far.map_or(Ok(()), Far::end)?;
        if arguments.no_control {
            continue;
        }
        progress.step("starting dpdk-testpmd");
        let log = directory.join("testpmd.log");
        let start = || Testpmd::start(Role::Control, &plan, &devices, &log, interrupt);
        let (mut testpmd, far) = Far::beside(start, &plan, &devices, &directory, interrupt)?;
        progress.step(&format!("measuring dpdk-testpmd in {count} windows of {:.1} s", length.as_secs_f64()));
        control.extend(poller::watch(&mut testpmd, count, length, interrupt, &mut progress)?);
        testpmd.end()?;
        far.map_or(Ok(()), Far::end)?;
    }
    let figures = figures("uvsd", &windows, machine)?;
    let parameters = parameters(arguments, &plan);
    let mut measurement = Measurement::new(&name(&plan), parameters, machine, &figures);
    measurement.dropped = dropped;
    if !arguments.no_control {
        measurement.control =
            Some(Control::new(CONTROL, self::figures(CONTROL, &control, machine)?, &figures));
    }
    print(&measurement, &plan);
    Ok(measurement)
}

fn figures(who: &str, windows: &[Window], machine: &Machine) -> Result<Figures> {
    Figures::of(windows, machine.tsc_ghz).with_context(|| {
        format!(
            "{who} never had {:.0} % of its CPU in any of {} windows: other programs run on this machine",
            least_percent(),
            windows.len()
        )
    })
}

fn name(plan: &Plan) -> String {
    format!("forward {} {}", plan.rules.forwarding.mode.name(), plan.link.name())
}

fn parameters(arguments: &ForwardArguments, plan: &Plan) -> Parameters {
    let mut parameters = plan.parameters();
    for (name, value) in [("seconds", json!(arguments.seconds)), ("windows", json!(arguments.windows))] {
        parameters.insert(name.to_owned(), value);
    }
    parameters
}

fn print(measurement: &Measurement, plan: &Plan) {
    let shape = &plan.rules.shape;
    println!(
        "{} over {} on {}: {} flows, frames of {} bytes, {} services of {} destinations, {} workers, {}",
        plan.rules.forwarding.title(shape.protocol),
        if shape.ipv6 { "IPv6" } else { "IPv4" },
        plan.link.name(),
        grouped(shape.flows),
        shape.frame,
        grouped(shape.services.into()),
        grouped(shape.destinations.into()),
        plan.cpus.len(),
        if plan.hugepages { "hugepages" } else { "no hugepages" },
    );
    let mut table = Table::new(&[
        "median of windows",
        "packets/CPU-s",
        "packets/s",
        "ns/packet",
        "cycles/packet",
        "fastest-slowest ns",
        "windows",
        "discarded",
    ]);
    let mut row = |name: &str, figures: &Figures| {
        let [fastest, slowest] = figures.spread_ns;
        table.row([
            name.to_owned(),
            millions(figures.packets_per_cpu_second),
            millions(figures.packets_per_second),
            format!("{:.1}", figures.ns_per_packet),
            format!("{:.0}", figures.cycles_per_packet),
            format!("{fastest:.1}-{slowest:.1}"),
            figures.windows.to_string(),
            figures.windows_discarded.to_string(),
        ]);
    };
    row("uvsd", &measurement.figures);
    if let Some(control) = &measurement.control {
        row(&control.name, &control.figures);
    }
    print!("{table}");
    if let Some(control) = &measurement.control {
        println!("uvsd forwards {:.2} of what {} moves", control.ratio, control.name);
    }
    if measurement.dropped.is_empty() {
        println!("dropped: nothing");
    } else {
        let reasons: Vec<String> = measurement
            .dropped
            .iter()
            .map(|(reason, count)| format!("{reason} {}", grouped(*count)))
            .collect();
        println!("dropped: {}", reasons.join(", "));
    }
    println!();
}
