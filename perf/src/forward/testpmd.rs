//! `dpdk-testpmd`: as the control run, swapping MAC addresses on the same devices with no table and no decision; and as the program
//! that sends, at the far end of a link.

use super::devices::Devices;
use super::metal::has_pci;
use super::plan::Plan;
use super::poller::Poller;
use crate::child::Program;
use crate::cli::Link;
use crate::interrupt::Interrupt;
use crate::machine::worker_threads;
use crate::profile::is_pci;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Program's name.
const TESTPMD: &str = "dpdk-testpmd";
/// How long it may take to start, and to answer.
const START: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(5);
/// How often its output is looked at.
const GRAIN: Duration = Duration::from_millis(1);

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends every frame back where it came from, with its MAC addresses swapped.
    Control,
    /// Carries frames from a file to the link, and what comes back to nowhere.
    Generator,
}

/// A running testpmd.
#[derive(Debug)]
pub(crate) struct Testpmd {
    program: Program,
    threads: Vec<u32>,
}

impl Testpmd {
    /// Starts it and its forwarding.
    pub(crate) fn start(
        role: Role,
        plan: &Plan,
        devices: &Devices,
        log: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        // Through a pipe its output would come in blocks of 4 KiB.
        let mut command = Command::new("stdbuf");
        command.arg("-oL").arg(role.program(plan)).args(arguments(role, plan, devices));
        let missing = "install the package coreutils";
        let mut testpmd = Self { program: Program::start(&mut command, log, missing)?, threads: Vec::new() };
        testpmd.wait_for(0, "testpmd>", START, interrupt).map_err(teach)?;
        testpmd.program.type_line("start")?;
        testpmd.wait_for(0, "packet forwarding packets/burst", ANSWER, interrupt)?;
        testpmd.threads = worker_threads(testpmd.program.id())?;
        let threads = role.cpus(plan).len();
        if testpmd.threads.len() != threads {
            bail!("{TESTPMD} has {} worker threads, not {threads}", testpmd.threads.len());
        }
        Ok(testpmd)
    }

    /// Ends it.
    pub(crate) fn end(&mut self) -> Result<()> {
        // Its own way out; one that has hung up is ended the hard way below.
        let _ = self.program.type_line("quit");
        self.program.end()
    }

    /// Waits until its output from byte `start` on holds `text`, and returns that output.
    fn wait_for(
        &mut self,
        start: usize,
        text: &str,
        patience: Duration,
        interrupt: &Interrupt,
    ) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            let output = self.program.output();
            if let Some(answer) = output.get(start..)
                && answer.contains(text)
            {
                return Ok(answer.to_owned());
            }
            self.program.check()?;
            if Instant::now() > deadline {
                bail!("{TESTPMD} did not say `{text}` within {} s", patience.as_secs());
            }
            interrupt.sleep(GRAIN)?;
        }
    }
}

fn teach(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    if text.contains("failed to run command") && text.contains(TESTPMD) {
        anyhow::anyhow!(
            "{TESTPMD} is not there: install the package dpdk, or leave the control run out with --no-control"
        )
    } else {
        error
    }
}

impl Poller for Testpmd {
    fn packets(&mut self) -> Result<u64> {
        let start = self.program.output().len();
        self.program.type_line("show port stats all")?;
        let deadline = Instant::now() + ANSWER;
        loop {
            if let Some(packets) = self.program.output().get(start..).and_then(transmitted) {
                return Ok(packets);
            }
            self.program.check()?;
            if Instant::now() > deadline {
                bail!("{TESTPMD} does not answer");
            }
            std::thread::sleep(GRAIN);
        }
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

/// Packets sent over all ports, once an answer to `show port stats all` is complete.
fn transmitted(answer: &str) -> Option<u64> {
    let mut sum = None;
    let mut complete = false;
    for line in answer.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("TX-packets:") {
            let number: u64 = rest.split_whitespace().next()?.parse().ok()?;
            sum = Some(sum.unwrap_or(0) + number);
            complete = false;
        }
        complete |= sum.is_some() && line.len() > 40 && line.bytes().all(|byte| byte == b'#');
    }
    sum.filter(|_| complete)
}

impl Role {
    /// CPUs it polls on.
    fn cpus(self, plan: &Plan) -> Vec<usize> {
        match self {
            Self::Control => plan.cpus.clone(),
            Self::Generator => {
                vec![plan.metal.as_ref().map_or_else(|| plan.housekeeping_cpu(), |metal| metal.far_cpus[1])]
            }
        }
    }

