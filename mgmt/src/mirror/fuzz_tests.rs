//! Hostile and shuffled messages: whatever comes, the mirror neither panics nor runs on for ever, and what it keeps is
//! what the messages said.

use super::message;
use super::settle::Moment;
use super::state::{MirrorPort, State};
use super::wire::{
    Address, Event, Link, Message, Messages, Neighbour, Placement, RouteKind, Table, answer, decode,
};
use dataplane::id::PortId;
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMetric, RouteNextHop, RouteNextHopFlags};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn decoded(message: RouteNetlinkMessage) -> Event {
    let bytes = bytes(message);
    let message = Messages::new(&bytes).next().unwrap();
    decode(&message).unwrap().unwrap()
}

fn link_message() -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = 7;
    link.header.flags = LinkFlags::Up | LinkFlags::Running;
    link.attributes = vec![
        LinkAttribute::IfName("vrrp.51".into()),
        LinkAttribute::Mtu(1500),
        LinkAttribute::Address(vec![0, 0, 0x5e, 0, 1, 51]),
        LinkAttribute::Link(5),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan)]),
    ];
    RouteNetlinkMessage::NewLink(link)
}

fn multipath_message() -> RouteNetlinkMessage {
    let RouteNetlinkMessage::NewRoute(mut route) = message::new_route(&message::NewRoute {
        destination: [10, 0, 0, 0].into(),
        prefix: 8,
        index: 5,
        via: None,
    }) else {
        unreachable!()
    };
    let way = |index: u32, gateway: [u8; 4], hops: u8, flags: RouteNextHopFlags| {
        let mut way = RouteNextHop::default();
        (way.interface_index, way.hops, way.flags) = (index, hops, flags);
        way.attributes = vec![RouteAttribute::Gateway(IpAddr::from(gateway).into())];
        way
    };
    route.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    route.attributes.push(RouteAttribute::Priority(20));
    route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]));
    route.attributes.push(RouteAttribute::MultiPath(vec![
        way(5, [10, 1, 1, 1], 0, RouteNextHopFlags::empty()),
        way(6, [10, 1, 1, 2], 2, RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown),
    ]));
    RouteNetlinkMessage::NewRoute(route)
}

fn samples() -> Vec<Vec<u8>> {
    let v6: IpAddr = "fd00::64".parse().unwrap();
    let route = |to: &str, via: &str| {
        let to: IpAddr = to.parse().unwrap();
        let via = Some(via.parse().unwrap());
        message::new_route(&message::NewRoute { destination: to, prefix: 8, index: 5, via })
    };
    [
        link_message(),
        multipath_message(),
        route("fd00::", "fd00::1"),
        route("10.0.0.0", "fd00::1"),
        message::new_address(5, [192, 168, 132, 30].into(), 24),
        message::delete_address(5, v6, 64),
        message::keep_neighbour(5, v6),
        message::permanent_neighbour(5, [192, 168, 132, 64].into(), [2, 0, 0, 0, 0, 1]),
    ]
    .map(bytes)
    .into()
}

#[test]
fn a_macvlan_is_read() {
    let Event::Link(link) = decoded(link_message()) else { panic!() };
    assert_eq!(
        link,
        Link {
            index: 7,
            name: "vrrp.51".into(),
            up: true,
            running: true,
            mac: Some([0, 0, 0x5e, 0, 1, 51]),
            mtu: 1500,
            macvlan_of: Some(5),
        }
    );
}

#[test]
fn a_multipath_route_is_read() {
    let Event::Route(route, Placement::Prepend) = decoded(multipath_message()) else { panic!() };
    assert_eq!(
        (route.table, route.kind, route.metric, route.mtu),
        (Table::Main, RouteKind::Unicast, 20, Some(1400))
    );
    let ways: Vec<_> = route.hops.iter().map(|hop| (hop.index, hop.gateway, hop.weight, hop.dead)).collect();
    let gateway = |last| Some(IpAddr::from([10, 1, 1, last]));
    assert_eq!(ways, [(5, gateway(1), 1, false), (6, gateway(2), 3, true)]);
}

#[test]
fn the_kernels_answers_are_read() {
    let error = |code: i32, flags: u16, rest: &[u8]| {
        let payload = [&(-code).to_ne_bytes()[..], rest].concat();
        answer(&Message { kind: 2, flags, sequence: 1, payload: &payload })
    };
    let explained = [&[0; 16][..], &[12, 0, 1, 0], b"No way\0\0"].concat();
    assert_eq!(error(0, 0, &[0; 16]), Some((0, None)));
    assert_eq!(error(17, 0x300, &explained), Some((17, Some("No way".into()))));
    assert_eq!(error(17, 0x200, &[255; 16]), Some((17, None)));
    assert_eq!(answer(&Message { kind: 2, flags: 0x300, sequence: 1, payload: &[1, 2] }), None);
}

/// Decodes and applies everything in `datagram`; how many messages there were.
fn survive(datagram: &[u8]) -> usize {
    let mut state = State::new(vec![MirrorPort { port: PortId(0), name: "eth0".into() }], Duration::ZERO);
    let mut count = 0;
    for message in Messages::new(datagram) {
        count += 1;
        let _ = answer(&message);
        if let Ok(Some(event)) = decode(&message) {
            state.apply(event, Moment::ZERO, &mut |_| {});
        }
    }
    state.withdraw(Moment::ZERO);
    let _ = state.view();
    count
}

