//! How connections end and what ends them: removal, reuse, defences, timeouts; "section" is that of the kernel's recorded
//! behaviour.
#![allow(clippy::unwrap_used, reason = "what fails is the test")]

mod common;

use common::*;
use dataplane::bench::{DirectorConfig, Frame, Outcome};
use dataplane::connection::ConnectionId;
use dataplane::counters::DropReason;
use dataplane::exception::PuntClass;
use dataplane::packet::tcp;
use dataplane::snapshot::editor::DestinationSpec;
use dataplane::snapshot::{SchedulerKind, Settings, Timeouts};

fn web() -> Lab {
    Lab::web(SchedulerKind::Rr, None, DirectorConfig::default())
}

fn rst(client: u16) -> Vec<u8> {
    from_client(client, 80).tcp(tcp::RST)
}

/// State and remaining milliseconds of the connection that was opened `index`th.
fn connection(lab: &Lab, index: u32) -> Option<(&'static str, u32)> {
    let view = lab.director.engines[0].connections_v4().read(ConnectionId(index))?;
    Some((view.state.name(), view.expires_in(lab.director.now)))
}

fn remove(lab: &mut Lab, last: u8) {
    lab.editor.remove_destination(&tcp_key(80), server(last), 80).unwrap();
    lab.publish();
}

fn expire_nodest() -> Settings {
    Settings { expire_nodest_conn: true, ..Settings::default() }
}

/// Section 1.7: packets of a removed server's connections are dropped, state and timer stay as they are.
#[test]
fn packets_for_a_removed_server_change_nothing() {
    let mut lab = web();
    lab.forwarded(&syn(1));
    remove(&mut lab, 68);
    lab.leap_checked(10_000);
    for frame in [ack(1), fin(1), syn(1)] {
        assert_eq!(lab.receive(&frame), []);
    }
    assert_eq!(connection(&lab, 0), Some(("SYN_RECV", 49_799)));
    assert_eq!(lab.director.dropped(DropReason::DestinationRemoved), 3);
}

/// Section 1.1: with the last service of a family gone the director is out of the way; while there is another one it is not.
#[test]
fn without_any_service_packets_reach_the_local_stack() {
    let mut lab = web();
    lab.service(udp_key(53), SchedulerKind::Rr, None);
    lab.forwarded(&syn(1));
    lab.editor.remove_service(&tcp_key(80)).unwrap();
    lab.publish();
    assert_eq!(lab.receive(&ack(1)), []);
    // An ICMP error about the server's answer.
    let answer = Frame::new(from_client(1, 80).destination, from_client(1, 80).source).tcp(tcp::ACK);
    let message = [&[3, 3, 0xfc, 0xfc, 0, 0, 0, 0], &answer[14..42]].concat();
    let error = from_client(1, 0).ip(1, &message);
    assert_eq!(lab.forwarded(&error), Some(68), "whether there is the service does not matter");
    lab.editor.remove_service(&udp_key(53)).unwrap();
    lab.publish();
    for frame in [ack(1), error] {
        assert!(matches!(lab.receive(&frame).as_slice(), [Outcome::Punted(..)]));
    }
    assert_eq!(lab.open_connections(), 1, "until it times out");
}

/// Section 1.9: a service that comes back finds its servers' connections.
#[test]
fn a_service_that_comes_back_takes_its_connections_back() {
    let mut lab = web();
    assert_eq!(lab.forwarded(&syn(1)), Some(68));
    lab.editor.remove_service(&tcp_key(80)).unwrap();
    lab.publish();
    lab.service(tcp_key(80), SchedulerKind::Wlc, None);
    lab.destination(tcp_key(80), server(68), 1);
    assert_eq!(lab.forwarded(&ack(1)), Some(68));
    assert_eq!(lab.totals(&tcp_key(80), server(68)).active, 1);
}

/// Section 1.7: with `expire_nodest_conn` the packet is looked at afresh.
#[test]
fn with_expire_nodest_conn_a_packet_is_looked_at_afresh() {
    let mut lab = web();
    lab.forwarded(&syn(1));
    lab.forwarded(&syn(3));
    lab.forwarded(&syn(5));
    remove(&mut lab, 68);
    lab.set(expire_nodest());
    assert_eq!(lab.forwarded(&syn(1)), Some(64));
    assert!(matches!(lab.receive(&ack(5)).as_slice(), [Outcome::Punted(PuntClass::Stray, ..)]));
    assert_eq!(
        lab.open_connections(),
        2,
        "only packets ended connections: the setting is newer than the removal"
    );
}

