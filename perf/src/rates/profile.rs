//! The bare-metal profile: which generator, ports, cores and traffic.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// A generator on a machine with NICs, and what it sends; see docs/performance/profile.toml.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(super) generator: Generator,
    pub(super) ports: Ports,
    pub(super) cores: Cores,
    pub(super) traffic: Traffic,
}

/// The program that sends.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Generator {
    /// pktgen, by path or name.
    pub(super) program: PathBuf,
    /// Its version, where it does not say it itself: as "23.06.1".
    pub(super) version: Option<String>,
    /// What its EAL is to be told besides.
    #[serde(default)]
    pub(super) eal: Vec<String>,
}

/// PCI addresses.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ports {
    /// Sends; without it the EAL arguments name a device.
    pub(super) send: Option<String>,
    /// Receives what the director sends on; the sending port where there is no other.
    pub(super) receive: Option<String>,
}

/// CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cores {
    /// For statistics, which take a whole one.
    pub(super) main: u16,
    /// Sends and receives.
    pub(super) worker: u16,
}

/// Frames.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Traffic {
    /// The director's port.
    pub(super) destination_mac: String,
    pub(super) virtual_address: Ipv4Addr,
    pub(super) virtual_port: u16,
    pub(super) protocol: String,
    /// Every TCP segment is a SYN.
    #[serde(default)]
    pub(super) syn: bool,
    pub(super) flows: u32,
    /// Bytes of a frame, the checksum of 4 included.
    pub(super) frame: u16,
    /// Percentages of the link's speed, growing.
    pub(super) rates: Vec<f64>,
    /// Length of a measurement at one rate.
    pub(super) seconds: u32,
    /// Workers of the director, each of which polls a CPU.
    pub(super) workers: u8,
}

impl Profile {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let profile: Self = toml::from_str(text)?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<()> {
        let (traffic, ports) = (&self.traffic, &self.ports);
        for (name, address) in [("send", &ports.send), ("receive", &ports.receive)] {
            if let Some(address) = address
                && !is_pci(address)
            {
                bail!("ports.{name}: {address} is no PCI address like 0000:3b:00.0");
            }
        }
        if ports.send.is_none() && (ports.receive.is_some() || self.generator.eal.is_empty()) {
            bail!("ports.send: name the PCI address of the sending port (or a device in generator.eal)");
        }
        if self.cores.main == self.cores.worker {
            bail!("cores: the main core spins and cannot send: give main and worker different CPUs");
        }
        if !is_mac(&traffic.destination_mac) {
            bail!(
                "traffic.destination_mac: {} is no address like 02:00:00:00:00:01",
                traffic.destination_mac
            );
        }
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

fn is_pci(text: &str) -> bool {
    let [domain, bus, rest] = *text.split(':').collect::<Vec<_>>() else { return false };
    let Some((device, function)) = rest.split_once('.') else { return false };
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex(domain, 4) && hex(bus, 2) && hex(device, 2) && matches!(function.as_bytes(), [b'0'..=b'7'])
}

fn is_mac(text: &str) -> bool {
    let bytes: Vec<&str> = text.split(':').collect();
    bytes.len() == 6 && bytes.iter().all(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const EXAMPLE: &str = include_str!("../../../docs/performance/profile.toml");

    #[test]
    fn the_example_is_read() {
        let profile = Profile::parse(EXAMPLE).unwrap();
        assert_eq!(profile.traffic.rates.len(), 4);
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
        ] {
            assert!(EXAMPLE.contains(from), "{from}");
            let error = format!("{:#}", Profile::parse(&EXAMPLE.replace(from, to)).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }
}
