//! The highest rate without loss (RFC 2544, section 26.1), of the director and of the control.

use super::session::{Session, Trial, Who, add, say};
use super::{Bench, each};
use crate::cli::NdrArguments;
use crate::interrupt::Interrupt;
use crate::rates::search::no_drop_rate;
use crate::results::{Control, Measurement, Quantities};
use crate::table::{Table, millions};
use crate::window::{Figures, least_percent};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::collections::BTreeMap;

/// The lowest rate that is tried, in percent of what comes through at most.
const LEAST: f64 = 1.0;
/// Windows that are taken in place of one that says nothing.
const AGAIN: usize = 2;

/// Runs the searches.
pub(crate) fn ndr(arguments: &NdrArguments, interrupt: &Interrupt) -> Result<Vec<Measurement>> {
    each(&arguments.link, "ndr", interrupt, |bench| measure(arguments, bench))
}

/// What was found for one program.
struct Found {
    figures: Figures,
    dropped: BTreeMap<String, u64>,
    quantities: Quantities,
}

fn measure(arguments: &NdrArguments, bench: &mut Bench<'_>) -> Result<Measurement> {
    let own = search(Who::Uvsd, arguments, bench)?;
    let parameters = bench.parameters(&[
        ("seconds", json!(arguments.seconds)),
        ("windows", json!(arguments.windows)),
        ("loss_percent", json!(arguments.loss)),
        ("resolution_percent", json!(arguments.resolution)),
    ]);
    let mut result = Measurement::new(&bench.name("ndr"), parameters, bench.machine, &own.figures);
    (result.dropped, result.quantities) = (own.dropped, own.quantities);
    if !arguments.link.no_control {
        let other = search(Who::Testpmd, arguments, bench)?;
        let mut control = Control::new(Who::Testpmd.name(), other.figures, &own.figures);
        control.quantities = other.quantities;
        let rate = |quantities: &Quantities| quantities.get(RATE).copied().unwrap_or_default();
        let ratio = rate(&result.quantities) / rate(&control.quantities).max(1.0);
        result.quantities.insert("no_drop_ratio".to_owned(), ratio);
        result.control = Some(control);
    }
    print(&result, bench);
    Ok(result)
}

const RATE: &str = "no_drop_packets_per_second";
const CAPACITY: &str = "capacity_packets_per_second";

fn search(who: Who, arguments: &NdrArguments, bench: &mut Bench<'_>) -> Result<Found> {
    let mut session = Session::start(who, bench)?;
    let capacity = session.capacity(bench)?;
    bench.progress.step(&format!("{} carries {} packets/s on this link", who.name(), millions(capacity)));
    let before = session.drops()?;
    let mut again = 0;
    let found = no_drop_rate(LEAST, 100.0, arguments.resolution, |percent| {
        let rate = capacity * percent / 100.0;
        bench.progress.step(&format!("{percent:.1} %: {} packets/s", millions(rate)));
        let (trials, spoiled) = trial(rate, arguments, &mut session, bench)?;
        again += spoiled;
        let lossless = trials.iter().all(|trial| within(trial, arguments.loss));
        Ok((lossless, (percent, rate, trials)))
    })?;
    let mut dropped = BTreeMap::new();
    add(&mut dropped, session.drops()?.drops_since(&before));
    session.end()?;
    let tried = found.tried.len();
    let (percent, rate, trials) = found.best.with_context(|| {
        format!(
            "{} loses packets even at {LEAST} % of the {} packets/s it carries: other programs run on this machine; \
             --loss PERCENT allows some",
            who.name(),
            millions(capacity)
        )
    })?;
    let quantities = [
        (RATE, rate),
        (CAPACITY, capacity),
        ("no_drop_rate_percent", percent),
        ("trials", tried as f64),
        ("windows_taken_again", again as f64),
        ("lost_packets", trials.iter().map(|trial| trial.outcome.lost).sum::<u64>() as f64),
    ];
    Ok(Found {
        figures: bench.figures(who, &trials)?,
        dropped,
        quantities: quantities.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    })
}

