//! From a destination's address to the frame that reaches it: the mirror's view where a port has a twin, plain tables where it
//! has none.

use crate::address::{Prefix, family_bits};
use crate::config::{self, Neighbour, Route};
use crate::desired::MarkRule;
use crate::mirror::routes::Verdict;
use crate::mirror::{Hop, NetworkView, NextHopChoice};
use dataplane::id::PortId;
use dataplane::snapshot::{self, Multipath, NextHop, PortView, RouteView, Routes, WeightedWay, flow_hash};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// How a destination is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The frame.
    pub next_hop: NextHop,
    /// The port it leaves by.
    pub port: PortId,
    /// IP MTU in bytes.
    pub mtu: u16,
    /// Whose MAC address the kernel is to keep resolved.
    pub hop: Option<Hop>,
    /// The director's own address for packets this way: where a tunnel begins.
    pub source: Option<IpAddr>,
}

impl Way {
    const NONE: Self = Self { next_hop: NextHop::NoRoute, port: PortId(0), mtu: 0, hop: None, source: None };
}

/// A port as the management plane knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the configuration.
    pub name: String,
    /// Its own MAC address.
    pub mac: [u8; 6],
    /// IP MTU in bytes.
    pub mtu: u16,
    /// All that is known of the network there; `None`: a twin in the kernel knows it.
    pub tables: Option<Tables>,
}

/// The network at a port without a twin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {
    /// The director's own addresses there, each with the network on the link.
    pub addresses: Vec<Prefix>,
    /// Routes by that port. Of several for an address the longest counts.
    pub routes: Vec<Route>,
    /// MAC addresses. A neighbour is reached without a route, too.
    pub neighbours: Vec<Neighbour>,
}

impl Tables {
    /// What a configuration says of a port without a twin.
    #[must_use]
    pub fn of(port: &config::Port) -> Option<Self> {
        (!port.twin).then(|| Self {
            addresses: port.addresses.iter().chain(&port.virtual_addresses).copied().collect(),
            routes: port.routes.clone(),
            neighbours: port.neighbours.clone(),
        })
    }
}

/// The tables of all ports without a twin.
#[derive(Debug, Default)]
struct Fixed {
    local: BTreeSet<IpAddr>,
    addresses: Vec<(PortId, Prefix)>,
    /// The longest first.
    routes: Vec<(Route, PortId)>,
    neighbours: BTreeMap<(PortId, IpAddr), [u8; 6]>,
    /// Where a neighbour is, the lowest port first.
    ports: BTreeMap<IpAddr, PortId>,
}

impl Fixed {
    fn new<'a>(tables: impl Iterator<Item = (PortId, &'a Tables)>) -> Self {
        let mut fixed = Self::default();
        for (port, tables) in tables {
            fixed.local.extend(tables.addresses.iter().map(|address| address.ip));
            fixed.addresses.extend(tables.addresses.iter().map(|address| (port, *address)));
            let on_link = tables.addresses.iter().map(|network| Route { to: *network, via: None });
            fixed.routes.extend(tables.routes.iter().copied().chain(on_link).map(|route| (route, port)));
            for Neighbour { address, mac } in &tables.neighbours {
                fixed.neighbours.insert((port, *address), mac.0);
                fixed.ports.entry(*address).or_insert(port);
            }
        }
        fixed.routes.sort_by_key(|(route, _)| std::cmp::Reverse(route.to.length));
        fixed
    }

    /// The port to a destination, and whose MAC address the frame carries.
    fn ask(&self, destination: IpAddr) -> Option<(PortId, IpAddr)> {
        let route = self.routes.iter().find(|(route, _)| route.to.contains(destination));
        let on_link = || self.ports.get(&destination).map(|port| (*port, destination));
        route.map(|(route, port)| (*port, route.via.unwrap_or(destination))).or_else(on_link)
    }

    fn mac_of(&self, port: PortId, address: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.get(&(port, address)).copied()
    }
}

/// Which of the director's own addresses packets by `port` to a destination come from, as Linux chooses. IPv4: one of that port in the
/// next hop's network, else the port's first, else any. IPv6 (RFC 6724, 5): one of the destination's scope, so that what leaves the
/// link does not come from a link-local address; then one of that port; then the one that has most of its network in common with the
/// destination, not of what tells hosts apart: a virtual address may be next to the server's.
fn source_of(
    addresses: impl Iterator<Item = (PortId, Prefix)>,
    port: PortId,
    via: IpAddr,
    destination: IpAddr,
) -> Option<IpAddr> {
    let rank = |of: PortId, own: Prefix| match (own.ip, destination) {
        (IpAddr::V6(address), IpAddr::V6(destination)) => {
            let local = |address: std::net::Ipv6Addr| address.is_unicast_link_local();
            let same_scope = local(address) == local(destination);
            let common = (address.to_bits() ^ destination.to_bits()).leading_zeros();
            (
                u32::from(same_scope),
                u32::from(!local(address)),
                of == port,
                common.min(own.length.into()).min(64),
            )
        }
        _ => (u32::from(of == port), u32::from(of == port && own.contains(via)), true, 0),
    };
    let own = addresses.filter(|(_, own)| own.ip.is_ipv4() == destination.is_ipv4());
    let ranked = own.map(|(of, own)| (rank(of, own), own.ip));
    // Of equal ones the first.
    ranked.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, address)| address)
}

