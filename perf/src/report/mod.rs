//! Results as one page that needs nothing else: plots drawn in the page, and every figure in a table.

mod plot;

use crate::results::{Control, Measurement};
use crate::times::Times;
use anyhow::{Context, Result};
use plot::{Axis, STYLE, Series, bars, escape, lines, short};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What figures are drawn against, where they were measured for several values of it.
const AXES: [&str; 5] = ["flows", "population", "services", "destinations", "workers"];
/// Parameters that say how long was measured, not what.
const EFFORT: [&str; 4] = ["seconds", "windows", "burst", "cpus"];

/// Reads the results of earlier runs.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Measurement>> {
    let mut all = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let results: Vec<Measurement> = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what uvs-perf --json writes", file.display()))?;
        all.extend(results);
    }
    Ok(all)
}

/// Writes `index.html` into a directory, which is made if it is not there; returns its path.
pub(crate) fn save(directory: &Path, results: &[Measurement]) -> Result<PathBuf> {
    let path = directory.join("index.html");
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    std::fs::write(&path, page(results)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>uvs-perf</title>
<meta name="color-scheme" content="light dark">
<style>
:root { --ink: #222; --paper: #fff; --grid: #ddd }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #181a1b; --grid: #3a3d3f } }
body { font: 15px/1.45 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink); background: var(--paper) }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
td, th { border-bottom: 1px solid var(--grid); padding: .25em .7em .25em 0; text-align: left; vertical-align: top }
"#;

fn page(results: &[Measurement]) -> String {
    let mut page = format!("{HEAD}{STYLE}</style>\n<h1>uvs-perf</h1>\n");
    let machines: BTreeSet<String> = results.iter().map(machine).collect();
    for machine in machines {
        let _ = writeln!(page, "<p>{}</p>", escape(&machine));
    }
    page.push_str(
        "<p>Medians over the windows that count. Dashed lines are controls: what the same run measured beside it. Figures \
         of different machines, or of different hours of one, are not comparable; ratios to the control are.</p>\n",
    );
    let questions = questions(results);
    for axis in AXES {
        let series = questions.iter().map(|(question, some)| (question, against(some, axis)));
        let series: Vec<_> = series.filter(|(_, series)| !series.is_empty()).collect();
        if !series.is_empty() {
            let _ = writeln!(page, "<h2>Cost of a packet against {axis}</h2>");
        }
        for (question, series) in series {
            let titles = (Axis::Logarithmic(axis.to_owned()), Axis::Linear("ns a packet".to_owned()));
            let _ = writeln!(page, "<h3>{}</h3>", escape(question));
            page.push_str(&lines(&titles.0, &titles.1, &series));
        }
    }
    for (question, some) in &questions {
        for what in some.iter().flat_map(|result| result.times.keys()).collect::<BTreeSet<_>>() {
            let _ = writeln!(page, "<h2>Percentiles: {}, {}</h2>", escape(question), escape(what));
            page.push_str(&percentiles(some, what));
        }
    }
    if results.iter().any(|result| !result.parts.is_empty()) {
        page.push_str("<h2>What the cost is made of</h2>\n");
    }
    for some in questions.values() {
        let varying = varying(some);
        for result in some.iter().filter(|result| !result.parts.is_empty()) {
            let _ = writeln!(page, "<h3>{}</h3>", escape(&label(result, &varying, "")));
            page.push_str(&parts(result));
        }
    }
    page.push_str("<h2>All figures</h2>\n");
    page.push_str(&table(results));
    page.push_str("</html>\n");
    page
}

fn machine(result: &Measurement) -> String {
    let machine = &result.machine;
    let kind = if machine.virtual_machine { "a virtual machine, " } else { "" };
    format!(
        "{}, {kind}{} CPUs, TSC {:.2} GHz, Linux {}",
        machine.processor, machine.cpus, machine.tsc_ghz, machine.kernel
    )
}

/// Results by the command that measured them: their figures are of one kind.
fn questions(results: &[Measurement]) -> BTreeMap<&str, Vec<&Measurement>> {
    let mut all: BTreeMap<&str, Vec<&Measurement>> = BTreeMap::new();
    for result in results {
        all.entry(result.name.split(' ').next().unwrap_or_default()).or_default().push(result);
    }
    all
}

/// Parameters of which results differ, but for those of effort and the mode, which is in the name.
fn varying<'a>(results: &[&'a Measurement]) -> BTreeSet<&'a str> {
    let names: BTreeSet<&str> =
        results.iter().flat_map(|result| result.parameters.keys().map(String::as_str)).collect();
    let differ = |name: &&str| {
        let values: BTreeSet<String> = results
            .iter()
            .map(|result| result.parameters.get(*name).map_or_else(String::new, value))
            .collect();
        values.len() > 1 && !EFFORT.contains(name) && *name != "mode"
    };
    names.into_iter().filter(differ).collect()
}