#[test]
fn every_truncation_is_survived() {
    for sample in samples() {
        for length in 0..=sample.len() {
            survive(&sample[..length]);
            // The outer length is right and the inner ones are not.
            let mut cut = sample[..length].to_vec();
            if let Some(header) = cut.first_chunk_mut::<4>() {
                *header = u32::try_from(length).unwrap().to_ne_bytes();
            }
            survive(&cut);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_are_survived(datagram in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(survive(&datagram) <= datagram.len() / 16);
    }

    #[test]
    fn random_payloads_are_survived(kind in 0_u16..40, flags in any::<u16>(), payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let length = u32::try_from(payload.len() + 16).unwrap();
        let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat();
        survive(&[header, payload].concat());
    }

    #[test]
    fn changed_bytes_are_survived(
        which in 0_usize..8, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut sample = samples().swap_remove(which);
        for (at, value) in changes {
            let at = at.index(sample.len());
            sample[at] = value;
        }
        survive(&sample);
    }
}

#[derive(Debug, Clone)]
enum Told {
    Link { index: u32, twin: bool },
    LinkGone(u32),
    Address { index: u32, last: u8, gone: bool },
    Neighbour { index: u32, last: u8, state: u16 },
    NeighbourGone { index: u32, last: u8 },
}

fn told() -> impl Strategy<Value = Told> {
    let index = 1_u32..4;
    prop_oneof![
        (index.clone(), any::<bool>()).prop_map(|(index, twin)| Told::Link { index, twin }),
        index.clone().prop_map(Told::LinkGone),
        (index.clone(), 0_u8..4, any::<bool>()).prop_map(|(index, last, gone)| Told::Address {
            index,
            last,
            gone
        }),
        (index.clone(), 0_u8..4, prop::sample::select(vec![1_u16, 2, 4, 0x20, 0x80]))
            .prop_map(|(index, last, state)| Told::Neighbour { index, last, state }),
        (index, 0_u8..4).prop_map(|(index, last)| Told::NeighbourGone { index, last }),
    ]
}

proptest! {
    /// In any order: the addresses shown are those last told of, of interfaces that are there, a withdrawn one at most
    /// `grace` after its end, and one that came back never interrupted.
    #[test]
    fn what_is_shown_is_what_was_told(steps in prop::collection::vec((told(), 0_u64..4), 1..120)) {
        let grace = Duration::from_millis(10);
        let mut state = State::new(vec![MirrorPort { port: PortId(0), name: "eth0".into() }], grace);
        let mut view = super::NetworkView::default();
        let mut twin: Option<u32> = None;
        let mut links: BTreeMap<u32, bool> = BTreeMap::new();
        let mut addresses: BTreeMap<(u32, u8), Option<Duration>> = BTreeMap::new();
        let mut neighbours: BTreeMap<u8, u16> = BTreeMap::new();
        let mut now = Duration::ZERO;
        for (step, gap) in steps {
            now += Duration::from_millis(gap);
            addresses.retain(|_, gone| gone.is_none_or(|gone| gone + grace > now));
            let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
            let address = |index, last| Address { index, address: ip(last), prefix: 24, tentative: false };
            let neighbour =
                |index, last, state| Neighbour { index, address: ip(last), state, mac: Some([2; 6]), managed: false };
            let event = match step {
                Told::Link { index, twin: is_twin } => {
                    let is_twin = *links.entry(index).or_insert(is_twin);
                    if is_twin && twin.is_none() {
                        twin = Some(index);
                    }
                    let name = if is_twin { "eth0".into() } else { format!("other{index}") };
                    Event::Link(Link { index, name, up: true, running: true, mac: Some(MAC), mtu: 1500, macvlan_of: None })
                }
                Told::LinkGone(index) => {
                    if links.remove(&index).is_some() {
                        addresses.retain(|(of, _), _| *of != index);
                        if twin == Some(index) {
                            twin = None;
                            neighbours.clear();
                        }
                    }
                    Event::LinkGone(index)
                }
                Told::Address { index, last, gone: false } => {
                    addresses.insert((index, last), None);
                    Event::Address(address(index, last))
                }
                Told::Address { index, last, gone: true } => {
                    if let Some(shown) = addresses.get_mut(&(index, last)) {
                        shown.get_or_insert(now);
                    }
                    Event::AddressGone(address(index, last))
                }
                Told::Neighbour { index, last, state } => {
                    if twin == Some(index) {
                        neighbours.insert(last, state);
                    }
                    Event::Neighbour(neighbour(index, last, state))
                }
                Told::NeighbourGone { index, last } => {
                    if twin == Some(index) {
                        neighbours.remove(&last);
                    }
                    Event::NeighbourGone(neighbour(index, last, 0))
                }
            };
            state.withdraw(now);
            state.apply(event, now, &mut |_| {});
            view = state.view().unwrap_or(view);
            let shown: Vec<IpAddr> = view.addresses.iter().map(|address| address.address).collect();
            let expected: Vec<IpAddr> =
                addresses.keys().filter(|(index, _)| Some(*index) == twin).map(|(_, last)| ip(*last)).collect();
            prop_assert_eq!(shown, expected);
            prop_assert_eq!(view.neighbours.len(), neighbours.len());
            for (last, state) in &neighbours {
                prop_assert_eq!(view.mac_of(PortId(0), ip(*last)).is_some(), *state & 0xd6 != 0);
            }
        }
    }
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
