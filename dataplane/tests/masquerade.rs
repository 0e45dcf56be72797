//! VS/NAT: requests, replies, their ICMP errors and fragments, on one worker and on several.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test figures are small, helpers may fail"
)]

mod gateway;

use dataplane::bench::{DirectorConfig, Frame, Outcome};
use dataplane::counters::{Counter, DropReason};
use dataplane::engine::Event;
use dataplane::exception::PuntClass;
use dataplane::id::PortId;
use dataplane::packet::{checksum, tcp};
use dataplane::snapshot::{
    ClientMask, Method, Multipath, NextHop, Persistence, Route, RouteView, Routes, SchedulerKind,
    ServiceSpec, Settings, WeightedWay,
};
use dataplane::steering::Steering;
use gateway::*;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const WEB: &str = "10.0.0.100:80";
const CLIENT: &str = "10.1.0.5:1024";

/// A web server behind another port.
fn web(mut gateway: Gateway) -> Gateway {
    gateway.service(key(6, VIP, 80));
    gateway.destination(key(6, VIP, 80), server(3), 8080, Method::Masquerade);
    gateway
}

fn open(gateway: &mut Gateway) {
    gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(tcp::SYN));
}

#[test]
fn requests_and_replies_are_the_packets_that_would_have_been_sent() {
    for (client, virtual_end, real) in [
        (CLIENT, WEB, "192.168.10.3:8080"),
        ("[2001:db8:1::5]:1024", "[2001:db8::100]:80", "[fd00:10::3]:8080"),
    ] {
        for udp in [false, true] {
            let (protocol, real) = (if udp { 17 } else { 6 }, end(real));
            let mut gateway = Gateway::alone();
            let service = key(protocol, &end(virtual_end).ip().to_string(), 80);
            gateway.service(service);
            gateway.destination(service, real.ip(), real.port(), Method::Masquerade);
            let build = |frame: Frame, flags| if udp { frame.udp() } else { frame.tcp(flags) };
            for (flags, payload) in [(tcp::SYN, vec![]), (tcp::ACK | tcp::PSH, vec![0xa5; 101])] {
                let there = Frame { payload: payload.clone(), ..request(client, virtual_end) };
                let expected = Frame { destination: real, ..towards_server(there.clone(), real.ip()) };
                assert_eq!(gateway.sent(CLIENTS, &build(there, flags)), (SERVERS, build(expected, flags)));
                let back = Frame { payload, ..answer(&real.to_string(), client) };
                let expected = Frame { source: end(virtual_end), ..towards_client(back.clone()) };
                assert_eq!(gateway.sent(SERVERS, &build(back, flags)), (CLIENTS, build(expected, flags)));
            }
            let totals = gateway.director.shared.destinations.totals(dataplane::id::DestinationSlot(0));
            assert_eq!((totals.in_packets, totals.out_packets, totals.connections), (2, 2, 1));
        }
    }
}

#[test]
fn states_follow_both_ends() {
    let mut gateway = web(Gateway::alone());
    let state = |gateway: &Gateway| {
        let slab = gateway.director.engines[0].connections_v4();
        slab.read(dataplane::connection::ConnectionId(0)).unwrap().state.name()
    };
    let mut seen = Vec::new();
    for (from_client, flags) in [
        (true, tcp::SYN),
        (false, tcp::SYN | tcp::ACK),
        (true, tcp::ACK),
        (false, tcp::FIN | tcp::ACK),
        (true, tcp::FIN | tcp::ACK),
        (false, tcp::RST),
    ] {
        if from_client {
            gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(flags));
        } else {
            gateway.sent(SERVERS, &answer("192.168.10.3:8080", CLIENT).tcp(flags));
        }
        seen.push(state(&gateway));
    }
    assert_eq!(seen, ["SYN_RECV", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "TIME_WAIT", "TIME_WAIT"]);
}

