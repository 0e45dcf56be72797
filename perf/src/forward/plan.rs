//! What a run needs: files, memory, CPUs.

use super::devices::{Devices, SECOND_MAC};
use super::files;
use super::metal::Metal;
use crate::cli::{Link, Spread};
use crate::lab::Rules;
use crate::results::Parameters;
use crate::traffic::{DIRECTOR_MAC, Direction};
use anyhow::{Result, bail};
use serde_json::json;
use std::path::{Path, PathBuf};

/// A packet buffer with all that belongs to it, in bytes.
const BUFFER_BYTES: u64 = 2560;
/// Buffers beside those that hold the files: under way, and in caches.
const SPARE_BUFFERS: u64 = 16_384;
/// Most descriptors a port takes.
const MOST_DESCRIPTORS: u64 = 32_768;
/// A generous connection: line, index, wheel.
const CONNECTION_BYTES: u64 = 256;
/// Memory for all else, in MiB.
const BASE_MIB: u64 = 384;
/// IP packets that ports take, in bytes.
const MTU: usize = 1500;

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Flows, and how they are forwarded.
    pub(crate) rules: Rules,
    /// Where packets come from.
    pub(crate) link: Link,
    /// Which queue flows come to.
    pub(crate) spread: Spread,
    /// A CPU for each worker.
    pub(crate) cpus: Vec<usize>,
    /// CPUs of the machine.
    pub(crate) machine_cpus: usize,
    /// Whether memory is on hugepages.
    pub(crate) hugepages: bool,
    /// Whether the director's configuration has the services; else somebody applies them later.
    pub(crate) configures_services: bool,
    /// With NICs: which ports and CPUs, and who sends.
    pub(crate) metal: Option<Metal>,
}

impl Plan {
    /// Refuses what cannot run.
    pub(crate) fn check(&self) -> Result<()> {
        let (shape, forwarding) = (&self.rules.shape, self.rules.forwarding);
        shape.check()?;
        if let Some(metal) = &self.metal {
            metal.check(forwarding.direction, &self.cpus)?;
        }
        if forwarding.direction == Direction::Out {
            bail!(
                "servers' packets alone would leave the director without connections, and clients' packets that come once \
                 are gone before it has its services: give --direction both, or measure them with `uvs-perf engine --mode \
                 nat --direction out`"
            );
        }
        let overhead = forwarding.overhead(shape.ipv6);
        let longest = shape.frame.longest(overhead) - 14 + overhead;
        if longest > MTU {
            bail!(
                "with {overhead} bytes before them packets of {longest} bytes would be longer than the MTU of {MTU}: give \
                 --frame {} or less",
                MTU - overhead + 14
            );
        }
        if let Some(cpu) = self.cpus.iter().find(|cpu| **cpu >= self.machine_cpus) {
            bail!("there is no CPU {cpu}: this machine has {}", self.machine_cpus);
        }
        if matches!(self.link, Link::Vhost | Link::Memif) && self.cpus.len() >= self.machine_cpus {
            bail!(
                "--link {} takes a CPU for the program that sends, beside one for each worker",
                self.link.name()
            );
        }
        if self.link == Link::Memif && self.cpus.len() > 1 {
            bail!("--link memif has one queue: give --workers 1");
        }
        if shape.flows < self.cpus.len() as u64 {
            bail!("{} flows are fewer than {} workers", shape.flows, self.cpus.len());
        }
        let most = 2 * MOST_DESCRIPTORS;
        if self.flows_of_one() > most {
            bail!(
                "the pcap vdev keeps every frame in a packet buffer, and a port of the director has at most {most} for \
                 a worker: give at most {} flows, or measure the engine alone with `uvs-perf engine`",
                most * self.cpus.len() as u64 * self.rules.shape.flows
                    / (self.flows_of_one() * self.cpus.len() as u64)
            );
        }
        Ok(())
    }

    /// The capture files by port; every port has one for each worker, or one alone where a NIC will spread flows.
    pub(crate) fn files(&self, directory: &Path) -> Vec<Vec<PathBuf>> {
        let own_port = self.rules.forwarding.direction.has_replies() && self.servers_have_a_port();
        let names = if own_port { &["requests", "replies"][..] } else { &["requests"] };
        let of_worker = |name, worker| directory.join(format!("{name}-{worker}.pcap"));
        let of_port = |name| (0..self.queues()).map(|worker| of_worker(name, worker)).collect();
        names.iter().map(|name| of_port(*name)).collect()
    }

    /// Whether servers' packets come by a port of their own; else they are between the clients'.
    pub(super) const fn servers_have_a_port(&self) -> bool {
        matches!(self.link, Link::Pcap | Link::Pci)
    }

    /// Files of a port.
    fn queues(&self) -> usize {
        if self.link == Link::Pci { 1 } else { self.cpus.len() }
    }

    /// MAC addresses of the director's ports: the clients', and the one by which servers' packets come.
    pub(super) fn macs(&self) -> [[u8; 6]; 2] {
        match &self.metal {
            Some(metal) => metal.macs,
            None if self.servers_have_a_port() => [DIRECTOR_MAC, SECOND_MAC],
            None => [DIRECTOR_MAC; 2],
        }
    }

