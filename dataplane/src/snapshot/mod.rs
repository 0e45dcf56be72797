//! The immutable picture of services, destinations and ports that workers read, one for each burst.

mod chunked;
pub mod editor;
mod hop;
mod index;
mod marks;
mod method;
mod multipath;
mod routes;
mod schedulers;
mod servers;
mod settings;

pub use chunked::Chunked;
pub use editor::{
    Cursors, Destination, DestinationSpec, EditError, Editor, Housekept, Limits, References, ServiceSpec,
    ThresholdChange,
};
pub use hop::{Exit, Hop};
pub use index::{AddressSet, ServiceIndex};
pub use marks::{MarkRule, Marks, Prefix};
pub use method::{Encapsulation, Method, Tunnel, TunnelChecksum, TunnelKind};
pub use multipath::{Multipath, WeightedWay, bounds as multipath_bounds, flow_hash};
pub use routes::{Route, RouteView, Routes};
pub use schedulers::{Maglev, SchedulerKind, scheduler_flags};
pub use servers::{Server, ServerKey, ServerSet};
pub use settings::{Settings, Timeouts};

use crate::address::Address;
use crate::flow::{Tuple, protocol};
use crate::id::{DestinationSlot, PortId, ServiceSlot};
use std::net::IpAddr;
use std::sync::Arc;

/// What names a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKey {
    /// A transport protocol, an address and a port.
    Address {
        /// IP protocol number.
        protocol: u8,
        /// Virtual address.
        address: IpAddr,
        /// Virtual port; 0 takes every port.
        port: u16,
    },
    /// What mark rules marked: packets of any protocol, to any address and port of one family.
    Mark {
        /// The mark, not 0.
        mark: u32,
        /// IPv6 packets; otherwise IPv4.
        v6: bool,
    },
}

impl ServiceKey {
    /// Whether its packets are IPv6.
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { v6, .. } => *v6,
        }
    }

    /// Whether its packets may be TCP's; a mark takes every protocol.
    #[must_use]
    pub const fn may_be_tcp(&self) -> bool {
        matches!(self, Self::Address { protocol: protocol::TCP, .. } | Self::Mark { .. })
    }

    /// The virtual address; a mark has none.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::Mark { .. } => None,
        }
    }

    /// The virtual port; 0 for every port, and for marks.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address { port, .. } => *port,
            Self::Mark { .. } => 0,
        }
    }

    /// The mark, 0 for a service of an address.
    #[must_use]
    pub const fn mark(&self) -> u32 {
        match self {
            Self::Address { .. } => 0,
            Self::Mark { mark, .. } => *mark,
        }
    }
}

/// Everything a worker needs to know, published as one. Cloning is cheap: parts that did not change are shared. Its cache lines are its
/// own, since the management thread writes to its neighbours in memory.
#[derive(Debug, Clone)]
#[repr(align(128))]
pub struct Snapshot {
    /// Grows by one with every publication.
    pub revision: u64,
    /// From service keys to slots.
    pub index: ServiceIndex,
    /// Services by slot.
    pub services: Chunked<Option<Arc<ServiceView>>>,
    /// Destinations by slot, with all that forwarding one packet needs.
    destinations: Chunked<DestinationView>,
    /// What a packet that goes straight on needs of them.
    hops: Chunked<Hop>,
    /// Outer headers by destination slot, where there is a tunnel and an address to send from. A tunnel that became something else
    /// keeps them for its older connections.
    pub encapsulations: Chunked<Option<Arc<Encapsulation>>>,
    /// The addresses of all virtual services, and those whose last connection is not gone yet.
    pub virtual_addresses: Arc<AddressSet>,
    /// The servers behind masquerading, those with connections left included.
    pub servers: Arc<ServerSet>,
    /// Which packets carry which mark.
    pub marks: Marks,
    /// Where replies go.
    pub routes: Arc<Routes>,
    /// Ports by [`PortId`].
    pub ports: Arc<[PortView]>,
    /// Timeouts that `ipvsadm --set` would change.
    pub timeouts: Timeouts,
    /// Behaviour, by the kernel's sysctl names.
    pub settings: Settings,
    /// The last revision that removed a destination under `expire_nodest_conn`: its connections are to be closed.
    pub orphaned_in: u64,
    /// The last services whose counts became shared, or that share them in a new generation, with the revision that did it, the
    /// oldest first.
    pub sharing: Arc<[(u64, ServiceSlot)]>,
}

