//! How long a packet is on its way, at a rate that both programs carry.

use super::session::{Session, Trial, Who, add, say};
use super::{Bench, each};
use crate::cli::LatencyArguments;
use crate::interrupt::Interrupt;
use crate::results::{Control, Measurement, Quantities};
use crate::table::{Table, grouped, millions};
use crate::times::Times;
use crate::window::Figures;
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// The name of the distribution, and of the same in windows in which nobody wanted either CPU.
const LATENCY: &str = "latency";
const UNDISTURBED: &str = "latency_undisturbed";
/// Waiting so long in a window for a CPU disturbs nobody's percentiles.
const QUIET: Duration = Duration::from_micros(100);
/// The share of what both carry, in percent.
const SHARE: f64 = 50.0;
/// Director and control take turns so often.
const ROUNDS: usize = 2;

/// Runs the measurements.
pub(crate) fn latency(arguments: &LatencyArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    each(&arguments.link, "latency", interrupt, |bench| measure(arguments, bench))
}

/// What one program's windows brought.
#[derive(Debug, Default)]
struct Collected {
    trials: Vec<Trial>,
    dropped: BTreeMap<String, u64>,
}

fn measure(arguments: &LatencyArguments, bench: &mut Bench<'_>) -> Result<Measurement> {
    let everybody = if arguments.link.no_control { &[Who::Uvsd][..] } else { &[Who::Uvsd, Who::Testpmd] };
    let (rate, carried) = match arguments.packets_per_second {
        Some(rate) => (rate, Vec::new()),
        None => share_of_capacity(everybody, arguments.rate.unwrap_or(SHARE), bench)?,
    };
    let mut collected = BTreeMap::new();
    for round in 0..ROUNDS {
        let count = (arguments.windows + ROUNDS - 1 - round) / ROUNDS;
        for (place, who) in everybody.iter().enumerate() {
            if count > 0 {
                let seconds = arguments.seconds / arguments.windows as f64;
                windows(*who, count, seconds, rate, bench, collected.entry(place).or_default())?;
            }
        }
    }
    let mut sides = everybody
        .iter()
        .zip(collected.into_values())
        .map(|(who, collected)| Side::of(*who, collected, bench))
        .collect::<Result<Vec<_>>>()?
        .into_iter();
    let own = sides.next().context("nobody was measured")?;
    let parameters = bench.parameters(&[
        ("rate_packets_per_second", json!(rate)),
        ("seconds", json!(arguments.seconds)),
        ("windows", json!(arguments.windows)),
    ]);
    let mut result = Measurement::new(&bench.name("latency"), parameters, bench.machine, &own.figures);
    (result.dropped, result.quantities, result.times) = (own.dropped, own.quantities, own.times);
    for (who, capacity) in everybody.iter().zip(carried) {
        let name = if *who == Who::Uvsd { "capacity" } else { "control_capacity" };
        result.quantities.insert(format!("{name}_packets_per_second"), capacity);
    }
    if let Some(other) = sides.next() {
        for (name, quantile) in ratios(&result.times, &other.times) {
            result.quantities.insert(name, quantile);
        }
        let mut control = Control::new(Who::Testpmd.name(), other.figures, &own.figures);
        (control.quantities, control.times) = (other.quantities, other.times);
        result.control = Some(control);
    }
    print(&result, bench, rate);
    Ok(result)
}

/// The rate at this share of what the slowest carries, and what each carries.
fn share_of_capacity(everybody: &[Who], share: f64, bench: &mut Bench<'_>) -> Result<(f64, Vec<f64>)> {
    let mut carried = Vec::new();
    for who in everybody {
        let mut session = Session::start(*who, bench)?;
        let capacity = session.capacity(bench)?;
        session.end()?;
        bench.progress.step(&format!("{} carries {} packets/s on this link", who.name(), millions(capacity)));
        carried.push(capacity);
    }
    let least = carried.iter().copied().fold(f64::INFINITY, f64::min);
    let rate = (least * share / 100.0).round();
    if rate < 1.0 {
        bail!("the link carries nothing");
    }
    Ok((rate, carried))
}

fn windows(
    who: Who,
    count: usize,
    seconds: f64,
    rate: f64,
    bench: &mut Bench<'_>,
    to: &mut Collected,
) -> Result<()> {
    let mut session = Session::start(who, bench)?;
    bench.progress.step(&format!(
        "measuring {} in {count} windows of {seconds:.2} s at {} packets/s",
        who.name(),
        millions(rate)
    ));
    let before = session.drops()?;
    for _ in 0..count {
        let trial = session.window(Some(rate), seconds, bench)?;
        say(&trial, &mut bench.progress);
        to.trials.push(trial);
    }
    add(&mut to.dropped, session.drops()?.drops_since(&before));
    session.end()
}

/// One program's figures.
struct Side {
    figures: Figures,
    dropped: BTreeMap<String, u64>,
    quantities: Quantities,
    times: BTreeMap<String, Times>,
}

