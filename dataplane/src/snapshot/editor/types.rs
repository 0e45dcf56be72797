//! What goes into an editor and what comes out of it, beside snapshots.

use crate::counters::{DestinationTable, lower_threshold};
use crate::id::{DestinationSlot, ServiceSlot};
use crate::snapshot::{Maglev, Method, Persistence, SchedulerKind, ServiceKey};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

/// How much an editor may hand out: the sizes of the tables that are indexed by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Services, removed ones included while their slot is held.
    pub services: u32,
    /// Destinations, removed ones included while they are in the trash.
    pub destinations: u32,
}

/// A virtual service as an operator describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its name.
    pub key: ServiceKey,
    /// Its scheduler.
    pub scheduler: SchedulerKind,
    /// Flags 1 to 3 of the scheduler in bits 0 to 2.
    pub flags: u8,
    /// Persistence, if any.
    pub persistence: Option<Persistence>,
    /// Every datagram is scheduled anew.
    pub one_packet: bool,
    /// Greatest MSS option of a SYN that passes, in bytes; `None` leaves them alone.
    pub mss_clamp: Option<u16>,
    /// How mh fills its table.
    pub maglev: Maglev,
}

impl ServiceSpec {
    /// A service without options.
    #[must_use]
    pub const fn new(key: ServiceKey, scheduler: SchedulerKind) -> Self {
        Self {
            key,
            scheduler,
            flags: 0,
            persistence: None,
            one_packet: false,
            mss_clamp: None,
            maglev: Maglev::KERNEL,
        }
    }
}

/// A destination of a service as an operator describes it; `address` and `port` name it within the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationSpec {
    /// The server.
    pub address: IpAddr,
    /// Its port; with masquerading 0 keeps the port that the client asked for.
    pub port: u16,
    /// How new connections are forwarded to it.
    pub method: Method,
    /// Weight, 0 to `i32::MAX`; 0 takes no new connections.
    pub weight: u32,
    /// Connections at which it takes no more, 0: no limit.
    pub upper: u32,
    /// Connections below which it takes new ones again, 0: three quarters of `upper`.
    pub lower: u32,
}

impl DestinationSpec {
    /// A destination for direct routing, without thresholds.
    #[must_use]
    pub const fn new(address: IpAddr, port: u16, weight: u32) -> Self {
        Self { address, port, method: Method::Direct, weight, upper: 0, lower: 0 }
    }
}

/// A destination that has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Its stable place.
    pub slot: DestinationSlot,
    /// Its service's stable place.
    pub service: ServiceSlot,
    /// Its service's name.
    pub key: ServiceKey,
    /// What the operator asked for.
    pub spec: DestinationSpec,
    /// Grows when the slot is given to another destination, not when a removed one comes back: counters of the slot belong to
    /// the incarnation.
    pub incarnation: u32,
    /// Whether it was removed and waits in the trash.
    pub removed: bool,
}

/// Why an edit was refused; nothing was changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A service of this key exists.
    #[error("the service exists already")]
    ServiceExists,
    /// No service of this key.
    #[error("no such service")]
    NoService,
    /// The service has this destination.
    #[error("the destination exists already")]
    DestinationExists,
    /// The service has no such destination.
    #[error("no such destination")]
    NoDestination,
    /// Every service slot is taken.
    #[error("all {limit} places for services are taken, those of recently removed services included")]
    ServicesFull {
        /// Slots there are.
        limit: u32,
    },
    /// Every destination slot is taken.
    #[error("all {limit} places for destinations are taken, those of recently removed ones included")]
    DestinationsFull {
        /// Slots there are.
        limit: u32,
    },
    /// Weight above `i32::MAX`.
    #[error("the weight is greater than 2147483647")]
    WeightRange,
    /// Lower threshold above the upper one.
    #[error("the lower threshold is greater than the upper one")]
    ThresholdRange,
    /// Persistence timeout of 0, or longer than [`crate::id::Ticks`] can tell apart.
    #[error("the persistence timeout is not between 1 ms and 2147483647 ms")]
    PersistenceTimeout,
    /// Persistence mask of the other family, or a prefix longer than an address.
    #[error("the persistence mask does not fit the address")]
    PersistenceMask,
    /// Not a size that mh's permutations work with.
    #[error("the size of mh's table is not a prime number from 251 to 65537; the kernel's is 4093")]
    MaglevSize,
    /// Below what a SYN without the option means, above what a packet carries, or a service that is not of TCP.
    #[error("the MSS clamp is not 536 to 65495 (IPv6: 1220 to 65475), or the service is not of TCP")]
    MssClamp,
    /// Mark 0 is no mark.
    #[error("a mark is not 0")]
    MarkZero,
    /// Service and destination are of different address families, and there is no tunnel between them.
    #[error("the destination is not of the service's address family, which only a tunnel can cross")]
    Family,
}

/// Thresholds of a destination that are new to the workers: its overload is to be decided again, once, after publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThresholdChange {
    /// The destination.
    pub slot: DestinationSlot,
    /// Its upper threshold, 0: none.
    pub upper: u32,
    /// Its lower threshold, 0: three quarters of the upper.
    pub lower: u32,
}

impl ThresholdChange {
    /// What an edit of thresholds does to a destination with `connections`: overloaded from `upper` on, not overloaded below the
    /// lower threshold, `before` in between.
    #[must_use]
    pub fn overloaded(self, connections: u64, before: bool) -> bool {
        if self.upper != 0 && connections >= self.upper.into() {
            return true;
        }
        before && connections >= lower_threshold(self.upper, self.lower).into()
    }

    /// Decides the overload from the sums over all workers.
    pub fn apply(self, table: &DestinationTable) {
        let totals = table.totals(self.slot);
        let overloaded = &table.shared(self.slot).overloaded;
        overloaded.store(self.overloaded(totals.active + totals.inactive, overloaded.load(Relaxed)), Relaxed);
    }
}

/// Where an editor learns whether anything names a removed destination.
pub trait References {
    /// Whether no connection and no template names the destination.
    fn unreferenced(&self, slot: DestinationSlot) -> bool;
}

impl References for DestinationTable {
    fn unreferenced(&self, slot: DestinationSlot) -> bool {
        Self::unreferenced(self, slot)
    }
}

/// Where an editor learns where the workers' scheduler cursors stand.
pub trait Cursors {
    /// Whether any worker's cursor in this service has this [`crate::scheduler::Cursor::position`].
    fn stands_on(&self, service: ServiceSlot, position: u32) -> bool;
}

/// What a round of housekeeping did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Housekept {
    /// Whether the next snapshot differs, so that it is worth publishing.
    pub changed: bool,
    /// Destination slots that may be given to others from now on.
    pub destinations: Vec<DestinationSlot>,
    /// Service slots that may be given to others from now on.
    pub services: Vec<ServiceSlot>,
}
