//! The replay's network: what the recorded director's kernel knew of links, addresses, neighbours and routes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::id::PortId;

use crate::address::Prefix;
use crate::mirror::routes::{Routes, Verdict};
use crate::mirror::wire::{self, Placement, Route, RouteKind, Table};
use crate::mirror::{AddressView, LinkView, NeighbourView, NetworkView};

/// Interface index of `lo`.
const LOOPBACK: u32 = 1;
/// Interface index of the first port's twin; the others follow.
const FIRST: u32 = 2;
/// MAC addresses by port.
pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0x0c, 1], [2, 0, 0, 0, 0x05, 1]];
/// Names of the ports' twins.
pub const NAMES: [&str; 2] = ["c0", "s0"];
/// Protocol number of routes that operators write (`rtnetlink.h`, `RTPROT_BOOT`).
const BOOT: u8 = 3;

/// A device that a command names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The loopback interface.
    Loopback,
    /// A port's twin, by the port's number.
    Twin(u8),
}

impl Device {
    /// By name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "lo" => Some(Self::Loopback),
            "c0" => Some(Self::Twin(0)),
            "s0" => Some(Self::Twin(1)),
            _ => None,
        }
    }

    const fn index(self) -> u32 {
        match self {
            Self::Loopback => LOOPBACK,
            Self::Twin(port) => FIRST + port as u32,
        }
    }
}

/// A next hop: where a packet of the host's own stack leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The port.
    pub port: PortId,
    /// Its MAC address.
    pub source_mac: [u8; 6],
    /// The neighbour's.
    pub destination_mac: [u8; 6],
    /// MTU in bytes.
    pub mtu: u32,
}

/// What becomes of a packet in the host's own stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is for this host.
    Here,
    /// It is sent on.
    On(Exit),
    /// Its neighbour is not known, so that it is kept until the neighbour answers.
    Waiting,
    /// No route.
    Nowhere,
}

/// Packets of a mark to some network look into a table first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The firewall mark.
    pub mark: u32,
    /// Where the packets go; everywhere when there is none.
    pub to: Option<Prefix>,
    /// Number of the table.
    pub table: u32,
}

/// The tables.
#[derive(Debug)]
pub struct Tables {
    view: NetworkView,
    addresses: Vec<AddressView>,
    neighbours: BTreeMap<(PortId, IpAddr), NeighbourView>,
    /// Routing tables other than main and local, by number.
    others: BTreeMap<u32, Routes>,
    /// By firewall mark, in order: the table to look in first.
    rules: Vec<Rule>,
}

impl Tables {
    /// The topology of all traces.
    #[must_use]
    pub fn new() -> Self {
        let links = (0_u8..).zip(NAMES).zip(MACS).map(|((port, name), mac)| {
            let link = LinkView {
                index: Device::Twin(port).index(),
                name: name.to_owned(),
                up: true,
                running: true,
                mac,
                extra_macs: Vec::new(),
                mtu: 1500,
            };
            (PortId(port), link)
        });
        let ports = (0_u8..2).map(|port| (Device::Twin(port).index(), PortId(port)));
        let view = NetworkView { links: links.collect(), ports: ports.collect(), ..NetworkView::default() };
        let mut tables = Self {
            view,
            addresses: Vec::new(),
            neighbours: BTreeMap::new(),
            others: BTreeMap::new(),
            rules: Vec::new(),
        };
        tables.lay_out();
        tables
    }