#[test]
fn a_port_less_server_gets_the_port_that_was_asked_for() {
    let mut gateway = Gateway::alone();
    gateway.service(key(6, VIP, 0));
    // Nothing else may take every port.
    let persistence = Some(Persistence { timeout: 300_000, mask: ClientMask::HOST_V4 });
    let spec = ServiceSpec { persistence, ..ServiceSpec::new(key(6, VIP, 0), SchedulerKind::Rr) };
    gateway.editor.edit_service(spec).unwrap();
    gateway.destination(key(6, VIP, 0), server(3), 0, Method::Masquerade);
    for port in [80, 443, 8443] {
        let frame = request(CLIENT, &format!("{VIP}:{port}"));
        let real = SocketAddr::new(server(3), port);
        let expected = Frame { destination: real, ..towards_server(frame.clone(), server(3)) };
        assert_eq!(gateway.sent(CLIENTS, &frame.tcp(tcp::SYN)).1, expected.tcp(tcp::SYN));
        let back = answer(&real.to_string(), CLIENT);
        let expected = Frame { source: end(&format!("{VIP}:{port}")), ..towards_client(back.clone()) };
        assert_eq!(gateway.sent(SERVERS, &back.tcp(tcp::ACK)).1, expected.tcp(tcp::ACK));
    }
}

#[test]
fn a_connection_keeps_its_method_when_the_destination_gets_another() {
    let mut gateway = web(Gateway::alone());
    open(&mut gateway);
    let direct = dataplane::snapshot::DestinationSpec::new(server(3), 8080, 1);
    gateway.editor.edit_destination(&key(6, VIP, 80), direct).unwrap();
    gateway.publish();
    let old = gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(tcp::ACK)).1;
    assert_eq!(old[30..34], [192, 168, 10, 3]);
    let new = gateway.sent(CLIENTS, &request("10.1.0.6:1024", WEB).tcp(tcp::SYN)).1;
    assert_eq!((&new[30..34], &new[..6]), (&[10, 0, 0, 100][..], &server_mac(server(3))[..]));
    let reply = gateway.sent(SERVERS, &answer("192.168.10.3:8080", CLIENT).tcp(tcp::ACK)).1;
    assert_eq!(reply[26..30], [10, 0, 0, 100]);
}

#[test]
fn removed_servers_and_services_go_on_answering_until_their_last_connection_is_gone() {
    for workers in [1, 2] {
        let mut gateway = web(Gateway::of(workers, Steering::Client));
        open(&mut gateway);
        // Without any service the director would not be in the way.
        gateway.service(key(17, VIP, 53));
        let reply = answer("192.168.10.3:8080", CLIENT).tcp(tcp::ACK);
        gateway.editor.remove_service(&key(6, VIP, 80)).unwrap();
        gateway.publish();
        assert_eq!(gateway.receive(CLIENTS, &request(CLIENT, WEB).tcp(tcp::ACK)), []);
        assert_eq!(gateway.sent(SERVERS, &reply).1[26..30], [10, 0, 0, 100]);
        let housekeep = |gateway: &mut Gateway, now| {
            let shared = Arc::clone(&gateway.director.shared);
            let passed = gateway.editor.revision();
            gateway.editor.housekeep(now, &shared.destinations, &NoCursors, passed);
            gateway.publish();
            gateway.director.snapshot.servers.is_empty()
        };
        for second in 0..300 {
            assert!(!housekeep(&mut gateway, second * 1000), "its connection lives");
        }
        gateway.director.leap(900_000);
        gateway.director.pass(10);
        housekeep(&mut gateway, 400_000);
        assert!(housekeep(&mut gateway, 600_000));
        assert!(matches!(
            gateway.receive(SERVERS, &reply).as_slice(),
            [Outcome::Punted(PuntClass::Local, ..)]
        ));
    }
}

struct NoCursors;

impl dataplane::snapshot::Cursors for NoCursors {
    fn stands_on(&self, _: dataplane::id::ServiceSlot, _: u32) -> bool {
        false
    }
}

