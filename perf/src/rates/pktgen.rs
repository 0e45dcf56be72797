//! Drives pktgen-dpdk by a script of its own: no prompt is typed at and no screen is read.
//!
//! Both versions that are known are probed by their banner. pktgen ends at once without a terminal, so it gets one; it waits for
//! ever where a script fails, and in some ends of a link, so it gets a time to end by, too.

use super::level::{Level, latencies};
use super::terminal::{Ended, Terminal};
use crate::child::TemporaryDirectory;
use crate::interrupt::Interrupt;
use crate::profile::{self, Profile, is_pci};
use anyhow::{Context, Result, bail};
use dataplane::bench::Frame;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SCRIPT: &str = include_str!("bench.lua");
/// Start, and end.
const AROUND: Duration = Duration::from_secs(60);
/// What a level takes beside its measurement: two waits for statistics.
const BESIDE: u64 = 10;
/// Longer than anybody measures, in seconds.
const FOR_EVER: u32 = 1_000_000;
/// What its script writes.
const LEVELS: &str = "levels.jsonl";
/// How long it may take to say what it is.
const PROBE: Duration = Duration::from_secs(20);
/// UDP port that latency probes go to.
pub(super) const PROBE_PORT: u16 = 1028;

/// A line of versions whose script calls are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 23.06, for DPDK 22.11.
    V2306,
    /// 24.10, for DPDK 24.11.
    V2410,
}

impl Version {
    fn parse(text: &str) -> Result<Self> {
        match text.split('.').collect::<Vec<_>>().as_slice() {
            ["23", "06", ..] => Ok(Self::V2306),
            ["24", "10", ..] => Ok(Self::V2410),
            _ => bail!("pktgen {text}: known are 23.06 (with DPDK 22.11) and 24.10 (with DPDK 24.11)"),
        }
    }

    /// From what pktgen says of itself: `Pktgen 23.06.1 (DPDK 22.11.11)`.
    fn of_banner(output: &str) -> Option<Result<Self>> {
        let mut words = output.split(|byte: char| byte.is_whitespace() || byte == '\u{1b}');
        words.find(|word| word.eq_ignore_ascii_case("pktgen"))?;
        let dotted =
            |word: &&str| word.split('.').count() >= 2 && word.starts_with(|c: char| c.is_ascii_digit());
        words.find(dotted).map(Self::parse)
    }

    /// As results write it.
    const fn name(self) -> &'static str {
        match self {
            Self::V2306 => "pktgen 23.06",
            Self::V2410 => "pktgen 24.10",
        }
    }

    /// Flows that range mode really sends: it writes its frames once, into a pool of so many.
    const fn most_flows(self) -> u32 {
        match self {
            Self::V2306 => 24_576,
            Self::V2410 => 16_384,
        }
    }

    /// Commands that make every segment a SYN; there are none in Lua.
    const fn syn(self) -> &'static str {
        match self {
            Self::V2306 => "range 0 tcp flag clr all\nrange 0 tcp flag set syn\n",
            Self::V2410 => "range 0 tcp flags syn\n",
        }
    }
}

/// A pktgen that is there, and what it is to do.
#[derive(Debug)]
pub(crate) struct Pktgen {
    profile: Profile,
    version: Version,
    directory: TemporaryDirectory,
    /// Frames to replay, where range mode has too few flows.
    capture: Option<PathBuf>,
}

impl Pktgen {
    /// One that sends what the profile says.
    pub(super) fn new(profile: &Profile, interrupt: &Interrupt) -> Result<Self> {
        let mut pktgen = Self::probed(profile, interrupt)?;
        if profile.traffic.flows > pktgen.version.most_flows() {
            let path = pktgen.directory.join("flows.pcap");
            write_capture(&path, profile)?;
            pktgen.capture = Some(path);
        }
        Ok(pktgen)
    }

    /// One that sends the frames of a file.
    pub(crate) fn replaying(profile: &Profile, capture: &Path, interrupt: &Interrupt) -> Result<Self> {
        Ok(Self { capture: Some(capture.to_owned()), ..Self::probed(profile, interrupt)? })
    }