    /// Its program: a profile may name the sender's.
    fn program(self, plan: &Plan) -> &Path {
        let named = plan.metal.as_ref().filter(|_| self == Self::Generator);
        named.map_or_else(|| Path::new(TESTPMD), |metal| &metal.profile.generator.program)
    }

    /// Where nobody else polls, if there is such a CPU.
    fn main_cpu(self, plan: &Plan) -> usize {
        match (self, &plan.metal) {
            (Self::Generator, Some(metal)) => metal.far_cpus[0],
            _ => plan.housekeeping_cpu(),
        }
    }
}

fn arguments(role: Role, plan: &Plan, devices: &Devices) -> Vec<String> {
    let (ports, eal, name, mode): (&[String], _, _, _) = match role {
        Role::Control => (&devices.ports, devices.eal, "control", "macswap"),
        Role::Generator => (&devices.generator, devices.generator_eal, "generator", "io"),
    };
    let cpus = role.cpus(plan);
    let mut arguments = vec![
        format!("--lcores={}", lcores(role.main_cpu(plan), &cpus)),
        "--no-telemetry".to_owned(),
        format!("--file-prefix=uvs-perf-{name}-{}", std::process::id()),
        "-m".to_owned(),
        plan.memory_mib().to_string(),
    ];
    arguments.extend(
        ports.iter().map(|port| if is_pci(port) { format!("-a={port}") } else { format!("--vdev={port}") }),
    );
    if !has_pci(ports) {
        arguments.push("--no-pci".to_owned());
    }
    arguments.extend(eal.iter().map(|argument| (*argument).to_owned()));
    if let Some(metal) = plan.metal.as_ref().filter(|_| role == Role::Generator) {
        arguments.extend(metal.profile.generator.eal.iter().cloned());
    }
    if plan.hugepages {
        arguments.extend(["--in-memory", "--iova-mode=va"].map(str::to_owned));
    } else {
        arguments.push("--no-huge".to_owned());
    }
    // A NIC has a queue for each of the director's workers; who sends to it needs one alone.
    let queues = if role == Role::Generator && plan.link == Link::Pci { 1 } else { plan.cpus.len() };
    let topology = if role == Role::Control { "loop" } else { "paired" };
    arguments.extend(["--", "-i", "--no-flush-rx", "--burst=32"].map(str::to_owned));
    arguments.extend([
        format!("--forward-mode={mode}"),
        format!("--port-topology={topology}"),
        format!("--nb-cores={}", cpus.len()),
        format!("--rxq={queues}"),
        format!("--txq={queues}"),
        format!("--total-num-mbufs={}", plan.buffers()),
    ]);
    if plan.link == Link::Pci && role == Role::Control {
        arguments.push("--rss-udp".to_owned());
    }
    if role == Role::Generator {
        arguments.push(format!("--portlist={}", numbers(ports).join(",")));
    }
    if let Some(descriptors) = devices.descriptors {
        arguments.extend([format!("--rxd={descriptors}"), format!("--txd={descriptors}")]);
    }
    arguments
}

/// The ports' numbers: those behind PCI come first, by their addresses, whatever the order in which they were given.
fn numbers(ports: &[String]) -> Vec<String> {
    let (mut order, vdevs): (Vec<&String>, Vec<&String>) = ports.iter().partition(|port| is_pci(port));
    order.sort();
    order.extend(vdevs);
    let number = |port: &String| order.iter().position(|other| *other == port).unwrap_or(0).to_string();
    ports.iter().map(number).collect()
}

/// The main lcore, and one lcore on each polling CPU.
fn lcores(main: usize, cpus: &[usize]) -> String {
    let mut text = format!("0@{main}");
    for (index, cpu) in cpus.iter().enumerate() {
        text.push_str(&format!(",{}@{cpu}", index + 1));
    }
    text
}

/// What makes the output of testpmd hard to read: kept here as it comes.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::metal::tests::metal as metal_of;
    use crate::forward::plan::tests::{nat, plan};
    use crate::traffic::Protocol;