#[test]
fn a_reply_with_its_last_hop_is_answered_to_the_server() {
    let mut gateway = web(Gateway::alone());
    open(&mut gateway);
    let frame = Frame { ttl: 1, ..answer("192.168.10.3:8080", CLIENT) }.tcp(tcp::ACK);
    let (port, error) = gateway.sent(SERVERS, &frame);
    assert_eq!((port, &error[..6]), (SERVERS, &server_mac(server(3))[..]));
    assert_eq!((&error[26..30], &error[34..36]), (&[192, 168, 10, 1][..], &[11, 0][..]));
    assert_eq!(error[42..], frame[14..], "quoted as it came");
    assert_eq!(gateway.director.dropped(DropReason::TtlExceeded), 1);
}

#[test]
fn a_reply_too_long_for_the_clients_link_is_answered_to_the_server() {
    let mut gateway = web(Gateway::alone());
    open(&mut gateway);
    gateway.set_mtu([1300, 1500]);
    let long = Frame { payload: vec![7; 1300], ..answer("192.168.10.3:8080", CLIENT) }.tcp(tcp::ACK);
    let (port, error) = gateway.sent(SERVERS, &long);
    assert_eq!((port, &error[34..36], &error[40..42]), (SERVERS, &[3, 4][..], &1300_u16.to_be_bytes()[..]));
    assert_eq!(error[42..], long[14..14 + error.len() - 42], "quoted before any change");
}

#[test]
fn a_request_too_long_for_the_servers_link_is_answered_from_the_virtual_address() {
    let mut gateway = web(Gateway::alone());
    open(&mut gateway);
    gateway.set_mtu([1500, 1400]);
    let long = Frame { payload: vec![7; 1361], ..request(CLIENT, WEB) }.tcp(tcp::ACK);
    let (port, error) = gateway.sent(CLIENTS, &long);
    assert_eq!((port, &error[26..30]), (CLIENTS, &[10, 0, 0, 100][..]));
    assert_eq!((&error[34..36], &error[40..42]), (&[3, 4][..], &1400_u16.to_be_bytes()[..]));
    assert_eq!((error[50], &error[58..62]), (63, &[10, 0, 0, 100][..]), "one hop on, but not translated");
}

#[test]
fn a_client_on_the_link_is_reached_by_the_mac_it_came_from() {
    let mut gateway = web(Gateway::alone());
    let mac = [2, 0, 0, 0, 0, 77];
    let frame = Frame { source_mac: mac, ..request("10.0.0.77:1024", WEB) };
    gateway.sent(CLIENTS, &frame.tcp(tcp::SYN));
    let (port, reply) = gateway.sent(SERVERS, &answer("192.168.10.3:8080", "10.0.0.77:1024").tcp(tcp::ACK));
    assert_eq!((port, &reply[..6]), (CLIENTS, &mac[..]));
}

#[test]
fn without_routes_replies_go_back_the_way_the_request_came() {
    let mut gateway = web(Gateway::alone());
    gateway.editor.set_routes(Arc::default());
    gateway.publish();
    let mac = [2, 0, 0, 0, 0, 78];
    gateway.sent(CLIENTS, &Frame { source_mac: mac, ..request(CLIENT, WEB) }.tcp(tcp::SYN));
    let (port, reply) = gateway.sent(SERVERS, &answer("192.168.10.3:8080", CLIENT).tcp(tcp::ACK));
    assert_eq!((port, &reply[..6], &reply[6..12]), (CLIENTS, &mac[..], &CLIENT_SIDE[..]));
}

/// Routes under which the client network is behind a router that has no MAC yet, and those that know it.
fn router_routes(known: bool) -> Arc<Routes> {
    let source_mac = SERVER_SIDE;
    let router =
        if known { NextHop::Resolved { destination_mac: ROUTER, source_mac } } else { NextHop::Unresolved };
    let via_router = RouteView {
        next_hop: router,
        via: Some(ip("192.168.10.253")),
        source: None,
        port: SERVERS,
        mtu: 1500,
    };
    let host = RouteView { via: None, ..via_router };
    Arc::new(Routes::new([
        Route { network: ip("0.0.0.0"), prefix: 0, view: via_router },
        Route { network: ip("192.168.10.253"), prefix: 32, view: host },
    ]))
}

