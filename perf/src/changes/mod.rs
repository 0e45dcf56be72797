//! `uvs-perf control`: how long changes take in the real director, and what its worker suffers from them.
//!
//! Three kinds of windows take turns: no change; single changes, one after a pause; everything applied anew with other weights, one
//! apply after the other. In all of them the same traffic is forwarded. A *gap* is the time in which a worker does not look at its
//! queues, because it deals with a burst; a snapshot is taken over within one.

mod buckets;
mod state;

use crate::child::TemporaryDirectory;
use crate::cli::{ControlArguments, Link, Spread};
use crate::client::{Refused, Request};
use crate::forward::beside_this_program;
use crate::forward::director::{Counts, Director};
use crate::forward::plan::Plan;
use crate::forward::poller::Sample;
use crate::interrupt::Interrupt;
use crate::lab::Rules;
use crate::machine::{Machine, free_hugepages_mib, is_root, pin};
use crate::progress::Progress;
use crate::results::{Control, Measurement, Parameters};
use crate::table::{Table, grouped};
use crate::times::Times;
use crate::traffic::{Forwarding, FrameLength, Mode, Protocol, Shape};
use crate::window::{Figures, Window};
use anyhow::{Context, Result, bail};
use buckets::Buckets;
use hdrhistogram::Histogram;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Names of distributions.
const GAP: &str = "worker_gap";
const ANSWERED: &str = "answered";
const PUBLISHED: &str = "published";
const GRACE: &str = "grace_period";
const FROM_NOTHING: &str = "apply_from_nothing";
/// The control run's name.
const QUIET: &str = "no changes";
/// How long a change is not tried again that was refused because a worker is slow.
const BUSY: Duration = Duration::from_millis(5);
/// Longest time that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Runs the measurements.
pub(crate) fn run(arguments: &ControlArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    if !is_root() {
        bail!("the director's memory and threads need root: run uvs-perf control as root, or through sudo");
    }
    let machine = Machine::here()?;
    let mut plan = plan(arguments, &machine)?;
    plan.check()?;
    plan.hugepages = free_hugepages_mib() >= plan.all_memory_mib();
    let results = measure(arguments, &plan, &machine, interrupt)?;
    print(&results);
    Ok(results)
}

fn plan(arguments: &ControlArguments, machine: &Machine) -> Result<Plan> {
    let shape = Shape {
        protocol: Protocol::Udp,
        ipv6: false,
        services: arguments.services,
        destinations: arguments.destinations,
        frame: FrameLength::Fixed(64),
        flows: arguments.flows,
    };
    Ok(Plan {
        rules: Rules::new(&shape, Forwarding::new(Mode::Dr, None, None)?),
        link: Link::Pcap,
        spread: Spread::Owner,
        cpus: vec![arguments.cpu.unwrap_or_else(|| machine.last_cpu())],
        machine_cpus: machine.cpus,
        hugepages: false,
        configures_services: false,
        metal: None,
    })
}

/// What is done in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Quiet,
    Change,
    Apply,
}

/// Where the director stood at a moment.
struct Standing {
    sample: Sample,
    counts: Counts,
    bursts: Buckets,
    published: Buckets,
    grace: Buckets,
}

impl Standing {
    fn of(director: &mut Director) -> Result<Self> {
        let stats = director.stats()?;
        let counts = Counts::read(&stats)?;
        Ok(Self {
            sample: Sample::at(director, counts.get("transmitted")?)?,
            counts,
            bursts: Buckets::read(&stats, "burst")?,
            published: Buckets::read(&stats, "apply")?,
            grace: Buckets::read(&stats, "grace_period")?,
        })
    }
}

/// What windows of one kind brought. Times of windows in which the worker was disturbed are left out.
struct Collected {
    windows: Vec<Window>,
    times: BTreeMap<&'static str, Histogram<u64>>,
    dropped: BTreeMap<String, u64>,
}

impl Collected {
    fn new() -> Result<Self> {
        let mut times = BTreeMap::new();
        for name in [GAP, ANSWERED, PUBLISHED, GRACE] {
            times.insert(name, Histogram::new_with_bounds(1, LONGEST, 3)?);
        }
        Ok(Self { windows: Vec::new(), times, dropped: BTreeMap::new() })
    }