    /// Finds out its version, and writes what it will read.
    fn probed(profile: &Profile, interrupt: &Interrupt) -> Result<Self> {
        let directory = TemporaryDirectory::new()?;
        let version = match &profile.generator.version {
            Some(text) => Version::parse(text)?,
            None => probe(&profile.generator.program, &directory, interrupt)?,
        };
        std::fs::write(directory.join("bench.lua"), SCRIPT).context("cannot write pktgen's script")?;
        std::fs::write(directory.join("syn.pkt"), version.syn()).context("cannot write pktgen's commands")?;
        Ok(Self { profile: profile.clone(), version, directory, capture: None })
    }

    /// What it is, as results write it.
    pub(super) const fn name(&self) -> &'static str {
        self.version.name()
    }

    /// One process, one rate after the other; with latencies where `latency` asks for them.
    pub(super) fn run(&self, rates: &[f64], latency: bool, interrupt: &Interrupt) -> Result<Vec<Level>> {
        let out = self.directory.join(LEVELS);
        // What an earlier run left does not count as this one's.
        let _ = std::fs::remove_file(&out);
        let traffic = &self.profile.traffic;
        let each = u64::from(traffic.seconds) + BESIDE;
        let limit = AROUND + Duration::from_secs(each * rates.len() as u64);
        let texts: Vec<String> = rates.iter().map(f64::to_string).collect();
        let mut command = self.command(&texts, traffic.seconds);
        if latency {
            command.env("SAMPLES", self.directory.join("samples"));
        }
        let ended = Terminal::start(&mut command)?.wait(limit, interrupt)?;
        let written = std::fs::read_to_string(&out).unwrap_or_default();
        // What the script says of itself tells more than the exit code.
        let mut levels = match Level::read(&written) {
            Err(error) if written.is_empty() => {
                ended.check("pktgen")?;
                return Err(error);
            }
            read => read?,
        };
        ended.check("pktgen")?;
        if levels.len() != rates.len() {
            bail!("pktgen measured {} rates of {}", levels.len(), rates.len());
        }
        if latency {
            for (level, text) in levels.iter_mut().zip(&texts) {
                let path = self.directory.join(&format!("samples.{text}"));
                let samples = std::fs::read_to_string(&path).unwrap_or_default();
                level.latency = latencies(&samples)?;
                if level.latency.is_none() {
                    bail!(
                        "no latency probe came back at {text} %: the director needs a UDP service on {}:{PROBE_PORT}",
                        traffic.virtual_address
                    );
                }
            }
        }
        Ok(levels)
    }

    /// Sends as fast as the link goes, until it is dropped.
    pub(crate) fn start(&self) -> Result<Terminal> {
        Terminal::start(&mut self.command(&["100".to_owned()], FOR_EVER))
    }

    fn command(&self, rates: &[String], seconds: u32) -> Command {
        let traffic = &self.profile.traffic;
        let mut command = Command::new(&self.profile.generator.program);
        command.args(self.arguments()).current_dir(self.directory.path());
        command
            .env("OUT", self.directory.join(LEVELS))
            .env("RECEIVE", if self.profile.ports.receive.is_some() { "1" } else { "0" })
            .env("VIP", traffic.virtual_address.to_string())
            .env("DPORT", traffic.virtual_port.to_string())
            .env("DMAC", &traffic.destination_mac)
            .env("PROTO", &traffic.protocol)
            .env("FLOWS", traffic.flows.to_string())
            .env("SIZE", traffic.frame.to_string())
            .env("SECONDS", seconds.to_string())
            .env("RATES", rates.join(" "));
        if self.capture.is_some() {
            command.env("PCAP", "on");
        }
        command
    }

    /// The main lcore may carry no port; `W.0` is both directions in either version, where `[W:W].0` only sends in 24.10.
    fn arguments(&self) -> Vec<String> {
        let Profile { generator, ports, cores, traffic, .. } = &self.profile;
        let mut arguments = vec!["-l".to_owned(), format!("{},{}", cores.main, cores.worker)];
        for address in [&ports.send, &ports.receive].into_iter().flatten() {
            arguments.extend([if is_pci(address) { "-a" } else { "--vdev" }.to_owned(), address.clone()]);
        }
        arguments.push(format!("--file-prefix=uvs-pktgen-{}", std::process::id()));
        arguments.extend(generator.eal.iter().cloned());
        let map = if ports.receive.is_some() { "[0-1]" } else { "0" };
        arguments.extend(["--".to_owned(), "-m".to_owned(), format!("{}.{map}", cores.worker)]);
        if let Some(capture) = &self.capture {
            arguments.extend(["-s".to_owned(), format!("0:{}", capture.display())]);
        }
        if traffic.syn && self.capture.is_none() {
            arguments.extend(["-f".to_owned(), self.directory.join("syn.pkt").display().to_string()]);
        }
        arguments.extend(["-f".to_owned(), self.directory.join("bench.lua").display().to_string()]);
        arguments
    }
}