#[test]
fn a_reply_waits_for_its_next_hop_as_it_is_to_be_sent() {
    let mut gateway = web(Gateway::alone());
    open(&mut gateway);
    gateway.editor.set_routes(router_routes(false));
    gateway.publish();
    let reply = answer("192.168.10.3:8080", CLIENT);
    for _ in 0..2 {
        assert_eq!(gateway.receive(SERVERS, &reply.clone().tcp(tcp::ACK)), []);
    }
    let event = Event::UnresolvedNeighbour(SERVERS, ip("192.168.10.253"));
    assert_eq!(gateway.director.sinks[0].events, [event], "asked for once");
    gateway.editor.set_routes(router_routes(true));
    gateway.publish();
    gateway.director.pass(1);
    let expected = Frame { source: end(WEB), source_mac: SERVER_SIDE, ..towards_client(reply.clone()) };
    let sent = Outcome::Transmitted(SERVERS, expected.tcp(tcp::ACK));
    assert_eq!(gateway.director.take_outcomes(), [sent.clone(), sent]);
    gateway.check();

    gateway.editor.set_routes(router_routes(false));
    gateway.publish();
    gateway.receive(SERVERS, &reply.tcp(tcp::ACK));
    gateway.director.pass(1001);
    gateway.check();
    assert_eq!(gateway.director.dropped(DropReason::NeighbourUnresolved), 1);
}

#[test]
fn replies_share_several_ways_by_client_on_whatever_worker() {
    let taken = |workers, steering| {
        let mut gateway = web(Gateway::of(workers, steering));
        let source_mac = SERVER_SIDE;
        let way = |last: u8, weight| {
            let next_hop = NextHop::Resolved { destination_mac: [6, 0, 0, 0, 0, last], source_mac };
            let via = Some(IpAddr::from([192, 168, 10, last]));
            let view = RouteView { next_hop, via, source: None, port: SERVERS, mtu: 1500 };
            WeightedWay { view, weight }
        };
        let multipath =
            Multipath { network: ip("10.0.0.0"), prefix: 8, ways: vec![way(250, 1), way(251, 3)] };
        gateway.editor.set_routes(Arc::new(Routes::with_multipath([], &[multipath])));
        gateway.publish();
        let mut taken = Vec::new();
        for client in 0..=255_u8 {
            let client = format!("10.1.7.{client}:1024");
            gateway.receive_on(client.len(), CLIENTS, &request(&client, WEB).tcp(tcp::SYN));
            let mut ways = [tcp::SYN | tcp::ACK, tcp::ACK].into_iter().zip(0..).map(|(flags, worker)| {
                let reply = answer("192.168.10.3:8080", &client).tcp(flags);
                match gateway.receive_on(worker, SERVERS, &reply).as_slice() {
                    [Outcome::Transmitted(SERVERS, frame)] => frame[5],
                    other => panic!("{other:?}"),
                }
            });
            let way = ways.next().unwrap();
            assert_eq!(ways.next(), Some(way), "a flow keeps its way");
            taken.push(way);
        }
        taken
    };
    let alone = taken(1, Steering::Client);
    let second = alone.iter().filter(|way| **way == 251).count();
    assert!((160..=224).contains(&second), "{second} of 256 by the way of weight 3 of 4");
    assert_eq!(taken(4, Steering::Client), alone);
    assert_eq!(taken(3, Steering::Flow), alone);
}

#[test]
fn a_parked_request_is_translated_when_it_leaves() {
    let mut gateway = web(Gateway::alone());
    let slot = dataplane::id::DestinationSlot(0);
    gateway.editor.set_next_hop(slot, NextHop::Unresolved, SERVERS, 1500);
    gateway.publish();
    assert_eq!(gateway.receive(CLIENTS, &request(CLIENT, WEB).tcp(tcp::SYN)), []);
    let hop = NextHop::Resolved { destination_mac: server_mac(server(3)), source_mac: SERVER_SIDE };
    gateway.editor.set_next_hop(slot, hop, SERVERS, 1500);
    gateway.publish();
    gateway.director.pass(1);
    let expected =
        Frame { destination: end("192.168.10.3:8080"), ..towards_server(request(CLIENT, WEB), server(3)) };
    let sent = Outcome::Transmitted(SERVERS, expected.tcp(tcp::SYN));
    assert_eq!(gateway.director.take_outcomes(), [sent]);
    gateway.check();
}

