//! What a run needs: files, memory, CPUs, the director's configuration.

use crate::pcap;
use crate::traffic::{Frames, Protocol, Segment, Shape};
use anyhow::{Result, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A packet buffer with all that belongs to it, in bytes.
const BUFFER_BYTES: u64 = 2560;
/// Buffers beside those that hold the file: under way, and in caches.
const SPARE_BUFFERS: u64 = 16_384;
/// Most descriptors a port takes.
const MOST_DESCRIPTORS: u64 = 32_768;
/// A generous connection: line, index, wheel.
const CONNECTION_BYTES: u64 = 256;
/// Memory for all else, in MiB.
const BASE_MIB: u64 = 384;
/// Most destinations of one service.
pub(super) const MOST_DESTINATIONS: u16 = 16_384;

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Flows.
    pub(super) shape: Shape,
    /// Destinations of each service.
    pub(super) destinations: u16,
    /// A CPU for each worker.
    pub(super) cpus: Vec<usize>,
    /// CPUs of the machine.
    pub(super) machine_cpus: usize,
    /// Whether memory is on hugepages.
    pub(super) hugepages: bool,
    /// One capture file for each worker.
    pub(super) files: Vec<PathBuf>,
}

impl Plan {
    /// Refuses what cannot run.
    pub(super) fn check(&self) -> Result<()> {
        self.shape.check()?;
        if self.destinations == 0 || self.destinations > MOST_DESTINATIONS {
            bail!("{} destinations are not in the range 1 to {MOST_DESTINATIONS}", self.destinations);
        }
        if let Some(cpu) = self.cpus.iter().find(|cpu| **cpu >= self.machine_cpus) {
            bail!("there is no CPU {cpu}: this machine has {}", self.machine_cpus);
        }
        if self.shape.flows < self.cpus.len() as u64 {
            bail!("{} flows are fewer than {} workers", self.shape.flows, self.cpus.len());
        }
        let most = 2 * MOST_DESCRIPTORS;
        if self.flows_of_one() > most {
            bail!(
                "the pcap vdev keeps every frame in a packet buffer, and a port of the director has at most {most} for \
                 a worker: give at most {} flows, or measure the engine alone with `uvs-perf engine`",
                most * self.cpus.len() as u64
            );
        }
        Ok(())
    }

    /// Flows of the worker that has most.
    fn flows_of_one(&self) -> u64 {
        self.shape.flows.div_ceil(self.cpus.len() as u64)
    }

    /// The device with its arguments: one receive queue for each file, and transmit queues that drop.
    pub(super) fn device(&self) -> String {
        let mut text = "net_pcap0".to_owned();
        for file in &self.files {
            // Writing to a string cannot fail.
            let _ = write!(text, ",rx_pcap={}", file.display());
        }
        text.push_str(",infinite_rx=1");
        text
    }

    /// Packet buffers that hold all files and what is under way.
    pub(super) fn buffers(&self) -> u64 {
        (self.flows_of_one() + SPARE_BUFFERS) * self.cpus.len() as u64
    }

    /// Descriptors of a queue; the director sizes its buffers by them.
    fn descriptors(&self) -> u64 {
        (self.flows_of_one() / 2).next_power_of_two().clamp(1024, MOST_DESCRIPTORS)
    }

    /// Connections the director is to have room for: twice the flows, for uneven shards.
    fn connections(&self) -> u64 {
        (2 * self.shape.flows).max(65_536)
    }

    /// EAL memory for either program.
    pub(super) fn memory_mib(&self) -> u64 {
        let buffers = self.buffers() + 2 * self.descriptors() * self.cpus.len() as u64;
        let bytes = buffers * BUFFER_BYTES + self.connections() * CONNECTION_BYTES;
        (BASE_MIB + bytes.div_ceil(1 << 20)).next_multiple_of(64)
    }

    /// A CPU for threads that do not poll: one without a worker, or the first.
    pub(super) fn housekeeping_cpu(&self) -> usize {
        (0..self.machine_cpus).find(|cpu| !self.cpus.contains(cpu)).unwrap_or(0)
    }

    /// Writes the capture files. Flow n is in the file of worker n modulo workers.
    pub(super) fn write_files(&self) -> Result<()> {
        let frames = Frames::new(&self.shape, Segment::Ack);
        for (index, file) in self.files.iter().enumerate() {
            let flows = (index as u64..self.shape.flows).step_by(self.files.len());
            pcap::write(file, &frames, flows)?;
        }
        Ok(())
    }

