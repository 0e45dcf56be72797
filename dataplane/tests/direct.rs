//! VS/DR by one worker: what real servers get, what clients are told, what the kernel's stack is handed.

mod common;

use common::*;
use dataplane::bench::{DirectorConfig, Outcome};
use dataplane::counters::{Counter, DropReason};
use dataplane::exception::PuntClass;
use dataplane::id::DestinationSlot;
use dataplane::packet::tcp;
use dataplane::snapshot::editor::DestinationSpec;
use dataplane::snapshot::{NextHop, SchedulerKind};

fn web() -> Lab {
    Lab::web(SchedulerKind::Rr, None, DirectorConfig::default())
}

#[test]
fn only_macs_ttl_and_header_checksum_change() {
    let mut lab = web();
    let frame = syn(1);
    let outcomes = lab.receive(&frame);
    let [Outcome::Transmitted(port, sent)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((*port, &sent[..6], &sent[6..12]), (PORT, &server_mac(server(68))[..], &MAC[..]));
    assert_eq!((sent[22], &sent[12..22], sent[23]), (63, &frame[12..22], frame[23]));
    assert_eq!(sent[26..], frame[26..]);
    assert!(dataplane::packet::checksum::header_valid(&sent[14..34]));
}

#[test]
fn requests_alternate_and_connections_stay() {
    let mut lab = web();
    let chosen: Vec<_> = (0..6).map(|client| lab.forwarded(&syn(client))).collect();
    assert_eq!(chosen, [68, 64, 68, 64, 68, 64].map(Some));
    for (client, server) in (0..6).zip(chosen) {
        assert_eq!(lab.forwarded(&ack(client)), server);
    }
    assert_eq!(lab.director.count(Counter::ConnectionsOpened), 6);
}

#[test]
fn a_persistent_client_stays_on_its_server_until_its_template_expires() {
    let mut lab = Lab::web(SchedulerKind::Rr, Some(120), DirectorConfig::default());
    let from = |port: u16| {
        let mut frame = from_client(1, 80);
        frame.source.set_port(port);
        frame.tcp(tcp::SYN)
    };
    let first = lab.forwarded(&from(2000));
    for port in 2001..2010 {
        assert_eq!(lab.forwarded(&from(port)), first);
    }
    assert_ne!(lab.forwarded(&syn(2)), first, "the next client goes to the next server");
    assert_eq!(lab.director.count(Counter::TemplateHits), 9);
}

#[test]
fn stray_packets_go_to_the_stack() {
    let mut lab = web();
    for frame in [ack(1), from_client(1, 81).tcp(tcp::SYN), from_client(1, 80).udp()] {
        let outcomes = lab.receive(&frame);
        assert_eq!(outcomes, [Outcome::Punted(PuntClass::Stray, PORT, frame)]);
    }
    let mut local = from_client(1, 22);
    local.destination.set_ip(server(30));
    assert!(matches!(lab.receive(&local.tcp(tcp::SYN)).as_slice(), [Outcome::Punted(PuntClass::Local, ..)]));
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    assert!(matches!(lab.receive(&arp).as_slice(), [Outcome::Punted(PuntClass::Control, ..)]));
}

#[test]
fn frames_to_other_hosts_are_dropped() {
    let mut lab = web();
    let mut frame = from_client(1, 80);
    frame.destination_mac[5] ^= 1;
    assert_eq!(lab.receive(&frame.tcp(tcp::SYN)), []);
    assert_eq!(lab.director.dropped(DropReason::OtherHost), 1);
}

#[test]
fn the_last_hop_is_answered_from_the_virtual_address_and_its_connection_counted() {
    let mut lab = web();
    let mut frame = from_client(1, 80);
    frame.ttl = 1;
    let outcomes = lab.receive(&frame.tcp(tcp::SYN));
    let [Outcome::Transmitted(_, icmp)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((&icmp[26..30], icmp[34], icmp[35], icmp[50]), (&[192, 168, 132, 254][..], 11, 0, 1));
    assert_eq!(lab.director.dropped(DropReason::TtlExceeded), 1);
    assert_eq!(lab.director.count(Counter::ConnectionsOpened), 1);
}

#[test]
fn frames_over_the_mtu_are_answered_with_it() {
    let mut lab = web();
    lab.editor.set_next_hop(
        DestinationSlot(1),
        lab.director.snapshot.destination(DestinationSlot(1)).unwrap().next_hop,
        PORT,
        1400,
    );
    lab.publish();
    let mut frame = from_client(1, 80);
    frame.payload = vec![7; 1420];
    let outcomes = lab.receive(&frame.tcp(tcp::SYN));
    let [Outcome::Transmitted(_, icmp)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((icmp[34], icmp[35], &icmp[40..42]), (3, 4, &1400_u16.to_be_bytes()[..]));
    assert_eq!((icmp[50], lab.director.dropped(DropReason::OverMtu)), (63, 1));
}

#[test]
fn no_usable_destination_is_port_unreachable() {
    let mut lab = Lab::new(DirectorConfig::default());
    lab.service(tcp_key(80), SchedulerKind::Wlc, None);
    lab.destination(tcp_key(80), server(64), 0);
    let outcomes = lab.receive(&syn(1));
    let [Outcome::Transmitted(_, icmp)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((icmp[34], icmp[35]), (3, 3));
    assert_eq!(lab.director.dropped(DropReason::NoDestination), 1);
    assert!(matches!(lab.receive(&ack(2)).as_slice(), [Outcome::Punted(PuntClass::Stray, ..)]));
}

#[test]
fn a_quiesced_server_keeps_its_connections_and_a_removed_one_loses_them() {
    let mut lab = web();
    assert_eq!(lab.forwarded(&syn(1)), Some(68));
    let spec = |weight| DestinationSpec::new(server(68), 80, weight);
    lab.editor.edit_destination(&tcp_key(80), spec(0)).unwrap();
    lab.publish();
    assert_eq!(lab.forwarded(&ack(1)), Some(68));
    assert!((2..8).all(|client| lab.forwarded(&syn(client)) == Some(64)));
    lab.editor.remove_destination(&tcp_key(80), server(68), 80).unwrap();
    lab.publish();
    assert_eq!(lab.receive(&ack(1)), []);
    assert_eq!(lab.director.dropped(DropReason::DestinationRemoved), 1);
    lab.editor.add_destination(&tcp_key(80), spec(1)).unwrap();
    lab.publish();
    assert_eq!(lab.forwarded(&ack(1)), Some(68), "it comes back with its connections");
}

#[test]
fn connections_expire_with_their_state() {
    let mut lab = web();
    lab.forwarded(&syn(1));
    lab.leap_checked(59_000);
    assert_eq!(lab.open_connections(), 1);
    lab.leap_checked(1_500);
    assert_eq!((lab.open_connections(), lab.director.count(Counter::ConnectionsClosed)), (0, 1));
    lab.forwarded(&syn(2));
    lab.forwarded(&ack(2));
    lab.leap_checked(120_000);
    assert_eq!(lab.open_connections(), 1, "ESTABLISHED lasts 15 minutes");
    lab.forwarded(&fin(2));
    lab.leap_checked(121_000);
    assert_eq!(lab.open_connections(), 0, "FIN_WAIT lasts two minutes: the shorter timeout was filed");
}

#[test]
fn a_port_used_again_after_the_end_is_scheduled_afresh() {
    let mut lab = web();
    assert_eq!(lab.forwarded(&syn(1)), Some(68));
    lab.forwarded(&fin(1));
    lab.forwarded(&from_client(1, 80).tcp(tcp::RST));
    assert_eq!(lab.forwarded(&syn(1)), Some(64));
}

#[test]
fn thresholds_hold_and_clear() {
    let mut lab = Lab::new(DirectorConfig::default());
    lab.service(tcp_key(80), SchedulerKind::Rr, None);
    lab.destination(tcp_key(80), server(64), 1);
    lab.destination_with(
        tcp_key(80),
        DestinationSpec { upper: 2, ..DestinationSpec::new(server(68), 80, 1) },
    );
    let chosen: Vec<_> = (0..6).map(|client| lab.forwarded(&syn(client))).collect();
    assert_eq!(chosen, [68, 64, 68, 64, 64, 64].map(Some));
}

#[test]
fn an_unresolved_next_hop_parks_packets_for_a_second() {
    let mut lab = web();
    let hop = lab.director.snapshot.destination(DestinationSlot(1)).unwrap().next_hop;
    for slot in 0..2 {
        lab.editor.set_next_hop(DestinationSlot(slot), NextHop::Unresolved, PORT, MTU);
    }
    lab.publish();
    assert_eq!(lab.receive(&syn(1)), []);
    assert_eq!(lab.director.sinks[0].events.len(), 1);
    lab.editor.set_next_hop(DestinationSlot(1), hop, PORT, MTU);
    lab.publish();
    let outcomes = lab.director.take_outcomes();
    assert!(
        matches!(outcomes.as_slice(), [Outcome::Transmitted(_, sent)] if sent[5] == 68 && sent[22] == 63)
    );
    assert_eq!(lab.receive(&syn(2)), []);
    lab.director.pass(1_001);
    lab.check();
    assert_eq!(lab.director.dropped(DropReason::NeighbourUnresolved), 1);
}

#[test]
fn icmp_errors_about_replies_reach_the_real_server() {
    let mut lab = web();
    assert_eq!(lab.forwarded(&syn(1)), Some(68));
    let client = from_client(1, 80);
    let reply = dataplane::bench::Frame::new(client.destination, client.source).tcp(tcp::SYN | tcp::ACK);
    let mut message = vec![3, 4, 0, 0, 0, 0, 5, 120];
    message.extend(&reply[14..14 + 28]);
    let mut router = from_client(1, 80);
    router.source = "10.9.9.9:0".parse().unwrap();
    let outcomes = lab.receive(&router.ip(1, &message));
    assert!(matches!(outcomes.as_slice(), [Outcome::Transmitted(_, sent)] if sent[5] == 68), "{outcomes:?}");
    let mut other = from_client(7, 80);
    other.source = router.source;
    let mut unknown = message.clone();
    unknown[8 + 19] ^= 0x40;
    assert!(matches!(
        lab.receive(&other.ip(1, &unknown)).as_slice(),
        [Outcome::Punted(PuntClass::Stray, ..)]
    ));
}

#[test]
fn ping_of_a_virtual_address_does_not_queue_with_strays() {
    let mut lab = web();
    let ping = from_client(1, 80).ip(1, &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert!(matches!(lab.receive(&ping).as_slice(), [Outcome::Punted(PuntClass::Local, ..)]));
    let answer = from_client(1, 80).ip(1, &[0, 0, 0, 0, 0, 1, 0, 1]);
    assert!(matches!(lab.receive(&answer).as_slice(), [Outcome::Punted(PuntClass::Stray, ..)]));
}

#[test]
fn ipv6_is_forwarded_alike() {
    let mut lab = Lab::new(DirectorConfig::default());
    let key = dataplane::snapshot::ServiceKey::Address { protocol: 6, address: address(VIP6), port: 80 };
    lab.service(key, SchedulerKind::Wrr, None);
    lab.destination(key, address("fd00::64"), 1);
    lab.destination(key, address("fd00::68"), 2);
    let syn6 = |port| {
        let client = std::net::SocketAddr::new(address("fd00::9"), port);
        dataplane::bench::Frame::new(client, std::net::SocketAddr::new(address(VIP6), 80)).tcp(tcp::SYN)
    };
    let frame = syn6(4000);
    let outcomes = lab.receive(&frame);
    let [Outcome::Transmitted(_, sent)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((sent[21], &sent[12..21], &sent[22..]), (63, &frame[12..21], &frame[22..]));
    let chosen: Vec<_> = (4001..4006).filter_map(|port| lab.forwarded(&syn6(port))).collect();
    assert_eq!(chosen.iter().filter(|last| **last == 0x68).count(), 3, "{chosen:?}");
}