    /// Writes them.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        files::write(self, &self.files(directory))
    }

    /// What results say of it.
    pub(crate) fn parameters(&self) -> Parameters {
        let mut parameters = self.rules.parameters();
        for (name, value) in [
            ("link", json!(self.link.name())),
            ("workers", json!(self.cpus.len())),
            ("spread", json!(self.spread.name())),
            ("hugepages", json!(self.hugepages)),
        ] {
            parameters.insert(name.to_owned(), value);
        }
        parameters
    }

    /// The devices.
    pub(crate) fn devices(&self, directory: &Path) -> Devices {
        let files = self.files(directory);
        match &self.metal {
            Some(metal) => metal.devices(&files),
            None => Devices::new(self.link, &files, directory),
        }
    }

    /// Flows of the worker that has most, about.
    fn flows_of_one(&self) -> u64 {
        let even = self.rules.shape.flows.div_ceil(self.cpus.len() as u64);
        if self.cpus.len() == 1 || self.spread == Spread::Turn { even } else { even + even / 8 }
    }

    /// Packet buffers that hold all files and what is under way.
    pub(crate) fn buffers(&self) -> u64 {
        let directions = if self.rules.forwarding.direction.has_replies() { 2 } else { 1 };
        (directions * self.flows_of_one() + SPARE_BUFFERS) * self.cpus.len() as u64
    }

    /// Descriptors of a queue; the director sizes its buffers by them.
    pub(crate) fn descriptors(&self) -> u64 {
        (self.flows_of_one() / 2).next_power_of_two().clamp(1024, MOST_DESCRIPTORS)
    }

    /// Connections the director is to have room for: twice the flows, for uneven shards.
    pub(crate) fn connections(&self) -> u64 {
        (2 * self.rules.shape.flows).max(65_536)
    }

    /// EAL memory for either program.
    pub(crate) fn memory_mib(&self) -> u64 {
        let ports = if self.rules.forwarding.direction.has_replies() { 2 } else { 1 };
        let buffers = self.buffers() + ports * 2 * self.descriptors() * self.cpus.len() as u64;
        let bytes = buffers * BUFFER_BYTES + self.connections() * CONNECTION_BYTES;
        (BASE_MIB + bytes.div_ceil(1 << 20)).next_multiple_of(64)
    }

    /// EAL memory of all programs that run at a time.
    pub(crate) fn all_memory_mib(&self) -> u64 {
        self.memory_mib() * if self.link == Link::Pcap { 1 } else { 2 }
    }

    /// A CPU for threads that do not poll: one without a poller, or the first.
    pub(crate) fn housekeeping_cpu(&self) -> usize {
        let far: &[usize] = self.metal.as_ref().map_or(&[], |metal| &metal.far_cpus);
        (0..self.machine_cpus).find(|cpu| !self.cpus.contains(cpu) && !far.contains(cpu)).unwrap_or(0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::traffic::{Forwarding, FrameLength, Mode, Protocol, Shape};

    pub(crate) fn plan(workers: usize, hugepages: bool) -> Plan {
        let shape = Shape {
            protocol: Protocol::Udp,
            ipv6: false,
            services: 1,
            destinations: 2,
            frame: FrameLength::Fixed(64),
            flows: 1024,
        };
        Plan {
            rules: Rules::new(&shape, Forwarding::new(Mode::Dr, None, None).unwrap()),
            link: Link::Pcap,
            spread: Spread::Owner,
            cpus: (2 - workers..2).collect(),
            machine_cpus: 2,
            hugepages,
            configures_services: true,
            metal: None,
        }
    }

    pub(crate) fn nat(protocol: Protocol) -> Plan {
        let plan = plan(1, false);
        let shape = Shape { protocol, ..plan.rules.shape };
        let rules = Rules::hashed(&shape, Forwarding::new(Mode::Nat, None, None).unwrap());
        Plan { rules, ..plan }
    }

    fn with(change: impl FnOnce(&mut Plan)) -> Plan {
        let mut plan = plan(1, false);
        change(&mut plan);
        plan
    }

    #[test]
    fn what_cannot_run_is_refused_with_the_mend() {
        let refusal = |change: fn(&mut Plan)| with(change).check().unwrap_err().to_string();
        let many = refusal(|plan| plan.rules.shape.flows = 1 << 20);
        assert!(many.contains("uvs-perf engine"), "{many}");
        assert!(refusal(|plan| plan.cpus = vec![7]).contains("no CPU 7"));
        assert!(refusal(|plan| plan.rules.shape.destinations = 0).contains("0 destinations"));
        let long = refusal(|plan| {
            plan.rules.forwarding = Forwarding::new(Mode::Tun, None, None).unwrap();
            plan.rules.shape.frame = FrameLength::Fixed(1500);
        });
        assert!(long.contains("--frame 1494"), "{long}");
        let out = refusal(|plan| {
            plan.rules.forwarding = Forwarding::new(Mode::Nat, None, Some(Direction::Out)).unwrap();
        });
        assert!(out.contains("--direction both"), "{out}");
        let full = refusal(|plan| (plan.link, plan.cpus) = (Link::Vhost, vec![0, 1]));
        assert!(full.contains("takes a CPU"), "{full}");
    }

    #[test]
    fn what_can_run_has_room() {
        plan(1, false).check().unwrap();
        nat(Protocol::Udp).check().unwrap();
        with(|plan| plan.rules.shape.frame = FrameLength::Imix).check().unwrap();
        let full = with(|plan| plan.rules.shape.flows = 65_536);
        full.check().unwrap();
        assert!(full.memory_mib() > 500 && full.buffers() > 65_536);
        let mut both = nat(Protocol::Udp);
        both.rules.shape.flows = 65_536;
        assert!(both.buffers() > 131_072 && both.memory_mib() > full.memory_mib());
    }
}