/// How many entries [`Snapshot::sharing`] keeps.
pub const SHARING_LOG: usize = 64;

impl Snapshot {
    /// A director without any service.
    #[must_use]
    pub fn empty(ports: Arc<[PortView]>) -> Self {
        Self {
            revision: 0,
            index: ServiceIndex::default(),
            services: Chunked::default(),
            destinations: Chunked::default(),
            hops: Chunked::default(),
            encapsulations: Chunked::default(),
            virtual_addresses: Arc::default(),
            servers: Arc::default(),
            marks: Marks::default(),
            routes: Arc::default(),
            ports,
            timeouts: Timeouts::default(),
            settings: Settings::default(),
            orphaned_in: 0,
            sharing: Arc::default(),
        }
    }

    /// Calls `each` with every service that was logged in `sharing` after `revision`; with all shared ones when the log does
    /// not reach back so far.
    pub fn newly_shared(&self, revision: u64, mut each: impl FnMut(ServiceSlot)) {
        let complete =
            self.sharing.len() < SHARING_LOG || self.sharing.first().is_some_and(|first| first.0 <= revision);
        if complete {
            self.sharing.iter().filter(|(since, _)| *since > revision).for_each(|(_, slot)| each(*slot));
        } else {
            let shared = self.services.iter().flatten().filter(|service| service.shared_counts);
            shared.for_each(|service| each(service.slot));
        }
    }

    /// The service of a packet that came in by `port`: its mark's, if it has one and that has a service, else its address's.
    #[inline]
    #[must_use]
    pub fn service_of<A: Address>(&self, tuple: &Tuple<A>, port: PortId) -> Option<ServiceSlot> {
        if !self.marks.is_empty() {
            let mark = self.marks.of(tuple, port);
            let marked = || self.index.get(&ServiceKey::Mark { mark, v6: A::LENGTH != 4 });
            if mark != 0
                && let Some(slot) = marked()
            {
                return Some(slot);
            }
        }
        self.index.find(tuple.protocol, tuple.destination.ip(), tuple.destination_port)
    }

    /// Whether an address is the director's own: its routes say so, or a service has it. What mark rules match may be anybody's.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.virtual_addresses.contains(address)
            || self.routes.find(address).is_some_and(|route| route.next_hop == NextHop::Local)
    }

    /// The service of a slot.
    #[inline]
    #[must_use]
    pub fn service(&self, slot: ServiceSlot) -> Option<&ServiceView> {
        self.services.get(slot.index())?.as_deref()
    }

    /// The destination of a slot.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self, slot: DestinationSlot) -> Option<&DestinationView> {
        self.destinations.get(slot.index())
    }

    /// Where the packets of a destination go that can go straight on; nowhere for a slot without one.
    #[inline(always)]
    #[must_use]
    pub fn hop(&self, slot: DestinationSlot) -> &Hop {
        self.hops.get(slot.index()).unwrap_or(&Hop::NOWHERE)
    }

    /// Says what is to be known of a destination.
    fn set_destination(&mut self, slot: DestinationSlot, view: DestinationView) {
        self.hops.set(slot.index(), Hop::of(&view));
        self.destinations.set(slot.index(), view);
    }

    /// The outer headers of a tunnel's destination.
    #[inline]
    #[must_use]
    pub fn encapsulation(&self, slot: DestinationSlot) -> Option<&Encapsulation> {
        self.encapsulations.get(slot.index())?.as_deref()
    }
}

/// A port as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    /// Own MAC addresses: frames to others are not ours.
    pub mac: [u8; 6],
    /// Further own MAC addresses (macvlans of the twin, VRRP).
    pub more_macs: Arc<[[u8; 6]]>,
    /// IP MTU in bytes.
    pub mtu: u16,
}

/// Which part of a client's address names a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMask {
    /// The bits of an IPv4 address that count, in host order. Any mask is allowed, as in the kernel: `ipvsadm -M 24` means
    /// 0.0.0.24.
    V4(u32),
    /// How many leading bits of an IPv6 address count.
    V6(u8),
}

