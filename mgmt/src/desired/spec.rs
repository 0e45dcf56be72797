//! Services and destinations: as an operator writes them (`…Spec`) and as the director holds them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::address::{Endpoint, Netmask, Protocol, Server, family_bits, text_serde};

/// Greatest weight, as in the kernel (a signed 32-bit number).
pub const WEIGHT_MAX: u32 = 2_147_483_647;

/// Longest timeout in seconds. Ticks are 32-bit milliseconds compared over half their range (24.8 days).
pub const TIMEOUT_MAX_S: u32 = 2_000_000;

pub use dataplane::snapshot::SchedulerKind as Scheduler;

/// A scheduler by the name that ipvsadm and the kernel give it.
///
/// # Errors
///
/// A name this director does not know.
pub fn scheduler(name: &str) -> Result<Scheduler, Refusal> {
    let found = Scheduler::ALL.into_iter().find(|scheduler| scheduler.name() == name);
    found.ok_or_else(|| Refusal::NoScheduler(name.to_owned()))
}

/// How a packet travels from the director to the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// VS/DR: the frame's MAC addresses change, the packet does not (but for its TTL).
    #[default]
    Direct,
}

impl FromStr for Method {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "direct" => Ok(Self::Direct),
            _ => Err(Refusal::NoMethod(text.to_owned())),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("direct")
    }
}

text_serde!(Method, "a forwarding method's name such as \"direct\"");

/// What names a virtual service. A firewall mark will be a second way to name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceKey {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Virtual address and port.
    pub address: Endpoint,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.address)
    }
}

fn default_scheduler() -> Scheduler {
    Scheduler::Wlc
}

