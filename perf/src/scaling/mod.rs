//! `uvs-perf scaling`: what a packet costs with one worker and with many.
//!
//! The engines of all workers live in this process, each with its shard of the connections, behind a NIC in software that deals
//! flows out by hash and indirection table. They take turns on one CPU, a long run of bursts each, after another run that brings the
//! worker's memory into the caches, as on a core of its own. So a worker's time holds everything that grows with the number of
//! workers but one thing: cache lines that other cores have written meanwhile. Those are counted (`--lines`), and where there are
//! CPUs enough workers run at the same time (`--together`).

mod deal;
mod lines;
mod redirects;
mod report;
mod together;

use crate::cli::ScalingArguments;
use crate::engine::{PREPARATION, RAW, TWO_LINES, TwoLines, capacity_for, figures, settled, table_bytes};
use crate::interrupt::Interrupt;
use crate::lab::{Clock, Common, Dealt, Preparation, Round, Rules, Running, Shard, Turns, seeds};
use crate::machine::{Machine, available_memory, pin, with_huge_heap};
use crate::progress::Progress;
use crate::results::{Control, Measurement, Parameters};
use crate::table::grouped;
use crate::traffic::{Direction, Forwarding, FrameLength, Mode, Shape};
use crate::window::{Figures, Window, median};
use anyhow::{Context, Result, bail};
use dataplane::counters::Counter;
use dataplane::steering::Steering;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use lines::run_traced;

/// What more than one worker are compared with.
const ALONE: &str = "one worker alone";

/// How many flows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Series {
    /// The same whatever the number of workers.
    Together(u64),
    /// So many for each.
    Each(u64),
}

impl Series {
    const fn flows(self, workers: u8) -> u64 {
        match self {
            Self::Together(flows) => flows,
            Self::Each(flows) => flows * workers as u64,
        }
    }
}

/// What all measurements of an invocation have in common.
struct Setting<'a> {
    arguments: &'a ScalingArguments,
    rules: Rules,
    steering: Steering,
    machine: Machine,
    interrupt: &'a Interrupt,
}

