//! `uvs-generator`: what `uvs-perf` puts at the far end of a link.

mod capture;
mod link;

use anyhow::{Context, Result, bail};
use clap::Parser;
use generator::{Order, READY};
use link::Link;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Sends the frames of capture files over a DPDK port at a steady rate, each with its time in it, and measures those that come back.
/// Reads orders from standard input and answers on standard output, a line of JSON each; `uvs-perf latency` and `uvs-perf ndr` give
/// them.
#[derive(Debug, Parser)]
#[command(name = "uvs-generator", version)]
struct Arguments {
    /// The port: a vdev with its arguments, or a PCI address
    #[arg(long, value_name = "DEVICE")]
    device: String,
    /// Capture files, one frame of each flow; orders name them by number
    #[arg(long, value_name = "FILE", required = true)]
    file: Vec<PathBuf>,
    /// The CPU to poll on
    #[arg(long, value_name = "CPU")]
    cpu: u32,
    /// EAL memory
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory: u32,
    /// Memory on ordinary pages
    #[arg(long)]
    no_hugepages: bool,
    /// Descriptors of either queue
    #[arg(long, value_name = "N", default_value_t = 1024)]
    descriptors: u16,
    /// What EAL is to be told besides
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    eal: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uvs-generator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let files = arguments.file.iter().map(|path| capture::read(path)).collect::<Result<Vec<_>>>()?;
    let mut link = Link::start(arguments, files)?;
    say(READY)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read orders")?;
        let order: Order =
            serde_json::from_str(&line).with_context(|| format!("this is no order: {line}"))?;
        if !(order.seconds > 0.0 && order.seconds <= 3600.0) || order.rate.is_some_and(|rate| rate < 1.0) {
            bail!(
                "runs take more than 0 and at most 3600 s, and rates are at least 1 packet a second: {line}"
            );
        }
        say(&serde_json::to_string(&link.run(&order)?)?)?;
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("nobody hears the answers")
}
