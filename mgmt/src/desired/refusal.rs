//! Why a change is refused: the kernel's reasons under the kernel's names, each with a sentence that says the mend.

use dataplane::packet::mss;
use dataplane::snapshot::Maglev;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::{
    ClientMask, Family, MARK_RULES_MAX, MarkRule, Scheduler, ServiceKey, TIMEOUT_MAX_S, TunnelKind,
    WEIGHT_MAX,
};
use crate::address::{Endpoint, Server};

/// Why a change to the desired state was refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `service.add` of a service that is there.
    #[error("service {0} exists; change it with `uvsctl service edit`")]
    ServiceExists(ServiceKey),
    /// The named service is not there.
    #[error("there is no service {0}; `uvsctl service list` shows those there are")]
    NoService(ServiceKey),
    /// `destination.add` of a destination that is there.
    #[error("service {service} has destination {server} already; change it with `uvsctl destination edit`")]
    DestinationExists {
        /// The service.
        service: ServiceKey,
        /// The destination as it is listed.
        server: Endpoint,
    },
    /// The named destination is not there.
    #[error("service {service} has no destination {server}; `uvsctl destination list` shows those it has")]
    NoDestination {
        /// The service.
        service: ServiceKey,
        /// The destination as it was named.
        server: Server,
    },
    /// Not a scheduler this director has.
    #[error("there is no scheduler `{0}`; this director has {known}", known = schedulers())]
    NoScheduler(String),
    /// Options of mh for another scheduler.
    #[error("mh_size and mh_order are options of scheduler mh, not of {name}; leave them away", name = .0.name())]
    MaglevAlone(Scheduler),
    /// Not a size that mh's permutations work with.
    #[error(
        "mh_size {0} is not a prime number from {low} to {high}; write 4093 as in the kernel, or about a hundred times the destinations",
        low = Maglev::SMALLEST,
        high = Maglev::GREATEST
    )]
    MaglevSize(u32),
    /// Only TCP has a maximum segment size.
    #[error("mss_clamp is an option of TCP services and of marks, not of {0}; leave it away")]
    MssAlone(ServiceKey),
    /// Below what a SYN without the option means, or above what a packet carries.
    #[error(
        "mss_clamp {0} is not {low} to {high} bytes; write what the path's MTU leaves, such as {such} for 1500, or 0 for none",
        low = clamps(*.1).start(),
        high = clamps(*.1).end(),
        such = if *.1 == Family::Ipv6 { 1440 } else { 1460 }
    )]
    MssClamp(u16, Family),
    /// Not the name of a forwarding method.
    #[error("there is no forwarding method `{0}`; write direct, masquerade or tunnel")]
    UnknownMethod(String),
    /// GUE without a port.
    #[error("a GUE tunnel needs its destination's UDP port, such as port = 5555")]
    TunnelPort,
    /// Remote checksum offload is GUE's.
    #[error("a tunnel of kind {0} has no remote checksum; write checksum = \"none\" or kind = \"gue\"")]
    TunnelChecksum(TunnelKind),
    /// Greater than the kernel's signed 32-bit weight.
    #[error("weight {0} is too great; a weight is 0 to {WEIGHT_MAX}")]
    Weight(u32),
    /// The kernel's ERANGE.
    #[error(
        "lower threshold {lower} is above upper threshold {upper}; a destination that stops at {upper} cannot wait for {lower}"
    )]
    Thresholds {
        /// `lower_threshold`.
        lower: u32,
        /// `upper_threshold`.
        upper: u32,
    },
    /// Longer than the director's clock can tell apart.
    #[error("persistence of {0} s is too long; write 1 to {TIMEOUT_MAX_S} (23 days), or 0 for none")]
    Persistent(u32),
    /// A mask decides about persistence only.
    #[error("service {0} has a netmask but no persistence; add --persistent 300 or leave the netmask away")]
    NetmaskAlone(ServiceKey),
    /// A mask of another family, or longer than the address.
    #[error(
        "netmask {} does not fit service {key}, whose addresses are {family}; write {}",
        mask.map_or_else(String::new, |mask| mask.to_string()), masks(*family)
    )]
    NetmaskFamily {
        /// The service.
        key: ServiceKey,
        /// The mask as it was written.
        mask: Option<ClientMask>,
        /// The service's family.
        family: Family,
    },
    /// A timeout of 0, or longer than the director's clock can tell apart.
    #[error("timeout {name} of {seconds} s is not in the range 1 to {TIMEOUT_MAX_S}")]
    Timeout {
        /// Which: `tcp`, `tcp_fin`, `udp`.
        name: &'static str,
        /// Seconds.
        seconds: u32,
    },
    /// Not a setting, or a value that it does not take.
    #[error("setting `{name}`: {reason}")]
    Setting {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// `mark.add` of a rule that is there.
    #[error("there is a mark rule `{0}` already; delete it first to move it to the end")]
    MarkRuleExists(MarkRule),
    /// `mark.delete` of a rule that is not there.
    #[error("there is no mark rule `{0}`; `uvsctl mark list` shows those there are")]
    NoMarkRule(MarkRule),
    /// More than [`MARK_RULES_MAX`] rules.
    #[error(
        "{0} mark rules are more than {MARK_RULES_MAX}; name networks and port ranges instead of single ones"
    )]
    MarkRulesFull(usize),
    /// Packets have one family.
    #[error("a mark rule's source and destination are of different address families")]
    MarkRuleFamilies,
    /// Only TCP and UDP have ports.
    #[error("a mark rule with ports needs a protocol; add protocol = \"tcp\"")]
    MarkRulePorts,
    /// Unspecified, multicast or broadcast.
    #[error("{0} is not the address of a host")]
    UnusableAddress(IpAddr),
    /// An address that means another host on every link.
    #[error("{0} is link-local, which names no one host; give the destination's other address")]
    LinkLocal(Ipv6Addr),
    /// Only a tunnel carries packets of one family in those of the other.
    #[error(
        "destination {server} is not of service {service}'s address family; only a tunnel leads from one to the other"
    )]
    FamilyMismatch {
        /// The service.
        service: ServiceKey,
        /// The destination.
        server: IpAddr,
    },
    /// `limits.services` is reached.
    #[error(
        "{wanted} services are more than the {limit} this director was sized for; raise limits.services and restart"
    )]
    ServicesFull {
        /// How many there would be.
        wanted: usize,
        /// `limits.services`.
        limit: usize,
    },
    /// `limits.destinations` is reached.
    #[error(
        "{wanted} destinations are more than the {limit} this director was sized for; raise limits.destinations and restart"
    )]
    DestinationsFull {
        /// How many there would be.
        wanted: usize,
        /// `limits.destinations`.
        limit: usize,
    },
    /// Somebody else changed the state since the caller looked.
    #[error("the state is at revision {actual}, not {expected}: somebody changed it; look again and repeat")]
    Revision {
        /// What the caller expected.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// A refusal somewhere inside `config.apply`.
    #[error("{path}: {refusal}")]
    InSet {
        /// Where: `services[3].destination[0]`.
        path: String,
        /// What.
        refusal: Box<Refusal>,
    },
}