/// Runs all measurements of one invocation.
pub(crate) fn run(arguments: &ScalingArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    let direction = (arguments.mode == Mode::Nat).then_some(Direction::In);
    let forwarding = Forwarding::new(arguments.mode, arguments.tunnel, direction)?;
    if arguments.flows == 0 && arguments.flows_per_worker == 0 {
        bail!("there is nothing to measure: give --flows or --flows-per-worker");
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
    shape.check()?;
    let steering = arguments.steering.into();
    let rules = Rules { scheduler: arguments.scheduler, ..Rules::new(&shape, forwarding) };
    let setting = Setting { arguments, rules, steering, machine, interrupt };
    let series = [Series::Together(arguments.flows), Series::Each(arguments.flows_per_worker)];
    let mut results = Vec::new();
    for series in series.into_iter().filter(|series| series.flows(1) > 0) {
        results.extend(setting.series(series)?);
    }
    report::print(&results);
    Ok(results)
}

/// What one worker's windows come to.
struct Turn {
    preparation: Vec<Window>,
    two_lines: Vec<Window>,
    raw: Vec<Window>,
}

impl Turn {
    /// The worker's own cost: each window less the preparation's window beside it.
    fn net(&self) -> Vec<f64> {
        let pairs = self.raw.iter().zip(&self.preparation);
        let counting = pairs.filter(|(raw, preparation)| raw.counts() && preparation.counts());
        counting.map(|(raw, preparation)| raw.ns_per_packet() - preparation.ns_per_packet()).collect()
    }
}

impl Setting<'_> {
    fn series(&self, series: Series) -> Result<Vec<Measurement>> {
        let mut workers = self.arguments.workers.clone();
        workers.sort_unstable();
        workers.dedup();
        if let Some(count) = workers.iter().find(|count| series.flows(**count) < deal::least_flows(**count)) {
            let (flows, least) = (series.flows(*count), deal::least_flows(*count));
            bail!("{flows} flows are too few for {count} workers: give {least} or more");
        }
        // The control comes first, wanted or not.
        let alone = self.measure(series, 1)?;
        let mut results = Vec::new();
        for count in workers {
            if count == 1 {
                results.push(alone.clone());
                continue;
            }
            let mut result = self.measure(series, count)?;
            result.parts.insert(ALONE.to_owned(), alone.figures);
            let ratio = result.figures.ns_per_packet / alone.figures.ns_per_packet;
            result.quantities.insert("ns_over_one_worker_alone".to_owned(), ratio);
            results.push(result);
        }
        Ok(results)
    }

    fn measure(&self, series: Series, workers: u8) -> Result<Measurement> {
        let Self { arguments, machine, interrupt, .. } = self;
        let flows = series.flows(workers);
        let rules = Rules { shape: Shape { flows, ..self.rules.shape }, ..self.rules };
        rules.shape.check()?;
        let mut progress = Progress::new();
        let hashes = deal::hashes(&rules, deal::fields(self.steering), flows)?;
        let queues = deal::deal(&hashes, workers);
        drop(hashes);
        let most = queues.iter().map(|queue| queue.len() as u64).max().unwrap_or(0);
        let capacity = capacity_for(most)?;
        self.announce(flows, workers, capacity, &mut progress)?;
        let clock = Clock::start();
        let (common, mut shards) = self.shards(&rules, &queues, capacity, clock, &mut progress)?;
        let length = Duration::from_secs_f64(
            arguments.seconds / (3 * arguments.windows * usize::from(workers)) as f64,
        );
        progress.step(&format!(
            "{} windows of {:.1} ms of each loop for each worker",
            arguments.windows,
            length.as_secs_f64() * 1e3
        ));
        let mut turns = Vec::new();
        for (shard, queue) in shards.iter_mut().zip(&queues) {
            interrupt.check()?;
            turns.push(self.turn(shard, &rules, queue, length, clock)?);
        }
        let mut result = self.summary(series, workers, &turns)?;
        let [least, most] = deal::balance(&queues);
        let redirected: u64 = shards.iter().map(|shard| shard.counters().get(Counter::RedirectedOut)).sum();
        let received: u64 = shards.iter().map(|shard| shard.counters().get(Counter::Received)).sum();
        result.quantities.extend([
            ("least_flows_over_mean".to_owned(), least),
            ("greatest_flows_over_mean".to_owned(), most),
            ("redirected_share".to_owned(), redirected as f64 / received as f64),
        ]);
        for shard in &shards {
            shard.check()?;
            for (reason, count) in shard.drops() {
                *result.dropped.entry(reason).or_default() += count;
            }
        }
        drop((shards, common));
        if workers > 1 {
            result.quantities.extend(redirects::measure(&self.rules, workers)?);
        }
        // What workers take from each other does not hang on how many flows there are.
        if arguments.lines && workers > 1 && matches!(series, Series::Together(_)) {
            result.quantities.extend(lines::measure(self, workers, &mut progress)?);
        }
        if arguments.together && usize::from(workers) <= machine.cpus {
            let quantities = together::measure(self, &rules, &queues, capacity, &mut progress)?;
            result.quantities.extend(quantities);
        }
        Ok(result)
    }

    fn announce(&self, flows: u64, workers: u8, capacity: u32, progress: &mut Progress) -> Result<()> {
        let bytes = table_bytes(capacity, self.rules.shape.ipv6) * u64::from(workers);
        progress.step(&format!(
            "{workers} workers, {} flows: tables for {} connections each, {} MiB together",
            grouped(flows),
            grouped(capacity.into()),
            grouped(bytes >> 20)
        ));
        let available = available_memory();
        if bytes * 2 > available {
            bail!(
                "the tables take {} MiB, and {} MiB of memory are free: give fewer flows",
                grouped(bytes >> 20),
                grouped(available >> 20)
            );
        }
        Ok(())
    }

    /// All workers with their connections open.
    fn shards(
        &self,
        rules: &Rules,
        queues: &[Arc<[Dealt]>],
        capacity: u32,
        clock: Clock,
        progress: &mut Progress,
    ) -> Result<(Common, Vec<Shard>)> {
        let workers = u8::try_from(queues.len()).unwrap_or(u8::MAX);
        let (common, seeds) = seeds(rules, self.steering, workers, capacity, self.arguments.burst, None)?;
        let mut shards = Vec::with_capacity(queues.len());
        for (done, (seed, queue)) in seeds.into_iter().zip(queues).enumerate() {
            self.interrupt.check()?;
            progress.far("workers with their connections", done as u64, workers.into());
            let mut shard = seed.grow(clock.now())?;
            shard.open(rules, queue, clock.now())?;
            shards.push(shard);
        }
        Ok((common, shards))
    }

    /// The windows of one worker, as if it were alone on its core.
    fn turn(
        &self,
        shard: &mut Shard,
        rules: &Rules,
        queue: &Arc<[Dealt]>,
        length: Duration,
        clock: Clock,
    ) -> Result<Turn> {
        let burst = self.arguments.burst;
        let generator = Round::new(rules, Arc::clone(queue))?;
        let mut preparation = Preparation::new(generator.clone(), burst);
        let mut two_lines = TwoLines::new(queue.len() as u64, burst)?;
        let mut running = Running { shard, generator };
        // Every flow once: a table that was not used for a while is on its way back from memory.
        for _ in 0..queue.len().div_ceil(burst) {
            running.turn(clock.now());
        }
        let mut turn = Turn { preparation: Vec::new(), two_lines: Vec::new(), raw: Vec::new() };
        for _ in 0..self.arguments.windows {
            turn.preparation.push(settled(&mut preparation, burst, length, clock));
            turn.two_lines.push(settled(&mut two_lines, burst, length, clock));
            turn.raw.push(settled(&mut running, burst, length, clock));
        }
        Ok(turn)
    }

    /// The median worker's time as the measurement, the quickest and the slowest beside it.
    fn summary(&self, series: Series, workers: u8, turns: &[Turn]) -> Result<Measurement> {
        let machine = &self.machine;
        let nets: Vec<Vec<f64>> = turns.iter().map(Turn::net).collect();
        let each: Vec<f64> = nets.iter().filter_map(|net| median(net)).collect();
        let all: Vec<f64> = nets.iter().flatten().copied().collect();
        let discarded = turns.iter().map(|turn| turn.raw.len()).sum::<usize>() - all.len();
        let rates: Vec<f64> = all.iter().map(|ns| 1e9 / ns).collect();
        let figures = Figures::from_samples(&all, &rates, discarded, machine.tsc_ghz)
            .context("no worker's window counts: other programs run on this machine")?;
        let mut parameters = self.parameters(workers);
        match series {
            Series::Together(flows) => parameters.insert("flows".to_owned(), json!(flows)),
            Series::Each(flows) => parameters.insert("flows_per_worker".to_owned(), json!(flows)),
        };
        let name = format!("scaling {}", self.rules.forwarding.mode.name());
        let mut result = Measurement::new(&name, parameters, machine, &figures);
        let (least, greatest) = each
            .iter()
            .fold((f64::INFINITY, 0.0_f64), |(least, greatest), ns| (least.min(*ns), greatest.max(*ns)));
        result.quantities.extend([
            ("least_worker_ns".to_owned(), least),
            ("median_worker_ns".to_owned(), median(&each).unwrap_or_default()),
            ("greatest_worker_ns".to_owned(), greatest),
            ("workers_measured".to_owned(), each.len() as f64),
            ("sum_of_workers_packets_per_second".to_owned(), each.iter().map(|ns| 1e9 / ns).sum()),
        ]);
        let all = |windows: fn(&Turn) -> &[Window]| -> Vec<Window> {
            turns.iter().flat_map(|turn| windows(turn).iter().cloned()).collect()
        };
        let two_lines = self::figures(TWO_LINES, &all(|turn| &turn.two_lines), machine)?;
        let preparation = self::figures(PREPARATION, &all(|turn| &turn.preparation), machine)?;
        result.parts.insert(PREPARATION.to_owned(), preparation);
        result.parts.insert(RAW.to_owned(), self::figures(RAW, &all(|turn| &turn.raw), machine)?);
        result.control = Some(Control::new(TWO_LINES, two_lines, &figures));
        Ok(result)
    }

    fn parameters(&self, workers: u8) -> Parameters {
        let mut parameters = self.rules.parameters();
        parameters.remove("flows");
        let steering = match self.steering {
            Steering::Client => "client",
            Steering::Flow => "flow",
        };
        for (name, value) in [
            ("workers", json!(workers)),
            ("steering", json!(steering)),
            ("burst", json!(self.arguments.burst)),
            ("seconds", json!(self.arguments.seconds)),
            ("windows", json!(self.arguments.windows)),
        ] {
            parameters.insert(name.to_owned(), value);
        }
        parameters
    }
}
