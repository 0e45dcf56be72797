//! The mirror's working copy: rtnetlink events in, views out.

use super::routes::{Routes, same_entry};
use super::settle::Moment;
use super::view::{AddressView, LinkView, NeighbourView, NetworkView};
use super::wire::{Address, Event, Link, Neighbour, Placement, Route, Table, nud};
use dataplane::id::PortId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A port and the name of its twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorPort {
    /// The port.
    pub port: PortId,
    /// Name of the kernel interface that is its twin.
    pub name: String,
}

/// What an event means beyond its entry in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A twin appeared, or came back under a new index; everything known about it is to be read again.
    Bound(PortId),
    /// A twin disappeared.
    Unbound(PortId),
    /// A twin went up or down, or its carrier did: the kernel drops and restores routes without saying so.
    Toggled {
        /// The port.
        port: PortId,
        /// Whether it is up with a carrier now.
        running: bool,
    },
    /// A neighbour of a twin changed.
    Neighbour(PortId, Neighbour),
    /// A neighbour of a twin is gone.
    NeighbourGone(PortId, IpAddr),
    /// Addresses or routes changed; what could not be resolved may be resolvable now.
    Reachability,
}

#[derive(Debug, Clone)]
enum Withdrawal {
    Address(Address),
    Route(Route),
}

/// Working copy of the kernel's tables.
#[derive(Debug)]
pub struct State {
    ports: Vec<(MirrorPort, Option<u32>)>,
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<(u32, IpAddr, u8), bool>,
    neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
    routes: Routes,
    grace: Duration,
    withdrawn: Vec<(Moment, Withdrawal)>,
    view: NetworkView,
    stale: Stale,
}

#[derive(Debug, Clone, Copy, Default)]
struct Stale {
    links: bool,
    addresses: bool,
    neighbours: bool,
    routes: bool,
}

impl State {
    /// An empty state for `ports`. An address, or a route of the local table, that goes is shown for `grace` longer, in
    /// case it comes back: re-labelling an address removes and adds it.
    #[must_use]
    pub fn new(ports: Vec<MirrorPort>, grace: Duration) -> Self {
        Self {
            ports: ports.into_iter().map(|port| (port, None)).collect(),
            links: BTreeMap::new(),
            addresses: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            routes: Routes::default(),
            grace,
            withdrawn: Vec::new(),
            view: NetworkView::default(),
            stale: Stale::default(),
        }
    }

    /// Takes one event in, reporting to `effect` what else it means.
    pub fn apply(&mut self, event: Event, now: Moment, effect: &mut impl FnMut(Effect)) {
        match event {
            Event::Link(link) => self.link(link, effect),
            Event::LinkGone(index) => self.link_gone(index, effect),
            Event::Address(address) => {
                self.withdrawn
                    .retain(|(_, gone)| !matches!(gone, Withdrawal::Address(gone) if same(gone, &address)));
                let key = (address.index, address.address, address.prefix);
                if self.addresses.insert(key, address.tentative) != Some(address.tentative) {
                    self.stale.addresses = true;
                    effect(Effect::Reachability);
                }
            }
            Event::AddressGone(address) => {
                self.withdrawn.push((now + self.grace, Withdrawal::Address(address)));
            }
            Event::Route(route, placement) => {
                if route.table == Table::Local {
                    let back = |gone: &Withdrawal| matches!(gone, Withdrawal::Route(gone) if same_entry(gone, &route));
                    self.withdrawn.retain(|(_, gone)| !back(gone));
                }
                if self.routes.add(route, placement) {
                    self.stale.routes = true;
                    effect(Effect::Reachability);
                }
            }
            Event::RouteGone(route) if route.table == Table::Local => {
                self.withdrawn.push((now + self.grace, Withdrawal::Route(route)));
            }
            Event::RouteGone(route) => self.stale.routes |= self.routes.remove(&route),
            Event::Neighbour(neighbour) => self.neighbour(neighbour, effect),
            Event::NeighbourGone(neighbour) => {
                let Some(port) = self.twin_of(neighbour.index) else { return };
                self.stale.neighbours |=
                    self.neighbours.remove(&(neighbour.index, neighbour.address)).is_some();
                effect(Effect::NeighbourGone(port, neighbour.address));
            }
        }
    }