fn masks(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "a mask such as 255.255.255.0",
        Family::Ipv6 => "a prefix length from 1 to 128",
    }
}

fn clamps(family: Family) -> RangeInclusive<u16> {
    mss::clamps(family == Family::Ipv6)
}

fn schedulers() -> String {
    Scheduler::ALL.map(Scheduler::name).join(", ")
}

impl Refusal {
    /// A stable name for programs, and the error number with which the kernel's IPVS refuses the same thing.
    #[must_use]
    pub fn code(&self) -> (&'static str, &'static str) {
        match self {
            Self::ServiceExists(_) | Self::DestinationExists { .. } | Self::MarkRuleExists(_) => {
                ("exists", "EEXIST")
            }
            Self::NoService(_) => ("no_service", "ESRCH"),
            Self::NoDestination { .. } => ("no_destination", "ENOENT"),
            Self::NoMarkRule(_) => ("no_mark_rule", "ENOENT"),
            Self::NoScheduler(_) => ("no_scheduler", "ENOENT"),
            Self::Weight(_) | Self::Persistent(_) | Self::MssClamp(..) | Self::Thresholds { .. } => {
                ("out_of_range", "ERANGE")
            }
            Self::Timeout { .. } => ("out_of_range", "EINVAL"),
            Self::UnknownMethod(_)
            | Self::MaglevAlone(_)
            | Self::MaglevSize(_)
            | Self::MssAlone(_)
            | Self::TunnelPort
            | Self::TunnelChecksum(_)
            | Self::NetmaskAlone(_)
            | Self::NetmaskFamily { .. }
            | Self::UnusableAddress(_)
            | Self::LinkLocal(_)
            | Self::FamilyMismatch { .. }
            | Self::Setting { .. }
            | Self::MarkRuleFamilies
            | Self::MarkRulePorts => ("invalid", "EINVAL"),
            Self::ServicesFull { .. } | Self::DestinationsFull { .. } | Self::MarkRulesFull(_) => {
                ("full", "ENOMEM")
            }
            Self::Revision { .. } => ("revision", "ESTALE"),
            Self::InSet { refusal, .. } => refusal.code(),
        }
    }
}