fn value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What tells a result from the others, but for one parameter.
fn label(result: &Measurement, varying: &BTreeSet<&str>, but: &str) -> String {
    let mut label = result.name.clone();
    for name in varying.iter().filter(|name| **name != but) {
        match result.parameters.get(*name) {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => label.extend([", ", name]),
            Some(known) => label.extend([", ", name, " ", &value(known)]),
        }
    }
    label
}

/// Lines over one parameter, each with its control: results that differ in nothing else.
fn against(results: &[&Measurement], axis: &str) -> Vec<Series> {
    let varying = varying(results);
    let mut groups: BTreeMap<String, Vec<(f64, &Measurement)>> = BTreeMap::new();
    for result in results {
        if let Some(at) = result.parameters.get(axis).and_then(Value::as_f64).filter(|at| *at > 0.0) {
            groups.entry(label(result, &varying, axis)).or_default().push((at, result));
        }
    }
    let mut series = Vec::new();
    for (label, mut points) in groups {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if points.first().map(|point| point.0) == points.last().map(|point| point.0) {
            continue;
        }
        let colour = series.iter().filter(|one: &&Series| !one.control).count();
        let own = points.iter().map(|(at, result)| (*at, result.figures.ns_per_packet)).collect();
        let controls: Vec<(f64, &Control)> =
            points.iter().filter_map(|(at, result)| Some((*at, result.control.as_ref()?))).collect();
        series.push(Series { label: label.clone(), colour, control: false, points: own });
        if let Some((_, first)) = controls.first() {
            let label = format!("{label}: {}", first.name);
            let points = controls.iter().map(|(at, control)| (*at, control.figures.ns_per_packet)).collect();
            series.push(Series { label, colour, control: true, points });
        }
    }
    series
}

fn percentiles(results: &[&Measurement], what: &str) -> String {
    let varying = varying(results);
    let mut series = Vec::new();
    let mut names = Vec::new();
    let mut add = |label: String, colour, control, times: &Times| {
        let figures = times.figures();
        names = figures.iter().map(|(name, _)| (*name).to_owned()).collect();
        let points = figures.iter().enumerate().map(|(place, (_, ns))| (place as f64, *ns as f64)).collect();
        series.push(Series { label, colour, control, points });
    };
    for (colour, result) in results.iter().filter(|result| result.times.contains_key(what)).enumerate() {
        let label = label(result, &varying, "");
        if let Some(times) = result.times.get(what) {
            add(label.clone(), colour, false, times);
        }
        if let Some(control) = &result.control
            && let Some(times) = control.times.get(what)
        {
            add(format!("{label}: {}", control.name), colour, true, times);
        }
    }
    lines(&Axis::Names("percentile".to_owned(), names), &Axis::Times("time".to_owned()), &series)
}

