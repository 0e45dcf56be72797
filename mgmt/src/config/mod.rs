//! The configuration: what `uvsd` reads at start and `uvsd --check` judges.
//!
//! Layers, later ones win: built-in defaults, the file, `conf.d/*.toml` in the order of their names, the environment
//! (`UVS_WORKERS__COUNT=2`), `--set workers.count=2`. The lists `[[port]]`, `[[mark]]` and
//! `[[service]]` of several files add up.
//! Everything wrong is reported at once, each with its place, what is wrong there and what to write instead.

mod check;
mod cpus;
mod finding;
mod help;
mod load;
mod source;

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use cpus::CpuList;
pub use finding::{Finding, Findings, Place, Severity};
pub use load::{Layers, Loaded, load, wanted_of};

use crate::address::{Mac, Prefix};
use crate::desired::{MarkRule, ServiceSpec};
pub use crate::desired::{Settings, Timeouts};
pub use dataplane::worker::{IdleMode as Idle, SteeringChoice as Steering};

/// The whole configuration, every key with its default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[dpdk]`
    pub dpdk: Dpdk,
    /// `[[port]]`; a port's index in this list is its number everywhere.
    pub port: Vec<Port>,
    /// `[workers]`
    pub workers: Workers,
    /// `[limits]`
    pub limits: Limits,
    /// `[control]`
    pub control: Control,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[settings]`, the kernel's sysctls of IPVS.
    pub settings: Settings,
    /// `[[mark]]`: rules that give packets a mark, the last that matches decides.
    pub mark: Vec<MarkRule>,
    /// `[[service]]`
    pub service: Vec<ServiceSpec>,
}

/// How DPDK's environment layer is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpdk {
    /// EAL file prefix; directors on one machine need different ones.
    pub file_prefix: String,
    /// EAL memory in MiB.
    pub memory_mib: u32,
    /// Whether that memory is on hugepages.
    pub hugepages: Hugepages,
    /// Appended to the EAL's arguments.
    pub extra_args: Vec<String>,
}

impl Default for Dpdk {
    fn default() -> Self {
        Self {
            file_prefix: "uvs".to_owned(),
            memory_mib: 512,
            hugepages: Hugepages::Auto,
            extra_args: Vec::new(),
        }
    }
}

/// Use of hugepages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hugepages {
    /// Where enough are reserved.
    Auto,
    /// Refuse to start without.
    Required,
    /// Never; slower, works everywhere.
    Never,
}

/// A port: a NIC or vdev that DPDK drives, and its twin in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The twin's interface name in the kernel.
    pub name: String,
    /// PCI address, or vdev with its arguments.
    pub device: String,
    /// The NIC's own kernel interface, silenced while the director runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_interface: Option<String>,
    /// Whether there is a TAP twin.
    #[serde(default = "yes")]
    pub twin: bool,
    /// Receive descriptors of each queue.
    #[serde(default = "default_descriptors")]
    pub rx_descriptors: u16,
    /// Transmit descriptors of each queue.
    #[serde(default = "default_descriptors")]
    pub tx_descriptors: u16,
    /// IP MTU in bytes; absent: the device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Given to the twin at start.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
    /// Given to the twin last, taken away first at a planned stop.
    #[serde(default)]
    pub virtual_addresses: Vec<Prefix>,
    /// Given to the twin after its addresses.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Static neighbours; all there are without a twin.
    #[serde(default)]
    pub neighbours: Vec<Neighbour>,
}

fn yes() -> bool {
    true
}

fn default_descriptors() -> u16 {
    1024
}

/// A route through a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to.
    pub to: Prefix,
    /// Gateway; absent: on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
}

/// A neighbour's MAC address that nobody need ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Its IP address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: Mac,
}

/// Workers and the CPUs of all threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// How many; each has one queue of every port.
    pub count: u16,
    /// A CPU for each; empty: the machine's last ones.
    pub cpus: CpuList,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// How packets find the worker that owns their connection.
    pub steering: Steering,
    /// CPUs of all other threads; empty: those without a worker, or all.
    pub housekeeping_cpus: CpuList,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            count: 1,
            cpus: CpuList::default(),
            idle: Idle::Sleep,
            steering: Steering::Auto,
            housekeeping_cpus: CpuList::default(),
        }
    }
}

/// Sizes of everything bounded, fixed at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// IPv4 connections of the whole director.
    pub connections: u32,
    /// IPv6 connections of the whole director.
    pub connections_ipv6: u32,
    /// Persistence templates.
    pub templates: u32,
    /// Virtual services.
    pub services: u32,
    /// Destinations of all services.
    pub destinations: u32,
    /// Fragmented packets in reassembly order, of each worker.
    pub fragments: u32,
    /// Packets waiting for a next hop's MAC address, of each worker.
    pub parked: u32,
    /// Addresses that lblc and lblcr remember the servers of, in each worker.
    pub localities: u32,
    /// Clients of the control socket at a time.
    pub clients: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 262_144,
            connections_ipv6: 65_536,
            templates: 65_536,
            services: 16_384,
            destinations: 65_536,
            fragments: 4_096,
            parked: 64,
            localities: 65_536,
            clients: 16,
        }
    }
}

/// Where the control socket is and who may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Directory of `control.sock`.
    pub directory: PathBuf,
    /// Its members may change things.
    pub group: String,
}

impl Default for Control {
    fn default() -> Self {
        Self { directory: PathBuf::from("/run/uvs"), group: "root".to_owned() }
    }
}

#[cfg(test)]
mod tests;