/// Asks a program for its banner, whatever else it does then.
fn probe(program: &Path, directory: &TemporaryDirectory, interrupt: &Interrupt) -> Result<Version> {
    let mut command = Command::new(program);
    let prefix = format!("--file-prefix=uvs-pktgen-probe-{}", std::process::id());
    command.args(["--no-pci", "--no-huge", "-m", "64", &prefix, "--", "-h"]).current_dir(directory.path());
    let ended = Terminal::start(&mut command)?.wait(PROBE, interrupt)?;
    Version::of_banner(&ended.output).unwrap_or_else(|| {
        bail!(
            "{} does not say its version (generator.version in the profile would); it said last:\n{}",
            program.display(),
            ended.last_words()
        )
    })
}

/// A frame of each flow.
fn write_capture(path: &Path, profile: &Profile) -> Result<()> {
    let traffic = &profile.traffic;
    let mut writer = crate::pcap::Writer::create(path)?;
    let mac = profile::mac("traffic.destination_mac", &traffic.destination_mac)?;
    let service = SocketAddr::new(traffic.virtual_address.into(), traffic.virtual_port);
    let tcp = traffic.protocol == "tcp";
    // Ethernet and its checksum, IPv4, and the transport header are no payload.
    let payload = usize::from(traffic.frame).saturating_sub(if tcp { 58 } else { 46 });
    for flow in 0..traffic.flows {
        let client = Ipv4Addr::from_bits(Ipv4Addr::new(198, 19, 0, 1).to_bits() + flow / 50_000);
        let port = u16::try_from(1024 + flow % 50_000)?;
        let frame = Frame {
            destination_mac: mac,
            payload: vec![0; payload],
            ..Frame::new(SocketAddr::new(client.into(), port), service)
        };
        writer.add_frame(&if tcp {
            frame.tcp(if traffic.syn { 0x02 } else { 0x10 })
        } else {
            frame.udp()
        })?;
    }
    writer.end()
}