    fn lay_out(&mut self) {
        let v4 = |a, b, c, d| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        let v6 =
            |high: u32, low: u16| IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 96 | u128::from(low)));
        let (clients, servers) = (Device::Twin(0), Device::Twin(1));
        let vips = (100..110).map(|host| (Device::Loopback, v4(10, 0, 0, host), 32));
        let own = [
            (Device::Loopback, v4(127, 0, 0, 1), 8),
            (Device::Loopback, IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
            (clients, v4(10, 0, 0, 1), 24),
            (servers, v4(192, 168, 10, 1), 24),
            (clients, v6(0x2001_0db8, 1), 64),
            (servers, v6(0xfd00_0010, 1), 64),
            (Device::Loopback, v6(0x2001_0db8, 0x100), 128),
        ];
        for (device, address, prefix) in own.into_iter().chain(vips) {
            self.add_address(device, address, prefix);
        }
        self.add_neighbour(0, v4(10, 0, 0, 254), [2, 0, 0, 0, 0, 0xfe]);
        self.add_neighbour(0, v6(0x2001_0db8, 0xfe), [2, 0, 0, 0, 0, 0xfe]);
        self.add_neighbour(1, v4(192, 168, 10, 254), [2, 0, 0, 0, 0x0a, 0xfe]);
        for server in 2..=40 {
            self.add_neighbour(1, v4(192, 168, 10, server), [2, 0, 0, 0, 0x0a, server]);
            self.add_neighbour(1, v6(0xfd00_0010, server.into()), [2, 0, 0, 0, 0x0a, server]);
        }
        self.add_route(None, via(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, clients, v4(10, 0, 0, 254)));
        self.add_route(None, via(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, clients, v6(0x2001_0db8, 0xfe)));
        self.add_route(None, via(v4(172, 16, 0, 0), 16, servers, v4(192, 168, 10, 254)));
    }

    /// The network as the director sees it.
    #[must_use]
    pub fn view(&self) -> Arc<NetworkView> {
        let mut view = self.view.clone();
        view.addresses = self.addresses.clone().into();
        view.neighbours = Arc::new(self.neighbours.clone());
        Arc::new(view)
    }

    /// Whether an address is one of this host's.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.view.is_local(address)
    }

    /// Which way the host's stack takes to `destination`, for a packet of `mark` (0: none).
    #[must_use]
    pub fn way(&self, destination: IpAddr, mark: u32) -> Way {
        let for_it = |rule: &&Rule| {
            mark != 0 && rule.mark == mark && rule.to.is_none_or(|network| network.contains(destination))
        };
        let chosen = self.rules.iter().filter(for_it);
        let by_rule = chosen
            .filter_map(|rule| self.others.get(&rule.table))
            .map(|routes| routes.ask(destination))
            .find(|verdict| *verdict != Verdict::Unknown);
        // The local table comes before all rules.
        let verdict = match self.view.routes.ask(destination) {
            Verdict::Local => Verdict::Local,
            main => by_rule.unwrap_or(main),
        };
        let route = match verdict {
            Verdict::Local | Verdict::Broadcast => return Way::Here,
            Verdict::Forward(route) => route,
            Verdict::Refused | Verdict::Unknown => return Way::Nowhere,
        };
        let Some(hop) = route.hops.first() else { return Way::Nowhere };
        let Some(port) = self.view.port_of(hop.index) else { return Way::Nowhere };
        let (Some(link), neighbour) =
            (self.view.links.get(&port), (port, hop.gateway.unwrap_or(destination)))
        else {
            return Way::Nowhere;
        };
        match self.neighbours.get(&neighbour) {
            Some(NeighbourView::Usable(mac)) => Way::On(Exit {
                port,
                source_mac: link.mac,
                destination_mac: *mac,
                mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            }),
            _ => Way::Waiting,
        }
    }

    /// The host's own address on the way to `destination`: of its family, on that port.
    #[must_use]
    pub fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let Way::On(exit) = self.way(destination, 0) else { return None };
        let fits = |own: &&AddressView| {
            own.port == exit.port && own.address.is_ipv4() == destination.is_ipv4() && !own.tentative
        };
        self.addresses.iter().find(fits).map(|own| own.address)
    }

    /// Sets a link's MTU; `false` when there is no such port.
    pub fn set_mtu(&mut self, port: u8, mtu: u32) -> bool {
        self.view.links.get_mut(&PortId(port)).map(|link| link.mtu = mtu).is_some()
    }

    /// Gives a device an address, with the routes that come with it.
    pub fn add_address(&mut self, device: Device, address: IpAddr, prefix: u8) {
        self.view.routes.add(local(device, address), Placement::Append);
        let width = if address.is_ipv4() { 32 } else { 128 };
        if let Device::Twin(port) = device {
            self.addresses.push(AddressView { port: PortId(port), address, prefix, tentative: false });
            if prefix < width {
                self.view.routes.add(on_link(network(address, prefix), prefix, device), Placement::Append);
            }
        }
    }

    /// Takes an address away, with the routes that came with it; `false` when it is not there.
    pub fn remove_address(&mut self, device: Device, address: IpAddr, prefix: u8) -> bool {
        self.addresses.retain(|own| own.address != address);
        self.view.routes.remove(&on_link(network(address, prefix), prefix, device));
        self.view.routes.remove(&local(device, address))
    }

    /// Writes a permanent neighbour.
    pub fn add_neighbour(&mut self, port: u8, address: IpAddr, mac: [u8; 6]) {
        self.neighbours.insert((PortId(port), address), NeighbourView::Usable(mac));
    }

    /// Forgets a neighbour; `false` when it is not there.
    pub fn remove_neighbour(&mut self, port: u8, address: IpAddr) -> bool {
        self.neighbours.remove(&(PortId(port), address)).is_some()
    }

    /// Writes a route into a table other than main and local when `table` names one.
    pub fn add_route(&mut self, table: Option<u32>, route: Route) {
        self.routes(table).add(route, Placement::Replace);
    }

    /// Takes a route away, the first to its network when it names no way; `false` when it is not there.
    pub fn remove_route(&mut self, table: Option<u32>, route: &Route) -> bool {
        let routes = self.routes(table);
        if !route.hops.is_empty() || route.kind == RouteKind::Refuse {
            return routes.remove(route);
        }
        let same = |other: &&Arc<Route>| {
            (other.destination, other.prefix, other.kind) == (route.destination, route.prefix, route.kind)
        };
        let found = routes.main().chain(routes.local()).find(same).cloned();
        found.is_some_and(|found| routes.remove(&found))
    }

    fn routes(&mut self, table: Option<u32>) -> &mut Routes {
        match table {
            Some(number) => self.others.entry(number).or_default(),
            None => &mut self.view.routes,
        }
    }

    /// Adds a rule, before those there are.
    pub fn add_rule(&mut self, rule: Rule) {
        self.rules.insert(0, rule);
    }

    /// Takes a rule away; `false` when it is not there.
    pub fn remove_rule(&mut self, rule: Rule) -> bool {
        let place = self.rules.iter().position(|held| *held == rule);
        place.map(|place| self.rules.remove(place)).is_some()
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// A route of the main table without ways.
#[must_use]
pub fn bare(kind: RouteKind, destination: IpAddr, prefix: u8) -> Route {
    let table = if kind == RouteKind::Local { Table::Local } else { Table::Main };
    Route {
        table,
        destination,
        prefix,
        tos: 0,
        metric: 0,
        protocol: BOOT,
        kind,
        prefsrc: None,
        mtu: None,
        hops: Vec::new(),
    }
}

/// A way out of a device.
#[must_use]
pub const fn hop(device: Device, gateway: Option<IpAddr>) -> wire::Hop {
    wire::Hop { index: device.index(), gateway, weight: 1, dead: false, linkdown: false, encapsulated: false }
}

fn local(device: Device, address: IpAddr) -> Route {
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    Route { hops: vec![hop(device, None)], ..bare(RouteKind::Local, address, prefix) }
}

fn on_link(destination: IpAddr, prefix: u8, device: Device) -> Route {
    Route { hops: vec![hop(device, None)], ..bare(RouteKind::Unicast, destination, prefix) }
}

fn via(destination: IpAddr, prefix: u8, device: Device, gateway: IpAddr) -> Route {
    Route { hops: vec![hop(device, Some(gateway))], ..bare(RouteKind::Unicast, destination, prefix) }
}

#[cfg(test)]
mod tests {
    use super::{Device, MACS, Rule, Tables, Way, bare, hop};
    use crate::mirror::wire::{Route, RouteKind};
    use dataplane::id::PortId;
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn leaves(tables: &Tables, to: &str) -> Option<(PortId, u8)> {
        match tables.way(ip(to), 0) {
            Way::On(exit) => Some((exit.port, exit.destination_mac[5])),
            _ => None,
        }
    }

    #[test]
    fn the_topology_leads_where_the_recorded_one_did() {
        let tables = Tables::new();
        assert_eq!(leaves(&tables, "10.1.0.5"), Some((PortId(0), 0xfe)));
        assert_eq!(leaves(&tables, "192.168.10.9"), Some((PortId(1), 9)));
        assert_eq!(leaves(&tables, "172.16.5.4"), Some((PortId(1), 0xfe)));
        assert_eq!(leaves(&tables, "fd00:10::28"), Some((PortId(1), 0x28)));
        assert_eq!(leaves(&tables, "2001:db8:1::5"), Some((PortId(0), 0xfe)));
        for own in ["10.0.0.100", "10.0.0.109", "10.0.0.1", "192.168.10.1", "2001:db8::100", "fd00:10::1"] {
            assert_eq!(tables.way(ip(own), 0), Way::Here, "{own}");
        }
        assert_eq!(tables.way(ip("192.168.10.77"), 0), Way::Waiting);
        assert_eq!(tables.way(ip("10.0.0.110"), 0), Way::Waiting);
        assert_eq!(tables.source_for(ip("10.1.0.5")), Some(ip("10.0.0.1")));
        let view = tables.view();
        assert_eq!(view.links[&PortId(1)].mac, MACS[1]);
        assert_eq!(view.mac_of(PortId(1), ip("192.168.10.2")), Some([2, 0, 0, 0, 0x0a, 2]));
    }

    #[test]
    fn rules_and_local_routes() {
        let mut tables = Tables::new();
        let everything =
            Route { hops: vec![hop(Device::Loopback, None)], ..bare(RouteKind::Local, ip("0.0.0.0"), 0) };
        tables.add_route(Some(100), everything.clone());
        let rule = Rule { mark: 5, to: None, table: 100 };
        tables.add_rule(rule);
        assert_eq!(tables.way(ip("172.16.9.9"), 5), Way::Here);
        assert!(matches!(tables.way(ip("172.16.9.9"), 0), Way::On(_)));
        assert!(tables.remove_rule(rule) && !tables.remove_rule(rule));
        tables.add_rule(Rule { to: "172.17.0.0/16".parse().ok(), ..rule });
        assert!(matches!(tables.way(ip("172.16.9.9"), 5), Way::On(_)));
        tables.add_route(None, Route { destination: ip("10.200.0.0"), prefix: 16, ..everything });
        assert!(tables.is_own(ip("10.200.3.4")));
    }

    #[test]
    fn addresses_and_neighbours_come_and_go() {
        let mut tables = Tables::new();
        tables.add_address(Device::Twin(1), ip("192.0.2.1"), 24);
        tables.add_neighbour(1, ip("192.0.2.9"), [2, 0, 0, 0, 0, 9]);
        assert_eq!(leaves(&tables, "192.0.2.9"), Some((PortId(1), 9)));
        assert!(tables.set_mtu(1, 1400) && !tables.set_mtu(9, 1400));
        assert!(matches!(tables.way(ip("192.0.2.9"), 0), Way::On(exit) if exit.mtu == 1400));
        assert!(tables.remove_neighbour(1, ip("192.0.2.9")));
        assert_eq!(tables.way(ip("192.0.2.9"), 0), Way::Waiting);
        assert!(tables.remove_address(Device::Twin(1), ip("192.0.2.1"), 24));
        assert_eq!(leaves(&tables, "192.0.2.9"), Some((PortId(0), 0xfe)));
    }
}
