//! Results as they are kept: an array of them, described by `perf/schema/results.schema.json`.

use crate::machine::Machine;
use crate::times::Times;
use crate::window::Figures;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Figures that are not a packet's cost, by a name with the unit in it.
pub(crate) type Quantities = BTreeMap<String, f64>;

/// What a run was given.
pub(crate) type Parameters = BTreeMap<String, Value>;

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// What was measured.
    pub(crate) name: String,
    /// What it was given.
    pub(crate) parameters: Parameters,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What it came to.
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// Packets dropped while measuring, by reason; reasons without any are left out.
    pub(crate) dropped: BTreeMap<String, u64>,
    /// Memory of the connection table for each connection it has room for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) bytes_per_connection: Option<f64>,
    /// What the same run measured beside it to judge it by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) control: Option<Control>,
    /// Costs it is made of, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) parts: BTreeMap<String, Figures>,
    /// Further figures; the name says the unit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) quantities: Quantities,
    /// Distributions of times by what they are of.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) times: BTreeMap<String, Times>,
}

/// The control run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Control {
    /// What it was.
    pub(crate) name: String,
    /// What it came to.
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// The measurement's packets per CPU second over the control's.
    pub(crate) ratio: f64,
    /// The measurement's further figures in the control run.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) quantities: Quantities,
    /// The measurement's times in the control run.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) times: BTreeMap<String, Times>,
}

impl Control {
    /// A control beside a measurement, without further figures.
    pub(crate) fn new(name: &str, figures: Figures, measured: &Figures) -> Self {
        let ratio = measured.packets_per_cpu_second / figures.packets_per_cpu_second;
        let (quantities, times) = (Quantities::new(), BTreeMap::new());
        Self { name: name.to_owned(), figures, ratio, quantities, times }
    }
}

impl Measurement {
    /// One of packets alone, without drops.
    pub(crate) fn new(name: &str, parameters: Parameters, machine: &Machine, figures: &Figures) -> Self {
        Self {
            name: name.to_owned(),
            parameters,
            machine: machine.clone(),
            figures: *figures,
            dropped: BTreeMap::new(),
            bytes_per_connection: None,
            control: None,
            parts: BTreeMap::new(),
            quantities: Quantities::new(),
            times: BTreeMap::new(),
        }
    }
}

/// Writes results where the user wants them.
pub(crate) fn save(path: &Path, results: &[Measurement]) -> Result<()> {
    let mut text = serde_json::to_string_pretty(results).context("cannot write the results as JSON")?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::schema::differs;
    use serde_json::json;

    fn schema() -> Value {
        serde_json::from_str(include_str!("../schema/results.schema.json")).unwrap()
    }

    /// A measurement with something of everything.
    pub(crate) fn sample() -> Measurement {
        let windows: Vec<_> = (1..=3)
            .map(|n| crate::window::Window {
                packets: n * 1_000_000,
                wall: std::time::Duration::from_secs(n),
                cpu: vec![std::time::Duration::from_millis(990 * n)],
            })
            .collect();
        let machine = Machine {
            processor: "A CPU".into(),
            cpus: 2,
            kernel: "6.1.0".into(),
            tsc_ghz: 2.5,
            virtual_machine: true,
        };
        let figures = Figures::of(&windows, machine.tsc_ghz).unwrap();
        let parameters = Parameters::from([("flows".into(), json!(1024)), ("protocol".into(), json!("udp"))]);
        let mut sample = Measurement::new("forward dr pcap", parameters, &machine, &figures);
        let times = Times {
            count: 1000,
            minimum: 1_000,
            mean: 4_100.5,
            p50: 4_000,
            p90: 5_000,
            p99: 9_000,
            p99_9: 20_000,
            p99_99: 30_000,
            maximum: 31_000,
        };
        sample.times.insert("latency".into(), times);
        sample.quantities.insert("connections_per_cpu_second".into(), 3.1e6);
        let mut control = Control::new("dpdk-testpmd macswap", figures, &figures);
        (control.times, control.quantities) = (sample.times.clone(), sample.quantities.clone());
        sample.control = Some(control);
        sample.bytes_per_connection = Some(82.5);
        sample.dropped.insert("tx_full".into(), 3);
        sample.parts.insert("preparation".into(), figures);
        sample
    }

    #[test]
    fn results_are_as_the_schema_says() {
        let (schema, value) = (schema(), serde_json::to_value([sample()]).unwrap());
        assert_eq!(differs(&value, &schema, &schema, "results"), None);
        let bare = Measurement { control: None, bytes_per_connection: None, ..sample() };
        assert_eq!(differs(&serde_json::to_value([bare]).unwrap(), &schema, &schema, "results"), None);
        let back: Vec<Measurement> = serde_json::from_value(value).unwrap();
        assert_eq!(back, [sample()]);
    }

    #[test]
    fn the_schema_refuses_other_things() {
        let schema = schema();
        let good = serde_json::to_value([sample()]).unwrap();
        let broken = |change: fn(&mut Value)| {
            let mut value = good.clone();
            change(&mut value[0]);
            differs(&value, &schema, &schema, "results")
        };
        assert_eq!(broken(|one| one["more"] = json!(1)).unwrap(), "results[0].more is unknown");
        assert_eq!(
            broken(|one| one["name"] = json!(1)).unwrap(),
            "results[0].name is not of type \"string\""
        );
        assert_eq!(broken(|one| one["dropped"]["x"] = json!(-1)).unwrap(), "results[0].dropped.x is below 0");
        assert!(broken(|one| one["control"]["ratio"] = Value::Null).is_some());
        assert!(broken(|one| one["times"]["latency"]["p99"] = json!(1.5)).is_some());
        assert!(broken(|one| one["quantities"]["x"] = json!("fast")).is_some());
        assert!(broken(|one| drop(one.as_object_mut().unwrap().remove("machine"))).is_some());
    }

    #[test]
    fn kept_figures_are_as_the_schema_says() {
        let schema = schema();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance");
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
                assert_eq!(differs(&value, &schema, &schema, &path.display().to_string()), None);
            }
        }
    }
}
