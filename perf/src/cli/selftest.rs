//! Arguments of `uvs-perf selftest`.

use super::{Output, RunArguments};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct SelftestArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// How long packets are counted
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = super::seconds)]
    pub(crate) seconds: f64,
    #[command(flatten)]
    pub(crate) output: Output,
}