#[test]
fn a_local_destination_gets_the_packet_unchanged() {
    let mut gateway = web(Gateway::alone());
    gateway.editor.set_next_hop(dataplane::id::DestinationSlot(0), NextHop::Local, CLIENTS, 0);
    gateway.publish();
    let frame = request(CLIENT, WEB).tcp(tcp::SYN);
    assert_eq!(gateway.receive(CLIENTS, &frame), [Outcome::Punted(PuntClass::Local, CLIENTS, frame)]);
}

#[test]
fn a_server_without_a_connection_is_routed_or_told_so() {
    let mut gateway = web(Gateway::alone());
    let stray = |flags| answer("192.168.10.3:8080", "10.1.0.9:7777").tcp(flags);
    let punted = |frame: Vec<u8>| vec![Outcome::Punted(PuntClass::Local, SERVERS, frame)];
    assert_eq!(gateway.receive(SERVERS, &stray(tcp::ACK)), punted(stray(tcp::ACK)));
    gateway.settings(Settings { nat_icmp_send: true, ..Settings::default() });
    let (port, error) = gateway.sent(SERVERS, &stray(tcp::ACK));
    assert_eq!((port, &error[34..36], &error[26..30]), (SERVERS, &[3, 3][..], &[192, 168, 10, 1][..]));
    assert_eq!(error[50], 63, "quoted one hop on");
    assert_eq!(gateway.receive(SERVERS, &stray(tcp::RST)), punted(stray(tcp::RST)));
    let other_port = answer("192.168.10.3:9999", "10.1.0.9:7777").tcp(tcp::ACK);
    assert_eq!(gateway.receive(SERVERS, &other_port), punted(other_port));
    let datagram = answer("192.168.10.3:8080", "10.1.0.9:7777").udp();
    assert_eq!(gateway.receive(SERVERS, &datagram), punted(datagram));
}

/// An ICMP error of `kind` from `from`, quoting the first `quote` bytes of a packet.
fn icmp_error(from: &str, to: &str, port: PortId, kind: [u8; 2], quoted: &[u8], quote: usize) -> Vec<u8> {
    let macs = if port == CLIENTS { (CLIENT_SIDE, ROUTER) } else { (SERVER_SIDE, server_mac(server(254))) };
    let frame = Frame {
        destination_mac: macs.0,
        source_mac: macs.1,
        dont_fragment: false,
        ..Frame::new(SocketAddr::new(ip(from), 0), SocketAddr::new(ip(to), 0))
    };
    let mut message = vec![kind[0], kind[1], 0, 0, 0, 0, 5, 0x78];
    message.extend(&quoted[14..quoted.len().min(14 + quote)]);
    let sum = !checksum::sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.ip(1, &message)
}

