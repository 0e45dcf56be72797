//! `uvs-perf latency` and `uvs-perf ndr` on a link of this machine: the real director, or `dpdk-testpmd`, at one end of shared
//! memory, `uvs-generator` at the other, each polling a CPU of its own.

mod generator;
mod latency;
mod ndr;
mod session;

use crate::child::TemporaryDirectory;
use crate::cli::{Link, LinkArguments, Spread};
use crate::forward::devices::Devices;
use crate::forward::plan::Plan;
use crate::forward::{named_or_beside, rules};
use crate::interrupt::Interrupt;
use crate::machine::{Machine, free_hugepages_mib, is_root};
use crate::progress::Progress;
use crate::results::Parameters;
use crate::table::grouped;
use crate::traffic::FrameLength;
use crate::window::Figures;
use ::generator::STAMP;
use anyhow::{Context, Result, bail};
pub(crate) use latency::latency;
pub(crate) use ndr::ndr;
use session::Trial;
use std::path::PathBuf;

/// What both commands measure with.
struct Bench<'a> {
    plan: Plan,
    devices: Devices,
    directory: TemporaryDirectory,
    uvsd: PathBuf,
    generator: PathBuf,
    machine: &'a Machine,
    interrupt: &'a Interrupt,
    progress: Progress,
}

impl<'a> Bench<'a> {
    fn new(
        arguments: &LinkArguments,
        flows: u64,
        machine: &'a Machine,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let mut progress = Progress::new();
        let plan = plan(arguments, flows, machine)?;
        let directory = TemporaryDirectory::new()?;
        plan.write(directory.path())?;
        if !plan.hugepages {
            progress.without_hugepages(memory_mib(&plan) / 2);
        }
        Ok(Self {
            devices: plan.devices(directory.path()),
            plan,
            directory,
            uvsd: named_or_beside(arguments.uvsd.as_deref(), "uvsd")?,
            generator: named_or_beside(arguments.generator.as_deref(), "uvs-generator")?,
            machine,
            interrupt,
            progress,
        })
    }

    fn name(&self, command: &str) -> String {
        format!("{command} {} {}", self.plan.rules.forwarding.mode.name(), self.plan.link.name())
    }

    fn parameters(&self, more: &[(&str, serde_json::Value)]) -> Parameters {
        let mut parameters = self.plan.parameters();
        for (name, value) in more {
            parameters.insert((*name).to_owned(), value.clone());
        }
        parameters
    }

    /// What is measured, for a table's heading.
    fn title(&self) -> String {
        let shape = &self.plan.rules.shape;
        format!(
            "{} over {} on {}: {} flows, frames of {} bytes, {} services of {} destinations, {}",
            self.plan.rules.forwarding.title(shape.protocol),
            if shape.ipv6 { "IPv6" } else { "IPv4" },
            self.plan.link.name(),
            grouped(shape.flows),
            shape.frame,
            grouped(shape.services.into()),
            grouped(shape.destinations.into()),
            if self.plan.hugepages { "hugepages" } else { "no hugepages" },
        )
    }

    /// Figures of windows, those of the generator's own CPU left out.
    fn figures(&self, who: session::Who, trials: &[Trial]) -> Result<Figures> {
        let counting = || trials.iter().filter(|trial| trial.counts());
        let ns: Vec<f64> = counting().map(|trial| trial.window.ns_per_packet()).collect();
        let rates: Vec<f64> = counting().map(Trial::rate).collect();
        Figures::from_samples(&ns, &rates, trials.len() - ns.len(), self.machine.tsc_ghz).with_context(|| {
            format!(
                "{} and uvs-generator never both had {:.0} % of their CPUs in any of {} windows: other programs run on \
                 this machine",
                who.name(),
                crate::window::least_percent(),
                trials.len()
            )
        })
    }
}

/// Runs a measurement for each number of flows.
fn each<T>(
    arguments: &LinkArguments,
    command: &str,
    interrupt: &Interrupt,
    mut measure: impl FnMut(&mut Bench<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    if !is_root() {
        bail!("the link's memory and threads need root: run uvs-perf {command} as root, or through sudo");
    }
    let machine = Machine::here()?;
    let mut results = Vec::new();
    for flows in &arguments.traffic.flows {
        results.push(measure(&mut Bench::new(arguments, *flows, &machine, interrupt)?)?);
    }
    Ok(results)
}

fn plan(arguments: &LinkArguments, flows: u64, machine: &Machine) -> Result<Plan> {
    if arguments.link == Link::Pcap {
        bail!(
            "--link pcap drops what is sent, so nothing comes back to be measured: give --link vhost or memif"
        );
    }
    let mut plan = Plan {
        rules: rules(&arguments.traffic, flows)?,
        link: arguments.link,
        spread: Spread::Owner,
        cpus: vec![arguments.cpu.unwrap_or_else(|| machine.last_cpu())],
        machine_cpus: machine.cpus,
        hugepages: false,
        configures_services: true,
        metal: None,
    };
    plan.check()?;
    let shape = &plan.rules.shape;
    let least = shape.headers() + STAMP;
    let shortest = shape.frame.classes(shape.headers(), 0).into_iter().min().unwrap_or(0);
    if shortest < least {
        let mend = match shape.frame {
            FrameLength::Fixed(_) => format!("give --frame {least} or more"),
            FrameLength::Imix => "give one length with --frame".to_owned(),
        };
        bail!("a frame of {shortest} bytes has no room for the {STAMP} bytes of its time: {mend}");
    }
    plan.hugepages = free_hugepages_mib() >= memory_mib(&plan);
    Ok(plan)
}

/// EAL memory of the program under test and of the generator.
fn memory_mib(plan: &Plan) -> u64 {
    plan.memory_mib() + generator::MEMORY_MIB
}
