//! The measured run: the real `uvsd`.

use super::configuration;
use super::devices::Devices;
use super::plan::Plan;
use super::poller::Poller;
use crate::child::{Program, TemporaryDirectory};
use crate::client::Client;
use crate::interrupt::Interrupt;
use crate::machine::worker_threads;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long it may take to start, and to open all connections.
const START: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(60);
const GRAIN: Duration = Duration::from_millis(50);
/// Established traffic: so long without a new connection.
const QUIET: Duration = Duration::from_millis(300);

/// A running director.
#[derive(Debug)]
pub(crate) struct Director {
    program: Program,
    client: Client,
    threads: Vec<u32>,
}

/// What a director has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    counters: BTreeMap<String, u64>,
    /// By reason.
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Counts {
    /// From the answer to `stats`.
    pub(crate) fn read(stats: &Value) -> Result<Self> {
        Ok(Self { counters: list(stats, "counters")?, drops: list(stats, "drops")? })
    }

    /// A counter.
    pub(crate) fn get(&self, name: &str) -> Result<u64> {
        self.counters.get(name).copied().with_context(|| format!("the director does not count `{name}`"))
    }

    /// Packets dropped since `earlier`, reasons without any left out.
    pub(crate) fn drops_since(&self, earlier: &Self) -> BTreeMap<String, u64> {
        let since = |(name, count): (&String, &u64)| {
            let count = count - earlier.drops.get(name).copied().unwrap_or(0);
            (count > 0).then(|| (name.clone(), count))
        };
        self.drops.iter().filter_map(since).collect()
    }
}

fn list(stats: &Value, name: &str) -> Result<BTreeMap<String, u64>> {
    let items = stats[name].as_array().with_context(|| format!("the director's stats have no {name}"))?;
    let item = |item: &Value| Some((item["name"].as_str()?.to_owned(), item["value"].as_u64()?));
    Ok(items.iter().filter_map(item).collect())
}

impl Director {
    /// Starts it and waits until it answers.
    pub(crate) fn start(
        uvsd: &Path,
        plan: &Plan,
        devices: &Devices,
        directory: &TemporaryDirectory,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let (configuration, control) = (directory.join("uvs.toml"), directory.join("control"));
        std::fs::write(&configuration, configuration::text(plan, devices, &control))
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let mut command = Command::new(uvsd);
        command.arg("--config").arg(&configuration).env_remove("UVS_CONTROL");
        let missing = "build it with `cargo build --release`, or name another with --uvsd PATH";
        let mut program = Program::start(&mut command, &directory.join("uvsd.log"), missing)?;
        let socket = control.join("control.sock");
        let deadline = Instant::now() + START;
        let (client, threads) = loop {
            let late = Instant::now() > deadline;
            match Client::connect(&socket) {
                Ok(client) => {
                    // It may answer before its workers run.
                    let threads = worker_threads(program.id())?;
                    if threads.len() == plan.cpus.len() {
                        break (client, threads);
                    }
                    if late {
                        bail!("uvsd has {} worker threads, not {}", threads.len(), plan.cpus.len());
                    }
                }
                Err(error) if late => return Err(error.context("uvsd does not answer")),
                Err(_) => {}
            }
            program.check()?;
            interrupt.sleep(GRAIN)?;
        };
        Ok(Self { program, client, threads })
    }

    /// What it has counted by now.
    pub(crate) fn counts(&mut self) -> Result<Counts> {
        Counts::read(&self.stats()?)
    }

    /// Its statistics, without those of every destination.
    pub(crate) fn stats(&mut self) -> Result<Value> {
        self.client.call("stats", &json!({ "destinations": false }))
    }

    /// Its control socket.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Waits until every flow has its connection, so that windows see established traffic alone.
    pub(crate) fn warm_up(
        &mut self,
        flows: u64,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> Result<()> {
        let start = Instant::now();
        let (mut misses, mut since) = (u64::MAX, start);
        loop {
            self.check()?;
            let counts = self.counts()?;
            let opened = counts.get("connections_opened")?;
            if counts.get("misses")? != misses {
                (misses, since) = (counts.get("misses")?, Instant::now());
            } else if opened >= flows && since.elapsed() >= QUIET && counts.get("forwarded")? > 0 {
                return Ok(());
            }
            if start.elapsed() > WARM_UP {
                bail!(
                    "after {} s {opened} of {flows} flows have a connection, {} packets were forwarded, and dropped were: \
                     {:?}",
                    WARM_UP.as_secs(),
                    counts.get("forwarded")?,
                    counts.drops_since(&Counts::default())
                );
            }
            progress.far("connections", opened, flows);
            interrupt.sleep(GRAIN)?;
        }
    }

    /// Ends it.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.program.end()
    }
}

impl Poller for Director {
    fn packets(&mut self) -> Result<u64> {
        self.counts()?.get("transmitted")
    }

    fn process(&self) -> u32 {
        self.program.id()
    }

    fn threads(&self) -> &[u32] {
        &self.threads
    }

    fn check(&mut self) -> Result<()> {
        self.program.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_drops_compared() {
        let stats = |full: u64| {
            json!({
                "counters": [{ "name": "transmitted", "value": 9, "meaning": "" }],
                "drops": [{ "name": "tx_full", "value": full, "meaning": "" }, { "name": "segments", "value": 0 }],
            })
        };
        let (before, after) = (Counts::read(&stats(2)).unwrap(), Counts::read(&stats(5)).unwrap());
        assert_eq!(after.get("transmitted").unwrap(), 9);
        assert!(after.get("nothing").is_err());
        assert_eq!(after.drops_since(&before), BTreeMap::from([("tx_full".to_owned(), 3)]));
        assert!(Counts::read(&json!({})).is_err());
    }
}
