//! New flows that come to a table in which nothing is free.

use super::{Loops, result};
use crate::cli::ConnectionsArguments;
use crate::engine::announce;
use crate::interrupt::Interrupt;
use crate::lab::{Clock, Fed, Feed, Generator, Lab, Preparation, Rules};
use crate::machine::Machine;
use crate::progress::Progress;
use crate::results::Measurement;
use crate::traffic::{Frames, Segment, Sender, Shape};
use anyhow::{Context, Result, bail};
use dataplane::counters::Counter;
use serde_json::json;

/// First packets of ever new flows.
#[derive(Debug, Clone)]
struct NewFlows {
    frames: Frames,
    next: u64,
}

impl Generator for NewFlows {
    #[inline(always)]
    fn fill(&mut self, feed: &mut Feed) {
        for _ in 0..feed.size() {
            feed.write(&self.frames, self.next, 0);
            self.next += 1;
        }
    }
}

/// Measures what a new flow costs that finds the table full.
pub(super) fn measure(
    arguments: &ConnectionsArguments,
    rules: &Rules,
    population: u64,
    machine: &Machine,
    interrupt: &Interrupt,
) -> Result<Measurement> {
    let mut progress = Progress::new();
    let capacity = u32::try_from(population).context("more connections than one table takes")?;
    let rules = Rules { shape: Shape { flows: population, ..rules.shape }, ..*rules };
    let bytes = announce(population, capacity, rules.shape.ipv6, &mut progress)?;
    let clock = Clock::start();
    let mut lab = Lab::new(&rules, capacity, arguments.burst, clock.now())?;
    let frames = Frames::short(&rules.shape, Sender::Clients, Segment::Syn);
    let mut flows = NewFlows { frames, next: 0 };
    if arguments.half_open {
        while flows.next < population {
            flows.fill(&mut lab.feed);
            lab.process(clock.now());
        }
    } else {
        lab.open(&rules, clock, interrupt, &mut progress)?;
        flows.next = population;
    }
    let mut preparation = Preparation::new(flows.clone(), arguments.burst);
    let before = lab.books();
    let mut fed = Fed { lab: &mut lab, generator: flows };
    let loops = Loops::run(arguments, &mut preparation, &mut fed, population, interrupt, &mut progress)?;
    let after = lab.books();
    if after.misses == before.misses {
        bail!("no flow was a new one");
    }
    let mut measurement = result("connections full", arguments, &rules, population, &loops, machine)?;
    measurement.bytes_per_connection = Some(bytes);
    measurement.parameters.insert("half_open".to_owned(), json!(arguments.half_open));
    let evicted = lab.count(Counter::EvictedHalfOpen);
    measurement.quantities.insert("evicted_half_open".to_owned(), evicted as f64);
    measurement.dropped = lab.drops();
    lab.check()?;
    Ok(measurement)
}
