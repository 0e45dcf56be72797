//! Why a change is refused: the kernel's reasons under the kernel's names, each with a sentence that says the mend.

use std::net::IpAddr;

use super::{Scheduler, ServiceKey, TIMEOUT_MAX_S, WEIGHT_MAX};
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
    /// Not a forwarding method this director has.
    #[error("there is no forwarding method `{0}`; this director has direct")]
    NoMethod(String),
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
    /// A service on every port only makes sense when a client's ports go to one destination.
    #[error("service {0} is on port 0 (every port), which needs persistence; add --persistent 300")]
    ZeroPort(ServiceKey),
    /// A mask decides about persistence only.
    #[error("service {0} has a netmask but no persistence; add --persistent 300 or leave the netmask away")]
    NetmaskAlone(ServiceKey),
    /// A mask longer than the address.
    #[error("netmask /{prefix} does not fit service {key}, whose addresses have {bits} bits")]
    NetmaskTooLong {
        /// The service.
        key: ServiceKey,
        /// The mask's length.
        prefix: u8,
        /// Bits of an address of the service's family.
        bits: u8,
    },
    /// Unspecified, multicast or broadcast.
    #[error("{0} is not the address of a host")]
    UnusableAddress(IpAddr),
    /// Direct routing sends the client's own packet, so the families are the same.
    #[error(
        "destination {server} is not of service {service}'s address family; direct routing cannot translate"
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

fn schedulers() -> String {
    Scheduler::ALL.map(Scheduler::name).join(", ")
}

impl Refusal {
    /// A stable name for programs, and the error number with which the kernel's IPVS refuses the same thing.
    #[must_use]
    pub fn code(&self) -> (&'static str, &'static str) {
        match self {
            Self::ServiceExists(_) | Self::DestinationExists { .. } => ("exists", "EEXIST"),
            Self::NoService(_) => ("no_service", "ESRCH"),
            Self::NoDestination { .. } => ("no_destination", "ENOENT"),
            Self::NoScheduler(_) => ("no_scheduler", "ENOENT"),
            Self::Weight(_) | Self::Persistent(_) | Self::Thresholds { .. } => ("out_of_range", "ERANGE"),
            Self::NoMethod(_)
            | Self::ZeroPort(_)
            | Self::NetmaskAlone(_)
            | Self::NetmaskTooLong { .. }
            | Self::UnusableAddress(_)
            | Self::FamilyMismatch { .. } => ("invalid", "EINVAL"),
            Self::ServicesFull { .. } | Self::DestinationsFull { .. } => ("full", "ENOMEM"),
            Self::Revision { .. } => ("revision", "ESTALE"),
            Self::InSet { refusal, .. } => refusal.code(),
        }
    }
}
