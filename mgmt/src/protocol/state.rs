//! Results about services, destinations, connections, events and changes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::{Endpoint, Protocol};
use crate::desired::{Change, Method, Scheduler, ServiceKey, ServiceSpec};

/// Result of every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Revision of the state after the change, or the present one after a dry run.
    pub revision: u64,
    /// Whether anything was, or in a dry run would be, different.
    pub changed: bool,
    /// Nothing was done.
    pub dry_run: bool,
    /// What was, or would be, done in small steps.
    pub changes: Vec<Change>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// Microseconds until every worker used the new state; only with `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_us: Option<u64>,
}

/// Result of `config.get`: what `config.apply` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Revision of the desired state.
    pub revision: u64,
    /// All services, destinations in the order they were added.
    pub services: Vec<ServiceSpec>,
}

/// A service with its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Virtual address and port.
    pub address: Endpoint,
    /// Its scheduler.
    pub scheduler: Scheduler,
    /// Seconds; 0: no persistence.
    pub persistent: u32,
    /// Leading bits of the client's address that persistence looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netmask: Option<u8>,
    /// Newest first.
    pub destinations: Vec<DestinationState>,
}

impl ServiceState {
    /// The service's name.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey { protocol: self.protocol, address: self.address }
    }
}

/// A destination with its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationState {
    /// Real server.
    pub address: Endpoint,
    /// Forwarding method.
    pub method: Method,
    /// 0 takes no new connections.
    pub weight: u32,
    /// 0: no limit.
    pub upper_threshold: u32,
    /// 0: three quarters of the upper threshold.
    pub lower_threshold: u32,
    /// TCP connections being opened or open.
    pub active: u64,
    /// All other connections.
    pub inactive: u64,
    /// Persistence templates.
    pub persistent: u64,
    /// Connections ever opened.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// IP bytes from clients.
    pub in_bytes: u64,
    /// Packets to clients that passed the director.
    pub out_packets: u64,
    /// IP bytes to clients that passed the director.
    pub out_bytes: u64,
    /// `02:00:00:00:84:64 via eth0`, `unresolved`, `no route`, `local`, or `unknown` before the first publication.
    pub next_hop: String,
}

/// Result of `service.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePage {
    /// Revision of the desired state.
    pub revision: u64,
    /// By protocol, address and port.
    pub services: Vec<ServiceState>,
    /// `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ServiceKey>,
}

/// Result of `destination.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationList {
    /// Whose.
    pub service: ServiceKey,
    /// Newest first.
    pub destinations: Vec<DestinationState>,
}

/// A connection or a persistence template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionEntry {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Client; port 0 for a template.
    pub client: Endpoint,
    /// Virtual service's address and port.
    pub virtual_address: Endpoint,
    /// Real server.
    pub destination: Endpoint,
    /// The kernel's name of the TCP or UDP state.
    pub state: String,
    /// Milliseconds until it expires if nothing more comes.
    pub expires_ms: u64,
    /// Packets from the client.
    pub packets: u64,
    /// Which worker has it; absent for a template, which all share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u8>,
    /// Whether it is a persistence template.
    pub template: bool,
}

/// Result of `connection.list`. What opens or closes between two pages may be missed, nothing is listed twice in one page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionPage {
    /// In the order of the table.
    pub connections: Vec<ConnectionEntry>,
    /// `cursor` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// From 1, without gaps.
    pub sequence: u64,
    /// Milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// `change`, `refusal`, `network`, `worker`, `instance`.
    pub kind: String,
    /// Revision of the desired state then.
    pub revision: u64,
    /// A line for people.
    pub text: String,
}

/// Result of `events.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// The oldest first.
    pub events: Vec<Event>,
    /// `since` of the next call.
    pub next: u64,
    /// Events after the `since` asked for that are forgotten already.
    pub lost: u64,
}

impl ConnectionEntry {
    /// Whether the entry belongs to a query.
    #[must_use]
    pub fn matches(&self, service: Option<ServiceKey>, client: Option<IpAddr>) -> bool {
        let of_service = service.is_none_or(|wanted| {
            wanted.protocol == self.protocol
                && wanted.address.ip == self.virtual_address.ip
                && (wanted.address.port == 0 || wanted.address.port == self.virtual_address.port)
        });
        of_service && client.is_none_or(|wanted| wanted == self.client.ip)
    }
}
