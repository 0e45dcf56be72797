//! Services and destinations: as an operator writes them (`…Spec`) and as the director holds them.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::key::key_of_fields;
use super::maglev::maglev;
use super::mss::mss_clamp;
use super::{ClientMask, Family, MaglevOrder, Method, Refusal, SchedulerFlags, ServiceKey};
use crate::address::{Endpoint, Protocol, Server};

/// Greatest weight, as in the kernel (a signed 32-bit number).
pub const WEIGHT_MAX: u32 = 2_147_483_647;

/// Longest timeout in seconds. Ticks are 32-bit milliseconds compared over half their range (24.8 days).
pub const TIMEOUT_MAX_S: u32 = 2_000_000;

use dataplane::snapshot::Maglev;
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

fn default_scheduler() -> Scheduler {
    Scheduler::Wlc
}

fn default_weight() -> u32 {
    1
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_none(bytes: &u16) -> bool {
    *bytes == 0
}

/// A virtual service as written in `[[service]]` and in `service.add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceSpec {
    /// Its name: `protocol` and `address`, or `mark` and `family`.
    #[serde(flatten)]
    pub key: ServiceKey,
    /// Default wlc, as in ipvsadm.
    pub scheduler: Scheduler,
    /// What the scheduler may look at.
    #[serde(skip_serializing_if = "SchedulerFlags::is_empty")]
    pub scheduler_flags: SchedulerFlags,
    /// Slots of mh's table: a prime number from 251 to 65537; default 4093, as in the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mh_size: Option<u32>,
    /// How mh fills its table; default `kernel`, in configuration files `canonical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mh_order: Option<MaglevOrder>,
    /// Every datagram is scheduled anew and leaves no connection behind.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub one_packet: bool,
    /// Seconds a client stays on its destination; 0 or absent: no persistence.
    #[serde(skip_serializing_if = "is_zero")]
    pub persistent: u32,
    /// Part of the client's address that persistence looks at; absent: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netmask: Option<ClientMask>,
    /// Greatest MSS option of a TCP SYN that passes, in bytes; 0 or absent: they stay as they are.
    #[serde(skip_serializing_if = "is_none")]
    pub mss_clamp: u16,
    /// Destinations in the order they are added; a listing shows the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination: Vec<DestinationSpec>,
}

/// The fields of a service as they are written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceFields {
    protocol: Option<Protocol>,
    address: Option<Endpoint>,
    mark: Option<NonZeroU32>,
    family: Option<Family>,
    #[serde(default = "default_scheduler")]
    scheduler: Scheduler,
    #[serde(default)]
    scheduler_flags: SchedulerFlags,
    mh_size: Option<u32>,
    mh_order: Option<MaglevOrder>,
    #[serde(default)]
    one_packet: bool,
    #[serde(default)]
    persistent: u32,
    netmask: Option<ClientMask>,
    #[serde(default)]
    mss_clamp: u16,
    #[serde(default, alias = "destinations")]
    destination: Vec<DestinationSpec>,
}

impl<'de> Deserialize<'de> for ServiceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Spec;
        impl<'de> Visitor<'de> for Spec {
            type Value = ServiceSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a service")
            }
            // In here, and not afterwards, so that a missing field is reported where the service stands.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ServiceSpec, A::Error> {
                let fields = ServiceFields::deserialize(MapAccessDeserializer::new(map))?;
                let key = key_of_fields(fields.protocol, fields.address, fields.mark, fields.family)
                    .map_err(de::Error::custom)?;
                Ok(ServiceSpec {
                    key,
                    scheduler: fields.scheduler,
                    scheduler_flags: fields.scheduler_flags,
                    mh_size: fields.mh_size,
                    mh_order: fields.mh_order,
                    one_packet: fields.one_packet,
                    persistent: fields.persistent,
                    netmask: fields.netmask,
                    mss_clamp: fields.mss_clamp,
                    destination: fields.destination,
                })
            }
        }
        deserializer.deserialize_map(Spec)
    }
}

/// A destination as written in `[[service.destination]]` and in `destination.add`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationSpec {
    /// The real server, by its name in the service's list. Only masquerading delivers to its port.
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
    /// Bits of the client's address that count, of the service's family.
    pub mask: ClientMask,
}

/// A virtual service the director holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub key: ServiceKey,
    /// Its scheduler.
    pub scheduler: Scheduler,
    /// What the scheduler may look at.
    pub scheduler_flags: SchedulerFlags,
    /// mh's table; the kernel's under other schedulers.
    pub maglev: Maglev,
    /// Every datagram is scheduled anew.
    pub one_packet: bool,
    /// `None`: every connection is scheduled.
    pub persistence: Option<Persistence>,
    /// Greatest MSS option of a TCP SYN that passes, in bytes; `None`: they stay as they are.
    pub mss_clamp: Option<u16>,
    /// Newest first, as the kernel keeps them: schedulers depend on this order.
    pub destinations: Vec<Destination>,
}

