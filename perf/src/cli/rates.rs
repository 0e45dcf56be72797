//! Arguments of `uvs-perf ndr` and `uvs-perf latency`.

use super::Output;
use clap::Args;
use std::path::PathBuf;

/// The no-drop rate.
#[derive(Debug, Args)]
pub(crate) struct NdrArguments {
    /// Generator, ports, cores and traffic (docs/performance/profile.toml)
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: PathBuf,
    /// How closely the rate is to be known, in percent of the link's speed
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
    /// Generator, ports, cores and traffic (docs/performance/profile.toml)
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: PathBuf,
    /// At this rate alone, in percent of the link's speed [default: the profile's rates]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) rate: Option<f64>,
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
        Ok(value) if (0.0..=10.0).contains(&value) => Ok(value),
        _ => Err("give a percentage from 0 to 10".to_owned()),
    }
}