/// What is known of the network.
#[derive(Debug)]
pub struct Network {
    ports: Vec<Port>,
    fixed: Fixed,
    view: Arc<NetworkView>,
}

impl Network {
    /// These ports, in the order of their [`PortId`]s. Twins are unknown until there is a view of them.
    #[must_use]
    pub fn new(ports: Vec<Port>) -> Self {
        let numbered = (0_u8..).map(PortId).zip(&ports);
        let fixed = Fixed::new(numbered.filter_map(|(id, port)| Some((id, port.tables.as_ref()?))));
        Self { ports, fixed, view: Arc::default() }
    }

    /// Twins that were down and are up in `view`: the kernel has forgotten their routes meanwhile.
    #[must_use]
    pub fn came_up(&self, view: &NetworkView) -> Vec<PortId> {
        let was_down = |port: &PortId| self.view.links.get(port).is_some_and(|link| !link.up);
        view.links.iter().filter(|(port, link)| link.up && was_down(port)).map(|(port, _)| *port).collect()
    }

    /// Takes over what the kernel says of the twins.
    pub fn set_view(&mut self, view: Arc<NetworkView>) {
        self.view = view;
    }

    /// Which of the mirror's views this is.
    #[must_use]
    pub fn view_revision(&self) -> u64 {
        self.view.revision
    }

    /// A port's own address as the NIC has it.
    pub fn set_port_mac(&mut self, port: PortId, mac: [u8; 6]) {
        if let Some(held) = self.ports.get_mut(port.index()) {
            held.mac = mac;
        }
    }

    /// A port's name, `?` where there is none.
    #[must_use]
    pub fn port_name(&self, port: PortId) -> &str {
        self.ports.get(port.index()).map_or("?", |held| &held.name)
    }

    /// The ports as the engine is to see them: the twin's address is ours, and so is the NIC's where it could not follow.
    #[must_use]
    pub fn port_views(&self) -> Arc<[PortView]> {
        let view = |(id, port): (u8, &Port)| {
            let Some(link) = self.view.links.get(&PortId(id)) else {
                return PortView { mac: port.mac, more_macs: Arc::default(), mtu: port.mtu };
            };
            let more = link.extra_macs.iter().copied().chain((port.mac != link.mac).then_some(port.mac));
            PortView { mac: link.mac, more_macs: more.collect(), mtu: self.mtu(PortId(id), None) }
        };
        (0_u8..).zip(&self.ports).map(view).collect()
    }

    /// Mark rules as the engine is to see them.
    ///
    /// # Errors
    ///
    /// A rule's port is none of these.
    pub fn mark_rules(&self, rules: &[MarkRule]) -> Result<Arc<[snapshot::MarkRule]>, NoPort> {
        let prefix = |held: Option<Prefix>| {
            held.map(|held| snapshot::Prefix { address: held.ip, length: held.length })
        };
        let rule = |rule: &MarkRule| {
            Ok(snapshot::MarkRule {
                protocol: rule.protocol.map(crate::address::Protocol::number),
                source: prefix(rule.source),
                destination: prefix(rule.destination),
                source_ports: rule.source_ports.map(|ports| ports.first..=ports.last),
                destination_ports: rule.destination_ports.map(|ports| ports.first..=ports.last),
                port: rule.port.as_ref().map(|name| self.port_named(name)).transpose()?,
                mark: rule.mark,
            })
        };
        rules.iter().map(rule).collect()
    }

