//! `uvsd`: start-up in order, the publisher's loop, and the way back.
//!
//! The order matters. The NIC's own kernel is silenced before the port starts; workers run before the twin exists; routes are
//! there before anybody is asked for; virtual addresses come last, once packets to them can be forwarded, and go first.

mod backend;
mod director;
mod events;
mod latency;
mod listing;
mod reload;
mod report;
mod start;
mod twins;

pub use start::StartError;

use crate::config::{self, Config, Layers};
use crate::instance::{Signal, Signals};
use backend::Message;
use clap::Parser;
use director::Ended;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::SyncSender;

/// The director's configuration when none is named.
const DEFAULT_FILE: &str = "/etc/uvs/uvs.toml";

/// uvs: a layer-4 director (VS/DR) on DPDK.
#[derive(Debug, Parser)]
#[command(name = "uvsd", version, about)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", env = "UVSD_CONFIG")]
    config: Option<PathBuf>,
    /// Directory whose *.toml are read after the file, in the order of their names.
    #[arg(long, value_name = "DIR")]
    conf_dir: Option<PathBuf>,
    /// Sets one key, such as workers.count=2; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Checks the configuration and ends: no root, NIC or hugepages needed.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    check: Option<Option<PathBuf>>,
}

impl Arguments {
    fn layers(&self) -> Layers {
        let named = self.check.clone().flatten().or_else(|| self.config.clone());
        let default = PathBuf::from(DEFAULT_FILE);
        let file = named.or_else(|| default.exists().then_some(default));
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Layers { file, directory: self.conf_dir.clone(), environment, flags: self.set.clone() }
    }
}

/// Runs `uvsd`; the exit code is 0 after a clean end, 1 when it was refused or failed, 2 for wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let layers = arguments.layers();
    let loaded = match config::load(&layers) {
        Ok(loaded) => loaded,
        Err(findings) => {
            eprintln!("{findings}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.check.is_some() {
        print!("{}", loaded.warnings);
        println!("the configuration is in order: {}", start::summary(&loaded.config));
        return ExitCode::SUCCESS;
    }
    logging();
    for warning in loaded.warnings.to_string().lines() {
        tracing::warn!("{warning}");
    }
    match serve(&layers, &loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uvsd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn logging() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("UVSD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
}

/// From start to end.
fn serve(layers: &Layers, config: &Config) -> Result<(), StartError> {
    let signals = Signals::install().map_err(StartError::Signals)?;
    let (queue, messages) = backend::channel();
    let mut running = start::start(config, signals, &queue, &messages)?;
    let mut read = config.clone();
    let mut asked = running.asked.take();
    while asked.take().unwrap_or_else(|| running.director.run(&messages)) == Ended::Reload {
        if let Some(now) = reload::reload(&mut running.director, layers, &read) {
            read = now;
        }
    }
    running.end();
    Ok(())
}

/// SIGTERM and SIGINT end the director, SIGHUP has it read its configuration again.
fn listen_for_signals(mut signals: Signals, queue: SyncSender<Message>) -> Result<(), StartError> {
    let listen = move || {
        loop {
            let message = match signals.wait(None) {
                Ok(Some(Signal::Reload)) => Message::Reload,
                _ => Message::Stop,
            };
            let stop = matches!(message, Message::Stop);
            if queue.send(message).is_err() || stop {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("uvs-signals".to_owned());
    thread.spawn(listen).map(|_| ()).map_err(StartError::Signals)
}
