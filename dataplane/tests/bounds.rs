//! Every bounded thing filled once: what happens, and which counter says so.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test figures are small, helpers may fail"
)]

mod common;

use common::*;
use dataplane::bench::{DirectorConfig, Outcome};
use dataplane::counters::{Counter, DropReason};
use dataplane::exception::PuntClass;
use dataplane::id::DestinationSlot;
use dataplane::packet::{HeapPacket, tcp};
use dataplane::snapshot::{NextHop, SchedulerKind};
use dataplane::steering::Steering;

fn small() -> DirectorConfig {
    DirectorConfig { connections: 64, templates: 16, fragments: 8, parked: 4, ..DirectorConfig::default() }
}

fn packets(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<HeapPacket> {
    frames.into_iter().map(|frame| HeapPacket::new(&frame)).collect()
}

#[test]
fn connections_established_ones_stay_and_new_ones_are_refused() {
    let mut lab = Lab::web(SchedulerKind::Rr, None, small());
    lab.director.receive(
        dataplane::id::WorkerId(0),
        PORT,
        packets((0..64).flat_map(|client| [syn(client), ack(client)])),
    );
    lab.director.take_outcomes();
    for client in 64..200 {
        assert_eq!(lab.receive(&syn(client)), []);
    }
    assert_eq!(lab.director.dropped(DropReason::TableFull), 136);
    assert!((0..64).all(|client| lab.forwarded(&ack(client)).is_some()));
    lab.leap_checked(901_000);
    assert!(lab.forwarded(&syn(70)).is_some(), "there is room again once they expired");
}

#[test]
fn templates_a_client_without_one_is_refused_and_no_threshold_is_eaten() {
    let mut lab = Lab::web(SchedulerKind::Rr, Some(300), small());
    for client in 0..40 {
        lab.receive(&syn(client));
    }
    let refused = lab.director.dropped(DropReason::TemplateFull);
    assert_eq!((refused, lab.director.count(Counter::ConnectionsOpened)), (24, 16));
}

#[test]
fn fragments_the_oldest_datagrams_make_place() {
    let mut lab = Lab::web(SchedulerKind::Rr, None, small());
    let later = |id: u16| {
        let mut frame = from_client(1, 80);
        frame.dont_fragment = false;
        frame.id = id;
        let mut piece = frame.ip(17, &[7; 64]);
        piece[20..22].copy_from_slice(&0x2064_u16.to_be_bytes());
        dataplane::packet::checksum::fill_header(&mut piece[14..34]);
        piece
    };
    for id in 0..20 {
        lab.receive(&later(id));
    }
    assert_eq!(lab.director.dropped(DropReason::FragmentFull), 12);
    lab.director.leap(30_001);
    lab.director.pass(2);
    lab.check();
    assert_eq!(lab.director.dropped(DropReason::FragmentOrphan), 8);
}

#[test]
fn parked_packets_wait_four_at_a_time() {
    let mut lab = Lab::web(SchedulerKind::Rr, None, small());
    for slot in 0..2 {
        lab.editor.set_next_hop(DestinationSlot(slot), NextHop::Unresolved, PORT, MTU);
    }
    lab.publish();
    for client in 0..10 {
        lab.receive(&syn(client));
    }
    assert_eq!((lab.director.count(Counter::Parked), lab.director.dropped(DropReason::ParkedFull)), (4, 6));
    lab.director.pass(1_001);
    lab.check();
    assert_eq!(lab.director.dropped(DropReason::NeighbourUnresolved), 4);
}

#[test]
fn punt_rings_one_class_never_takes_another_ones_place() {
    let mut lab = Lab::web(SchedulerKind::Rr, None, small());
    lab.director.sinks[0].punt_room = [2, 2, 2];
    for client in 0..5 {
        lab.receive(&from_client(client, 81).tcp(tcp::SYN));
    }
    assert_eq!(lab.director.dropped(DropReason::PuntStrayFull), 3);
    let mut local = from_client(1, 22);
    local.destination.set_ip(server(30));
    assert!(matches!(lab.receive(&local.tcp(tcp::SYN)).as_slice(), [Outcome::Punted(PuntClass::Local, ..)]));
    let mut bgp = from_client(1, 179);
    bgp.destination.set_ip(server(30));
    for _ in 0..3 {
        lab.receive(&bgp.clone().tcp(tcp::SYN));
    }
    assert_eq!(lab.director.dropped(DropReason::PuntControlFull), 1);
}

#[test]
fn redirect_rings_what_does_not_fit_is_dropped() {
    let config = DirectorConfig { workers: 2, steering: Steering::Client, ..small() };
    let mut lab = Lab::web(SchedulerKind::Rr, None, config);
    lab.director.sinks[0].redirect_room = 0;
    for client in 0..40 {
        lab.receive(&syn(client));
    }
    let refused = lab.director.dropped(DropReason::RedirectFull);
    assert!(refused > 0 && refused + lab.director.count(Counter::Forwarded) == 40, "{refused}");
}

#[test]
fn icmp_answers_stop_at_their_rate_and_without_buffers() {
    let mut lab = Lab::new(small());
    lab.service(tcp_key(80), SchedulerKind::Rr, None);
    for client in 0..80 {
        lab.receive(&syn(client));
    }
    assert_eq!(
        (lab.director.count(Counter::Generated), lab.director.count(Counter::IcmpSuppressed)),
        (50, 30)
    );
    lab.director.pass(100);
    lab.director.sinks[0].buffers = 0;
    lab.receive(&syn(99));
    assert_eq!(lab.director.count(Counter::IcmpSuppressed), 31);
    assert_eq!(lab.director.dropped(DropReason::NoDestination), 81);
}

#[test]
fn expiry_many_at_once_are_closed_over_many_turns_of_one_millisecond() {
    let config = DirectorConfig { connections: 4096, ..DirectorConfig::default() };
    let mut lab = Lab::web(SchedulerKind::Rr, None, config);
    lab.director.receive(dataplane::id::WorkerId(0), PORT, packets((0..4000).map(syn)));
    lab.director.take_outcomes();
    lab.director.leap(61_000);
    let first = lab.open_connections();
    assert!(first > 3000, "one turn closes a bounded number: {first}");
    for _ in 0..100 {
        lab.director.leap(0);
    }
    assert_eq!(lab.open_connections(), 0, "the next turns go on without waiting for the clock");
}