/// The windows of one rate, up to the first that loses, and how many were taken again.
fn trial(
    rate: f64,
    arguments: &NdrArguments,
    session: &mut Session,
    bench: &mut Bench<'_>,
) -> Result<(Vec<Trial>, usize)> {
    let seconds = arguments.seconds / arguments.windows as f64;
    let (mut trials, mut again) = (Vec::new(), 0);
    while trials.len() < arguments.windows {
        let trial = session.window(Some(rate), seconds, bench)?;
        say(&trial, &mut bench.progress);
        if says_nothing(&trial, arguments.loss) {
            again += 1;
            if again <= AGAIN * arguments.windows {
                continue;
            }
            // At full load there is always somebody to blame: then the rate has to do without the benefit of the doubt.
            if !trial.counts() || trial.outcome.judged == 0 {
                bail!(
                    "{again} windows were spoilt by other programs on these CPUs, the last with {:.1} % of one, less than \
                     {:.0} %",
                    trial.share(),
                    least_percent()
                );
            }
        }
        let lost = !within(&trial, arguments.loss);
        trials.push(trial);
        if lost {
            break;
        }
    }
    Ok((trials, again))
}

/// Whether the loss is allowed.
fn within(trial: &Trial, percent: f64) -> bool {
    trial.outcome.lost as f64 <= percent / 100.0 * trial.outcome.judged as f64
}

/// Whether somebody else is to blame: a poller without its CPU, or no more lost than came while either waited for one.
fn says_nothing(trial: &Trial, percent: f64) -> bool {
    let outcome = &trial.outcome;
    let came_meanwhile =
        outcome.offered as f64 * trial.waited().as_secs_f64() * 1e9 / outcome.sending_ns.max(1) as f64;
    let blameless = !within(trial, percent) && outcome.lost as f64 <= came_meanwhile && least_percent() > 0.0;
    !trial.counts() || trial.outcome.judged == 0 || blameless
}

fn print(result: &Measurement, bench: &Bench<'_>) {
    println!("{}", bench.title());
    let headings =
        ["no-drop rate (RFC 2544)", "packets/s", "when full", "% of it", "trials", "windows again"];
    let mut table = Table::new(&headings);
    let mut row = |who: &str, quantities: &Quantities| {
        let quantity = |name: &str| quantities.get(name).copied().unwrap_or_default();
        table.row([
            who.to_owned(),
            millions(quantity(RATE)),
            millions(quantity(CAPACITY)),
            format!("{:.1}", quantity("no_drop_rate_percent")),
            format!("{:.0}", quantity("trials")),
            format!("{:.0}", quantity("windows_taken_again")),
        ]);
    };
    row(Who::Uvsd.name(), &result.quantities);
    if let Some(control) = &result.control {
        row(&control.name, &control.quantities);
    }
    print!("{table}");
    if let Some(ratio) = result.quantities.get("no_drop_ratio") {
        println!("uvsd's no-drop rate is {ratio:.2} of dpdk-testpmd's");
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::super::session::tests::trial;
    use super::*;

    #[test]
    fn loss_counts_unless_somebody_had_the_cpu() {
        assert!(within(&trial(1.0, 1.0, 0), 0.0) && !within(&trial(1.0, 1.0, 1), 0.0));
        assert!(within(&trial(1.0, 1.0, 1000), 0.1) && !within(&trial(1.0, 1.0, 1001), 0.1));
        assert!(!says_nothing(&trial(1.0, 1.0, 1000), 0.0), "a loss of its own");
        assert!(!says_nothing(&trial(1.0, 0.9995, 1000), 0.0), "twice as much as came meanwhile");
        assert!(says_nothing(&trial(1.0, 0.998, 1000), 0.0), "a loss while it waited for its CPU");
        assert!(!says_nothing(&trial(1.0, 0.999, 0), 0.0), "no loss in spite of it");
        assert!(says_nothing(&trial(0.5, 1.0, 0), 0.0), "the generator had half a CPU");
    }
}
