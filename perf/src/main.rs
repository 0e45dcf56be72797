//! `uvs-perf`: honest measurements of the director. Each command answers one question, beside a control run.

mod changes;
mod child;
mod cli;
mod client;
mod connections;
mod engine;
mod flood;
mod forward;
mod interrupt;
mod lab;
mod link;
mod machine;
mod pcap;
mod profile;
mod progress;
mod rates;
mod report;
mod results;
mod scaling;
#[cfg(test)]
mod schema;
mod selftest;
mod table;
mod times;
mod traffic;
mod window;

use anyhow::Result;
use clap::Parser;
use cli::{Cli, Command};
use interrupt::{Interrupt, Interrupted};
use results::Measurement;
use std::path::Path;
use std::process::ExitCode;

/// As a shell reports a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("uvs-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    if let Some(output) = cli.command.output() {
        window::require(output.least_share);
    }
    let mut results = match &cli.command {
        Command::Forward(arguments) => forward::run(arguments, &interrupt)?,
        Command::Engine(arguments) => engine::run(arguments, &interrupt)?,
        Command::Connections(arguments) => connections::run(arguments, &interrupt)?,
        Command::Flood(arguments) => flood::run(arguments, &interrupt)?,
        Command::Scaling(arguments) => scaling::run(arguments, &interrupt)?,
        Command::Control(arguments) => changes::run(arguments, &interrupt)?,
        Command::Ndr(arguments) => rates::ndr(arguments, &interrupt)?,
        Command::Latency(arguments) => rates::latency(arguments, &interrupt)?,
        Command::Traced(arguments) => return scaling::run_traced(arguments),
        Command::Selftest(arguments) => selftest::run(arguments, &interrupt)?,
        Command::Report(arguments) => return draw(&arguments.report, &report::read(&arguments.json)?),
    };
    let Some(output) = cli.command.output() else { return Ok(()) };
    if output.least_share < window::LEAST_PERCENT {
        for result in &mut results {
            result.parameters.insert("least_share".to_owned(), output.least_share.into());
        }
    }
    if let Some(path) = &output.json {
        results::save(path, &results)?;
    }
    output.report.as_ref().map_or(Ok(()), |directory| draw(directory, &results))?;
    selftest::verdict(&results)
}

fn draw(directory: &Path, results: &[Measurement]) -> Result<()> {
    println!("{}", report::save(directory, results)?.display());
    Ok(())
}