#[test]
fn icmp_errors_are_translated_with_what_they_quote_down_to_24_bytes() {
    let mut gateway = web(Gateway::alone());
    open(&mut gateway);
    // About a reply, from the client's side.
    let reply = Frame { payload: vec![1; 600], ..Frame::new(end(WEB), end(CLIENT)) }.tcp(tcp::ACK);
    let inside = Frame { payload: vec![1; 600], ..Frame::new(end("192.168.10.3:8080"), end(CLIENT)) };
    let inside = inside.tcp(tcp::ACK);
    for kind in [[3, 4], [11, 0], [4, 0]] {
        for quote in [24, 28, 60, 640] {
            let error = icmp_error("10.9.9.9", VIP, CLIENTS, kind, &reply, quote);
            let (port, sent) = gateway.sent(CLIENTS, &error);
            assert_eq!((port, &sent[30..34], sent[22]), (SERVERS, &[192, 168, 10, 3][..], 63));
            assert_eq!(checksum::sum(&sent[34..]), 0xffff, "ICMP checksum");
            assert!(checksum::header_valid(&sent[14..34]) && checksum::header_valid(&sent[42..62]));
            // The quoted TCP checksum is not the director's to repair.
            assert_eq!(sent[42..66], inside[14..38]);
        }
    }
    // About a request, from the server's side.
    let request = Frame::new(end(CLIENT), end("192.168.10.3:8080")).tcp(tcp::ACK);
    let translated = Frame::new(end(CLIENT), end(WEB)).tcp(tcp::ACK);
    for quote in [24, 28, 40] {
        let error = icmp_error("192.168.10.254", "10.1.0.5", SERVERS, [3, 4], &request, quote);
        let (port, sent) = gateway.sent(SERVERS, &error);
        assert_eq!((port, &sent[26..30], &sent[..6]), (CLIENTS, &[10, 0, 0, 100][..], &ROUTER[..]));
        assert_eq!(checksum::sum(&sent[34..]), 0xffff);
        assert_eq!(sent[42..66], translated[14..38]);
    }
}

#[test]
fn icmp_errors_that_lie_are_dropped_or_the_kernels() {
    let mut gateway = web(Gateway::alone());
    open(&mut gateway);
    let reply = Frame::new(end(WEB), end(CLIENT)).tcp(tcp::ACK);
    let mut wrong = icmp_error("10.9.9.9", VIP, CLIENTS, [3, 4], &reply, 28);
    wrong[36] ^= 1;
    assert_eq!(gateway.receive(CLIENTS, &wrong), []);
    assert_eq!(gateway.director.dropped(DropReason::IcmpChecksum), 1);
    let other = Frame::new(end("10.0.0.100:80"), end("10.1.0.5:1999")).tcp(tcp::ACK);
    for frame in [
        icmp_error("10.9.9.9", VIP, CLIENTS, [3, 4], &other, 28),
        icmp_error("10.9.9.9", VIP, CLIENTS, [12, 0], &reply, 28),
        icmp_error("10.9.9.9", VIP, CLIENTS, [5, 1], &reply, 28),
        icmp_error("10.9.9.9", VIP, CLIENTS, [3, 4], &reply, 23),
    ] {
        assert!(matches!(gateway.receive(CLIENTS, &frame).as_slice(), [Outcome::Punted(..)]), "{frame:x?}");
    }
    let mut last_hop = icmp_error("10.9.9.9", VIP, CLIENTS, [3, 4], &reply, 28);
    last_hop[22] = 1;
    checksum::fill_header(&mut last_hop[14..34]);
    assert_eq!(gateway.receive(CLIENTS, &last_hop), [], "an error is never answered by one");
}

#[test]
fn fragments_are_translated_both_ways_in_any_order() {
    for (workers, steering) in [(1, Steering::Client), (3, Steering::Client), (3, Steering::Flow)] {
        let mut gateway = Gateway::of(workers, steering);
        gateway.service(key(17, VIP, 53));
        gateway.destination(key(17, VIP, 53), server(3), 5353, Method::Masquerade);
        let dns = "10.0.0.100:53";
        let there = Frame { payload: vec![9; 3000], dont_fragment: false, ..request(CLIENT, dns) };
        let real = end("192.168.10.3:5353");
        let expected = Frame { destination: real, ..towards_server(there.clone(), server(3)) };
        let back =
            Frame { payload: vec![8; 2500], dont_fragment: false, ..answer("192.168.10.3:5353", CLIENT) };
        let answered = Frame { source: end(dns), ..towards_client(back.clone()) };
        for (port, sent, expected) in [(CLIENTS, there, expected), (SERVERS, back, answered)] {
            for (turned, without_checksum) in [(false, false), (true, false), (false, true)] {
                let mut given = pieces(&sent, 1400);
                if without_checksum {
                    // As the kernel, the director gives it one over the whole datagram.
                    given[0][40..42].fill(0);
                }
                if turned {
                    given.reverse();
                }
                let mut out = Vec::new();
                for (worker, piece) in given.iter().enumerate() {
                    for outcome in gateway.receive_on(worker, port, piece) {
                        let Outcome::Transmitted(_, frame) = outcome else { panic!("{outcome:?}") };
                        out.push(frame);
                    }
                }
                let mut expected = pieces(&expected, 1400);
                out.sort();
                expected.sort();
                assert_eq!(out, expected, "{workers} workers, {steering:?}");
            }
        }
    }
}