    fn port_named(&self, name: &str) -> Result<PortId, NoPort> {
        let mut numbered = (0_u8..).map(PortId).zip(&self.ports);
        let found = numbered.find(|(_, port)| port.name == name).map(|(id, _)| id);
        found.ok_or_else(|| NoPort {
            name: name.to_owned(),
            known: self.ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// How packets to `destination` are sent.
    #[must_use]
    pub fn way(&self, destination: IpAddr) -> Way {
        if self.fixed.local.contains(&destination) || self.view.is_local(destination) {
            return Way { next_hop: NextHop::Local, ..Way::NONE };
        }
        if let Some((port, via)) = self.fixed.ask(destination) {
            return self.fixed_way(port, via, destination);
        }
        // As the kernel keeps one way for each server, not one for each client.
        let hash = flow_hash(destination, destination);
        let Some(choice) = self.view.next_hop_of_flow(destination, hash) else { return Way::NONE };
        self.chosen_way(&choice, destination)
    }

    fn fixed_way(&self, port: PortId, via: IpAddr, destination: IpAddr) -> Way {
        Way {
            next_hop: self.frame(port, self.fixed.mac_of(port, via)),
            port,
            mtu: self.mtu(port, None),
            hop: None,
            source: source_of(self.fixed.addresses.iter().copied(), port, via, destination),
        }
    }

    fn chosen_way(&self, choice: &NextHopChoice, destination: IpAddr) -> Way {
        let NextHopChoice { port, via, mtu, prefsrc, .. } = *choice;
        let addresses = self.view.addresses.iter().filter(|address| !address.tentative);
        let addresses = addresses.map(|held| (held.port, Prefix { ip: held.address, length: held.prefix }));
        Way {
            next_hop: self.frame(port, self.view.mac_of(port, via)),
            port,
            mtu: self.mtu(port, mtu),
            hop: Some((port, via)),
            source: prefsrc.or_else(|| source_of(addresses, port, via, destination)),
        }
    }

    /// All routes as the engine is to see them, with host routes for neighbours and own addresses, and the routers that they lead
    /// to by ports with a twin.
    #[must_use]
    pub fn routes(&self) -> (Routes, BTreeSet<Hop>) {
        let (mut routes, mut multipath) = (Vec::new(), Vec::new());
        let mut routers = BTreeSet::new();
        let view = |way: &Way, via| RouteView {
            next_hop: way.next_hop,
            via,
            source: way.source,
            port: way.port,
            mtu: way.mtu,
        };
        let route =
            |network, prefix, way: &Way, via| snapshot::Route { network, prefix, view: view(way, via) };
        let on_link = |way: Way| Way { next_hop: NextHop::Unresolved, ..way };
        for (network, prefix, verdict) in self.view.routes.verdicts() {
            let forward = match verdict {
                Verdict::Local | Verdict::Broadcast => {
                    let way = Way { next_hop: NextHop::Local, ..Way::NONE };
                    routes.push(route(network, prefix, &way, None));
                    continue;
                }
                Verdict::Forward(forward) => forward,
                Verdict::Refused | Verdict::Unknown => {
                    routes.push(route(network, prefix, &Way::NONE, None));
                    continue;
                }
            };
            let ways = self.view.ways(&forward, network).map(|(choice, weight)| {
                let view = match choice {
                    Some(choice) if choice.on_link => view(&on_link(self.chosen_way(&choice, network)), None),
                    Some(choice) => {
                        let way = self.chosen_way(&choice, network);
                        routers.extend(way.hop);
                        view(&way, Some(choice.via))
                    }
                    None => view(&Way::NONE, None),
                };
                WeightedWay { view, weight }
            });
            match *ways.collect::<Vec<_>>() {
                [WeightedWay { view, .. }] => routes.push(snapshot::Route { network, prefix, view }),
                ref ways => multipath.push(Multipath { network, prefix, ways: ways.to_vec() }),
            }
        }
        let host = |address: IpAddr, way: &Way| route(address, family_bits(address), way, None);
        for (port, address) in self.view.neighbours.keys() {
            let choice = self.view.next_hop(*address).filter(|choice| choice.on_link && choice.port == *port);
            if let Some(choice) = choice {
                routes.push(host(*address, &self.chosen_way(&choice, *address)));
            }
        }
        // The longest are first there, and of two equal ones the first counts.
        for (held, port) in self.fixed.routes.iter().rev() {
            let way = self.fixed_way(*port, held.via.unwrap_or(held.to.ip), held.to.ip);
            let way = if held.via.is_some() { way } else { on_link(way) };
            routes.push(route(held.to.ip, held.to.length, &way, held.via));
        }
        for (port, address) in self.fixed.neighbours.keys() {
            if self.fixed.ask(*address) == Some((*port, *address)) {
                routes.push(host(*address, &self.fixed_way(*port, *address, *address)));
            }
        }
        let own = Way { next_hop: NextHop::Local, ..Way::NONE };
        routes.extend(self.fixed.local.iter().map(|address| host(*address, &own)));
        (Routes::with_multipath(routes, &multipath), routers)
    }

    fn frame(&self, port: PortId, mac: Option<[u8; 6]>) -> NextHop {
        let own = self.view.links.get(&port).map(|link| link.mac);
        let own = own.or_else(|| self.ports.get(port.index()).map(|held| held.mac));
        match (mac, own) {
            (Some(destination_mac), Some(source_mac)) => NextHop::Resolved { destination_mac, source_mac },
            _ => NextHop::Unresolved,
        }
    }

    /// The least of the port's, the twin's and the route's.
    fn mtu(&self, port: PortId, route: Option<u32>) -> u16 {
        let nic = self.ports.get(port.index()).map(|held| u32::from(held.mtu));
        let twin = self.view.links.get(&port).map(|link| link.mtu);
        let least = [nic, twin, route].into_iter().flatten().min().unwrap_or(0);
        u16::try_from(least).unwrap_or(u16::MAX)
    }
}

/// A mark rule names a port that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no port `{name}`; there are {known}")]
pub struct NoPort {
    name: String,
    known: String,
}

/// `02:00:00:00:84:64 via eth0` and the like.
pub(super) fn describe(next_hop: NextHop, port: &str) -> String {
    match next_hop {
        NextHop::Resolved { destination_mac, .. } => {
            format!("{} via {port}", crate::address::Mac(destination_mac))
        }
        NextHop::Unresolved => "unresolved".to_owned(),
        NextHop::NoRoute => "no route".to_owned(),
        NextHop::Local => "local".to_owned(),
    }
}

#[cfg(test)]
mod tests;