    const ANSWER_TEXT: &str = "show port stats all\n
  ######################## NIC statistics for port 0  ########################
  RX-packets: 3168       RX-missed: 0          RX-bytes:  202752
  RX-errors: 0
  RX-nombuf:  0         
  TX-packets: 3136       TX-errors: 0          TX-bytes:  202752

  Throughput (since last show)
  Rx-pps:     29692470          Rx-bps:  15202545064
  Tx-pps:     30298439          Tx-bps:  15512801088
  ############################################################################
testpmd> ";

    #[test]
    fn an_answer_is_read_once_it_is_complete() {
        assert_eq!(transmitted(ANSWER_TEXT), Some(3136));
        let cut = ANSWER_TEXT.find("Throughput").unwrap();
        assert_eq!(transmitted(&ANSWER_TEXT[..cut]), None);
        assert_eq!(transmitted(&format!("{ANSWER_TEXT}\n{ANSWER_TEXT}")), Some(2 * 3136));
        assert_eq!(transmitted("testpmd> "), None);
    }

    #[test]
    fn arguments_follow_the_plan() {
        let arguments = |role, plan: &Plan| arguments(role, plan, &plan.devices(Path::new("/x"))).join(" ");
        let text = arguments(Role::Control, &plan(2, true));
        assert!(text.contains("--lcores=0@0,1@0,2@1"), "{text}");
        assert!(text.contains("--in-memory") && text.contains("--rxq=2 --txq=2"), "{text}");
        let text = arguments(Role::Control, &plan(1, false));
        assert!(text.contains("--lcores=0@0,1@1") && text.contains("--no-huge"), "{text}");
        assert!(!text.contains("--in-memory"), "22.11 does not take both");
        let vhost = Plan { link: Link::Vhost, ..plan(1, true) };
        let text = arguments(Role::Generator, &vhost);
        assert!(text.contains("--vdev=net_pcap0,") && text.contains("--vdev=net_vhost0,"), "{text}");
        assert!(text.contains("--lcores=0@0,1@0") && text.contains("--forward-mode=io"), "{text}");
        assert!(arguments(Role::Control, &vhost).contains("--vdev=net_virtio_user0,"));
    }

    #[test]
    fn a_sender_on_nics_follows_the_profile() {
        let metal = |text: String| {
            text.replace("\"0000:af:00.0\"", "\"0000:af:00.0\", \"0000:af:00.1\"")
                .replace("# servers_mac", "servers_mac")
                .replace("program = \"pktgen\"", "program = \"/opt/dpdk-testpmd\"")
                .replace("# eal = ", "eal = ")
        };
        let metal = metal_of(metal).unwrap();
        let plan = Plan {
            link: Link::Pci,
            cpus: vec![4, 5],
            machine_cpus: 8,
            metal: Some(metal),
            ..nat(Protocol::Udp)
        };
        plan.check().unwrap();
        let devices = plan.devices(Path::new("/x"));
        let text = arguments(Role::Generator, &plan, &devices).join(" ");
        for expected in [
            "--lcores=0@1,1@2",
            "--vdev=net_pcap0,rx_pcap=/x/requests-0.pcap,infinite_rx=1 -a=0000:3b:00.0",
            "--vdev=net_pcap1,rx_pcap=/x/replies-0.pcap,infinite_rx=1 -a=0000:3b:00.1 --socket-mem=1024",
            "--rxq=1 --txq=1",
            "--portlist=2,0,3,1",
            "--forward-mode=io --port-topology=paired",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("--no-pci") && !text.contains("--rss"), "{text}");
        assert_eq!(Role::Generator.program(&plan), Path::new("/opt/dpdk-testpmd"));
        let text = arguments(Role::Control, &plan, &devices).join(" ");
        assert!(
            text.contains("-a=0000:af:00.0 -a=0000:af:00.1") && text.contains("--rxq=2 --txq=2"),
            "{text}"
        );
        assert!(text.contains("--rss-udp") && text.contains("--lcores=0@0,1@4,2@5"), "{text}");
        assert_eq!(Role::Control.program(&plan), Path::new(TESTPMD));
    }

    #[test]
    fn a_missing_testpmd_is_said_with_its_package() {
        let error =
            anyhow::anyhow!("stdbuf: failed to run command 'dpdk-testpmd': No such file or directory");
        assert!(teach(error).to_string().contains("package dpdk"));
    }
}
