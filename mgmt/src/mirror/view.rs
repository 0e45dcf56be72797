//! What the kernel says about the network around the director, as one immutable snapshot.

use super::routes::{Routes, Verdict};
use super::wire::{Hop, Route};
use dataplane::id::PortId;
use dataplane::snapshot::multipath_bounds;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A port's twin in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// Interface index; changes when the twin is made anew.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// An operator wants it up.
    pub up: bool,
    /// It is up and has a carrier.
    pub running: bool,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Hardware addresses of macvlans on it (VRRP's virtual routers); frames to them are for this host too.
    pub extra_macs: Vec<[u8; 6]>,
    /// MTU in bytes.
    pub mtu: u32,
}

/// An address of a twin, or of a macvlan on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressView {
    /// The port.
    pub port: PortId,
    /// The address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// IPv6 only: duplicate address detection has not (or not successfully) ended.
    pub tentative: bool,
}

/// What is known about a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourView {
    /// Frames may be sent to this hardware address.
    Usable([u8; 6]),
    /// Being resolved.
    Pending,
    /// Nobody answered.
    Failed,
}

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NextHopChoice {
    /// Port it leaves by.
    pub port: PortId,
    /// Whose hardware address the frame carries: the router's, or the destination's own when it is on the link.
    pub via: IpAddr,
    /// Whether `via` is the destination itself.
    pub on_link: bool,
    /// Path MTU in bytes that the route fixes.
    pub mtu: Option<u32>,
    /// Source address that the route prefers for packets of this host.
    pub prefsrc: Option<IpAddr>,
}

/// Links, addresses, routes and neighbours of the twins at one settled moment.
#[derive(Debug, Clone, Default)]
pub struct NetworkView {
    /// Counts up with every view, from 1; the empty view before the first has 0.
    pub revision: u64,
    /// Twins that exist.
    pub links: BTreeMap<PortId, LinkView>,
    /// Their addresses, ordered.
    pub addresses: Arc<[AddressView]>,
    /// Known neighbours of the twins.
    pub neighbours: Arc<BTreeMap<(PortId, IpAddr), NeighbourView>>,
    /// Main and local routing table of the whole namespace, by interface index.
    pub routes: Routes,
    /// Port by interface index: twins and macvlans on them.
    pub ports: Arc<[(u32, PortId)]>,
}

impl NetworkView {
    /// Whether `address` is one of this host's, on any interface.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.routes.ask(address) == Verdict::Local
    }

    /// Where a packet to `destination` goes; the first of several ways. `None` when no route leads out of a port: local
    /// and refused destinations, and those behind interfaces that are not the director's.
    #[must_use]
    pub fn next_hop(&self, destination: IpAddr) -> Option<NextHopChoice> {
        self.next_hop_of_flow(destination, 0)
    }

    /// [`Self::next_hop`], spreading flows over the ways by weight: the same `hash` (of [`flow_hash`](dataplane::snapshot::flow_hash))
    /// takes the same way as long as the usable ways stay.
    #[must_use]
    pub fn next_hop_of_flow(&self, destination: IpAddr, hash: u32) -> Option<NextHopChoice> {
        let Verdict::Forward(route) = self.routes.ask(destination) else { return None };
        let ways: Vec<_> = self.ways(&route, destination).collect();
        let bounds = multipath_bounds(ways.iter().map(|(_, weight)| *weight));
        ways.iter().zip(bounds).find(|(_, bound)| hash <= *bound).and_then(|((choice, _), _)| *choice)
    }

    /// The usable ways of a route for packets to `destination`, with their weights; `None` for one that leads out of no port.
    pub fn ways(
        &self,
        route: &Route,
        destination: IpAddr,
    ) -> impl Iterator<Item = (Option<NextHopChoice>, u16)> {
        // Ways without carrier carry packets only when there is no other, as in the kernel's default.
        let spare = route.hops.iter().all(|hop| hop.dead || hop.linkdown);
        let hops = route.hops.iter().filter(move |hop| !hop.dead && (spare || !hop.linkdown));
        hops.map(move |hop| (self.choice(route, hop, destination), hop.weight))
    }

    /// The neighbour's hardware address, when frames may be sent to it.
    #[must_use]
    pub fn mac_of(&self, port: PortId, address: IpAddr) -> Option<[u8; 6]> {
        match self.neighbours.get(&(port, address)) {
            Some(NeighbourView::Usable(mac)) => Some(*mac),
            _ => None,
        }
    }

    /// The port that an interface index belongs to.
    #[must_use]
    pub fn port_of(&self, index: u32) -> Option<PortId> {
        self.ports.iter().find(|(known, _)| *known == index).map(|(_, port)| *port)
    }

    fn choice(&self, route: &Route, hop: &Hop, destination: IpAddr) -> Option<NextHopChoice> {
        if hop.encapsulated {
            return None;
        }
        Some(NextHopChoice {
            port: self.port_of(hop.index)?,
            via: hop.gateway.unwrap_or(destination),
            on_link: hop.gateway.is_none(),
            mtu: route.mtu,
            prefsrc: route.prefsrc,
        })
    }
}
