//! Arguments of `uvs-perf ndr` and `uvs-perf latency`.

use super::{Link, Output, TrafficArguments};
use clap::Args;
use std::path::PathBuf;

/// What only a link on this machine has, by its arguments' names.
const OF_A_LINK: [&str; 16] = [
    "link",
    "mode",
    "tunnel",
    "direction",
    "flows",
    "services",
    "destinations",
    "frame",
    "protocol",
    "ipv6",
    "cpu",
    "seconds",
    "windows",
    "no_control",
    "uvsd",
    "generator",
];

/// A link on this machine, with the director at one end and `uvs-generator` at the other.
#[derive(Debug, Args)]
pub(crate) struct LinkArguments {
    #[command(flatten)]
    pub(crate) traffic: TrafficArguments,
    /// What lies between the director and uvs-generator, which polls a CPU of its own: vhost or memif
    #[arg(long, value_enum, default_value = "vhost")]
    pub(crate) link: Link,
    /// The director's CPU; the generator takes another [default: the last one]
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
    /// Leave dpdk-testpmd out
    #[arg(long)]
    pub(crate) no_control: bool,
    /// The director to measure [default: the uvsd beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) uvsd: Option<PathBuf>,
    /// The program at the far end [default: the uvs-generator beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) generator: Option<PathBuf>,
}

/// The no-drop rate.
#[derive(Debug, Args)]
pub(crate) struct NdrArguments {
    /// On bare metal instead: generator, ports, cores and traffic (docs/performance/profile.toml)
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_A_LINK)]
    pub(crate) profile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) link: LinkArguments,
    /// Length of the windows of one trial together
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = super::seconds)]
    pub(crate) seconds: f64,
    /// Windows of a trial, none of which may lose packets
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = super::windows)]
    pub(crate) windows: usize,
    /// How closely the rate is to be known, in percent of the link's speed, or of what comes through a link on this machine at most
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, value_parser = percent)]
    pub(crate) resolution: f64,
    /// Loss that counts as none, in percent of the packets sent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = loss)]
    pub(crate) loss: f64,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Latency percentiles.
#[derive(Debug, Args)]
pub(crate) struct LatencyArguments {
    /// On bare metal instead: generator, ports, cores and traffic (docs/performance/profile.toml)
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_A_LINK)]
    pub(crate) profile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) link: LinkArguments,
    /// At this rate alone, in percent of the link's speed [default: the profile's rates]; on a link of this machine in percent of
    /// what the slower of uvsd and dpdk-testpmd carries [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) rate: Option<f64>,
    /// At this rate instead
    #[arg(long, value_name = "N", value_parser = rate, conflicts_with_all = ["rate", "profile"])]
    pub(crate) packets_per_second: Option<f64>,
    /// Length of all windows of the director together; the control run takes as long
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = super::seconds)]
    pub(crate) seconds: f64,
    /// Windows
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = super::windows)]
    pub(crate) windows: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.01..=100.0).contains(&value) => Ok(value),
        _ => Err("give a percentage from 0.01 to 100".to_owned()),
    }
}

fn loss(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=99.0).contains(&value) => Ok(value),
        _ => Err("give a percentage from 0 to 99".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (1.0..=1e9).contains(&value) => Ok(value),
        _ => Err("give packets a second, 1 to 1e9".to_owned()),
    }
}
