//! The bare-metal profile: which generator, ports, cores and traffic.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// A machine with NICs: who sends what, from where to where; see docs/performance/profile.toml.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) generator: Generator,
    pub(crate) ports: Ports,
    pub(crate) cores: Cores,
    pub(crate) traffic: Traffic,
    /// For commands that start the director themselves.
    pub(crate) director: Option<DirectorEnd>,
}

/// The director's end of the wires.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectorEnd {
    /// The clients' port, and the one of masqueraded servers where they have one.
    pub(crate) ports: Vec<String>,
    /// CPUs for workers.
    pub(crate) cpus: Vec<usize>,
    /// MAC address of the servers' port.
    pub(crate) servers_mac: Option<String>,
}

/// What a generator is driven by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A script of ours: rates, latencies, counts.
    Pktgen,
    /// Its command line: replays a capture as fast as it goes, and counts nothing.
    Testpmd,
}

impl Generator {
    /// By the program's name.
    pub(crate) fn kind(&self) -> Kind {
        let name = self.program.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| name.contains("testpmd")) { Kind::Testpmd } else { Kind::Pktgen }
    }
}

/// The program that sends.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Generator {
    /// pktgen or dpdk-testpmd, by path or name.
    pub(crate) program: PathBuf,
    /// Its version, where it does not say it itself: as "23.06.1".
    pub(crate) version: Option<String>,
    /// What its EAL is to be told besides.
    #[serde(default)]
    pub(crate) eal: Vec<String>,
}

/// The generator's ports: PCI addresses, or vdevs to try a profile out without a NIC.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ports {
    /// Sends; without it the EAL arguments name a device.
    pub(crate) send: Option<String>,
    /// Receives what the director sends on; the sending port where there is no other.
    pub(crate) receive: Option<String>,
}

/// CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cores {
    /// For statistics, which take a whole one.
    pub(crate) main: u16,
    /// Sends and receives.
    pub(crate) worker: u16,
}

/// Frames.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Traffic {
    /// The director's port.
    pub(crate) destination_mac: String,
    pub(crate) virtual_address: Ipv4Addr,
    pub(crate) virtual_port: u16,
    pub(crate) protocol: String,
    /// Every TCP segment is a SYN.
    #[serde(default)]
    pub(crate) syn: bool,
    pub(crate) flows: u32,
    /// Bytes of a frame, the checksum of 4 included.
    pub(crate) frame: u16,
    /// Percentages of the link's speed, growing.
    pub(crate) rates: Vec<f64>,
    /// Length of a measurement at one rate.
    pub(crate) seconds: u32,
    /// Workers of the director, each of which polls a CPU.
    pub(crate) workers: u8,
}

impl Profile {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let profile: Self = toml::from_str(text)?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<()> {
        let (traffic, ports) = (&self.traffic, &self.ports);
        for (name, address) in [("send", &ports.send), ("receive", &ports.receive)] {
            if let Some(address) = address {
                device(&format!("ports.{name}"), address)?;
            }
        }
        if let Some(director) = &self.director {
            director.check()?;
        }
        if ports.send.is_none() && (ports.receive.is_some() || self.generator.eal.is_empty()) {
            bail!("ports.send: name the PCI address of the sending port (or a device in generator.eal)");
        }
        if self.generator.kind() == Kind::Pktgen && self.cores.main == self.cores.worker {
            bail!("cores: the main core spins and cannot send: give main and worker different CPUs");
        }
        mac("traffic.destination_mac", &traffic.destination_mac)?;
        if !["udp", "tcp"].contains(&traffic.protocol.as_str()) {
            bail!("traffic.protocol: {} is neither udp nor tcp", traffic.protocol);
        }
        if traffic.syn && traffic.protocol != "tcp" {
            bail!("traffic.syn: SYNs are of TCP");
        }
        if !(1..=1 << 20).contains(&traffic.flows) {
            bail!("traffic.flows: give 1 to {}", 1 << 20);
        }
        if !(64..=1518).contains(&traffic.frame) {
            bail!("traffic.frame: give 64 to 1518 bytes");
        }
        if !(1..=3600).contains(&traffic.seconds) || traffic.workers == 0 || traffic.virtual_port == 0 {
            bail!("traffic: seconds are 1 to 3600; workers and virtual_port are not 0");
        }
        // pktgen 23.06 sends later what it could not send at a rate beyond its reach.
        let rates = &traffic.rates;
        let in_range = rates.iter().all(|rate| (0.01..=100.0).contains(rate));
        if rates.is_empty() || !in_range || !rates.is_sorted() {
            bail!("traffic.rates: give percentages from 0.01 to 100, the lowest first");
        }
        Ok(())
    }
}

