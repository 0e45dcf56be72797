//! The kernel's main and local routing tables, kept by rtnetlink events and asked like the kernel asks them.

use super::lpm::{Key, Trie};
use super::wire::{Hop, Placement, Route, RouteKind, Table};
use std::net::IpAddr;
use std::sync::Arc;

/// What the tables say about a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is one of this host's addresses.
    Local,
    /// It is a broadcast address of this host.
    Broadcast,
    /// A route sends it on, by one of its ways.
    Forward(Arc<Route>),
    /// A route refuses it.
    Refused,
    /// No route.
    Unknown,
}

/// Routes of both tables and families. Cloning is four reference counts.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    main: Family,
    local: Family,
}

#[derive(Debug, Clone, Default)]
struct Family {
    v4: Trie<Arc<[Arc<Route>]>>,
    v6: Trie<Arc<[Arc<Route>]>>,
}

impl Family {
    const fn of(&self, address: IpAddr) -> &Trie<Arc<[Arc<Route>]>> {
        match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        }
    }

    const fn of_mut(&mut self, address: IpAddr) -> &mut Trie<Arc<[Arc<Route>]>> {
        match address {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }
}

impl Routes {
    /// Number of networks with a route, main and local.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.main.v4.len() + self.main.v6.len() + self.local.v4.len() + self.local.v6.len()
    }

    /// Whether there is no route at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every route of the main table.
    pub fn main(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.main.v4.iter().chain(self.main.v6.iter()).flat_map(|routes| routes.iter())
    }

    /// Every route of the local table.
    pub fn local(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.local.v4.iter().chain(self.local.v6.iter()).flat_map(|routes| routes.iter())
    }

    /// What becomes of a packet to `destination`: local table first, then main; in each the longest network whose best
    /// route is in service (the kernel goes on to shorter ones past dead ways).
    #[must_use]
    pub fn ask(&self, destination: IpAddr) -> Verdict {
        let local = self.local.of(destination).longest(destination, |routes| verdict(routes));
        local
            .or_else(|| self.main.of(destination).longest(destination, |routes| verdict(routes)))
            .unwrap_or(Verdict::Unknown)
    }

    /// Every network with what becomes of packets to it, those of the local table last. Networks whose routes are all out of
    /// service are left out: a shorter one decides.
    pub fn verdicts(&self) -> impl Iterator<Item = (IpAddr, u8, Verdict)> {
        let tables = [&self.main, &self.local].into_iter();
        let networks = tables.flat_map(|family| family.v4.iter().chain(family.v6.iter()));
        networks.filter_map(|routes| {
            let named = routes.first()?;
            Some((named.destination, named.prefix, verdict(routes)?))
        })
    }

    /// Takes a new or changed route in; whether that changed anything.
    pub fn add(&mut self, route: Route, placement: Placement) -> bool {
        let (trie, key) = self.place(&route);
        let mut routes: Vec<Arc<Route>> = trie.get(key).map(|routes| routes.to_vec()).unwrap_or_default();
        if routes.iter().any(|present| **present == route) && placement != Placement::Replace {
            return false;
        }
        // The same route told again, with other flags or with more ways (IPv6 announces all siblings together).
        let told = |present: &Arc<Route>| same_slot(present, &route) && same_ways(present, &route);
        let former = match placement {
            Placement::Replace => routes
                .iter()
                .position(told)
                .or_else(|| routes.iter().position(|present| same_slot(present, &route))),
            Placement::Append | Placement::Prepend => routes.iter().position(told),
        };
        let at = match former {
            Some(at) => {
                routes.remove(at);
                at
            }
            None => {
                let better = |present: &Arc<Route>| match placement {
                    Placement::Append => present.metric <= route.metric,
                    Placement::Prepend | Placement::Replace => present.metric < route.metric,
                };
                routes.iter().take_while(|present| better(present)).count()
            }
        };
        routes.insert(at, Arc::new(route));
        trie.insert(key, routes.into());
        true
    }

    /// Takes a route, or the ways that `gone` lists, out; whether that changed anything.
    pub fn remove(&mut self, gone: &Route) -> bool {
        let (trie, key) = self.place(gone);
        let Some(mut routes) = trie.get(key).map(|routes| routes.to_vec()) else { return false };
        let exact = routes.iter().position(|present| same_slot(present, gone) && equal_ways(present, gone));
        let Some(at) = exact.or_else(|| {
            routes
                .iter()
                .position(|present| same_slot(present, gone) && gone.hops.iter().any(|hop| has(present, hop)))
        }) else {
            return false;
        };
        let mut left = (*routes[at]).clone();
        left.hops.retain(|hop| !has(gone, hop));
        if left.hops.is_empty() {
            routes.remove(at);
        } else {
            routes[at] = Arc::new(left);
        }
        if routes.is_empty() {
            trie.remove(key);
        } else {
            trie.insert(key, routes.into());
        }
        true
    }

    /// Whether the route, told to go, would take one of these out.
    #[must_use]
    pub fn has(&self, route: &Route) -> bool {
        let tables = match route.table {
            Table::Main => &self.main,
            Table::Local => &self.local,
        };
        let present = tables.of(route.destination).get(Key::new(route.destination, route.prefix));
        present.is_some_and(|routes| routes.iter().any(|present| same_entry(present, route)))
    }

    const fn tables(&mut self, table: Table) -> &mut Family {
        match table {
            Table::Main => &mut self.main,
            Table::Local => &mut self.local,
        }
    }

    fn place(&mut self, route: &Route) -> (&mut Trie<Arc<[Arc<Route>]>>, Key) {
        let key = Key::new(route.destination, route.prefix);
        (self.tables(route.table).of_mut(route.destination), key)
    }
}

