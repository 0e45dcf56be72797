//! What the loops of `uvs-perf engine` come to.

use super::{LOOK_UP, PREPARATION, RAW, TWO_LINES, Windows, figures, net};
use crate::lab::Rules;
use crate::machine::Machine;
use crate::results::{Control, Measurement, Parameters};
use crate::table::{Table, grouped, millions};
use crate::window::Figures;
use anyhow::Result;

/// The measurement of established flows.
pub(super) fn summary(
    rules: &Rules,
    parameters: Parameters,
    windows: &Windows,
    machine: &Machine,
) -> Result<Measurement> {
    let net = net(&windows.raw, &windows.preparation, machine)?;
    let name = format!("engine {}", rules.forwarding.mode.name());
    let mut measurement = Measurement::new(&name, parameters, machine, &net);
    if !windows.two_lines.is_empty() {
        let floor = figures(TWO_LINES, &windows.two_lines, machine)?;
        measurement.control = Some(Control::new(TWO_LINES, floor, &net));
    }
    for (name, windows) in
        [(PREPARATION, &windows.preparation), (LOOK_UP, &windows.look_up), (RAW, &windows.raw)]
    {
        if !windows.is_empty() {
            measurement.parts.insert(name.to_owned(), figures(name, windows, machine)?);
        }
    }
    Ok(measurement)
}

pub(super) fn print(results: &[Measurement]) {
    let mut table = Table::new(&[
        "flows",
        "engine ns",
        "spread",
        "cycles",
        "packets/CPU-s",
        "raw ns",
        "preparation ns",
        "two bare lines ns",
        "table look-up ns",
        "bytes/connection",
        "windows",
        "discarded",
    ]);
    for result in results {
        let ns = |figures: Option<&Figures>| {
            figures.map_or_else(|| "-".to_owned(), |figures| format!("{:.1}", figures.ns_per_packet))
        };
        let figures = &result.figures;
        let [fastest, slowest] = figures.spread_ns;
        table.row([
            result.parameters["flows"].as_u64().map_or_else(String::new, grouped),
            ns(Some(figures)),
            format!("{fastest:.1}-{slowest:.1}"),
            format!("{:.0}", figures.cycles_per_packet),
            millions(figures.packets_per_cpu_second),
            ns(result.parts.get(RAW)),
            ns(result.parts.get(PREPARATION)),
            ns(result.control.as_ref().map(|control| &control.figures)),
            ns(result.parts.get(LOOK_UP)),
            format!("{:.1}", result.bytes_per_connection.unwrap_or_default()),
            figures.windows.to_string(),
            figures.windows_discarded.to_string(),
        ]);
    }
    print!("{table}");
    for result in results {
        let flows = &result.parameters["flows"];
        if let Some(cost) = result.quantities.get("ns_per_expired_connection") {
            println!("{flows} flows: {cost:.1} ns to let a connection time out");
        }
        if !result.dropped.is_empty() {
            println!("dropped at {flows} flows: {:?}", result.dropped);
        }
    }
}