    /// Replaces all routes by those that were read anew. Routes of the local table that are missing go as if the kernel
    /// had said so now.
    pub fn replace_routes(&mut self, present: impl Iterator<Item = (Route, Placement)>, now: Moment) {
        let mut fresh = Routes::default();
        for (route, placement) in present {
            fresh.add(route, placement);
        }
        self.withdrawn.retain(|(_, gone)| matches!(gone, Withdrawal::Address(_)));
        let missing: Vec<Route> =
            self.routes.local().filter(|route| !fresh.has(route)).map(|route| (**route).clone()).collect();
        for route in missing {
            fresh.add(route.clone(), Placement::Append);
            self.withdrawn.push((now + self.grace, Withdrawal::Route(route)));
        }
        self.routes = fresh;
        self.stale.routes = true;
    }

    /// Addresses that are no longer there after `present` was read anew; they go as if the kernel had said so now.
    pub fn keep_addresses(&mut self, present: &BTreeSet<(u32, IpAddr, u8)>, now: Moment) {
        for (index, address, prefix) in self.addresses.keys() {
            let gone = Address { index: *index, address: *address, prefix: *prefix, tentative: false };
            let leaving = |known: &(Moment, Withdrawal)| matches!(&known.1, Withdrawal::Address(known) if same(known, &gone));
            if !present.contains(&(*index, *address, *prefix)) && !self.withdrawn.iter().any(leaving) {
                self.withdrawn.push((now + self.grace, Withdrawal::Address(gone)));
            }
        }
    }

    /// Neighbours that are no longer there after `present` was read anew.
    pub fn keep_neighbours(&mut self, present: &BTreeSet<(u32, IpAddr)>, effect: &mut impl FnMut(Effect)) {
        let gone: Vec<_> = self.neighbours.keys().filter(|key| !present.contains(*key)).copied().collect();
        for key in gone {
            self.neighbours.remove(&key);
            self.stale.neighbours = true;
            if let Some(port) = self.twin_of(key.0) {
                effect(Effect::NeighbourGone(port, key.1));
            }
        }
    }

    /// Links that are no longer there after `present` was read anew.
    pub fn keep_links(&mut self, present: &BTreeSet<u32>, effect: &mut impl FnMut(Effect)) {
        let gone: Vec<u32> = self.links.keys().filter(|index| !present.contains(index)).copied().collect();
        for index in gone {
            self.link_gone(index, effect);
        }
    }

    /// When the next withdrawal takes effect.
    #[must_use]
    pub fn next_withdrawal(&self) -> Option<Moment> {
        self.withdrawn.iter().map(|(due, _)| *due).min()
    }

    /// Carries out the withdrawals that are due; whether there were any.
    pub fn withdraw(&mut self, now: Moment) -> bool {
        let waiting = std::mem::take(&mut self.withdrawn);
        let mut any = false;
        for (due, gone) in waiting {
            if due > now {
                self.withdrawn.push((due, gone));
                continue;
            }
            any = true;
            match gone {
                Withdrawal::Address(gone) => {
                    let key = (gone.index, gone.address, gone.prefix);
                    self.stale.addresses |= self.addresses.remove(&key).is_some();
                }
                Withdrawal::Route(gone) => self.stale.routes |= self.routes.remove(&gone),
            }
        }
        any
    }

    /// The interface index of a port's twin.
    #[must_use]
    pub fn index_of(&self, port: PortId) -> Option<u32> {
        self.ports.iter().find(|(known, _)| known.port == port).and_then(|(_, index)| *index)
    }

    /// Ports and whether their twins are there, up and with a carrier.
    pub fn running(&self) -> impl Iterator<Item = (PortId, bool)> {
        self.ports.iter().map(|(port, index)| {
            let link = index.and_then(|index| self.links.get(&index));
            (port.port, link.is_some_and(|link| link.up && link.running))
        })
    }

    /// The neighbour as last told.
    #[must_use]
    pub fn neighbour_of(&self, port: PortId, address: IpAddr) -> Option<&Neighbour> {
        self.neighbours.get(&(self.index_of(port)?, address))
    }

    /// A view of the state if anything in it changed since the last.
    pub fn view(&mut self) -> Option<NetworkView> {
        let stale = std::mem::take(&mut self.stale);
        if !(stale.links || stale.addresses || stale.neighbours || stale.routes) {
            return None;
        }
        if stale.links {
            self.view.links = self.link_views();
            self.view.ports = self.port_indices().into();
        }
        if stale.links || stale.addresses {
            self.view.addresses = self.address_views().into();
        }
        if stale.links || stale.neighbours {
            self.view.neighbours = Arc::new(self.neighbour_views());
        }
        self.view.routes = self.routes.clone();
        self.view.revision += 1;
        Some(self.view.clone())
    }