/// Section 1.7: with `expire_nodest_conn` removing a server closes its connections, and the templates that then control none.
#[test]
fn with_expire_nodest_conn_removal_closes_connections_and_templates() {
    let mut lab = Lab::web(SchedulerKind::Rr, Some(300), DirectorConfig::default());
    lab.set(expire_nodest());
    let chosen: Vec<_> = (0..6).filter_map(|client| lab.forwarded(&syn(client))).collect();
    assert_eq!((chosen, lab.director.shared.templates.len()), (vec![68, 64, 68, 64, 68, 64], 6));
    remove(&mut lab, 68);
    lab.director.pass(100);
    lab.check();
    assert_eq!((lab.open_connections(), lab.director.shared.templates.len()), (3, 3));
}

/// Section 1.10 for connections that a template controls, and a SYN on a quiesced server (section 1.8).
#[test]
fn persistent_connections_are_not_rescheduled() {
    let mut lab = Lab::web(SchedulerKind::Rr, Some(300), DirectorConfig::default());
    assert_eq!(lab.forwarded(&syn(1)), Some(68));
    lab.forwarded(&rst(1));
    lab.forwarded(&fin(1));
    lab.forwarded(&syn(1));
    assert_eq!(lab.totals(&tcp_key(80), server(68)).connections, 1);
}

/// The connection that gives way is counted until the next one is scheduled, as the kernel's timer fires after that.
#[test]
fn a_connection_that_gives_way_still_counts_for_the_choice() {
    let mut lab = Lab::new(DirectorConfig::default());
    lab.service(tcp_key(80), SchedulerKind::Lc, None);
    lab.destination(tcp_key(80), server(64), 1);
    lab.destination(tcp_key(80), server(68), 1);
    assert_eq!(lab.forwarded(&syn(1)), Some(68));
    lab.forwarded(&ack(1));
    lab.forwarded(&fin(1));
    lab.forwarded(&fin(1));
    lab.set(Settings { conn_reuse_mode: 3, ..Settings::default() });
    assert_eq!(lab.forwarded(&syn(1)), Some(64), "68 has one inactive connection");
    assert_eq!(lab.totals(&tcp_key(80), server(68)).inactive, 0);
}

/// Section 1.5.
#[test]
fn sloppy_tcp_opens_by_anything_but_a_reset() {
    let mut lab = web();
    lab.set(Settings { sloppy_tcp: true, ..Settings::default() });
    assert!(lab.forwarded(&ack(1)).is_some() && lab.forwarded(&fin(2)).is_some());
    assert_eq!((connection(&lab, 0).unwrap().0, connection(&lab, 1).unwrap().0), ("ESTABLISHED", "CLOSE"));
    assert!(matches!(lab.receive(&rst(3)).as_slice(), [Outcome::Punted(PuntClass::Stray, ..)]));
}

/// Section 4: in defence mode a SYN proves nothing.
#[test]
fn secure_tcp_follows_the_defence_tables() {
    let mut lab = web();
    lab.set(Settings { secure_tcp: 3, ..Settings::default() });
    lab.forwarded(&syn(1));
    assert_eq!(connection(&lab, 0), Some(("SYNACK", 120_000)));
    lab.set(Settings { secure_tcp: 1, ..Settings::default() });
    lab.forwarded(&syn(2));
    assert_eq!(connection(&lab, 1).unwrap().0, "SYN_RECV", "there is room for connections");
}

/// Section 7: the first one and then every tenth; packets of connections are not concerned.
#[test]
fn drop_packet_thins_out_what_is_new() {
    let mut lab = web();
    lab.set(Settings { drop_packet: 3, ..Settings::default() });
    let lost: Vec<_> = (0..25).filter(|client| lab.forwarded(&syn(*client)).is_none()).collect();
    assert_eq!(lost, [0, 10, 20]);
    assert_eq!(lab.director.dropped(DropReason::Defence), 3);
    assert!((1..10).all(|client| lab.forwarded(&ack(client)).is_some()));
}

/// Section 7: half-open connections go, one of 32 in a second; established ones only when idle.
#[test]
fn drop_entry_throws_half_open_connections_out() {
    let mut lab = web();
    (0..320).for_each(|client| assert!(lab.forwarded(&syn(client)).is_some()));
    (0..160).for_each(|client| assert!(lab.forwarded(&ack(client)).is_some()));
    lab.director.pass(1000);
    assert_eq!(lab.open_connections(), 320);
    lab.set(Settings { drop_entry: 3, ..Settings::default() });
    for _ in 0..32 {
        lab.director.pass(1000);
    }
    lab.check();
    let left = lab.open_connections();
    assert!((160..280).contains(&left), "{left}");
    assert!((0..160).all(|client| lab.forwarded(&ack(client)).is_some()), "none of the established ones");
}

