//! The command line: one file for the arguments of each command.

mod connections;
mod control;
mod engine;
mod flood;
mod forward;
mod rates;
mod report;
mod scaling;
mod selftest;
mod traffic;

use clap::{Args, Parser, Subcommand};
pub(crate) use connections::ConnectionsArguments;
pub(crate) use control::ControlArguments;
use dataplane::snapshot::SchedulerKind;
pub(crate) use engine::EngineArguments;
pub(crate) use flood::FloodArguments;
pub(crate) use forward::{ForwardArguments, Link, RunArguments, Spread};
pub(crate) use rates::{LatencyArguments, LinkArguments, NdrArguments};
pub(crate) use report::ReportArguments;
pub(crate) use scaling::{ScalingArguments, SteeringArgument, TracedArguments};
pub(crate) use selftest::SelftestArguments;
use std::path::PathBuf;
pub(crate) use traffic::TrafficArguments;

/// Honest measurements of the uvs director.
#[derive(Debug, Parser)]
#[command(name = "uvs-perf", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One command a question.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How many packets does the real uvsd forward for each second of a CPU, beside dpdk-testpmd?
    Forward(ForwardArguments),
    /// What does a packet cost in the engine alone, whatever the number of connections?
    Engine(EngineArguments),
    /// What does a new connection cost from its first packet to its expiry, among so many others?
    Connections(ConnectionsArguments),
    /// What do established connections suffer while SYNs of no one fill the table?
    Flood(FloodArguments),
    /// What does a packet cost with 1 worker and with 64, and what do workers take from each other?
    Scaling(ScalingArguments),
    /// How long do changes take in the real uvsd, and what does its worker suffer from them?
    Control(ControlArguments),
    /// What rate does the real uvsd take without loss (RFC 2544), beside dpdk-testpmd, or by a generator on bare metal?
    Ndr(NdrArguments),
    /// How long is a packet on its way through the real uvsd, beside dpdk-testpmd, or by a generator on bare metal?
    Latency(LatencyArguments),
    /// Part of `scaling --lines`.
    #[command(hide = true)]
    Traced(TracedArguments),
    /// Do packets come to the queue, and connections to the worker, that the NIC's hash is predicted to choose?
    Selftest(SelftestArguments),
    /// Draw results of earlier runs on one page.
    Report(ReportArguments),
}

impl Command {
    /// Where its results go, if it measures.
    pub(crate) const fn output(&self) -> Option<&Output> {
        match self {
            Self::Forward(arguments) => Some(&arguments.output),
            Self::Engine(arguments) => Some(&arguments.output),
            Self::Connections(arguments) => Some(&arguments.output),
            Self::Flood(arguments) => Some(&arguments.output),
            Self::Scaling(arguments) => Some(&arguments.output),
            Self::Control(arguments) => Some(&arguments.output),
            Self::Ndr(arguments) => Some(&arguments.output),
            Self::Latency(arguments) => Some(&arguments.output),
            Self::Selftest(arguments) => Some(&arguments.output),
            Self::Report(_) | Self::Traced(_) => None,
        }
    }
}

/// Where results go beside the terminal, and which windows count.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Write results as JSON (perf/schema/results.schema.json)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Count windows in which a poller had at least so much of its CPU; below 93 figures say little
    #[arg(long, value_name = "PERCENT", default_value_t = crate::window::LEAST_PERCENT, value_parser = percent)]
    pub(crate) least_share: f64,

    /// Write a page with plots, DIR/index.html
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
}

fn burst(text: &str) -> Result<usize, String> {
    crate::traffic::within(text, 1, dataplane::pipeline::BURST)
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("give a percentage from 0 to 100".to_owned()),
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.1..=1000.0).contains(&value) => Ok(value),
        _ => Err("give a number from 0.1 to 1000".to_owned()),
    }
}

fn scheduler(text: &str) -> Result<SchedulerKind, String> {
    let known = SchedulerKind::ALL.into_iter().find(|kind| kind.name() == text);
    known.ok_or_else(|| {
        let names: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("there are {}", names.join(", "))
    })
}

fn windows(text: &str) -> Result<usize, String> {
    crate::traffic::within(text, 1, 1000)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.01..=86_400.0).contains(&value) => Ok(value),
        _ => Err("give seconds from 0.01 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn several_numbers_of_flows_are_several_measurements() {
        let cli = Cli::parse_from(["uvs-perf", "engine", "--flows", "1000,65536"]);
        let Command::Engine(arguments) = cli.command else { panic!("not engine") };
        assert_eq!(arguments.flows, [1000, 65536]);
    }

    #[test]
    fn a_report_is_of_several_files() {
        let cli = Cli::parse_from(["uvs-perf", "report", "--json", "a.json", "b.json", "--report", "page"]);
        let Command::Report(arguments) = cli.command else { panic!("not report") };
        assert_eq!((arguments.json.len(), arguments.report.to_str()), (2, Some("page")));
        assert!(Cli::try_parse_from(["uvs-perf", "report", "--report", "page"]).is_err());
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for wrong in [
            ["--frame", "59"],
            ["--frame", "1501"],
            ["--seconds", "0"],
            ["--windows", "0"],
            ["--workers", "0"],
        ] {
            assert!(Cli::try_parse_from(["uvs-perf", "forward"].iter().chain(&wrong)).is_err(), "{wrong:?}");
        }
        assert!(Cli::try_parse_from(["uvs-perf", "engine", "--burst", "33"]).is_err());
        let error =
            Cli::try_parse_from(["uvs-perf", "connections", "--scheduler", "best"]).unwrap_err().to_string();
        assert!(error.contains("rr, wrr, lc, wlc"), "{error}");
        assert!(Cli::try_parse_from(["uvs-perf", "flood", "--times", "0"]).is_err());
    }
}