fn parts(result: &Measurement) -> String {
    let mut all: Vec<(String, f64, usize)> =
        result.parts.iter().map(|(name, figures)| (name.clone(), figures.ns_per_packet, 0)).collect();
    all.push((result.name.clone(), result.figures.ns_per_packet, 1));
    if let Some(control) = &result.control {
        all.push((control.name.clone(), control.figures.ns_per_packet, 2));
    }
    bars("ns", &all)
}

fn table(results: &[Measurement]) -> String {
    let mut table = String::from(
        "<table>\n<tr><th>measurement<th>parameters<th>packets/CPU-s<th>ns<th>spread<th>cycles<th>control<th>ratio<th>more</tr>\n",
    );
    for result in results {
        let figures = &result.figures;
        let list = |pairs: Vec<String>| escape(&pairs.join(", "));
        let parameters =
            list(result.parameters.iter().map(|(name, known)| format!("{name} {}", value(known))).collect());
        let more = list(
            (result.quantities.iter().map(|(name, number)| format!("{name} {}", short(*number))))
                .chain(result.dropped.iter().map(|(reason, count)| format!("dropped {reason} {count}")))
                .chain(result.bytes_per_connection.map(|bytes| format!("{bytes:.1} bytes a connection")))
                .collect(),
        );
        let (control, ratio) = result.control.as_ref().map_or_else(Default::default, |control| {
            let ns = control.figures.ns_per_packet;
            (format!("{} {ns:.1} ns", control.name), format!("{:.2}", control.ratio))
        });
        let [fastest, slowest] = figures.spread_ns;
        let _ = writeln!(
            table,
            "<tr><td>{}<td>{parameters}<td>{}<td>{:.1}<td>{fastest:.1}–{slowest:.1}<td>{:.0}<td>{}<td>{ratio}<td>{more}</tr>",
            escape(&result.name),
            short(figures.packets_per_cpu_second),
            figures.ns_per_packet,
            figures.cycles_per_packet,
            escape(&control),
        );
    }
    table.push_str("</table>\n");
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn results() -> Vec<Measurement> {
        let sample = crate::results::tests::sample();
        let with = |name: &str, value: Value| {
            let mut one = sample.clone();
            one.parameters.insert(name.to_owned(), value);
            one
        };
        vec![with("flows", json!(1024)), with("flows", json!(65_536)), with("protocol", json!("tcp"))]
    }

    #[test]
    fn lines_join_what_differs_in_one_parameter_alone() {
        let results = results();
        let results: Vec<&Measurement> = results.iter().collect();
        let series = against(&results, "flows");
        assert_eq!(series.len(), 2, "{series:?}");
        assert_eq!(series[0].points.iter().map(|point| point.0).collect::<Vec<_>>(), [1024.0, 65_536.0]);
        assert_eq!((series[0].colour, series[0].control, series[1].control), (0, false, true));
        assert!(series[1].label.ends_with(": dpdk-testpmd macswap"), "{series:?}");
        assert!(against(&results, "workers").is_empty());
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page(&results());
        for outside in ["http", "src=", "<script", "<link", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        for wanted in
            ["against flows", "Percentiles: forward, latency", "made of", "p99.99", "polyline", "A CPU"]
        {
            assert!(page.contains(wanted), "{wanted}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn a_page_of_nothing_is_a_page() {
        assert!(page(&[]).ends_with("</html>\n"));
    }

    #[test]
    fn the_kept_figures_make_a_page() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance");
        let files: Vec<PathBuf> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        let page = page(&read(&files).unwrap());
        assert!(page.contains("Cost of a packet against flows"));
    }

    #[test]
    fn other_files_are_named() {
        let path = std::env::temp_dir().join(format!("uvs-report-{}.json", std::process::id()));
        std::fs::write(&path, "{}").unwrap();
        let error = format!("{:#}", read(std::slice::from_ref(&path)).unwrap_err());
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("is not what uvs-perf --json writes"), "{error}");
    }
}