fn verdict(routes: &[Arc<Route>]) -> Option<Verdict> {
    routes.iter().filter(|route| route.tos == 0).find_map(|route| match route.kind {
        RouteKind::Local => Some(Verdict::Local),
        RouteKind::Broadcast => Some(Verdict::Broadcast),
        RouteKind::Refuse => Some(Verdict::Refused),
        RouteKind::Unicast => {
            route.hops.iter().any(|hop| !hop.dead).then(|| Verdict::Forward(Arc::clone(route)))
        }
        RouteKind::Other => None,
    })
}

/// Whether two routes of one table are the same entry, perhaps told with other properties.
#[must_use]
pub fn same_entry(one: &Route, other: &Route) -> bool {
    (one.destination, one.prefix) == (other.destination, other.prefix)
        && same_slot(one, other)
        && equal_ways(one, other)
}

/// Whether two routes compete for the same place: the kernel tells them apart by destination, TOS and metric.
fn same_slot(one: &Route, other: &Route) -> bool {
    one.metric == other.metric && one.tos == other.tos && one.kind == other.kind
}

fn has(route: &Route, hop: &Hop) -> bool {
    route.hops.iter().any(|way| way.index == hop.index && way.gateway == hop.gateway)
}

fn equal_ways(one: &Route, other: &Route) -> bool {
    one.hops.len() == other.hops.len() && one.hops.iter().all(|hop| has(other, hop))
}

/// Whether `told` is `present` told again: all its ways are in the message.
fn same_ways(present: &Route, told: &Route) -> bool {
    if present.hops.is_empty() { told.hops.is_empty() } else { present.hops.iter().all(|hop| has(told, hop)) }
}

#[cfg(test)]
mod tests {
    use super::{Routes, Verdict};
    use crate::mirror::wire::{Hop, Placement, Route, RouteKind, Table};
    use std::net::IpAddr;

    fn hop(index: u32, gateway: Option<&str>) -> Hop {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Hop { index, gateway, weight: 1, dead: false, linkdown: false, encapsulated: false }
    }

    fn route(network: &str, prefix: u8, metric: u32, hops: Vec<Hop>) -> Route {
        Route {
            table: Table::Main,
            destination: network.parse().unwrap(),
            prefix,
            tos: 0,
            metric,
            protocol: 4,
            kind: RouteKind::Unicast,
            prefsrc: None,
            mtu: None,
            hops,
        }
    }

    fn gateway(routes: &Routes, destination: &str) -> Option<IpAddr> {
        match routes.ask(destination.parse().unwrap()) {
            Verdict::Forward(route) => route.hops.iter().find(|hop| !hop.dead).and_then(|hop| hop.gateway),
            _ => None,
        }
    }

