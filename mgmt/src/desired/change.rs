//! A change to the desired state: the one type that the control socket, the configuration file and the IPVS endpoint
//! speak.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    ClientMask, DestinationSpec, MaglevOrder, MarkRule, Method, Scheduler, SchedulerFlags, ServiceKey,
    ServiceSpec, Settings, SettingsEdit, Timeouts, TimeoutsSet,
};
use crate::address::Server;

/// A change. It is made as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum Change {
    /// A new service, with any destinations it names.
    #[serde(rename = "service.add")]
    ServiceAdd(ServiceAdd),
    /// Another scheduler, persistence or way to schedule; destinations, connections and counters stay.
    #[serde(rename = "service.edit")]
    ServiceEdit(ServiceEdit),
    /// The service and its destinations go; its connections are no longer forwarded.
    #[serde(rename = "service.delete")]
    ServiceDelete(ServiceDelete),
    /// All services go.
    #[serde(rename = "service.flush")]
    ServiceFlush(ServiceFlush),
    /// A new destination, at the head of the service's list.
    #[serde(rename = "destination.add")]
    DestinationAdd(DestinationAdd),
    /// Changes what it names and leaves the rest; the destination keeps its place in the list.
    #[serde(rename = "destination.edit")]
    DestinationEdit(DestinationEdit),
    /// The destination goes; packets of its connections are dropped.
    #[serde(rename = "destination.delete")]
    DestinationDelete(DestinationDelete),
    /// Timeouts of connections, from each one's next packet on.
    #[serde(rename = "timeouts.set")]
    TimeoutsSet(TimeoutsSet),
    /// The director's behaviour.
    #[serde(rename = "settings.set")]
    SettingsSet(SettingsEdit),
    /// A new rule, after those there are.
    #[serde(rename = "mark.add")]
    MarkRuleAdd(MarkRule),
    /// The rule goes.
    #[serde(rename = "mark.delete")]
    MarkRuleDelete(MarkRule),
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
    pub netmask: Option<ClientMask>,
    /// Whether every datagram is scheduled anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_packet: Option<bool>,
    /// What the scheduler may look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_flags: Option<SchedulerFlags>,
    /// Slots of mh's table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mh_size: Option<u32>,
    /// How mh fills its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mh_order: Option<MaglevOrder>,
    /// Greatest MSS option of a TCP SYN that passes, in bytes; 0: they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss_clamp: Option<u16>,
}

impl ServiceEdit {
    /// Nothing to change yet.
    #[must_use]
    pub fn of(service: ServiceKey) -> Self {
        Self {
            service,
            scheduler: None,
            persistent: None,
            netmask: None,
            one_packet: None,
            scheduler_flags: None,
            mh_size: None,
            mh_order: None,
            mss_clamp: None,
        }
    }
}

/// Parameters of `service.flush`: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceFlush {}

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

impl DestinationEdit {
    /// Nothing to change yet.
    #[must_use]
    pub fn of(service: ServiceKey, address: Server) -> Self {
        Self { service, address, weight: None, method: None, upper_threshold: None, lower_threshold: None }
    }
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
    /// All timeouts; absent: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// All settings; absent: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// All mark rules there shall be, in order; absent: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<Vec<MarkRule>>,
    /// Refuse unless the state is at this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
    /// Say what would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

impl Change {
    /// The one service it is about, if it is about one.
    #[must_use]
    pub fn service(&self) -> Option<ServiceKey> {
        match self {
            Self::ServiceAdd(add) => Some(add.service.key),
            Self::ServiceEdit(edit) => Some(edit.service),
            Self::ServiceDelete(delete) => Some(delete.service),
            Self::DestinationAdd(add) => Some(add.service),
            Self::DestinationEdit(edit) => Some(edit.service),
            Self::DestinationDelete(delete) => Some(delete.service),
            Self::ServiceFlush(_)
            | Self::TimeoutsSet(_)
            | Self::SettingsSet(_)
            | Self::MarkRuleAdd(_)
            | Self::MarkRuleDelete(_)
            | Self::Apply(_) => None,
        }
    }
}

impl fmt::Display for ServiceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} scheduler {}", self.key, self.scheduler.name())?;
        if !self.scheduler_flags.is_empty() {
            write!(f, " flags {}", self.scheduler_flags)?;
        }
        if let Some(size) = self.mh_size {
            write!(f, " size {size}")?;
        }
        if let Some(order) = self.mh_order {
            write!(f, " order {order}")?;
        }
        if self.one_packet {
            f.write_str(" one packet")?;
        }
        if self.persistent != 0 {
            write!(f, " persistent {} s", self.persistent)?;
        }
        if let Some(netmask) = self.netmask {
            write!(f, " netmask {netmask}")?;
        }
        if self.mss_clamp != 0 {
            write!(f, " mss clamp {}", self.mss_clamp)?;
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
                named(f, "netmask", edit.netmask)?;
                named(f, "one packet", edit.one_packet)?;
                named(f, "flags", edit.scheduler_flags)?;
                named(f, "size", edit.mh_size)?;
                named(f, "order", edit.mh_order)?;
                let clamp = |bytes| if bytes == 0 { "none".to_owned() } else { u16::to_string(&bytes) };
                named(f, "mss clamp", edit.mss_clamp.map(clamp))
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
            Self::ServiceFlush(_) => f.write_str("- all services"),
            Self::TimeoutsSet(set) => {
                f.write_str("~ timeouts")?;
                named(f, "tcp", set.tcp)?;
                named(f, "tcp_fin", set.tcp_fin)?;
                named(f, "udp", set.udp)
            }
            Self::SettingsSet(edit) => {
                f.write_str("~ settings")?;
                edit.named().try_for_each(|(name, value)| write!(f, " {name}={value}"))
            }
            Self::MarkRuleAdd(rule) => write!(f, "+ mark rule {rule}"),
            Self::MarkRuleDelete(rule) => write!(f, "- mark rule {rule}"),
            Self::Apply(apply) => write!(f, "= {} services", apply.services.len()),
        }
    }
}
