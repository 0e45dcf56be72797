//! Ways and routes, from plain tables and from what the kernel says of a twin.

use super::*;
use crate::mirror::wire::{self, RouteKind};
use crate::mirror::{self, AddressView, LinkView, NeighbourView};

fn port(last: u8, tables: Tables) -> Port {
    Port { name: format!("eth{last}"), mac: [2, 0, 0, 0, 0, last], mtu: 1500, tables: Some(tables) }
}

fn neighbour(address: &str, last: u8) -> Neighbour {
    Neighbour { address: address.parse().unwrap(), mac: crate::address::Mac([4, 0, 0, 0, 0, last]) }
}

fn route(to: &str, via: &str) -> Route {
    Route { to: to.parse().unwrap(), via: Some(via.parse().unwrap()) }
}

fn network() -> Network {
    let front = Tables {
        addresses: vec!["192.0.2.1/24".parse().unwrap()],
        routes: vec![route("0.0.0.0/0", "192.0.2.9")],
        neighbours: vec![neighbour("192.0.2.9", 9), neighbour("192.0.2.7", 7)],
    };
    let back = Tables {
        addresses: vec!["10.0.0.1/24".parse().unwrap(), "10.9.9.9/32".parse().unwrap()],
        routes: vec![route("10.1.0.0/16", "10.0.0.2"), route("10.2.0.0/16", "10.0.0.3")],
        neighbours: vec![neighbour("10.0.0.2", 2), neighbour("fd00::5", 5)],
    };
    Network::new(vec![port(0, front), port(1, back)])
}

#[test]
fn plain_tables_are_routed_by_the_longest_prefix() {
    let network = network();
    let cases = [
        ("192.0.2.7", 0, Some(7)),
        ("192.0.2.8", 0, None),
        ("198.51.100.1", 0, Some(9)),
        ("10.0.0.2", 1, Some(2)),
        ("10.1.2.3", 1, Some(2)),
        ("10.2.2.3", 1, None),
        ("fd00::5", 1, Some(5)),
    ];
    for (destination, port, last) in cases {
        let way = network.way(destination.parse().unwrap());
        let next_hop = last.map_or(NextHop::Unresolved, |last| NextHop::Resolved {
            destination_mac: [4, 0, 0, 0, 0, last],
            source_mac: [2, 0, 0, 0, 0, port],
        });
        assert_eq!((way.next_hop, way.port, way.mtu), (next_hop, PortId(port), 1500), "{destination}");
        assert_eq!(way.hop, None, "nobody can be asked");
    }
    assert_eq!(network.way("fd00::6".parse().unwrap()), Way::NONE);
    for own in ["192.0.2.1", "10.9.9.9"] {
        assert_eq!(network.way(own.parse().unwrap()).next_hop, NextHop::Local, "{own}");
    }
}

#[test]
fn routes_say_what_ways_say() {
    let network = network();
    let (routes, routers) = network.routes();
    assert!(routers.is_empty(), "nobody can be asked");
    for destination in [
        "192.0.2.7",
        "192.0.2.9",
        "198.51.100.1",
        "10.0.0.2",
        "10.1.2.3",
        "10.2.2.3",
        "192.0.2.1",
        "10.9.9.9",
        "fd00::5",
    ] {
        let destination = destination.parse().unwrap();
        let (way, view) = (network.way(destination), routes.find(destination).unwrap());
        let said = (view.next_hop, view.port, view.mtu, view.source);
        assert_eq!(said, (way.next_hop, way.port, way.mtu, way.source), "{destination}");
    }
    let on_link = routes.find("192.0.2.8".parse().unwrap()).unwrap();
    assert_eq!((on_link.next_hop, on_link.via), (NextHop::Unresolved, None));
    assert_eq!(on_link.source, Some("192.0.2.1".parse().unwrap()));
    let routed = routes.find("198.51.100.1".parse().unwrap()).unwrap();
    assert_eq!(routed.via, Some("192.0.2.9".parse().unwrap()));
    assert!(routes.find("fd00::6".parse().unwrap()).is_none());
}

