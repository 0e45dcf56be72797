//! `uvs-generator`, at the far end of the link.

use crate::child::{Program, TemporaryDirectory};
use crate::forward::devices::Devices;
use crate::forward::plan::Plan;
use crate::interrupt::Interrupt;
use anyhow::{Context, Result, bail};
use generator::{Order, Outcome, READY};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long it may take to start, and to answer beyond a run's own time.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often its answer is looked for: after a run, so that nobody is disturbed in one.
const GRAIN: Duration = Duration::from_millis(2);
/// Signals are looked for so often in a run.
const DOZE: Duration = Duration::from_millis(250);
/// EAL memory, in MiB.
pub(super) const MEMORY_MIB: u64 = 256;

/// A running generator.
#[derive(Debug)]
pub(super) struct Generator {
    program: Program,
    /// Bytes of its output that were read.
    read: usize,
}

impl Generator {
    /// Starts it at the far end of the link.
    pub(super) fn start(
        path: &Path,
        plan: &Plan,
        devices: &Devices,
        directory: &TemporaryDirectory,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let mut command = Command::new(path);
        command.args(arguments(plan, devices, directory.path())?);
        let missing = "build it with `cargo build --release`, or name another with --generator PATH";
        let program = Program::start(&mut command, &directory.join("generator.log"), missing)?;
        let mut generator = Self { program, read: 0 };
        let answer = generator.answer(interrupt)?;
        if answer != READY {
            bail!("uvs-generator says {answer} before anything was asked");
        }
        Ok(generator)
    }

    /// Has it send and receive.
    pub(super) fn run(&mut self, order: &Order, interrupt: &Interrupt) -> Result<Outcome> {
        self.program.type_line(&serde_json::to_string(order)?)?;
        let end = Instant::now() + Duration::from_secs_f64(order.seconds);
        while let left = end.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            interrupt.check()?;
            std::thread::sleep(left.min(DOZE));
        }
        let answer = self.answer(interrupt)?;
        serde_json::from_str(&answer).with_context(|| format!("uvs-generator answered {answer}"))
    }

    /// Its next line of JSON; other lines are DPDK's.
    fn answer(&mut self, interrupt: &Interrupt) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.program.output();
            while let Some((line, _)) = output.get(self.read..).and_then(|rest| rest.split_once('\n')) {
                self.read += line.len() + 1;
                if line.starts_with('{') {
                    return Ok(line.to_owned());
                }
            }
            self.program.check()?;
            if Instant::now() > deadline {
                bail!("uvs-generator did not answer within {} s", PATIENCE.as_secs());
            }
            interrupt.check()?;
            std::thread::sleep(GRAIN);
        }
    }

    /// Ends it.
    pub(super) fn end(&mut self) -> Result<()> {
        self.program.end()
    }
}

fn arguments(plan: &Plan, devices: &Devices, directory: &Path) -> Result<Vec<String>> {
    let device = devices.generator.last().context("a link with one end")?;
    let mut arguments = vec![
        format!("--device={device}"),
        format!("--cpu={}", plan.housekeeping_cpu()),
        format!("--memory={MEMORY_MIB}"),
    ];
    arguments.extend(plan.files(directory).concat().iter().map(|file| format!("--file={}", file.display())));
    arguments.extend(devices.generator_eal.iter().map(|argument| format!("--eal={argument}")));
    if let Some(descriptors) = devices.descriptors {
        arguments.push(format!("--descriptors={descriptors}"));
    }
    if !plan.hugepages {
        arguments.push("--no-hugepages".to_owned());
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Link;
    use crate::forward::plan::tests::plan;

    #[test]
    fn it_is_given_the_far_end_and_the_file() {
        for (link, device, eal) in
            [(Link::Vhost, "net_vhost0,", false), (Link::Memif, "net_memif0,role=client,", true)]
        {
            let plan = Plan { link, ..plan(1, false) };
            let text = arguments(&plan, &plan.devices(Path::new("/x")), Path::new("/x")).unwrap().join(" ");
            assert!(text.contains(&format!("--device={device}")), "{text}");
            assert!(text.contains("--cpu=0 ") && text.contains("--file=/x/requests-0.pcap"), "{text}");
            assert_eq!(text.contains("--eal=--single-file-segments"), eal, "{text}");
            assert!(text.contains("--no-hugepages"), "{text}");
        }
    }
}