fn default_weight() -> u32 {
    1
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A virtual service as written in `[[service]]` and in `service.add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Virtual address and port; port 0 (every port) needs `persistent`.
    pub address: Endpoint,
    /// Default wlc, as in ipvsadm.
    #[serde(default = "default_scheduler")]
    pub scheduler: Scheduler,
    /// Seconds a client stays on its destination; 0 or absent: no persistence.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub persistent: u32,
    /// Part of the client's address that persistence looks at; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netmask: Option<Netmask>,
    /// Destinations in the order they are added; a listing shows the newest first.
    #[serde(default, alias = "destinations", skip_serializing_if = "Vec::is_empty")]
    pub destination: Vec<DestinationSpec>,
}

/// A destination as written in `[[service.destination]]` and in `destination.add`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationSpec {
    /// The real server; its port is ignored for direct routing.
    pub address: Server,
    /// 0 to [`WEIGHT_MAX`]; 0 takes no new connections.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// Forwarding method.
    #[serde(default)]
    pub method: Method,
    /// No new connections from this many on; 0: no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub upper_threshold: u32,
    /// New connections again below this many; 0: three quarters of the upper threshold.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lower_threshold: u32,
}

/// How long, and by which part of its address, a client is kept on its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Persistence {
    /// Seconds, at least 1.
    pub timeout_s: u32,
    /// Leading bits of the client's address that count.
    pub prefix: u8,
}

/// A virtual service the director holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub key: ServiceKey,
    /// Its scheduler.
    pub scheduler: Scheduler,
    /// `None`: every connection is scheduled.
    pub persistence: Option<Persistence>,
    /// Newest first, as the kernel keeps them: schedulers depend on this order.
    pub destinations: Vec<Destination>,
}

/// A destination the director holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Address and port it is listed with; for direct routing the service's port.
    pub server: Endpoint,
    /// 0 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// Forwarding method.
    pub method: Method,
    /// 0: no limit.
    pub upper_threshold: u32,
    /// 0: three quarters of the upper threshold.
    pub lower_threshold: u32,
}

fn usable_address(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast)
}

/// Resolves `persistent` and `netmask` for a service at `key`.
///
/// # Errors
///
/// A mask longer than the address, or one without persistence.
pub(crate) fn persistence(
    key: ServiceKey,
    timeout_s: u32,
    netmask: Option<Netmask>,
) -> Result<Option<Persistence>, Refusal> {
    let bits = family_bits(key.address.ip);
    match (timeout_s, netmask) {
        (0, Some(_)) => Err(Refusal::NetmaskAlone(key)),
        (0, None) => Ok(None),
        (_, _) if timeout_s > TIMEOUT_MAX_S => Err(Refusal::Persistent(timeout_s)),
        (_, Some(Netmask(prefix))) if prefix > bits => Err(Refusal::NetmaskTooLong { key, prefix, bits }),
        (_, mask) => Ok(Some(Persistence { timeout_s, prefix: mask.map_or(bits, |mask| mask.0) })),
    }
}

impl Service {
    /// The service without its destinations.
    ///
    /// # Errors
    ///
    /// An unusable address, port 0 without persistence, a mask that does not fit.
    pub fn without_destinations(spec: &ServiceSpec) -> Result<Self, Refusal> {
        let key = spec.key();
        if !usable_address(key.address.ip) {
            return Err(Refusal::UnusableAddress(key.address.ip));
        }
        let persistence = persistence(key, spec.persistent, spec.netmask)?;
        if key.address.port == 0 && persistence.is_none() {
            return Err(Refusal::ZeroPort(key));
        }
        Ok(Self { key, scheduler: spec.scheduler, persistence, destinations: Vec::new() })
    }

    /// The place of the destination a command names, which may leave the port away.
    #[must_use]
    pub fn position(&self, server: Server) -> Option<usize> {
        let wanted = self.listed_as(server, Method::Direct);
        self.destinations.iter().position(|destination| destination.server == wanted)
    }

    /// Under which address and port a server is listed. Direct routing cannot change a port, so there the service's
    /// stands, whatever was written (as ipvsadm does).
    #[must_use]
    pub fn listed_as(&self, server: Server, method: Method) -> Endpoint {
        match method {
            Method::Direct => Endpoint { ip: server.ip, port: self.key.address.port },
        }
    }

    /// The service as an operator would write it, destinations in the order they were added.
    #[must_use]
    pub fn to_spec(&self) -> ServiceSpec {
        let bits = family_bits(self.key.address.ip);
        ServiceSpec {
            protocol: self.key.protocol,
            address: self.key.address,
            scheduler: self.scheduler,
            persistent: self.persistence.map_or(0, |persistence| persistence.timeout_s),
            netmask: self
                .persistence
                .and_then(|persistence| (persistence.prefix != bits).then_some(Netmask(persistence.prefix))),
            destination: self.destinations.iter().rev().map(|destination| destination.to_spec()).collect(),
        }
    }
}

impl ServiceSpec {
    /// The service's name.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey { protocol: self.protocol, address: self.address }
    }
}

impl Destination {
    /// The destination that `spec` means in `service`.
    ///
    /// # Errors
    ///
    /// Weight or thresholds out of range, an address that is no host's, or of the other family.
    pub fn new(service: &Service, spec: &DestinationSpec) -> Result<Self, Refusal> {
        let ip = spec.address.ip;
        if !usable_address(ip) {
            return Err(Refusal::UnusableAddress(ip));
        }
        if ip.is_ipv4() != service.key.address.ip.is_ipv4() {
            return Err(Refusal::FamilyMismatch { service: service.key, server: ip });
        }
        let destination = Self {
            server: service.listed_as(spec.address, spec.method),
            weight: spec.weight,
            method: spec.method,
            upper_threshold: spec.upper_threshold,
            lower_threshold: spec.lower_threshold,
        };
        destination.check()?;
        Ok(destination)
    }

    /// # Errors
    ///
    /// Weight or thresholds out of range.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.weight > WEIGHT_MAX {
            return Err(Refusal::Weight(self.weight));
        }
        if self.lower_threshold > self.upper_threshold {
            return Err(Refusal::Thresholds { lower: self.lower_threshold, upper: self.upper_threshold });
        }
        Ok(())
    }

    /// The destination as an operator would write it.
    #[must_use]
    pub fn to_spec(self) -> DestinationSpec {
        DestinationSpec {
            address: Server { ip: self.server.ip, port: Some(self.server.port) },
            weight: self.weight,
            method: self.method,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        }
    }
}
