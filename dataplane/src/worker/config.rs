//! What the data path is started with.

use super::idle::IdleMode;
use crate::connection::{HashKey, Size};
use crate::engine::{EngineConfig, SharedLimits};
use crate::id::WorkerId;
use crate::steering::Steering;
use dpdk::EalConfig;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Everything that is fixed from start to stop.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Cores, memory, DPDK's options. One worker for each of `worker_cpus`.
    pub eal: EalConfig,
    /// Ports, by [`crate::id::PortId`].
    pub ports: Vec<PortSpec>,
    /// What idle workers do.
    pub idle: IdleMode,
    /// How flows are spread over workers.
    pub steering: SteeringChoice,
    /// Sizes.
    pub limits: Limits,
    /// Secret of the connection tables' hash.
    pub hash_key: HashKey,
    /// Secret of the template table's hash.
    pub template_key: u128,
    /// Where the workers' random numbers begin.
    pub seed: u64,
}

/// A port as configured.
#[derive(Debug, Clone)]
pub struct PortSpec {
    /// Its name, and that of its twin.
    pub name: String,
    /// PCI address, or virtual device with arguments.
    pub device: String,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: u16,
    /// IP MTU in bytes; `None` for the device's own.
    pub mtu: Option<u16>,
}

/// How flows are to be spread over workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SteeringChoice {
    /// By what the ports can hash.
    Auto,
    /// By the client's address and port.
    Client,
    /// By the request's whole 4-tuple.
    Flow,
}

impl SteeringChoice {
    /// Decides. `client_capable` says of each port with RSS whether it can hash one end alone.
    pub(super) fn decide(self, client_capable: &[bool]) -> Result<Steering, String> {
        let every_port = client_capable.iter().all(|capable| *capable);
        match self {
            Self::Flow => Ok(Steering::Flow),
            Self::Client | Self::Auto if every_port => Ok(Steering::Client),
            Self::Auto => Ok(Steering::Flow),
            Self::Client => {
                Err("steering = \"client\" needs ports that hash the source alone (RSS L3_SRC_ONLY and \
                                 L4_SRC_ONLY); these cannot: use \"flow\" or \"auto\""
                    .to_owned())
            }
        }
    }
}

/// Sizes of the whole director, but for what is said to be a worker's.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// IPv4 connections.
    pub connections_v4: u32,
    /// IPv6 connections.
    pub connections_v6: u32,
    /// Persistence templates.
    pub templates: u32,
    /// Virtual services.
    pub services: usize,
    /// Destinations.
    pub destinations: usize,
    /// Fragments held and datagrams remembered, each worker.
    pub fragments: u32,
    /// Packets parked for unresolved next hops, each worker.
    pub parked: usize,
    /// Addresses that lblc and lblcr remember, each worker.
    pub localities: u32,
}

impl Limits {
    pub(super) fn shared(&self, workers: usize) -> SharedLimits {
        SharedLimits {
            workers,
            services: self.services,
            destinations: self.destinations,
            templates: self.templates,
        }
    }

    /// A worker's share of `connections`: an equal part, and an eighth of it more, since flows are not spread evenly.
    fn share(connections: u32, workers: usize) -> u32 {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let part = connections.div_ceil(workers);
        if workers == 1 { part } else { part.saturating_add(part / 8) }
    }

    /// Sizes of one engine; worker, steering, ports and seed are the caller's to fill in.
    pub(super) fn engine(&self, workers: usize, hash_key: HashKey) -> EngineConfig {
        EngineConfig {
            id: WorkerId(0),
            workers: 1,
            steering: Steering::Client,
            trusted_rss: Box::default(),
            connections_v4: Self::share(self.connections_v4, workers),
            connections_v6: Self::share(self.connections_v6, workers),
            services: self.services,
            fragments: self.fragments,
            parked: self.parked,
            localities: self.localities,
            hash_key,
            seed: 0,
        }
    }

    /// Bytes of the IPv4 and the IPv6 connection tables of all workers.
    #[must_use]
    pub fn table_bytes(&self, workers: usize) -> [u64; 2] {
        let size = |connections| Size { capacity: Self::share(connections, workers), both_directions: true };
        let v4 = size(self.connections_v4).footprint::<Ipv4Addr>().total();
        let v6 = size(self.connections_v6).footprint::<Ipv6Addr>().total();
        [v4, v6].map(|bytes| (bytes * workers) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steering_follows_what_the_ports_can_hash() {
        assert_eq!(SteeringChoice::Auto.decide(&[]), Ok(Steering::Client));
        assert_eq!(SteeringChoice::Auto.decide(&[true, false]), Ok(Steering::Flow));
        assert_eq!(SteeringChoice::Client.decide(&[true]), Ok(Steering::Client));
        assert!(SteeringChoice::Client.decide(&[false]).unwrap_err().contains("flow"));
        assert_eq!(SteeringChoice::Flow.decide(&[]), Ok(Steering::Flow));
    }

    #[test]
    fn shards_leave_room_for_skew() {
        assert_eq!((Limits::share(1000, 1), Limits::share(1000, 4)), (1000, 281));
    }
}