impl Side {
    fn of(who: Who, collected: Collected, bench: &Bench<'_>) -> Result<Self> {
        let Collected { trials, dropped } = collected;
        let figures = bench.figures(who, &trials)?;
        let counting: Vec<&Trial> = trials.iter().filter(|trial| trial.counts()).collect();
        let quiet: Vec<&Trial> = counting.iter().copied().filter(|trial| trial.waited() <= QUIET).collect();
        let mut times = BTreeMap::new();
        for (name, trials) in [(LATENCY, &counting), (UNDISTURBED, &quiet)] {
            if let Some(distribution) = distribution(trials)? {
                times.insert(name.to_owned(), distribution);
            }
        }
        let sum = |count: fn(&Trial) -> u64| counting.iter().map(|trial| count(trial)).sum::<u64>() as f64;
        let quantities = [
            ("offered_packets", sum(|trial| trial.outcome.judged)),
            ("lost_packets", sum(|trial| trial.outcome.lost)),
            ("generator_stalls", sum(|trial| trial.outcome.stalls)),
            ("generator_stalled_seconds", sum(|trial| trial.outcome.stalled_ns) / 1e9),
            ("packets_spoiled_by_stalls", sum(|trial| trial.outcome.blind)),
            ("undisturbed_windows", quiet.len() as f64),
        ];
        let quantities = quantities.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Self { figures, dropped, quantities, times })
    }
}

/// All windows' times together.
fn distribution(trials: &[&Trial]) -> Result<Option<Times>> {
    let mut histogram = Histogram::<u64>::new(3)?;
    for (ns, count) in trials.iter().flat_map(|trial| &trial.outcome.latencies) {
        histogram.record_n(*ns, *count)?;
    }
    Ok(Times::of(&histogram))
}

/// Percentiles over the control's.
fn ratios(own: &BTreeMap<String, Times>, other: &BTreeMap<String, Times>) -> Vec<(String, f64)> {
    let ratios = own.iter().filter_map(|(name, own)| {
        let other = other.get(name)?.figures();
        let each = own.figures().into_iter().zip(other);
        Some(each.map(move |((quantile, own), (_, other))| {
            (format!("{name}_{}_ratio", quantile.replace('.', "_")), own as f64 / other.max(1) as f64)
        }))
    });
    ratios.flatten().collect()
}

fn print(result: &Measurement, bench: &Bench<'_>, rate: f64) {
    println!("{}, {} packets/s", bench.title(), millions(rate));
    let mut headings = vec!["µs from the time it was to be sent", "packets/s", "lost"];
    headings.extend(["min", "p50", "p90", "p99", "p99.9", "p99.99", "max", "windows", "discarded"]);
    let mut table = Table::new(&headings);
    let mut rows =
        |who: &str, figures: &Figures, quantities: &Quantities, times: &BTreeMap<String, Times>| {
            let quantity = |name: &str| quantities.get(name).copied().unwrap_or_default();
            for (name, times) in times {
                let quiet = name == UNDISTURBED;
                let mut row = vec![
                    if quiet { format!("{who}, CPUs never shared") } else { who.to_owned() },
                    millions(figures.packets_per_second),
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
                    grouped(quantity("lost_packets") as u64),
                ];
                row.extend(times.figures().map(|(_, ns)| format!("{:.1}", ns as f64 / 1e3)));
                let windows = if quiet {
                    format!("{:.0}", quantity("undisturbed_windows"))
                } else {
                    figures.windows.to_string()
                };
                row.extend([windows, figures.windows_discarded.to_string()]);
                table.row(row);
            }
        };
    rows(Who::Uvsd.name(), &result.figures, &result.quantities, &result.times);
    if let Some(control) = &result.control {
        rows(&control.name, &control.figures, &control.quantities, &control.times);
    }
    print!("{table}");
    let ratio = |name: &str, quantile: &str| result.quantities.get(&format!("{name}_{quantile}_ratio"));
    for (name, which) in [(LATENCY, "all windows"), (UNDISTURBED, "CPUs never shared")] {
        if let (Some(p50), Some(p99), Some(p99_9)) =
            (ratio(name, "p50"), ratio(name, "p99"), ratio(name, "p99_9"))
        {
            println!(
                "uvsd takes {p50:.2} of dpdk-testpmd's time at p50, {p99:.2} at p99, {p99_9:.2} at p99.9 ({which})"
            );
        }
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::super::session::tests::trial;
    use super::*;

    #[test]
    fn windows_add_up_to_one_distribution() {
        let trials = [trial(1.0, 1.0, 0), trial(1.0, 1.0, 100)];
        let times = distribution(&trials.iter().collect::<Vec<_>>()).unwrap().unwrap();
        assert_eq!(times.count, 1_999_900);
        assert!((4_990..=5_010).contains(&times.p50) && (8_990..=9_010).contains(&times.p99), "{times:?}");
        assert_eq!(distribution(&[]).unwrap(), None);
    }

    #[test]
    fn ratios_are_of_the_same_distribution() {
        let times = |trials: &[Trial]| {
            let all = distribution(&trials.iter().collect::<Vec<_>>()).unwrap().unwrap();
            BTreeMap::from([(LATENCY.to_owned(), all)])
        };
        let one = times(&[trial(1.0, 1.0, 0)]);
        let ratios = ratios(&one, &one);
        assert!(ratios.contains(&("latency_p99_9_ratio".to_owned(), 1.0)), "{ratios:?}");
        assert!(super::ratios(&one, &BTreeMap::new()).is_empty());
    }
}
