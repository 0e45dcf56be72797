//! A change to the desired state: the one type that the control socket, the configuration file and later the IPVS
//! endpoint speak.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DestinationSpec, Method, Scheduler, ServiceKey, ServiceSpec};
use crate::address::{Netmask, Server};

/// A change. It is made as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum Change {
    /// A new service, with any destinations it names.
    #[serde(rename = "service.add")]
    ServiceAdd(ServiceAdd),
    /// Another scheduler or persistence; destinations, connections and counters stay.
    #[serde(rename = "service.edit")]
    ServiceEdit(ServiceEdit),
    /// The service and its destinations go; its connections are no longer forwarded.
    #[serde(rename = "service.delete")]
    ServiceDelete(ServiceDelete),
    /// A new destination, at the head of the service's list.
    #[serde(rename = "destination.add")]
    DestinationAdd(DestinationAdd),
    /// Changes what it names and leaves the rest; the destination keeps its place in the list.
    #[serde(rename = "destination.edit")]
    DestinationEdit(DestinationEdit),
    /// The destination goes; packets of its connections are dropped.
    #[serde(rename = "destination.delete")]
    DestinationDelete(DestinationDelete),
    /// These services and no others.
    #[serde(rename = "config.apply")]
    Apply(Apply),
}

/// Parameters of `service.add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAdd {
    /// The service.
    pub service: ServiceSpec,
}

/// Parameters of `service.edit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceEdit {
    /// Which service.
    pub service: ServiceKey,
    /// Its scheduler from now on; the new one starts afresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// Seconds; 0 ends persistence for new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<u32>,
    /// Part of the client's address that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netmask: Option<Netmask>,
}

/// Parameters of `service.delete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceDelete {
    /// Which service.
    pub service: ServiceKey,
}

/// Parameters of `destination.add`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationAdd {
    /// Which service.
    pub service: ServiceKey,
    /// The destination.
    pub destination: DestinationSpec,
}

/// Parameters of `destination.edit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationEdit {
    /// Which service.
    pub service: ServiceKey,
    /// Which destination.
    pub address: Server,
    /// 0 takes no new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Forwarding method of new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper_threshold: Option<u32>,
    /// 0: three quarters of the upper threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_threshold: Option<u32>,
}

/// Parameters of `destination.delete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationDelete {
    /// Which service.
    pub service: ServiceKey,
    /// Which destination.
    pub address: Server,
}

/// Parameters of `config.apply`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// All services there shall be.
    pub services: Vec<ServiceSpec>,
    /// Refuse unless the state is at this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
    /// Say what would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

impl Change {
    /// The one service it is about; none for a whole set.
    #[must_use]
    pub fn service(&self) -> Option<ServiceKey> {
        match self {
            Self::ServiceAdd(add) => Some(add.service.key()),
            Self::ServiceEdit(edit) => Some(edit.service),
            Self::ServiceDelete(delete) => Some(delete.service),
            Self::DestinationAdd(add) => Some(add.service),
            Self::DestinationEdit(edit) => Some(edit.service),
            Self::DestinationDelete(delete) => Some(delete.service),
            Self::Apply(_) => None,
        }
    }
}

impl fmt::Display for ServiceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} scheduler {}", self.key(), self.scheduler.name())?;
        if self.persistent != 0 {
            write!(f, " persistent {} s", self.persistent)?;
        }
        if let Some(netmask) = self.netmask {
            write!(f, " netmask /{netmask}")?;
        }
        Ok(())
    }
}

impl fmt::Display for DestinationSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} weight {}", self.address, self.method, self.weight)?;
        if self.upper_threshold != 0 {
            write!(f, " thresholds {}/{}", self.upper_threshold, self.lower_threshold)?;
        }
        Ok(())
    }
}

/// One line a person can read: what a diff and an event show.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn named<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, value: Option<T>) -> fmt::Result {
            value.map_or(Ok(()), |value| write!(f, " {name} {value}"))
        }
        match self {
            Self::ServiceAdd(add) => {
                write!(f, "+ service {}", add.service)?;
                match add.service.destination.len() {
                    0 => Ok(()),
                    1 => f.write_str(", 1 destination"),
                    count => write!(f, ", {count} destinations"),
                }
            }
            Self::ServiceEdit(edit) => {
                write!(f, "~ service {}", edit.service)?;
                named(f, "scheduler", edit.scheduler.map(Scheduler::name))?;
                named(f, "persistent", edit.persistent)?;
                named(f, "netmask", edit.netmask)
            }
            Self::ServiceDelete(delete) => write!(f, "- service {}", delete.service),
            Self::DestinationAdd(add) => write!(f, "+ {} -> {}", add.service, add.destination),
            Self::DestinationEdit(edit) => {
                write!(f, "~ {} -> {}", edit.service, edit.address)?;
                named(f, "weight", edit.weight)?;
                named(f, "method", edit.method)?;
                named(f, "upper threshold", edit.upper_threshold)?;
                named(f, "lower threshold", edit.lower_threshold)
            }
            Self::DestinationDelete(delete) => write!(f, "- {} -> {}", delete.service, delete.address),
            Self::Apply(apply) => write!(f, "= {} services", apply.services.len()),
        }
    }
}
