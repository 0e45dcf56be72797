//! Results of `status` and `stats`.

use serde::{Deserialize, Serialize};

use super::Traffic;
use crate::address::Mac;
use crate::desired::ServiceKey;

/// Result of `status`: what the director is, not how much it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The director's version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// Revision of the desired state.
    pub revision: u64,
    /// Services in the desired state.
    pub services: u64,
    /// Destinations of all services.
    pub destinations: u64,
    /// Connections in the table, templates apart.
    pub connections: u64,
    /// How packets find the worker that owns them: `client` or `flow`.
    pub steering: String,
    /// All of them.
    pub workers: Vec<WorkerStatus>,
    /// All of them.
    pub ports: Vec<PortStatus>,
    /// The sockets it listens on.
    #[serde(default)]
    pub sockets: Vec<SocketStatus>,
    /// CPUs of the threads that are not workers.
    pub housekeeping_cpus: Vec<u16>,
    /// Everything bounded, with its size.
    pub memory: Vec<MemoryUse>,
    /// What is not as it should be, in sentences.
    pub warnings: Vec<String>,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: u8,
    /// Its CPU.
    pub cpu: u16,
    /// `poll`, `yield` or `sleep`.
    pub idle: String,
    /// Part of the last second in which it had packets, in percent.
    pub load_percent: f64,
    /// Connections in its shard.
    pub connections: u64,
    /// Packets from its queues of all ports.
    pub received: u64,
    /// Of these, packets of another worker's flows, handed to that one or dropped because it had no room for them: a NIC that
    /// spreads flows as the director does leaves none.
    pub redirected: u64,
    /// Milliseconds since it last completed a turn.
    pub age_ms: u64,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Its number.
    pub port: u8,
    /// Its twin's name.
    pub name: String,
    /// The device it was configured with.
    pub device: String,
    /// DPDK's driver.
    pub driver: String,
    /// Its address.
    pub mac: Mac,
    /// IP MTU in bytes.
    pub mtu: u16,
    /// `up 10000 Mbit/s` or `down`.
    pub link: String,
}

/// A socket for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketStatus {
    /// Where it is.
    pub path: String,
    /// Clients connected.
    pub clients: u64,
    /// Clients at most.
    pub capacity: u64,
}

/// Something bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// What.
    pub what: String,
    /// How many it holds at most.
    pub capacity: u64,
    /// How many it holds now, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Bytes taken.
    pub bytes: u64,
}

/// Result of `stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Everything counted, zeros included, summed over the workers.
    pub counters: Vec<Count>,
    /// Packets that went no further, by reason.
    pub drops: Vec<Count>,
    /// Conservation: what came in less what went out, was dropped or is held. 0 at rest.
    pub imbalance: i64,
    /// What the whole director forwarded.
    #[serde(default)]
    pub totals: Traffic,
    /// By service and destination.
    pub destinations: Vec<DestinationStats>,
    /// From a change's arrival to its publication.
    pub apply: Latency,
    /// From a publication until every worker used it.
    pub grace_period: Latency,
    /// Service time of a burst of packets.
    pub burst: Latency,
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Its label.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// What it counts.
    pub meaning: String,
}

/// Counters of a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationStats {
    /// Whose.
    pub service: ServiceKey,
    /// The destination's own.
    #[serde(flatten)]
    pub destination: super::DestinationState,
}

/// A distribution of times since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Median in microseconds.
    pub p50_us: u64,
    /// 99th percentile in microseconds.
    pub p99_us: u64,
    /// Greatest in microseconds.
    pub max_us: u64,
    /// All of them: how many were so long, by nanoseconds rounded up to two digits, the shortest first. Of two answers the difference
    /// is the distribution of what happened between them.
    #[serde(default)]
    pub buckets: Vec<(u64, u64)>,
}
