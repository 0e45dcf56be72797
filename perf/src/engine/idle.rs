//! What an engine costs that gets no packets: turns with nothing to do, and connections that come up for their timeout.
//!
//! The director's clock is a virtual one here. Connections are opened evenly over the time of their timeout, as if clients had come
//! one after the other; each is seen once more; then as long again passes without a packet, a millisecond a turn. Within that
//! time every connection's deadline as it was filed comes up, is found to be later, and is filed again.

use super::{announce, capacity_for, figures};
use crate::cli::EngineArguments;
use crate::interrupt::Interrupt;
use crate::lab::{Lab, Rules};
use crate::machine::{Machine, thread_cpu};
use crate::progress::Progress;
use crate::results::Measurement;
use crate::table::{Table, grouped};
use crate::traffic::{Frames, Protocol, Segment, Sender};
use crate::window::Window;
use anyhow::{Result, bail};
use dataplane::counters::Counter;
use dataplane::id::Ticks;
use std::time::Instant;

/// Kernel's timeout of a UDP connection in milliseconds; UDP is what this is measured with.
const TIMEOUT: u32 = 300_000;
/// Turns with nothing to do that are timed together.
const TURNS: u32 = 100_000;
/// Longest life of a TCP connection without packets, with what the wheel rounds up, in milliseconds.
const LONGEST: u32 = 901_000;
/// Turns between looks at the user's patience.
const STRIDE: u32 = 1 << 12;

/// Measures turns without packets.
pub(super) fn measure(
    arguments: &EngineArguments,
    rules: &Rules,
    machine: &Machine,
    interrupt: &Interrupt,
) -> Result<Measurement> {
    if rules.shape.protocol != Protocol::Udp {
        bail!("--idle is measured with --protocol udp: its connections all have one timeout");
    }
    let mut progress = Progress::new();
    let flows = rules.shape.flows;
    let capacity = capacity_for(flows)?;
    let bytes = announce(flows, capacity, rules.shape.ipv6, &mut progress)?;
    let mut now = Ticks(0);
    let mut lab = Lab::new(rules, capacity, arguments.burst, now)?;
    let frames = Frames::short(&rules.shape, Sender::Clients, Segment::Ack);
    let mut flow = 0;
    for millisecond in 1..=u64::from(TIMEOUT) {
        now = now.after(1);
        let due = flows * millisecond / u64::from(TIMEOUT);
        while flow < due {
            lab.feed.write(&frames, flow, 0);
            flow += 1;
            if lab.feed.len() == lab.feed.size() || flow == due {
                lab.process(now);
            }
        }
        if millisecond % u64::from(STRIDE) == 0 {
            interrupt.check()?;
            progress.far("connections opened", flow, flows);
        }
    }
    for flow in 0..flows {
        lab.feed.write(&frames, flow, 0);
        if lab.feed.len() == lab.feed.size() || flow + 1 == flows {
            lab.process(now);
        }
    }
    progress.step("turns with nothing to do");
    let windows: Vec<Window> = (0..arguments.windows).map(|_| turns(&mut lab, now)).collect();
    let figures = figures("the idle loop", &windows, machine)?;
    let parameters = super::parameters(arguments, rules);
    let mut measurement = Measurement::new("engine idle", parameters, machine, &figures);
    measurement.bytes_per_connection = Some(bytes);
    progress.step(&format!("{} virtual seconds without a packet", TIMEOUT / 1000));
    let cpu = thread_cpu();
    for millisecond in 1..TIMEOUT - 1000 {
        now = now.after(1);
        lab.idle(now);
        if millisecond % STRIDE == 0 {
            interrupt.check()?;
        }
    }
    let spent = thread_cpu().saturating_sub(cpu).as_secs_f64();
    if lab.count(Counter::ConnectionsClosed) > 0 {
        bail!("connections timed out that were not to");
    }
    let share = spent / f64::from((TIMEOUT - 1000) / 1000);
    measurement.quantities.insert("idle_share_of_cpu".to_owned(), share);
    measurement.quantities.insert("ns_per_connection_refiled".to_owned(), spent * 1e9 / flows as f64);
    measurement.dropped = lab.drops();
    lab.check()?;
    Ok(measurement)
}

/// A window in which a packet is a turn.
fn turns(lab: &mut Lab, now: Ticks) -> Window {
    let (cpu, start) = (thread_cpu(), Instant::now());
    (0..TURNS).for_each(|_| lab.idle(now));
    Window { packets: TURNS.into(), wall: start.elapsed(), cpu: vec![thread_cpu().saturating_sub(cpu)] }
}

/// Lets every connection time out; CPU nanoseconds for each.
pub(super) fn expire(
    lab: &mut Lab,
    now: Ticks,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Result<f64> {
    let open = |lab: &Lab| lab.count(Counter::ConnectionsOpened) - lab.count(Counter::ConnectionsClosed);
    let all = open(lab);
    let cpu = thread_cpu();
    let mut now = now.after(LONGEST);
    while open(lab) > 0 {
        // The same moment: the rest of what is due, a bounded number a turn; then the slots after it.
        for _ in 0..STRIDE {
            lab.idle(now);
        }
        now = now.after(1);
        interrupt.check()?;
        progress.far("connections timed out", all - open(lab), all);
    }
    Ok(thread_cpu().saturating_sub(cpu).as_secs_f64() * 1e9 / all as f64)
}

pub(super) fn print(results: &[Measurement]) {
    let mut table =
        Table::new(&["connections", "ns/idle turn", "ns/connection filed again", "share of a CPU"]);
    for result in results {
        let quantity = |name: &str| result.quantities.get(name).copied().unwrap_or_default();
        table.row([
            result.parameters["flows"].as_u64().map_or_else(String::new, grouped),
            format!("{:.1}", result.figures.ns_per_packet),
            format!("{:.1}", quantity("ns_per_connection_refiled")),
            format!("{:.3} %", quantity("idle_share_of_cpu") * 100.0),
        ]);
    }
    print!("{table}");
}