/// A destination the director holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Address and port it is listed with.
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
/// A mask of another family or longer than the address, or one without persistence.
pub(crate) fn persistence(
    key: ServiceKey,
    timeout_s: u32,
    netmask: Option<ClientMask>,
) -> Result<Option<Persistence>, Refusal> {
    let family = key.family();
    match (timeout_s, netmask) {
        (0, Some(_)) => Err(Refusal::NetmaskAlone(key)),
        (0, None) => Ok(None),
        (_, _) if timeout_s > TIMEOUT_MAX_S => Err(Refusal::Persistent(timeout_s)),
        (_, written) => {
            let held = written.map_or_else(|| Some(ClientMask::whole(family)), |mask| mask.held(family));
            let mask = held.ok_or(Refusal::NetmaskFamily { key, mask: written, family })?;
            Ok(Some(Persistence { timeout_s, mask }))
        }
    }
}

impl Service {
    /// The service without its destinations.
    ///
    /// # Errors
    ///
    /// An unusable address, a mask that does not fit, a protocol that is not forwarded.
    pub fn without_destinations(spec: &ServiceSpec) -> Result<Self, Refusal> {
        let key = spec.key;
        match key {
            ServiceKey::Address { address, .. } if !usable_address(address.ip) => {
                return Err(Refusal::UnusableAddress(address.ip));
            }
            _ => {}
        }
        Ok(Self {
            key,
            scheduler: spec.scheduler,
            scheduler_flags: spec.scheduler_flags,
            maglev: maglev(spec.scheduler, Maglev::KERNEL, spec.mh_size, spec.mh_order)?,
            one_packet: spec.one_packet,
            persistence: persistence(key, spec.persistent, spec.netmask)?,
            mss_clamp: mss_clamp(key, spec.mss_clamp)?,
            destinations: Vec::new(),
        })
    }

    /// The place of the destination a command names, which may leave the service's port away.
    #[must_use]
    pub fn position(&self, server: Server) -> Option<usize> {
        let named = self.listed_as(server);
        self.destinations.iter().position(|destination| destination.server == named)
    }

    /// Under which address and port a server is listed: the service's port where none is written.
    #[must_use]
    pub fn listed_as(&self, server: Server) -> Endpoint {
        Endpoint { ip: server.ip, port: server.port.unwrap_or_else(|| self.key.port()) }
    }

    /// The service as an operator would write it, destinations in the order they were added.
    #[must_use]
    pub fn to_spec(&self) -> ServiceSpec {
        let whole = ClientMask::whole(self.key.family());
        ServiceSpec {
            key: self.key,
            scheduler: self.scheduler,
            scheduler_flags: self.scheduler_flags,
            mh_size: Some(self.maglev.size).filter(|size| *size != Maglev::KERNEL.size),
            // Always, because a file that does not say means another one than a command.
            mh_order: (self.scheduler == Scheduler::Mh).then(|| MaglevOrder::of(self.maglev)),
            one_packet: self.one_packet,
            persistent: self.persistence.map_or(0, |held| held.timeout_s),
            netmask: self.persistence.map(|held| held.mask).filter(|mask| *mask != whole),
            mss_clamp: self.mss_clamp.unwrap_or(0),
            destination: self.destinations.iter().rev().map(|destination| destination.to_spec()).collect(),
        }
    }
}

impl ServiceSpec {
    /// A service without options or destinations.
    #[must_use]
    pub fn new(key: ServiceKey, scheduler: Scheduler) -> Self {
        Self {
            key,
            scheduler,
            scheduler_flags: SchedulerFlags::default(),
            mh_size: None,
            mh_order: None,
            one_packet: false,
            persistent: 0,
            netmask: None,
            mss_clamp: 0,
            destination: Vec::new(),
        }
    }
}

impl DestinationSpec {
    /// A destination of weight 1 without thresholds, reached by direct routing.
    #[must_use]
    pub fn new(address: Server) -> Self {
        Self { address, weight: 1, method: Method::Direct, upper_threshold: 0, lower_threshold: 0 }
    }
}

impl Destination {
    /// What an operator who named this port should know: only masquerading changes the port of a packet.
    pub(crate) fn port_without_effect(&self, service: ServiceKey) -> Option<String> {
        let Endpoint { ip, port } = self.server;
        let changes = self.method == Method::Masquerade || service.is_mark() || port == service.port();
        (!changes).then(|| {
            let to = service.port();
            format!("{ip}: port {port} has no effect, {} delivers to the service's port {to}", self.method)
        })
    }

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
        if let IpAddr::V6(ip) = ip
            && ip.is_unicast_link_local()
        {
            return Err(Refusal::LinkLocal(ip));
        }
        let destination = Self {
            server: service.listed_as(spec.address),
            weight: spec.weight,
            method: spec.method,
            upper_threshold: spec.upper_threshold,
            lower_threshold: spec.lower_threshold,
        };
        destination.check(service.key)?;
        Ok(destination)
    }

    /// # Errors
    ///
    /// Weight or thresholds out of range, an address of the other family, a tunnel that cannot be.
    pub(crate) fn check(&self, service: ServiceKey) -> Result<(), Refusal> {
        let crosses = matches!(self.method, Method::Tunnel(_));
        if Family::of(self.server.ip) != service.family() && !crosses {
            return Err(Refusal::FamilyMismatch { service, server: self.server.ip });
        }
        if self.weight > WEIGHT_MAX {
            return Err(Refusal::Weight(self.weight));
        }
        if self.lower_threshold > self.upper_threshold {
            return Err(Refusal::Thresholds { lower: self.lower_threshold, upper: self.upper_threshold });
        }
        if let Method::Tunnel(tunnel) = self.method {
            tunnel.check()?;
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
