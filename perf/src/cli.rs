//! The command line.

use crate::traffic::Protocol;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

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
}

/// How packets reach the real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// VS/DR: new MAC addresses, the packet as it is.
    Dr,
}

/// Where packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Link {
    /// DPDK's net_pcap replays a capture file for ever, and drops what is sent.
    Pcap,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArguments {
    /// Forwarding method
    #[arg(long, value_enum, default_value = "dr")]
    pub(crate) mode: Mode,
    /// Flows, each with its own client address and port; several numbers are several measurements
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_value = "1024")]
    pub(crate) flows: Vec<u64>,
    /// Virtual services, all on one address
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) services: u32,
    /// Destinations of each service
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) destinations: u16,
    /// Length of a frame in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = frame)]
    pub(crate) frame: usize,
    /// Transport protocol; TCP flows are picked up as established ones (sloppy_tcp)
    #[arg(long, value_enum, default_value = "udp")]
    pub(crate) protocol: Protocol,
    /// IPv6 instead of IPv4
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Workers of the director
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) workers: u8,
    /// A CPU for each worker [default: the last ones]
    #[arg(long, value_name = "CPU[,CPU…]", value_delimiter = ',')]
    pub(crate) cpus: Option<Vec<usize>>,
    /// Where packets come from
    #[arg(long, value_enum, default_value = "pcap")]
    pub(crate) link: Link,
    /// Length of all windows of the director together; the control run takes as long
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Windows
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = windows)]
    pub(crate) windows: usize,
    /// Leave dpdk-testpmd out
    #[arg(long)]
    pub(crate) no_control: bool,
    /// The director to measure [default: the uvsd beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) uvsd: Option<PathBuf>,
    /// Write results as JSON (perf/schema/results.schema.json)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct EngineArguments {
    /// Established flows, met in random order; several numbers are several measurements
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_value = "1000,65536,1048576")]
    pub(crate) flows: Vec<u64>,
    /// Transport protocol
    #[arg(long, value_enum, default_value = "tcp")]
    pub(crate) protocol: Protocol,
    /// IPv6 instead of IPv4
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Virtual services, all on one address
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) services: u32,
    /// Destinations of each service
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) destinations: u16,
    /// Packets the engine gets at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = burst)]
    pub(crate) burst: usize,
    /// Length of all windows of one kind together
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Windows of each kind
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = windows)]
    pub(crate) windows: usize,
    /// Where to run [default: the last CPU]
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
    /// Write results as JSON (perf/schema/results.schema.json)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

fn within(text: &str, low: usize, high: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("give a whole number from {low} to {high}")),
    }
}

fn frame(text: &str) -> Result<usize, String> {
    within(text, 60, 1500)
}

fn burst(text: &str) -> Result<usize, String> {
    within(text, 1, dataplane::pipeline::BURST)
}

fn windows(text: &str) -> Result<usize, String> {
    within(text, 1, 1000)
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
    }
}