/// Section 7: what goes takes its template along, unless a connection of it was established.
#[test]
fn drop_entry_spares_templates_that_were_of_use() {
    let mut lab = Lab::web(SchedulerKind::Rr, Some(3000), DirectorConfig::default());
    (0..64).for_each(|client| assert!(lab.forwarded(&syn(client)).is_some()));
    (0..16).for_each(|client| assert!(lab.forwarded(&ack(client)).is_some()));
    lab.set(Settings { drop_entry: 3, ..Settings::default() });
    for _ in 0..50 {
        lab.director.pass(1000);
    }
    lab.check();
    assert!((16..50).contains(&lab.open_connections()), "{}", lab.open_connections());
    assert_eq!(lab.director.shared.templates.len(), lab.open_connections());
}

/// Section 4: `ipvsadm --set` holds from the next packet on.
#[test]
fn timeouts_hold_from_the_next_packet() {
    let mut lab = web();
    lab.forwarded(&syn(1));
    lab.forwarded(&ack(1));
    lab.editor.set_timeouts(Timeouts { tcp: 100_000, ..Timeouts::default() });
    lab.publish();
    assert_eq!(connection(&lab, 0), Some(("ESTABLISHED", 899_999)));
    lab.forwarded(&ack(1));
    assert_eq!(connection(&lab, 0), Some(("ESTABLISHED", 100_000)));
}

fn error(about: &Frame, source: &str, destination: &str) -> Vec<u8> {
    let mut message = vec![3, 4, 0, 0, 0, 0, 5, 120];
    message.extend(&about.clone().tcp(tcp::ACK)[14..14 + 28]);
    let mut router = from_client(1, 80);
    router.source = source.parse().unwrap();
    router.destination = destination.parse().unwrap();
    router.ip(1, &message)
}

/// Section 6: `schedule_icmp` opens a connection for an error about one that is not there; it lasts three seconds.
#[test]
fn schedule_icmp_opens_connections_for_errors() {
    let mut lab = web();
    let client = from_client(1, 80);
    let reply = Frame::new(client.destination, client.source);
    let frame = error(&reply, "10.9.9.9:0", "192.168.132.254:0");
    assert!(matches!(lab.receive(&frame).as_slice(), [Outcome::Punted(PuntClass::Stray, ..)]));
    lab.set(Settings { schedule_icmp: true, ..Settings::default() });
    assert_eq!(lab.forwarded(&frame), Some(68));
    assert_eq!(connection(&lab, 0), Some(("NONE", 3000)));
    lab.weigh(server(64), 0);
    lab.weigh(server(68), 0);
    let other = from_client(2, 80);
    let frame = error(&Frame::new(other.destination, other.source), "10.9.9.9:0", "192.168.132.254:0");
    assert_eq!(lab.receive(&frame), [], "nobody tells an error's sender of an error");
}

/// Section 3: an error about a client's packet counts as coming from the server, and is otherwise left alone; it reaches a
/// removed server's connection too.
#[test]
fn errors_about_requests_count_as_the_servers() {
    let mut lab = web();
    assert_eq!(lab.forwarded(&syn(1)), Some(68));
    let frame = error(&from_client(1, 80), "192.168.132.200:0", "10.1.0.1:0");
    assert!(matches!(lab.receive(&frame).as_slice(), [Outcome::Punted(PuntClass::Local, ..)]));
    let totals = lab.totals(&tcp_key(80), server(68));
    assert_eq!((totals.in_packets, totals.out_packets, totals.out_bytes), (1, 1, 56));

    let client = from_client(1, 80);
    let reply = Frame::new(client.destination, client.source);
    remove(&mut lab, 68);
    assert_eq!(lab.forwarded(&error(&reply, "10.9.9.9:0", "192.168.132.254:0")), Some(68));
}

/// Section 3: an edit of thresholds is decided at once, and a template leads past an overload.
#[test]
fn an_overload_is_not_the_templates_concern() {
    let mut lab = Lab::new(DirectorConfig::default());
    lab.service(tcp_key(80), SchedulerKind::Rr, Some(300));
    lab.limited(tcp_key(80), server(64), 1);
    let from = |port: u16| {
        let mut frame = from_client(1, 80);
        frame.source.set_port(port);
        frame.tcp(tcp::SYN)
    };
    assert_eq!((lab.forwarded(&from(2000)), lab.forwarded(&from(2001))), (Some(64), Some(64)));
    assert_eq!(lab.receive(&syn(2)).len(), 1, "told that there is nobody");
    assert_eq!(lab.director.dropped(DropReason::NoDestination), 1);
    let spec = DestinationSpec { upper: 9, lower: 8, ..DestinationSpec::new(server(64), 80, 1) };
    lab.editor.edit_destination(&tcp_key(80), spec).unwrap();
    lab.publish();
    assert_eq!(lab.forwarded(&syn(2)), Some(64));
}
