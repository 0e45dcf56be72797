//! Arguments of `uvs-perf control`.

use super::Output;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ControlArguments {
    /// Virtual services, all on one address
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) services: u32,
    /// Destinations of each service
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) destinations: u16,
    /// Flows that are forwarded meanwhile
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) flows: u64,
    /// Milliseconds from one single change to the next
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) pause: u64,
    /// Times that everything is applied from nothing
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) applies: u32,
    /// Length of all windows of one kind together
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = super::seconds)]
    pub(crate) seconds: f64,
    /// Windows of each kind
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = super::windows)]
    pub(crate) windows: usize,
    /// CPU of the worker [default: the last one]
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
    /// The director to measure [default: the uvsd beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) uvsd: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}
