//! What `uvs-perf` really writes, held against its schema: every command that needs neither root nor DPDK, very short.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

#[path = "../src/schema.rs"]
mod schema;

/// Short windows.
const WINDOWS: [&str; 4] = ["--seconds", "0.1", "--windows", "2"];

/// Runs a command and returns its results, which are as the schema says.
fn results(name: &str, arguments: &[&str]) -> Vec<Value> {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    let ran = Command::new(env!("CARGO_BIN_EXE_uvs-perf"))
        .args(arguments)
        // Tests run beside each other: they look at the form of the figures alone.
        .args(["--least-share", "0", "--json"])
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("{error}"));
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{arguments:?}: {errors}");
    let table = String::from_utf8_lossy(&ran.stdout);
    assert!(table.lines().count() >= 2, "no table: {table}");
    let schema: Value = serde_json::from_str(include_str!("../schema/results.schema.json")).unwrap();
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(schema::differs(&written, &schema, &schema, name), None);
    written.as_array().unwrap().clone()
}

#[test]
fn engine_writes_what_the_schema_says() {
    let ways =
        [&["--mode", "dr", "--flows", "1000,2000"][..], &["--mode", "nat", "--expire"], &["--mode", "tun"]];
    for (way, name) in ways.into_iter().zip(["dr", "nat", "tun"]) {
        let mut arguments = vec!["engine", "--flows", "1000"];
        if way.contains(&"--flows") {
            arguments.truncate(1);
        }
        arguments.extend(WINDOWS);
        arguments.extend(way);
        let results = results(name, &arguments);
        assert_eq!(results[0]["name"], format!("engine {name}"));
        assert_eq!(results.len(), if name == "dr" { 2 } else { 1 });
    }
}

#[test]
fn connections_write_what_the_schema_says() {
    let lives = ["connections", "--population", "5000"].into_iter().chain(WINDOWS);
    let results_of_lives = results("lives", &lives.collect::<Vec<_>>());
    assert!(results_of_lives[0]["quantities"]["connections_per_cpu_second"].as_f64().unwrap() > 0.0);
    let full = ["connections", "--population", "5000", "--full"].into_iter().chain(WINDOWS);
    let full = results("full", &full.collect::<Vec<_>>());
    assert_eq!(full[0]["name"], "connections full");
    assert!(full[0]["dropped"]["table_full"].as_u64().unwrap() > 0);
    let half_open =
        ["connections", "--population", "5000", "--full", "--half-open"].into_iter().chain(WINDOWS);
    let half_open = results("half_open", &half_open.collect::<Vec<_>>());
    assert!(half_open[0]["quantities"]["evicted_half_open"].as_f64().unwrap() > 0.0);
    assert!(half_open[0]["dropped"].get("table_full").is_none(), "{half_open:?}");
}

#[test]
fn a_flood_evicts_none_that_is_established() {
    let arguments = ["flood", "--table", "10000", "--flows", "2000", "--destinations", "3"];
    let results = results("flood", &arguments);
    let quantity = |name: &str| results[0]["quantities"][name].as_f64().unwrap();
    assert!(quantity("established_evicted") < 1.0, "{results:?}");
    assert!(quantity("established_goodput") > 0.999, "{results:?}");
    assert!(quantity("flood_syns") >= 100_000.0, "{results:?}");
    // Some are refused while the hand passes the lines of established connections, which lie together here.
    assert!(quantity("honest_accepted") > 0.5, "{results:?}");
}

#[test]
fn scaling_writes_what_the_schema_says() {
    let arguments = ["scaling", "--workers", "1,3", "--flows", "3000", "--flows-per-worker", "500"];
    let results = results("scaling", &[&arguments[..], &WINDOWS[..]].concat());
    assert_eq!(results.len(), 4);
    let quantity = |result: usize, name: &str| results[result]["quantities"][name].as_f64().unwrap();
    for (result, workers) in [(0, 1), (1, 3), (2, 1), (3, 3)] {
        assert_eq!(results[result]["parameters"]["workers"], workers);
        assert!(quantity(result, "least_worker_ns") <= quantity(result, "greatest_worker_ns"));
        assert!(quantity(result, "redirected_share") < 1e-9, "{results:?}");
        assert_eq!(results[result]["control"]["name"], "two bare cache lines");
    }
    assert!(results[1]["parts"]["one worker alone"].is_object());
    assert!(quantity(1, "greatest_flows_over_mean") > 1.0 && quantity(1, "least_flows_over_mean") < 1.0);
    assert!(quantity(1, "redirected_client_steering_source_hash") < 1e-9);
    assert!(quantity(1, "redirected_flow_steering_no_hash") > 0.5);
}

#[test]
fn bad_arguments_are_told_with_the_mend() {
    let refusals: [(&[&str], &str); 13] = [
        (&["engine", "--mode", "dr", "--direction", "out"], "--direction out is for --mode nat"),
        (&["engine", "--tunnel", "gue"], "--tunnel is for --mode tun"),
        (&["engine", "--flows", "0"], "0 flows are not in the range"),
        (&["connections", "--mode", "nat", "--scheduler", "wlc"], "leave --scheduler rr"),
        (&["flood", "--table", "1000", "--flows", "1000"], "leave no room"),
        (&["engine", "--cpu", "4000", "--flows", "1000"], "CPU 4000"),
        (&["scaling", "--flows", "0", "--flows-per-worker", "0"], "there is nothing to measure"),
        (&["scaling", "--flows", "100", "--workers", "64"], "too few for 64 workers"),
        (&["forward", "--link", "pci"], "--profile <FILE>"),
        (&["latency", "--profile", "x", "--link", "vhost"], "cannot be used with"),
        (&["latency", "--rate", "50", "--packets-per-second", "1000"], "cannot be used with"),
        (&["latency", "--packets-per-second", "0"], "give packets a second"),
        (&["ndr", "--profile", "/nonexistent/profile"], "cannot read /nonexistent/profile"),
    ];
    for (arguments, expected) in refusals {
        let ran = Command::new(env!("CARGO_BIN_EXE_uvs-perf")).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && text.contains(expected), "{arguments:?}: {text}");
    }
}