    fn link(&mut self, link: Link, effect: &mut impl FnMut(Effect)) {
        let index = link.index;
        let before = self.links.insert(index, link);
        let Some(link) = self.links.get(&index) else { return };
        if before.as_ref() != Some(link) {
            self.stale.links = true;
        }
        let mut bound = None;
        for (port, known) in &mut self.ports {
            if *known == Some(index) {
                let toggled = before
                    .as_ref()
                    .is_some_and(|before| (before.up, before.running) != (link.up, link.running));
                if toggled {
                    effect(Effect::Toggled { port: port.port, running: link.up && link.running });
                }
                return;
            }
            if port.name == link.name && bound.is_none() {
                bound = Some((port.port, known));
            }
        }
        // Followed by index, so that a renamed twin stays a twin; by name only when it is first seen.
        if let Some((port, known)) = bound.filter(|(_, known)| known.is_none()) {
            *known = Some(index);
            self.stale.links = true;
            effect(Effect::Bound(port));
        }
    }

    fn link_gone(&mut self, index: u32, effect: &mut impl FnMut(Effect)) {
        if self.links.remove(&index).is_none() {
            return;
        }
        self.stale = Stale { links: true, addresses: true, neighbours: true, routes: self.stale.routes };
        // An interface that disappears takes its addresses with it; nothing of them will come back under this index.
        self.addresses.retain(|(of, _, _), _| *of != index);
        let gone: Vec<IpAddr> =
            self.neighbours.keys().filter(|(of, _)| *of == index).map(|(_, ip)| *ip).collect();
        self.neighbours.retain(|(of, _), _| *of != index);
        if let Some((port, known)) = self.ports.iter_mut().find(|(_, known)| *known == Some(index)) {
            *known = None;
            for address in gone {
                effect(Effect::NeighbourGone(port.port, address));
            }
            effect(Effect::Unbound(port.port));
        }
    }

    fn neighbour(&mut self, neighbour: Neighbour, effect: &mut impl FnMut(Effect)) {
        let Some(port) = self.twin_of(neighbour.index) else { return };
        let before = self.neighbours.insert((neighbour.index, neighbour.address), neighbour);
        // Ageing from REACHABLE to STALE and back changes nothing that a packet sees.
        self.stale.neighbours |= before.as_ref().map(neighbour_view) != Some(neighbour_view(&neighbour));
        effect(Effect::Neighbour(port, neighbour));
    }

    fn twin_of(&self, index: u32) -> Option<PortId> {
        self.ports.iter().find(|(_, known)| *known == Some(index)).map(|(port, _)| port.port)
    }

    fn port_indices(&self) -> Vec<(u32, PortId)> {
        let twins = self.ports.iter().filter_map(|(port, index)| Some(((*index)?, port.port)));
        let macvlans =
            self.links.values().filter_map(|link| Some((link.index, self.twin_of(link.macvlan_of?)?)));
        twins.chain(macvlans).collect()
    }

    fn link_views(&self) -> BTreeMap<PortId, LinkView> {
        let twins = self.ports.iter().filter_map(|(port, index)| {
            let link = self.links.get(index.as_ref()?)?;
            let macvlans = self.links.values().filter(|above| above.macvlan_of == Some(link.index));
            let view = LinkView {
                index: link.index,
                name: link.name.clone(),
                up: link.up,
                running: link.up && link.running,
                mac: link.mac?,
                extra_macs: macvlans
                    .filter_map(|above| above.mac)
                    .filter(|mac| Some(*mac) != link.mac)
                    .collect(),
                mtu: link.mtu,
            };
            Some((port.port, view))
        });
        twins.collect()
    }

    fn address_views(&self) -> Vec<AddressView> {
        let ports: BTreeMap<u32, PortId> = self.port_indices().into_iter().collect();
        let mut addresses: Vec<AddressView> = self
            .addresses
            .iter()
            .filter_map(|((index, address, prefix), tentative)| {
                let port = *ports.get(index)?;
                Some(AddressView { port, address: *address, prefix: *prefix, tentative: *tentative })
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn neighbour_views(&self) -> BTreeMap<(PortId, IpAddr), NeighbourView> {
        let views = self.neighbours.iter().filter_map(|((index, address), neighbour)| {
            Some(((self.twin_of(*index)?, *address), neighbour_view(neighbour)))
        });
        views.collect()
    }
}

fn neighbour_view(neighbour: &Neighbour) -> NeighbourView {
    match neighbour.mac {
        Some(mac) if neighbour.usable() => NeighbourView::Usable(mac),
        _ if neighbour.state & nud::FAILED != 0 => NeighbourView::Failed,
        _ => NeighbourView::Pending,
    }
}

fn same(one: &Address, other: &Address) -> bool {
    (one.index, one.address, one.prefix) == (other.index, other.address, other.prefix)
}