/// A twin with an address, a router, a network behind it that is refused, and a neighbour.
fn twin() -> NetworkView {
    let hop = |index, gateway: Option<&str>| wire::Hop {
        index,
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        weight: 1,
        dead: false,
        linkdown: false,
        encapsulated: false,
    };
    let route = |to: &str, kind, hops| {
        let to: Prefix = to.parse().unwrap();
        wire::Route {
            table: if kind == RouteKind::Local { wire::Table::Local } else { wire::Table::Main },
            destination: to.ip,
            prefix: to.length,
            tos: 0,
            metric: 0,
            protocol: 2,
            kind,
            prefsrc: None,
            mtu: None,
            hops,
        }
    };
    let mut routes = mirror::routes::Routes::default();
    for route in [
        route("0.0.0.0/0", RouteKind::Unicast, vec![hop(7, Some("192.0.2.9"))]),
        route("192.0.2.0/24", RouteKind::Unicast, vec![hop(7, None)]),
        route("192.0.2.1/32", RouteKind::Local, vec![hop(7, None)]),
        route("10.0.0.0/8", RouteKind::Refuse, Vec::new()),
        route("172.16.0.0/12", RouteKind::Unicast, vec![hop(99, Some("192.0.2.9"))]),
    ] {
        routes.add(route, wire::Placement::Append);
    }
    let usable = |last| NeighbourView::Usable([4, 0, 0, 0, 0, last]);
    let link = LinkView {
        index: 7,
        name: "eth0".into(),
        up: true,
        running: true,
        mac: [2; 6],
        extra_macs: Vec::new(),
        mtu: 1400,
    };
    let address =
        AddressView { port: PortId(0), address: "192.0.2.1".parse().unwrap(), prefix: 24, tentative: false };
    let neighbours = [("192.0.2.9", usable(9)), ("192.0.2.7", usable(7)), ("198.51.100.1", usable(1))]
        .map(|(address, view)| ((PortId(0), address.parse().unwrap()), view));
    NetworkView {
        revision: 1,
        links: [(PortId(0), link)].into(),
        addresses: [address].into(),
        neighbours: Arc::new(neighbours.into()),
        routes,
        ports: [(7, PortId(0))].into(),
    }
}

#[test]
fn routes_of_a_twin_are_the_kernels() {
    let mut network = Network::new(vec![Port { name: "eth0".into(), mac: [2; 6], mtu: 1500, tables: None }]);
    network.set_view(Arc::new(twin()));
    let (routes, routers) = network.routes();
    let router: IpAddr = "192.0.2.9".parse().unwrap();
    assert_eq!(routers, [(PortId(0), router)].into());
    let resolved = |last| NextHop::Resolved { destination_mac: [4, 0, 0, 0, 0, last], source_mac: [2; 6] };
    for (destination, next_hop, via) in [
        ("203.0.113.1", resolved(9), Some(router)),
        // A neighbour that is not on the link by the routes is not asked.
        ("198.51.100.1", resolved(9), Some(router)),
        ("192.0.2.7", resolved(7), None),
        ("192.0.2.8", NextHop::Unresolved, None),
        ("192.0.2.1", NextHop::Local, None),
        ("10.1.1.1", NextHop::NoRoute, None),
        ("172.16.1.1", NextHop::NoRoute, None),
    ] {
        let view = routes.find(destination.parse().unwrap()).unwrap();
        assert_eq!((view.next_hop, view.via), (next_hop, via), "{destination}");
        if matches!(next_hop, NextHop::Resolved { .. } | NextHop::Unresolved) {
            let known = (view.port, view.mtu, view.source);
            assert_eq!(known, (PortId(0), 1400, Some("192.0.2.1".parse().unwrap())), "{destination}");
        }
    }
}