    fn add(&mut self, before: &Standing, after: &Standing, answered: &[Duration]) -> &Window {
        let window = before.sample.until(&after.sample);
        if window.counts() {
            let parts = [
                (GAP, after.bursts.since(&before.bursts)),
                (PUBLISHED, after.published.since(&before.published)),
                (GRACE, after.grace.since(&before.grace)),
            ];
            for (name, buckets) in parts {
                if let Some(histogram) = self.times.get_mut(name) {
                    buckets.add_to(histogram);
                }
            }
            if let Some(histogram) = self.times.get_mut(ANSWERED) {
                answered.iter().for_each(|time| histogram.saturating_record(nanoseconds(*time)));
            }
        }
        for (reason, count) in after.counts.drops_since(&before.counts) {
            *self.dropped.entry(reason).or_insert(0) += count;
        }
        let last = self.windows.len();
        self.windows.push(window);
        &self.windows[last]
    }

    fn times(&self) -> BTreeMap<String, Times> {
        let times = self.times.iter().filter_map(|(name, histogram)| Some((*name, Times::of(histogram)?)));
        times.map(|(name, times)| (name.to_owned(), times)).collect()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn measure(
    arguments: &ControlArguments,
    plan: &Plan,
    machine: &Machine,
    interrupt: &Interrupt,
) -> Result<Vec<Measurement>> {
    let mut progress = Progress::new();
    let directory = TemporaryDirectory::new()?;
    let devices = plan.devices(directory.path());
    let uvsd = arguments.uvsd.clone().map_or_else(|| beside_this_program("uvsd"), Ok)?;
    let shape = &plan.rules.shape;
    plan.write(directory.path())?;
    progress.step("starting uvsd");
    let mut director = Director::start(&uvsd, plan, &devices, &directory, interrupt)?;
    // Not before the director has started, which would be bound to that CPU too.
    pin(plan.housekeeping_cpu())?;
    let whole = [1, 2].map(|weight| state::whole(shape, weight));
    let from_nothing = from_nothing(arguments, &whole[0], &mut director, interrupt, &mut progress)?;
    director.warm_up(shape.flows, interrupt, &mut progress)?;
    let requests = whole.map(|state| director.client().prepare("config.apply", &state));
    let mut changes = Changes { shape, requests, applied: 0, made: 0, pause: arguments.pause };
    let length = Duration::from_secs_f64(arguments.seconds / arguments.windows as f64);
    let mut collected = BTreeMap::new();
    for kind in [Kind::Quiet, Kind::Change, Kind::Apply] {
        collected.insert(kind, Collected::new()?);
    }
    let seconds = length.as_secs_f64();
    progress.step(&format!("measuring in {} windows of {seconds:.1} s of each kind", arguments.windows));
    for _ in 0..arguments.windows {
        for (kind, collected) in &mut collected {
            let before = Standing::of(&mut director)?;
            let answered = changes.during(*kind, length, &mut director, interrupt)?;
            let after = Standing::of(&mut director)?;
            progress.window(collected.add(&before, &after, &answered));
        }
    }
    director.end()?;
    let quiet = &collected[&Kind::Quiet];
    let quiet_figures = figures(QUIET, &quiet.windows, machine)?;
    let mut results = Vec::new();
    for (kind, name) in [(Kind::Change, "control change"), (Kind::Apply, "control apply")] {
        let collected = &collected[&kind];
        let figures = figures(name, &collected.windows, machine)?;
        let mut result = Measurement::new(name, parameters(arguments, plan), machine, &figures);
        result.dropped = collected.dropped.clone();
        result.times = collected.times();
        if kind == Kind::Apply {
            result.times.extend(Times::of(&from_nothing).map(|times| (FROM_NOTHING.to_owned(), times)));
        }
        let mut control = Control::new(QUIET, quiet_figures, &figures);
        control.times = quiet.times();
        result.control = Some(control);
        results.push(result);
    }
    Ok(results)
}

/// Everything applied to a director that has nothing, again and again; the last time it stays.
fn from_nothing(
    arguments: &ControlArguments,
    whole: &serde_json::Value,
    director: &mut Director,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Result<Histogram<u64>> {
    let mut times = Histogram::new_with_bounds(1, LONGEST, 3)?;
    for number in 1..=arguments.applies {
        interrupt.check()?;
        progress.step(&format!("applying everything, {number} of {}", arguments.applies));
        let client = director.client();
        for (state, counts) in [(&state::nothing(), false), (whole, true)] {
            let request = client.prepare("config.apply", state);
            let time = loop {
                interrupt.check()?;
                if let Some(time) = unless_busy(client.timed(&request))? {
                    break time;
                }
            };
            if counts {
                times.saturating_record(nanoseconds(time));
            }
        }
    }
    Ok(times)
}

/// What an answer took; `None` when states still wait for a worker, which on a machine with other work to do may be without its CPU.
fn unless_busy(answer: Result<(serde_json::Value, Duration)>) -> Result<Option<Duration>> {
    match answer {
        Ok((_, time)) => Ok(Some(time)),
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| refused.busy) => {
            std::thread::sleep(BUSY);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The changes of a run.
struct Changes<'a> {
    shape: &'a Shape,
    requests: [Request; 2],
    applied: usize,
    made: u64,
    pause: u64,
}

impl Changes<'_> {
    /// Makes those of one kind for so long; what each took.
    fn during(
        &mut self,
        kind: Kind,
        length: Duration,
        director: &mut Director,
        interrupt: &Interrupt,
    ) -> Result<Vec<Duration>> {
        let end = Instant::now() + length;
        let mut answered = Vec::new();
        while Instant::now() < end {
            interrupt.check()?;
            let client = director.client();
            match kind {
                Kind::Quiet => interrupt.sleep(end.saturating_duration_since(Instant::now()))?,
                Kind::Change => {
                    let request = client.prepare("destination.edit", &state::one(self.shape, self.made));
                    self.made += 1;
                    answered.extend(unless_busy(client.timed(&request))?);
                    interrupt.sleep(Duration::from_millis(self.pause))?;
                }
                Kind::Apply => {
                    let time = unless_busy(client.timed(&self.requests[self.applied % 2]))?;
                    // What was refused is still to be done.
                    self.applied += usize::from(time.is_some());
                    answered.extend(time);
                }
            }
        }
        Ok(answered)
    }
}

fn figures(what: &str, windows: &[Window], machine: &Machine) -> Result<Figures> {
    Figures::of(windows, machine.tsc_ghz)
        .with_context(|| format!("{what}: the worker never had its CPU: other programs run on this machine"))
}

fn parameters(arguments: &ControlArguments, plan: &Plan) -> Parameters {
    let mut parameters = plan.rules.parameters();
    for (name, value) in [
        ("pause_ms", json!(arguments.pause)),
        ("hugepages", json!(plan.hugepages)),
        ("seconds", json!(arguments.seconds)),
        ("windows", json!(arguments.windows)),
    ] {
        parameters.insert(name.to_owned(), value);
    }
    parameters
}

fn print(results: &[Measurement]) {
    let mut table =
        Table::new(&["microseconds", "count", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    let mut row = |what: String, times: &Times| {
        let figures = times.figures().map(|(_, nanoseconds)| format!("{:.1}", nanoseconds as f64 / 1e3));
        table.row([what, grouped(times.count)].into_iter().chain(figures));
    };
    for result in results {
        for (name, times) in &result.times {
            row(format!("{}: {}", result.name, name.replace('_', " ")), times);
        }
    }
    if let Some(control) = results.first().and_then(|result| result.control.as_ref())
        && let Some(times) = control.times.get(GAP)
    {
        row(format!("{}: {}", control.name, GAP.replace('_', " ")), times);
    }
    print!("{table}");
    for result in results {
        if let Some(control) = &result.control {
            println!(
                "{}: {:.3} of the packets/CPU-s without changes; {} of {} windows discarded",
                result.name,
                control.ratio,
                result.figures.windows_discarded,
                result.figures.windows_discarded + result.figures.windows
            );
        }
        if !result.dropped.is_empty() {
            println!("{}: dropped {:?}", result.name, result.dropped);
        }
    }
}