    /// The director's configuration. TCP flows are picked up in the middle, since the files hold no handshakes.
    pub(super) fn configuration(&self, control: &Path) -> String {
        let cpus: Vec<String> = self.cpus.iter().map(usize::to_string).collect();
        let cpus = cpus.join(", ");
        let housekeeping = if self.cpus.contains(&self.housekeeping_cpu()) {
            String::new()
        } else {
            format!("housekeeping_cpus = [{}]\n", self.housekeeping_cpu())
        };
        let (director, prefix) = self.shape.director();
        let (ipv4, ipv6) = match self.shape.ipv6 {
            false => (self.connections(), 1024),
            true => (1024.max(1024 * self.cpus.len() as u64), self.connections()),
        };
        let services = u64::from(self.shape.services);
        let mut text = format!(
            "[dpdk]\nfile_prefix = \"uvs-perf-{pid}\"\nmemory_mib = {memory}\nhugepages = \"{hugepages}\"\n\n\
             [workers]\ncount = {count}\ncpus = [{cpus}]\n{housekeeping}idle = \"poll\"\n\n\
             [limits]\nconnections = {ipv4}\nconnections_ipv6 = {ipv6}\ntemplates = 1024\n\
             services = {services}\ndestinations = {destinations}\n\n\
             [control]\ndirectory = \"{control}\"\n\n[settings]\nsloppy_tcp = {sloppy}\n\n\
             [[port]]\nname = \"perf0\"\ndevice = \"{device}\"\ntwin = false\n\
             rx_descriptors = {descriptors}\ntx_descriptors = {descriptors}\n\
             addresses = [\"{director}/{prefix}\"]\nneighbours = [\n",
            pid = std::process::id(),
            memory = self.memory_mib(),
            hugepages = if self.hugepages { "required" } else { "never" },
            count = self.cpus.len(),
            destinations = services * u64::from(self.destinations),
            control = control.display(),
            sloppy = self.shape.protocol == Protocol::Tcp,
            device = self.device(),
            descriptors = self.descriptors(),
        );
        for index in 0..self.destinations {
            let (address, mac) = self.shape.server(index);
            let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(text, "  {{ address = \"{address}\", mac = \"{}\" }},", mac.join(":"));
        }
        text.push_str("]\n");
        for service in 0..self.shape.services {
            let address = self.shape.service(service);
            let protocol = self.shape.protocol.name();
            let _ = write!(
                text,
                "\n[[service]]\nprotocol = \"{protocol}\"\naddress = \"{address}\"\nscheduler = \"rr\"\n"
            );
            for index in 0..self.destinations {
                let server = std::net::SocketAddr::new(self.shape.server(index).0, address.port());
                let _ = write!(text, "  [[service.destination]]\n  address = \"{server}\"\n");
            }
        }
        text
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::forward) fn plan(workers: usize, hugepages: bool) -> Plan {
        Plan {
            shape: Shape { protocol: Protocol::Udp, ipv6: false, services: 1, frame: 64, flows: 1024 },
            destinations: 2,
            cpus: (2 - workers..2).collect(),
            machine_cpus: 2,
            hugepages,
            files: (0..workers).map(|worker| format!("/tmp/x/flows-{worker}.pcap").into()).collect(),
        }
    }

    #[test]
    fn a_configuration_names_what_the_run_needs() {
        let text = plan(1, false).configuration(Path::new("/tmp/x/control"));
        for expected in [
            "device = \"net_pcap0,rx_pcap=/tmp/x/flows-0.pcap,infinite_rx=1\"",
            "cpus = [1]\nhousekeeping_cpus = [0]\nidle = \"poll\"",
            "hugepages = \"never\"",
            "directory = \"/tmp/x/control\"",
            "sloppy_tcp = false",
            "{ address = \"198.18.0.2\", mac = \"02:00:00:01:00:02\" },",
            "address = \"198.18.255.254:1024\"\nscheduler = \"rr\"\n  [[service.destination]]\n  address = \"198.18.0.1:1024\"",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!plan(2, true).configuration(Path::new("/c")).contains("housekeeping"));
    }

    #[test]
    fn every_flow_is_in_one_file() {
        let directory = crate::child::TemporaryDirectory::new().unwrap();
        let files = vec![directory.join("0"), directory.join("1")];
        let plan = Plan { files: files.clone(), ..plan(2, false) };
        plan.write_files().unwrap();
        let records = |path: &PathBuf| (std::fs::metadata(path).unwrap().len() - 24) / 80;
        assert_eq!(files.iter().map(records).collect::<Vec<_>>(), [512, 512]);
        assert_eq!(plan.device().matches("rx_pcap=").count(), 2);
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let many = Shape { flows: 1 << 20, ..plan(1, false).shape };
        let refusal = Plan { shape: many, ..plan(1, false) }.check().unwrap_err().to_string();
        assert!(refusal.contains("uvs-perf engine"), "{refusal}");
        assert!(Plan { cpus: vec![7], ..plan(1, false) }.check().is_err());
        assert!(Plan { destinations: 0, ..plan(1, false) }.check().is_err());
        plan(1, false).check().unwrap();
        let full = Shape { flows: 65_536, ..plan(1, false).shape };
        let full = Plan { shape: full, ..plan(1, false) };
        full.check().unwrap();
        assert!(full.memory_mib() > 500 && full.buffers() > 65_536);
    }
}