#[test]
fn several_ways_are_all_there_with_their_weights() {
    let mut view = twin();
    let hop = |index, gateway: &str, weight| wire::Hop {
        index,
        gateway: Some(gateway.parse().unwrap()),
        weight,
        dead: false,
        linkdown: false,
        encapsulated: false,
    };
    let hops = vec![hop(7, "192.0.2.9", 1), hop(7, "192.0.2.7", 2), hop(99, "192.0.2.5", 1)];
    let several = wire::Route {
        table: wire::Table::Main,
        destination: "203.0.113.0".parse().unwrap(),
        prefix: 24,
        tos: 0,
        metric: 0,
        protocol: 4,
        kind: RouteKind::Unicast,
        prefsrc: None,
        mtu: None,
        hops,
    };
    view.routes.add(several, wire::Placement::Append);
    let mut network = Network::new(vec![Port { name: "eth0".into(), mac: [2; 6], mtu: 1500, tables: None }]);
    network.set_view(Arc::new(view));
    let (routes, routers) = network.routes();
    let router = |last: u8| IpAddr::from([192, 0, 2, last]);
    assert_eq!(routers, [(PortId(0), router(7)), (PortId(0), router(9))].into(), "both are kept resolved");
    let clients = (0..=255).map(|last| IpAddr::from([203, 0, 113, last]));
    let taken = clients.clone().map(|client| routes.of_flow("10.9.9.9".parse().unwrap(), client).unwrap());
    let mut counts = std::collections::HashMap::new();
    for view in taken {
        *counts.entry((view.via, view.next_hop)).or_insert(0) += 1;
    }
    let resolved = |last| NextHop::Resolved { destination_mac: [4, 0, 0, 0, 0, last], source_mac: [2; 6] };
    let expected = [
        // Of no port of ours: the host's stack leads there.
        ((None, NextHop::NoRoute), 64),
        ((Some(router(7)), resolved(7)), 128),
        ((Some(router(9)), resolved(9)), 64),
    ];
    assert_eq!(counts.len(), 3);
    for (way, share) in expected {
        let count: i32 = counts[&way];
        assert!((count - share).abs() < 32, "{way:?}: {count} of {share}");
    }
    // Servers behind it are spread too, each with a way of its own.
    let vias: BTreeSet<_> = clients.map(|server| network.way(server).hop).collect();
    assert_eq!(vias, [None, Some((PortId(0), router(7))), Some((PortId(0), router(9)))].into());
}

#[test]
fn a_rules_port_is_found_by_its_name() {
    let network = network();
    let rule = |port: &str| MarkRule { port: Some(port.to_owned()), ..MarkRule::all(1) };
    assert_eq!(network.mark_rules(&[rule("eth1")]).unwrap()[0].port, Some(PortId(1)));
    let refused = network.mark_rules(&[rule("eth2")]).unwrap_err();
    assert_eq!(refused.to_string(), "there is no port `eth2`; there are eth0, eth1");
}

/// RFC 6724, 5, and Linux: scope before interface, interface before prefix.
#[test]
fn a_source_address_fits_the_destination() {
    let address = |port, text: &str| (PortId(port), text.parse::<Prefix>().unwrap());
    let own = [
        address(1, "fe80::1/64"),
        address(1, "2001:db8:5::1/64"),
        address(1, "fd00:10::1/64"),
        address(1, "fd00:10::64/128"),
        address(0, "2001:db8:1::1/64"),
        address(0, "192.0.2.1/24"),
        address(1, "10.0.0.1/24"),
        address(1, "10.9.0.1/24"),
    ];
    let ask = |port, via: &str, destination: &str| {
        let (via, destination) = (via.parse().unwrap(), destination.parse().unwrap());
        source_of(own.into_iter(), PortId(port), via, destination).map(|source| source.to_string())
    };
    for (port, via, destination, source) in [
        (1, "fe80::fe", "2001:db8:9::4", "2001:db8:5::1"),
        (1, "fe80::fe", "fd00:10::4", "fd00:10::1"),
        (1, "fd00:10::65", "fd00:10::65", "fd00:10::1"),
        (1, "fe80::fe", "fe80::fe", "fe80::1"),
        (0, "fe80::fe", "fd00:10::4", "2001:db8:1::1"),
        (2, "fe80::fe", "fd00:10::4", "fd00:10::1"),
        (1, "10.9.0.254", "172.16.5.4", "10.9.0.1"),
        (1, "10.7.0.254", "172.16.5.4", "10.0.0.1"),
        (0, "10.0.0.254", "172.16.5.4", "192.0.2.1"),
        (2, "10.7.0.254", "172.16.5.4", "192.0.2.1"),
    ] {
        assert_eq!(
            ask(port, via, destination).as_deref(),
            Some(source),
            "{destination} by {via}, port {port}"
        );
    }
    let only_local = [address(1, "fe80::1/64")];
    let none = source_of(only_local[..0].iter().copied(), PortId(1), own[0].1.ip, own[1].1.ip);
    assert_eq!(none, None);
}
