//! `uvs-perf selftest`: whether packets come to the workers that the hash says.
//!
//! Every flow's queue is predicted by a NIC in software, with Toeplitz's hash over the packet's bytes and the indirection table; who
//! owns a flow follows from the client's end of it. The director says what it found: packets at each worker's queues, those it handed
//! to another worker, and whose shard each connection is in.

mod prediction;

use crate::child::TemporaryDirectory;
use crate::cli::SelftestArguments;
use crate::forward::director::{Counts, Director};
use crate::forward::far::Far;
use crate::forward::plan::Plan;
use crate::forward::poller::{Poller, Sample};
use crate::forward::{named_or_beside, plan};
use crate::interrupt::Interrupt;
use crate::machine::{Machine, is_root};
use crate::progress::Progress;
use crate::results::Measurement;
use crate::table::{Table, grouped};
use crate::window::Figures;
use anyhow::{Context, Result, bail};
use dataplane::steering::Steering;
use prediction::Prediction;
use serde_json::{Value, json};
use std::time::Duration;

/// Percentage points by which a share may differ: windows cut bursts in two.
const TOLERANCE: f64 = 1.0;
/// Whether all is as predicted, in results.
const AGREES: &str = "as_predicted";

/// Runs the measurements.
pub(crate) fn run(arguments: &SelftestArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    if !is_root() {
        bail!("the director's memory and threads need root: run uvs-perf selftest as root, or through sudo");
    }
    let machine = Machine::here()?;
    let flows = &arguments.run.traffic.flows;
    flows.iter().map(|flows| measure(arguments, *flows, &machine, interrupt)).collect()
}

/// An error where a selftest found something else than was predicted.
pub(crate) fn verdict(results: &[Measurement]) -> Result<()> {
    let failed = |result: &Measurement| result.quantities.get(AGREES).is_some_and(|agrees| *agrees < 1.0);
    match results.iter().filter(|result| failed(result)).count() {
        0 => Ok(()),
        count => bail!("{count} of {} selftests found other queues than predicted", results.len()),
    }
}

/// What a worker has counted, or in how many connections it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Worker {
    received: u64,
    redirected: u64,
    connections: u64,
}

impl Worker {
    fn all(status: &Value) -> Result<Vec<Self>> {
        let workers = status["workers"].as_array().context("the director's status has no workers")?;
        let number = |worker: &Value, name: &str| {
            worker[name].as_u64().with_context(|| format!("the director does not say its workers' `{name}`"))
        };
        workers
            .iter()
            .map(|worker| {
                Ok(Self {
                    received: number(worker, "received")?,
                    redirected: number(worker, "redirected")?,
                    connections: number(worker, "connections")?,
                })
            })
            .collect()
    }

    /// What it received and redirected since `earlier`.
    const fn since(self, earlier: Self) -> Self {
        Self {
            received: self.received - earlier.received,
            redirected: self.redirected - earlier.redirected,
            connections: self.connections,
        }
    }
}

fn measure(
    arguments: &SelftestArguments,
    flows: u64,
    machine: &Machine,
    interrupt: &Interrupt,
) -> Result<Measurement> {
    let plan = plan(&arguments.run, flows, machine)?;
    if plan.cpus.len() < 2 {
        bail!("one worker gets every packet, whatever a NIC does: give --workers 2 or more");
    }
    let uvsd = named_or_beside(arguments.run.uvsd.as_deref(), "uvsd")?;
    let (directory, mut progress) = (TemporaryDirectory::new()?, Progress::new());
    let devices = plan.devices(directory.path());
    plan.write(directory.path())?;
    if !plan.hugepages {
        progress.without_hugepages(plan.all_memory_mib() / 2);
    }
    progress.step("starting uvsd");
    let start = || Director::start(&uvsd, &plan, &devices, &directory, interrupt);
    let (mut director, far) = Far::beside(start, &plan, &devices, &directory, interrupt)?;
    director.warm_up(flows, interrupt, &mut progress)?;
    progress.step(&format!("counting for {} s", arguments.seconds));
    let (before, sample) = look(&mut director)?;
    interrupt.sleep(Duration::from_secs_f64(arguments.seconds))?;
    let (after, later) = look(&mut director)?;
    let status = director.client().call("status", &json!({}))?;
    director.end()?;
    far.map_or(Ok(()), Far::end)?;
    let steering = match status["steering"].as_str() {
        Some("client") => Steering::Client,
        Some("flow") => Steering::Flow,
        other => bail!("the director steers by {other:?}"),
    };
    let found: Vec<Worker> = after.iter().zip(&before).map(|(after, before)| after.since(*before)).collect();
    let predicted = Prediction::of(&plan, steering)?;
    let window = sample.until(&later);
    let figures = Figures::of(std::slice::from_ref(&window), machine.tsc_ghz)
        .context("workers had too little of their CPUs (--least-share)")?;
    let mut parameters = plan.parameters();
    parameters.insert("seconds".to_owned(), json!(arguments.seconds));
    let name = format!("selftest {} {}", plan.rules.forwarding.mode.name(), plan.link.name());
    let mut result = Measurement::new(&name, parameters, machine, &figures);
    let disagreements = judge(&predicted, &found, &mut result);
    print(&plan, &predicted, &found, &status);
    for disagreement in &disagreements {
        println!("NOT AS PREDICTED: {disagreement}");
    }
    if disagreements.is_empty() {
        println!("as predicted: queues, redirects and owners");
    }
    println!();
    Ok(result)
}