/// Requests and replies of many clients to two services, each by whatever worker; what comes out.
fn conversation(workers: u8, steering: Steering, shared_server: bool) -> Vec<Vec<u8>> {
    let mut gateway = Gateway::of(workers, steering);
    for (port, last) in [(80, 3), (81, if shared_server { 3 } else { 4 })] {
        gateway.service(key(6, VIP, port));
        gateway.destination(key(6, VIP, port), server(last), 8080, Method::Masquerade);
    }
    let mut out = Vec::new();
    for number in 0..200_u16 {
        let [high, low] = number.to_be_bytes();
        let client = SocketAddr::new(IpAddr::from([10, 1, high, low]), 1024 + number).to_string();
        let port = 80 + number % 2;
        let real = if shared_server || port == 80 { "192.168.10.3:8080" } else { "192.168.10.4:8080" };
        let virtual_end = format!("{VIP}:{port}");
        for flags in [tcp::SYN, tcp::ACK] {
            let frames = [
                (CLIENTS, request(&client, &virtual_end).tcp(flags)),
                (SERVERS, answer(real, &client).tcp(flags | tcp::ACK)),
            ];
            for (side, frame) in frames {
                for outcome in gateway.receive_on(usize::from(number) * 7 + usize::from(flags), side, &frame)
                {
                    let Outcome::Transmitted(_, frame) = outcome else { panic!("{outcome:?}") };
                    out.push(frame);
                }
            }
        }
    }
    let seen = gateway.director.count(Counter::Forwarded);
    assert_eq!((out.len(), seen), (800, 800));
    out
}

#[test]
fn replies_find_their_owner_whatever_queue_they_arrive_on() {
    for shared_server in [false, true] {
        let expected = conversation(1, Steering::Client, shared_server);
        for workers in [2, 4] {
            for steering in [Steering::Client, Steering::Flow] {
                assert_eq!(
                    conversation(workers, steering, shared_server),
                    expected,
                    "{workers} workers, {steering:?}, one server behind both: {shared_server}"
                );
            }
        }
    }
}

#[test]
fn replies_that_look_alike_are_the_newest_connections() {
    let mut gateway = web(Gateway::alone());
    gateway.service(key(6, VIP, 81));
    gateway.destination(key(6, VIP, 81), server(3), 8080, Method::Masquerade);
    let virtual_port = |gateway: &mut Gateway| {
        let reply = gateway.sent(SERVERS, &answer("192.168.10.3:8080", CLIENT).tcp(tcp::ACK)).1;
        u16::from_be_bytes([reply[34], reply[35]])
    };
    for port in [80, 81] {
        gateway.sent(CLIENTS, &request(CLIENT, &format!("{VIP}:{port}")).tcp(tcp::SYN));
        assert_eq!(virtual_port(&mut gateway), port);
    }
    gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(tcp::ACK));
    assert_eq!(virtual_port(&mut gateway), 81, "whoever spoke last");
}

#[test]
fn a_full_table_opens_nothing_and_loses_nothing() {
    let mut gateway = web(Gateway::new(DirectorConfig { connections: 8, ..DirectorConfig::default() }));
    gateway.settings(Settings { evict_half_open: false, ..Settings::default() });
    for port in 0..20 {
        let client = format!("10.1.0.5:{}", 2000 + port);
        gateway.receive(CLIENTS, &request(&client, WEB).tcp(tcp::SYN));
    }
    assert_eq!(gateway.director.dropped(DropReason::TableFull), 12);
    for port in 0..8 {
        let client = format!("10.1.0.5:{}", 2000 + port);
        gateway.sent(SERVERS, &answer("192.168.10.3:8080", &client).tcp(tcp::ACK));
    }
}