impl ClientMask {
    /// All of an IPv4 address.
    pub const HOST_V4: Self = Self::V4(u32::MAX);
    /// All of an IPv6 address.
    pub const HOST_V6: Self = Self::V6(128);
}

/// Persistence of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persistence {
    /// Life of a template after its last new connection, in milliseconds.
    pub timeout: u32,
    /// Which clients share a template.
    pub mask: ClientMask,
}

/// A virtual service as workers see it.
#[derive(Debug, Clone)]
pub struct ServiceView {
    /// Its stable place.
    pub slot: ServiceSlot,
    /// Its name.
    pub key: ServiceKey,
    /// Grows when the service of this slot is another one, or its scheduler was changed: cursors start afresh.
    pub generation: u32,
    /// Its scheduler.
    pub scheduler: SchedulerKind,
    /// Flags 1 to 3 of the scheduler in bits 0 to 2 ([`scheduler_flags`]).
    pub flags: u8,
    /// Persistence, if any.
    pub persistence: Option<Persistence>,
    /// Every datagram is scheduled anew and leaves no connection behind.
    pub one_packet: bool,
    /// Greatest MSS option of a SYN that passes, in bytes; `None` leaves them alone.
    pub mss_clamp: Option<u16>,
    /// Whether connection counts of its destinations are shared between workers: the scheduler or a threshold reads them.
    pub shared_counts: bool,
    /// Grows with every change of `candidates`; a cursor's index holds while it is unchanged.
    pub list_version: u32,
    /// Destinations in the kernel's order, the newest first, removed ones included while a cursor may stand on them.
    pub candidates: Box<[Candidate]>,
    /// The last changes of the list, the oldest first. Under wrr at least the last one is there, other schedulers have none.
    pub wrr_edits: Box<[WrrEdit]>,
    /// wrr's current weight after all changes of this generation, for a cursor that has not chosen in it yet.
    pub wrr_start: u32,
    /// From a hash to an index in `candidates`; dh, sh and mh have one.
    pub table: Option<Arc<[u16]>>,
}

/// A destination in a service's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Names this place in the list for cursors; never used again within a generation of the service.
    pub position: u32,
    /// The destination.
    pub slot: DestinationSlot,
    /// Weight; 0 is quiesced.
    pub weight: u32,
    /// Connections at which it takes no more, 0: no limit.
    pub upper_threshold: u32,
    /// No longer in the list: kept because a cursor may stand here. Never chosen.
    pub removed: bool,
}

/// What wrr computes when the list of destinations changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrrEdit {
    /// The `list_version` that the change made.
    pub version: u32,
    /// Greatest weight - (gcd - 1).
    pub maximum: u32,
    /// Greatest common divisor of the weights above 0, or 1.
    pub divisor: u32,
}

/// How a destination's packets are sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// MAC addresses are known.
    Resolved {
        /// Frame's destination.
        destination_mac: [u8; 6],
        /// Frame's source: the port's own.
        source_mac: [u8; 6],
    },
    /// The kernel has been asked.
    Unresolved,
    /// There is no route.
    NoRoute,
    /// An address of this host: packets go to the local stack unchanged.
    Local,
}

/// A destination as forwarding sees it: at most a cache line, found by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationView {
    /// Where its packets go.
    pub next_hop: NextHop,
    /// The real server's address.
    pub server: IpAddr,
    /// The real server's port.
    pub server_port: u16,
    /// How new connections are forwarded; an older one keeps the method in its flag word.
    pub method: Method,
    /// Port to send from.
    pub port: PortId,
    /// MTU towards it in bytes.
    pub mtu: u16,
    /// Whether it is in its service's list; packets of a removed destination's connections are dropped.
    pub available: bool,
    /// Whether its weight is 0.
    pub quiesced: bool,
    /// Its service.
    pub service: ServiceSlot,
    /// Upper threshold, 0: none.
    pub upper_threshold: u32,
    /// Lower threshold, 0: three quarters of the upper.
    pub lower_threshold: u32,
}

impl Default for DestinationView {
    fn default() -> Self {
        Self {
            next_hop: NextHop::NoRoute,
            server: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            server_port: 0,
            method: Method::Direct,
            port: PortId(0),
            mtu: 0,
            available: false,
            quiesced: true,
            service: ServiceSlot(u32::MAX),
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }
}
