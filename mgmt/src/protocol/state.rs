//! Results about services, destinations, connections, events and changes.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::{Endpoint, Protocol};
use crate::desired::{
    Change, ClientMask, Family, MaglevOrder, MarkRule, Method, Scheduler, SchedulerFlags, ServiceKey,
    ServiceSpec, Settings, Timeouts,
};

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

/// Result of `counters.zero`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zeroed {
    /// How many services count from 0 now.
    pub services: u64,
}

/// Result of `config.get`: what `config.apply` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Revision of the desired state.
    pub revision: u64,
    /// All services, destinations in the order they were added.
    pub services: Vec<ServiceSpec>,
    /// Timeouts of connections.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// The director's behaviour, by the kernel's sysctl names.
    #[serde(default)]
    pub settings: Settings,
    /// Mark rules in order.
    #[serde(default)]
    pub marks: Vec<MarkRule>,
}

/// What was forwarded since the last zero, and how fast. Rates are the kernel's: averages that follow within some 10 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Connections opened.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients that passed the director.
    pub out_packets: u64,
    /// IP bytes from clients.
    pub in_bytes: u64,
    /// IP bytes to clients that passed the director.
    pub out_bytes: u64,
    /// Connections a second.
    pub connections_per_s: u64,
    /// Packets from clients a second.
    pub in_packets_per_s: u64,
    /// Packets to clients a second.
    pub out_packets_per_s: u64,
    /// Bytes from clients a second.
    pub in_bytes_per_s: u64,
    /// Bytes to clients a second.
    pub out_bytes_per_s: u64,
}

impl Traffic {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections.wrapping_add(other.connections),
            in_packets: self.in_packets.wrapping_add(other.in_packets),
            out_packets: self.out_packets.wrapping_add(other.out_packets),
            in_bytes: self.in_bytes.wrapping_add(other.in_bytes),
            out_bytes: self.out_bytes.wrapping_add(other.out_bytes),
            connections_per_s: self.connections_per_s.wrapping_add(other.connections_per_s),
            in_packets_per_s: self.in_packets_per_s.wrapping_add(other.in_packets_per_s),
            out_packets_per_s: self.out_packets_per_s.wrapping_add(other.out_packets_per_s),
            in_bytes_per_s: self.in_bytes_per_s.wrapping_add(other.in_bytes_per_s),
            out_bytes_per_s: self.out_bytes_per_s.wrapping_add(other.out_bytes_per_s),
        }
    }
}

/// A service with its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name: `protocol` and `address`, or `mark` and `family`.
    #[serde(flatten)]
    pub key: ServiceKey,
    /// Its scheduler.
    pub scheduler: Scheduler,
    /// What the scheduler may look at.
    #[serde(default)]
    pub scheduler_flags: SchedulerFlags,
    /// Slots of mh's table; nothing under other schedulers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mh_size: Option<u32>,
    /// How mh fills its table; nothing under other schedulers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mh_order: Option<MaglevOrder>,
    /// Every datagram is scheduled anew.
    #[serde(default)]
    pub one_packet: bool,
    /// Seconds; 0: no persistence.
    pub persistent: u32,
    /// Part of the client's address that persistence looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netmask: Option<ClientMask>,
    /// Greatest MSS option of a TCP SYN that passes, in bytes; nothing where they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss_clamp: Option<u16>,
    /// What its destinations counted, removed ones included.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Newest first.
    pub destinations: Vec<DestinationState>,
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
    /// Whether it takes no new connections because of its thresholds.
    #[serde(default)]
    pub overloaded: bool,
    /// TCP connections being opened or open.
    pub active: u64,
    /// All other connections.
    pub inactive: u64,
    /// Persistence templates.
    pub persistent: u64,
    /// What it counted.
    #[serde(flatten)]
    pub traffic: Traffic,
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
    /// Transport protocol; `ip` for a template of a mark's service.
    pub protocol: EntryProtocol,
    /// Client; port 0 for a template.
    pub client: Endpoint,
    /// Virtual service's address and port; a template of mark 3's service has 0.0.0.3:0.
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
    /// The kernel's flag word (`IP_VS_CONN_F_*`).
    #[serde(default)]
    pub flags: u32,
    /// The mark its service is named by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
}

/// What an entry of the connection table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryProtocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
    /// Any of them.
    Ip,
}

impl EntryProtocol {
    /// By the number in the IP header (IANA protocol numbers).
    #[must_use]
    pub fn of(number: u8) -> Self {
        match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            _ => Self::Ip,
        }
    }
}

impl From<Protocol> for EntryProtocol {
    fn from(protocol: Protocol) -> Self {
        Self::of(protocol.number())
    }
}

impl fmt::Display for EntryProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Ip => "ip",
        })
    }
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
        let of_service = service.is_none_or(|wanted| match wanted {
            ServiceKey::Address { protocol, address } => {
                EntryProtocol::from(protocol) == self.protocol
                    && address.ip == self.virtual_address.ip
                    && (address.port == 0 || address.port == self.virtual_address.port)
            }
            ServiceKey::Mark { mark, family } => {
                self.mark == Some(mark.get()) && Family::of(self.client.ip) == family
            }
        });
        of_service && client.is_none_or(|wanted| wanted == self.client.ip)
    }
}
