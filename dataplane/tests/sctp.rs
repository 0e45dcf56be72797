//! SCTP services, and AH and ESP beside IKE: on one worker and on several, whole and in pieces.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers may fail")]

mod gateway;

use dataplane::bench::{Frame, Outcome};
use dataplane::connection::ConnectionId;
use dataplane::counters::DropReason;
use dataplane::exception::PuntClass;
use dataplane::id::PortId;
use dataplane::packet::checksum::fill_header;
use dataplane::snapshot::{Method, NextHop, Settings};
use dataplane::steering::Steering;
use gateway::*;

const SCTP: u8 = 132;
const CLIENT: &str = "10.1.0.5:1024";
const SERVICE: &str = "10.0.0.100:80";
const SERVER: &str = "192.168.10.3:8080";

const DATA: [u8; 4] = [0, 3, 0, 4];
const INIT: [u8; 4] = [1, 0, 0, 4];
const INIT_ACK: [u8; 4] = [2, 0, 0, 4];
const ABORT: [u8; 4] = [6, 0, 0, 4];
const COOKIE_ECHO: [u8; 4] = [10, 0, 0, 4];
const COOKIE_ACK: [u8; 4] = [11, 0, 0, 4];

fn served(mut gateway: Gateway, method: Method) -> Gateway {
    gateway.service(key(SCTP, VIP, 80));
    gateway.destination(key(SCTP, VIP, 80), server(3), 8080, method);
    gateway
}

fn there(chunks: &[u8]) -> Frame {
    Frame { payload: chunks.to_vec(), ..request(CLIENT, SERVICE) }
}

fn back(chunks: &[u8]) -> Frame {
    Frame { payload: chunks.to_vec(), ..answer(SERVER, CLIENT) }
}

fn state(gateway: &Gateway) -> &'static str {
    let slab = gateway.director.engines[0].connections_v4();
    slab.read(ConnectionId(0)).unwrap().state.name()
}

#[test]
fn an_association_through_masquerading_is_what_would_have_been_sent() {
    let mut gateway = served(Gateway::alone(), Method::Masquerade);
    let long = [&[0, 3, 1, 4][..], &[7; 256]].concat();
    let steps: [(bool, &[u8], &str); 6] = [
        (true, &INIT, "INIT1"),
        (false, &INIT_ACK, "C-SENT"),
        (true, &COOKIE_ECHO, "C-REPLIED"),
        (false, &COOKIE_ACK, "ESTABLISHED"),
        (true, &long, "ESTABLISHED"),
        (false, &ABORT, "CLOSED"),
    ];
    for (from_client, chunks, expected) in steps {
        let (port, sent, out) = if from_client {
            let out = Frame { destination: end(SERVER), ..towards_server(there(chunks), server(3)) };
            (CLIENTS, there(chunks), (SERVERS, out.sctp()))
        } else {
            let out = Frame { source: end(SERVICE), ..towards_client(back(chunks)) };
            (SERVERS, back(chunks), (CLIENTS, out.sctp()))
        };
        assert_eq!(gateway.sent(port, &sent.sctp()), out);
        assert_eq!(state(&gateway), expected);
    }
}

/// The bytes of an IPv6 address are no IPv4 options, whatever they are.
#[test]
fn associations_over_ipv6_are_tracked_whatever_the_addresses() {
    const SERVICE6: &str = "[2001:db8::100]:80";
    let mut gateway = Gateway::alone();
    gateway.service(key(SCTP, VIP6, 80));
    gateway.destination(key(SCTP, VIP6, 80), ip("fd00:10::3"), 80, Method::Direct);
    for client in
        ["[2001:db8:1::8302:aabb]:1024", "[2001:db8:1::703:400]:1024", "[2001:db8:1::44ff:ff05]:1024"]
    {
        let frame = Frame { payload: INIT.to_vec(), ..request(client, SERVICE6) };
        assert_eq!(gateway.sent(CLIENTS, &frame.sctp()).0, SERVERS, "{client}");
    }
}

#[test]
fn only_an_init_opens_and_sloppy_anything_but_an_abort() {
    let mut gateway = served(Gateway::alone(), Method::Direct);
    for chunks in [DATA, INIT_ACK, COOKIE_ECHO, ABORT] {
        let out = gateway.receive(CLIENTS, &there(&chunks).sctp());
        assert!(matches!(out[..], [Outcome::Punted(PuntClass::Stray, ..)]), "{out:?}");
    }
    // Cut before the chunk, and with one that lies about its length.
    assert_eq!(gateway.receive(CLIENTS, &there(&[1, 0, 0]).sctp()).len(), 0);
    assert_eq!(gateway.director.dropped(DropReason::Malformed), 1);
    gateway.settings(Settings { sloppy_sctp: true, ..Settings::default() });
    assert_eq!(gateway.receive(CLIENTS, &there(&[1, 0, 0]).sctp()).len(), 0);
    let out = gateway.receive(CLIENTS, &there(&ABORT).sctp());
    assert!(matches!(out[..], [Outcome::Punted(..)]), "{out:?}");
    let expected = towards_server(there(&DATA), server(3)).sctp();
    assert_eq!(gateway.sent(CLIENTS, &there(&DATA).sctp()), (SERVERS, expected));
    assert_eq!(state(&gateway), "ESTABLISHED");
    let lying = there(&[10, 0, 0xff, 0xff]);
    gateway.sent(CLIENTS, &lying.sctp());
    assert_eq!(state(&gateway), "ESTABLISHED");
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut gateway = served(Gateway::alone(), Method::Masquerade);
    let mut frame = there(&INIT).sctp();
    frame[42] ^= 0x55;
    let (_, out) = gateway.sent(CLIENTS, &frame);
    let right = Frame { destination: end(SERVER), ..towards_server(there(&INIT), server(3)) }.sctp();
    assert_eq!((out[42] ^ 0x55, &out[43..]), (right[42], &right[43..]));
}