fn look(director: &mut Director) -> Result<(Vec<Worker>, Sample)> {
    let workers = Worker::all(&director.client().call("status", &json!({}))?)?;
    let packets = Counts::read(&director.stats()?)?.get("transmitted")?;
    director.check()?;
    Ok((workers, Sample::at(director, packets)?))
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// Writes both sides into the result; returns where they differ, in words.
fn judge(predicted: &Prediction, found: &[Worker], result: &mut Measurement) -> Vec<String> {
    let mut disagreements = Vec::new();
    let mut both = |name: String, predicted: f64, found: f64, tolerance: f64| {
        if (predicted - found).abs() > tolerance {
            disagreements.push(format!("{name}: {found:.2}, predicted {predicted:.2}"));
        }
        result.quantities.insert(format!("{name}_predicted"), predicted);
        result.quantities.insert(name, found);
    };
    let received: u64 = found.iter().map(|worker| worker.received).sum();
    for (number, (worker, predicted)) in found.iter().zip(&predicted.workers).enumerate() {
        let owned = predicted.owned as f64;
        both(format!("worker_{number}_connections"), owned, worker.connections as f64, 0.0);
        if let Some(share) = predicted.received_percent {
            let own = percent(worker.received, received);
            both(format!("worker_{number}_received_percent"), share, own, TOLERANCE);
        }
        let redirected = percent(worker.redirected, worker.received);
        both(
            format!("worker_{number}_redirected_percent"),
            predicted.redirected_percent,
            redirected,
            TOLERANCE,
        );
    }
    let agrees = disagreements.is_empty() && found.len() == predicted.workers.len();
    result.quantities.insert(AGREES.to_owned(), f64::from(u8::from(agrees)));
    let redirected = percent(found.iter().map(|worker| worker.redirected).sum(), received);
    result.quantities.insert("redirected_percent".to_owned(), redirected);
    disagreements
}

fn print(plan: &Plan, predicted: &Prediction, found: &[Worker], status: &Value) {
    println!(
        "{} on {}: {} flows, {} workers, steering by {}",
        plan.rules.forwarding.title(plan.rules.shape.protocol),
        plan.link.name(),
        grouped(plan.rules.shape.flows),
        plan.cpus.len(),
        status["steering"].as_str().unwrap_or_default()
    );
    let mut table = Table::new(&[
        "worker",
        "connections",
        "predicted",
        "received %",
        "predicted",
        "redirected %",
        "predicted",
    ]);
    let received: u64 = found.iter().map(|worker| worker.received).sum();
    for (number, (worker, predicted)) in found.iter().zip(&predicted.workers).enumerate() {
        table.row([
            number.to_string(),
            grouped(worker.connections),
            grouped(predicted.owned),
            format!("{:.2}", percent(worker.received, received)),
            predicted
                .received_percent
                .map_or_else(|| "its own file".to_owned(), |share| format!("{share:.2}")),
            format!("{:.2}", percent(worker.redirected, worker.received)),
            format!("{:.2}", predicted.redirected_percent),
        ]);
    }
    print!("{table}");
    for warning in status["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        println!("uvsd says: {warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prediction::Share;

    fn result() -> Measurement {
        Measurement { quantities: Default::default(), ..crate::results::tests::sample() }
    }

    fn workers(redirected: u64) -> [Worker; 2] {
        let status = |connections: u64| json!({ "received": 1000, "redirected": redirected, "connections": connections });
        let all = Worker::all(&json!({ "workers": [status(600), status(400)] })).unwrap();
        [all[0], all[1]]
    }

    fn predicted() -> Prediction {
        let share = |owned| Share { owned, received_percent: Some(50.0), redirected_percent: 0.0 };
        Prediction { workers: vec![share(600), share(400)] }
    }

    #[test]
    fn what_is_as_predicted_passes() {
        let mut result = result();
        assert_eq!(judge(&predicted(), &workers(9), &mut result), [""; 0]);
        assert!((result.quantities["worker_1_connections"] - 400.0).abs() < 0.1);
        verdict(&[result]).unwrap();
    }

    #[test]
    fn redirects_and_connections_elsewhere_fail() {
        let mut result = result();
        let found = judge(&predicted(), &workers(500), &mut result);
        assert!(found[0].contains("worker_0_redirected_percent: 50.00, predicted 0.00"), "{found:?}");
        assert!(verdict(&[result.clone()]).unwrap_err().to_string().contains("1 of 1"));
        let mut swapped = workers(0);
        swapped.swap(0, 1);
        assert!(judge(&predicted(), &swapped, &mut result)[0].contains("connections"));
        assert!(Worker::all(&json!({ "workers": [{ "received": 1 }] })).is_err());
    }

    #[test]
    fn counts_are_taken_from_a_moment_on() {
        let [one, _] = workers(500);
        let later = Worker { received: 1500, redirected: 700, connections: 7 };
        assert_eq!(later.since(one), Worker { received: 500, redirected: 200, connections: 7 });
    }
}
