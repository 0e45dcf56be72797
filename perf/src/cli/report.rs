//! Arguments of `uvs-perf report`.

use clap::Args;
use std::path::PathBuf;

/// What to draw, and where.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// Results that earlier runs wrote with --json
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub(crate) json: Vec<PathBuf>,

    /// Where the page goes, DIR/index.html
    #[arg(long, value_name = "DIR")]
    pub(crate) report: PathBuf,
}