    #[test]
    fn metrics_order_and_deletion_uncovers_the_next() {
        let mut routes = Routes::default();
        routes.add(route("10.0.0.0", 8, 100, vec![hop(1, Some("1.1.1.1"))]), Placement::Prepend);
        routes.add(route("10.0.0.0", 8, 10, vec![hop(1, Some("1.1.1.2"))]), Placement::Prepend);
        assert_eq!(gateway(&routes, "10.9.9.9"), Some("1.1.1.2".parse().unwrap()));
        assert!(routes.remove(&route("10.0.0.0", 8, 10, vec![hop(1, Some("1.1.1.2"))])));
        assert!(!routes.remove(&route("10.0.0.0", 8, 10, vec![hop(1, Some("1.1.1.2"))])));
        assert_eq!(gateway(&routes, "10.9.9.9"), Some("1.1.1.1".parse().unwrap()));
    }

    #[test]
    fn replacing_prepending_and_appending_follow_the_kernel() {
        let mut routes = Routes::default();
        for (gateway, placement) in
            [("1.1.1.1", Placement::Prepend), ("1.1.1.2", Placement::Append), ("1.1.1.3", Placement::Prepend)]
        {
            routes.add(route("10.0.0.0", 8, 0, vec![hop(1, Some(gateway))]), placement);
        }
        assert_eq!(gateway(&routes, "10.0.0.1"), Some("1.1.1.3".parse().unwrap()));
        routes.add(route("10.0.0.0", 8, 0, vec![hop(1, Some("1.1.1.4"))]), Placement::Replace);
        assert_eq!(gateway(&routes, "10.0.0.1"), Some("1.1.1.4".parse().unwrap()));
        routes.remove(&route("10.0.0.0", 8, 0, vec![hop(1, Some("1.1.1.4"))]));
        assert_eq!(gateway(&routes, "10.0.0.1"), Some("1.1.1.1".parse().unwrap()));
        assert!(!routes.add(route("10.0.0.0", 8, 0, vec![hop(1, Some("1.1.1.2"))]), Placement::Append));
    }

    #[test]
    fn ipv6_siblings_grow_and_shrink() {
        let mut routes = Routes::default();
        let one = route("fd00::", 64, 1024, vec![hop(1, Some("fe80::1"))]);
        let both = route("fd00::", 64, 1024, vec![hop(1, Some("fe80::1")), hop(1, Some("fe80::2"))]);
        routes.add(one.clone(), Placement::Append);
        routes.add(both, Placement::Append);
        assert_eq!((routes.len(), routes.main().count()), (1, 1));
        assert!(routes.remove(&one));
        assert_eq!(gateway(&routes, "fd00::9"), Some("fe80::2".parse().unwrap()));
    }

    #[test]
    fn dead_ways_fall_back_and_refusals_do_not() {
        let mut routes = Routes::default();
        routes.add(route("0.0.0.0", 0, 0, vec![hop(1, Some("1.1.1.1"))]), Placement::Append);
        let dead = Hop { dead: true, ..hop(1, Some("1.1.1.2")) };
        routes.add(route("10.0.0.0", 8, 0, vec![dead]), Placement::Append);
        assert_eq!(gateway(&routes, "10.0.0.1"), Some("1.1.1.1".parse().unwrap()));
        let refuse = Route { kind: RouteKind::Refuse, ..route("10.1.0.0", 16, 0, vec![]) };
        routes.add(refuse.clone(), Placement::Append);
        assert_eq!(routes.ask("10.1.0.1".parse().unwrap()), Verdict::Refused);
        assert!(routes.add(Route { metric: 7, ..refuse }, Placement::Append));
        assert_eq!(routes.ask("11.1.0.1".parse().unwrap()), gateway_route(&routes, "11.1.0.1"));
        assert_eq!(routes.ask("fd00::1".parse().unwrap()), Verdict::Unknown);
    }

    fn gateway_route(routes: &Routes, destination: &str) -> Verdict {
        routes.ask(destination.parse().unwrap())
    }
}