impl Ended {
    /// An error where the program failed or was killed.
    fn check(&self, name: &str) -> Result<()> {
        match self.code {
            Some(0) => Ok(()),
            Some(code) => bail!("{name} ended with exit code {code}; it said last:\n{}", self.last_words()),
            None => bail!("{name} did not end in time and was killed; it said last:\n{}", self.last_words()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::EXAMPLE;
    use std::os::unix::fs::PermissionsExt;

    /// Plays pktgen's part: says a banner, wants a terminal, writes down what it was asked, and does what `$1` says.
    struct Stub {
        directory: TemporaryDirectory,
        profile: Profile,
    }

    impl Stub {
        fn new(banner: &str, then: &str, change: impl Fn(String) -> String) -> Self {
            let directory = TemporaryDirectory::new().unwrap();
            let program = directory.join("pktgen");
            let script = format!(
                "#!/bin/sh\nprintf '\\033[2J*** {banner}\\n'\ntest -t 0 || exit 255\ncase \"$*\" in *' -h') exit 1;; esac\n\
                 echo \"$@\" >{record}; env >>{record}\nlevel() {{ echo \"{{\\\"rate\\\":$1,\\\"tx_pps\\\":1000,\\\"rx_pps\\\":$2,\
                 \\\"tx\\\":5000,\\\"rx\\\":$3}}\" >>$OUT; }}\ndone_() {{ echo '{{\"done\":true}}' >>$OUT; }}\n{then}\n",
                record = directory.join("record").display()
            );
            std::fs::write(&program, script).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let text = EXAMPLE.replace("program = \"pktgen\"", &format!("program = {program:?}"));
            Self { profile: Profile::parse(&change(text)).unwrap(), directory }
        }

        fn run(&self, rates: &[f64], latency: bool) -> Result<Vec<Level>> {
            let interrupt = Interrupt::listen()?;
            Pktgen::new(&self.profile, &interrupt)?.run(rates, latency, &interrupt)
        }

        fn record(&self) -> String {
            std::fs::read_to_string(self.directory.join("record")).unwrap()
        }
    }

    const BANNER: &str = "Pktgen 23.06.1 (DPDK 22.11.11)";
    const FINE: &str = "for r in $RATES; do level $r 990 5000; done; done_";

    #[test]
    fn both_ports_cores_and_rates_reach_it() {
        let stub = Stub::new(BANNER, FINE, |text| text);
        let levels = stub.run(&[10.0, 50.5], false).unwrap();
        assert_eq!(levels.iter().map(|level| level.rate).collect::<Vec<_>>(), [10.0, 50.5]);
        let record = stub.record();
        assert!(
            record.contains("-l 1,2 -a 0000:3b:00.0 -a 0000:3b:00.1 --file-prefix=uvs-pktgen-"),
            "{record}"
        );
        assert!(record.contains("-- -m 2.[0-1] -f ") && !record.contains("syn.pkt"), "{record}");
        for wanted in
            ["RATES=10 50.5", "VIP=10.0.0.100", "FLOWS=10000", "RECEIVE=1", "DMAC=02:00:00:00:84:1e"]
        {
            assert!(record.contains(wanted), "{wanted}: {record}");
        }
        assert!(!record.contains("SAMPLES=") && !record.contains("PCAP="));
    }

    #[test]
    fn many_flows_are_replayed_and_syns_are_commands() {
        for (banner, flows, replayed) in
            [(BANNER, 24_576, false), (BANNER, 24_577, true), ("Pktgen 24.10.3 (DPDK 24.11.0)", 16_385, true)]
        {
            let stub = Stub::new(banner, FINE, |text| {
                let text = text
                    .replace("protocol = \"udp\"", "protocol = \"tcp\"")
                    .replace("syn = false", "syn = true");
                text.replace("flows = 10000", &format!("flows = {flows}"))
            });
            stub.run(&[10.0], false).unwrap();
            let record = stub.record();
            assert_eq!(record.contains("-s 0:") && record.contains("PCAP=on"), replayed, "{banner} {flows}");
            assert_eq!(record.contains("syn.pkt"), !replayed, "{banner} {flows}");
        }
        assert!(Version::V2306.syn().contains("flag set syn") && Version::V2410.syn().contains("flags syn"));
    }

    #[test]
    fn latencies_come_from_the_samplers_file() {
        let then = "for r in $RATES; do level $r 990 5000; printf 'Latency\\n4000\\n5000\\n' >$SAMPLES.$r; done; done_";
        let levels = Stub::new(BANNER, then, |text| text).run(&[50.0], true).unwrap();
        assert_eq!(levels[0].latency.unwrap().count, 2);
        let error = Stub::new(BANNER, FINE, |text| text).run(&[50.0], true).unwrap_err().to_string();
        assert!(error.contains("UDP service on 10.0.0.100:1028"), "{error}");
    }

    #[test]
    fn whatever_goes_wrong_is_said() {
        let error = |banner, then| {
            format!("{:#}", Stub::new(banner, then, |text| text).run(&[10.0], false).unwrap_err())
        };
        assert!(error("Pktgen 25.05.3 (DPDK 24.11)", FINE).contains("known are 23.06"));
        assert!(error("nothing", FINE).contains("does not say its version"));
        assert!(error(BANNER, "echo boom; exit 1").contains("boom"));
        assert!(error(BANNER, "level 10 1 1").contains("ended early"));
        assert!(error(BANNER, "level 10 1 1; done_; exit 139").contains("exit code 139"));
        assert!(error(BANNER, "echo '{\"error\":\"no such port\"}' >$OUT").contains("no such port"));
        assert!(error(BANNER, "done_").contains("measured 0 rates of 1"));
    }
}