fn pieces(frame: &[u8]) -> Vec<Vec<u8>> {
    let data = &frame[34..];
    let piece = |(index, part): (usize, &[u8])| {
        let mut piece = [&frame[..34], part].concat();
        let more = if (index + 1) * 800 < data.len() { 0x2000 } else { 0 };
        let bits = u16::try_from(index * 100).unwrap() | more;
        piece[16..18].copy_from_slice(&u16::try_from(20 + part.len()).unwrap().to_be_bytes());
        piece[20..22].copy_from_slice(&bits.to_be_bytes());
        fill_header(&mut piece[14..34]);
        piece
    };
    data.chunks(800).enumerate().map(piece).collect()
}

/// What comes out for pieces that come by different workers.
fn exchanged(gateway: &mut Gateway, port: PortId, given: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (worker, piece) in given.iter().enumerate() {
        for outcome in gateway.receive_on(worker, port, piece) {
            let Outcome::Transmitted(_, frame) = outcome else { panic!("{outcome:?}") };
            out.push(frame);
        }
    }
    out
}

#[test]
fn pieces_are_masqueraded_with_the_checksum_of_the_whole() {
    for (workers, steering) in [(1, Steering::Client), (3, Steering::Client), (3, Steering::Flow)] {
        let mut gateway = served(Gateway::of(workers, steering), Method::Masquerade);
        gateway.sent(CLIENTS, &there(&INIT).sctp());
        let long = [&[0, 3, 8, 0][..], &[9; 2044]].concat();
        let (sent, answered) = (there(&long), back(&long));
        let (sent, answered) =
            (Frame { dont_fragment: false, ..sent }, Frame { dont_fragment: false, ..answered });
        let expected = Frame { destination: end(SERVER), ..towards_server(sent.clone(), server(3)) };
        let returned = Frame { source: end(SERVICE), ..towards_client(answered.clone()) };
        for (port, sent, expected) in [(CLIENTS, sent, expected), (SERVERS, answered, returned)] {
            let mut given = pieces(&sent.sctp());
            given.reverse();
            assert_eq!(
                exchanged(&mut gateway, port, &given),
                pieces(&expected.sctp()),
                "{workers} {steering:?}"
            );
        }
    }
}

#[test]
fn pieces_that_wait_for_the_servers_mac_leave_with_the_checksum_of_the_whole() {
    let mut gateway = served(Gateway::alone(), Method::Masquerade);
    let slot = dataplane::id::DestinationSlot(0);
    gateway.sent(CLIENTS, &there(&INIT).sctp());
    gateway.editor.set_next_hop(slot, NextHop::Unresolved, SERVERS, 1500);
    gateway.publish();
    let long = Frame { dont_fragment: false, ..there(&[&[0, 3, 8, 0][..], &[9; 2044]].concat()) };
    for piece in pieces(&long.clone().sctp()) {
        assert_eq!(gateway.receive(CLIENTS, &piece), []);
    }
    let hop = NextHop::Resolved { destination_mac: server_mac(server(3)), source_mac: SERVER_SIDE };
    gateway.editor.set_next_hop(slot, hop, SERVERS, 1500);
    gateway.publish();
    gateway.director.pass(1);
    let expected = Frame { destination: end(SERVER), ..towards_server(long, server(3)) };
    let sent = pieces(&expected.sctp()).into_iter().map(|piece| Outcome::Transmitted(SERVERS, piece));
    assert_eq!(gateway.director.take_outcomes(), sent.collect::<Vec<_>>());
    gateway.check();
}

const IKE: &str = "10.0.0.100:500";
const PEER: &str = "10.1.0.5:500";
const SECURED: [u8; 16] = [0, 0, 0x10, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

#[test]
fn esp_and_ah_follow_ike_and_open_nothing() {
    for (workers, steering) in [(1, Steering::Client), (3, Steering::Client), (3, Steering::Flow)] {
        let mut gateway = Gateway::of(workers, steering);
        gateway.service(key(17, VIP, 500));
        gateway.destination(key(17, VIP, 500), server(3), 500, Method::Masquerade);
        let (sent, answered) = (request(PEER, IKE), answer("192.168.10.3:500", PEER));
        for protocol in [50, 51] {
            let out = gateway.receive(CLIENTS, &sent.ip(protocol, &SECURED));
            assert!(matches!(out[..], [Outcome::Punted(PuntClass::Stray, ..)]), "{out:?}");
        }
        gateway.sent(CLIENTS, &sent.clone().udp());
        let expected =
            Frame { destination: end("192.168.10.3:500"), ..towards_server(sent.clone(), server(3)) };
        let returned = Frame { source: end(IKE), ..towards_client(answered.clone()) };
        for protocol in [50, 51] {
            for worker in 0..3 {
                let out = gateway.receive_on(worker, CLIENTS, &sent.ip(protocol, &SECURED));
                assert_eq!(out, [Outcome::Transmitted(SERVERS, expected.ip(protocol, &SECURED))]);
                let out = gateway.receive_on(worker, SERVERS, &answered.ip(protocol, &SECURED));
                assert_eq!(out, [Outcome::Transmitted(CLIENTS, returned.ip(protocol, &SECURED))]);
            }
        }
        let long = Frame { dont_fragment: false, ..sent };
        let longer = Frame { dont_fragment: false, ..expected };
        let out = exchanged(&mut gateway, CLIENTS, &pieces(&long.ip(50, &[5; 1600])));
        assert_eq!(out, pieces(&longer.ip(50, &[5; 1600])));
    }
}