impl DirectorEnd {
    fn check(&self) -> Result<()> {
        if !(1..=2).contains(&self.ports.len()) || self.cpus.is_empty() {
            bail!(
                "director: name one port, or one for clients and one for servers, and CPUs for its workers"
            );
        }
        self.ports.iter().try_for_each(|port| device("director.ports", port))?;
        self.servers_mac.iter().try_for_each(|text| mac("director.servers_mac", text).map(drop))
    }
}

/// Whether a device is behind PCI; else it is a vdev.
pub(crate) fn is_pci(text: &str) -> bool {
    let [domain, bus, rest] = *text.split(':').collect::<Vec<_>>() else { return false };
    let Some((device, function)) = rest.split_once('.') else { return false };
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex(domain, 4) && hex(bus, 2) && hex(device, 2) && matches!(function.as_bytes(), [b'0'..=b'7'])
}

fn device(place: &str, text: &str) -> Result<()> {
    // Quotes would end the string that a configuration puts it into.
    if is_pci(text) || (text.starts_with("net_") && !text.contains(['"', '\\', ' '])) {
        return Ok(());
    }
    bail!(
        "{place}: {text} is no PCI address like 0000:3b:00.0 (nor a vdev like net_memif0,role=server,id=0)"
    );
}

/// A MAC address as six bytes.
pub(crate) fn mac(place: &str, text: &str) -> Result<[u8; 6]> {
    let byte = |text: &str| u8::from_str_radix(text, 16).ok().filter(|_| text.len() == 2);
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .with_context(|| format!("{place}: {text} is no address like 02:00:00:00:00:01"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const EXAMPLE: &str = include_str!("../../docs/performance/profile.toml");

    #[test]
    fn the_example_is_read() {
        let profile = Profile::parse(EXAMPLE).unwrap();
        assert_eq!(profile.traffic.rates.len(), 4);
        assert_eq!(profile.generator.kind(), Kind::Pktgen);
        let testpmd = Generator { program: "/opt/dpdk/dpdk-testpmd".into(), ..profile.generator };
        assert_eq!(testpmd.kind(), Kind::Testpmd);
    }

    #[test]
    fn mistakes_are_named_with_the_mend() {
        for (from, to, wanted) in [
            ("send = \"0000:3b:00.0\"", "send = \"eth0\"", "ports.send: eth0 is no PCI address"),
            ("main = 1", "main = 2", "cores: the main core spins"),
            ("protocol = \"udp\"", "protocol = \"icmp\"", "neither udp nor tcp"),
            ("syn = false", "syn = true", "traffic.syn"),
            ("flows = 10000", "flows = 0", "traffic.flows"),
            ("frame = 64", "frame = 60", "traffic.frame"),
            ("rates = [10", "rates = [90", "the lowest first"),
            ("rates = [10, 50, 90, 100]", "rates = []", "traffic.rates"),
            ("02:00:00:00:84:1e", "02:00:00:00:84", "traffic.destination_mac"),
            ("seconds = 10", "second = 10", "unknown field `second`"),
            ("ports = [\"0000:af:00.0\"]", "ports = []", "director: name one port"),
            ("ports = [\"0000:af:00.0\"]", "ports = [\"eth1\"]", "director.ports: eth1"),
            ("cpus = [4, 5]", "cpus = []", "CPUs for its workers"),
        ] {
            assert!(EXAMPLE.contains(from), "{from}");
            let error = format!("{:#}", Profile::parse(&EXAMPLE.replace(from, to)).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }
}
