//! Which service, template and destination a packet finds; "section" is that of the kernel's recorded behaviour.
#![allow(clippy::unwrap_used, reason = "what fails is the test")]

mod common;

use common::*;
use dataplane::bench::{DirectorConfig, Frame, Outcome};
use dataplane::connection::ConnectionId;
use dataplane::counters::{Counter, DropReason};
use dataplane::exception::PuntClass;
use dataplane::packet::tcp;
use dataplane::snapshot::editor::ServiceSpec;
use dataplane::snapshot::{ClientMask, MarkRule, Persistence, Prefix, SchedulerKind, ServiceKey, Settings};
use std::net::{IpAddr, SocketAddr};

const MARK: ServiceKey = ServiceKey::Mark { mark: 1, v6: false };

fn frame(client: u8, client_port: u16, port: u16) -> Frame {
    Frame::new(SocketAddr::from(([10, 1, 0, client], client_port)), SocketAddr::new(address(VIP), port))
}

fn rule(protocol: u8, port: u16) -> MarkRule {
    MarkRule {
        protocol: Some(protocol),
        source: None,
        destination: Some(Prefix { address: address(VIP), length: 32 }),
        source_ports: None,
        destination_ports: Some(port..=port),
        port: None,
        mark: 1,
    }
}

fn marked(rules: impl IntoIterator<Item = MarkRule>, persistent: Option<u32>) -> Lab {
    let mut lab = Lab::new(DirectorConfig::default());
    lab.editor.set_marks(rules.into_iter().collect());
    lab.service(MARK, SchedulerKind::Rr, persistent);
    lab.destination(MARK, server(64), 1);
    lab.destination(MARK, server(68), 1);
    lab
}

/// What the kernel would list of templates: protocol, virtual address and port, server's port.
fn templates(lab: &Lab) -> Vec<(u8, IpAddr, u16, u16)> {
    let (views, _) = lab.director.shared.templates.list(0, 100, lab.director.now);
    let port = |slot| lab.director.snapshot.destination(slot).unwrap().server_port;
    views
        .iter()
        .map(|view| (view, view.ports(port(view.destination))))
        .map(|(view, (virtual_, server))| (view.key.protocol(), view.key.virtual_address(), virtual_, server))
        .collect()
}

fn is_unreachable(outcomes: &[Outcome]) -> bool {
    matches!(outcomes, [Outcome::Transmitted(_, icmp)] if (icmp[23], icmp[34], icmp[35]) == (1, 3, 3))
}

fn is_stray(outcomes: &[Outcome]) -> bool {
    matches!(outcomes, [Outcome::Punted(PuntClass::Stray, ..)])
}

/// Section 1.3: the mark before the address; a mark without a service falls back to the address; several protocols and ports
/// are one service.
#[test]
fn marks_go_before_addresses() {
    let mut lab = marked([rule(6, 80), rule(17, 53)], None);
    lab.service(tcp_key(80), SchedulerKind::Rr, None);
    lab.destination(tcp_key(80), server(69), 1);
    assert_eq!(lab.forwarded(&frame(5, 1024, 80).tcp(tcp::SYN)), Some(68));
    assert_eq!(lab.forwarded(&frame(5, 1024, 53).udp()), Some(64));
    lab.editor.set_marks([MarkRule { mark: 2, ..rule(6, 80) }].into());
    lab.publish();
    assert_eq!(lab.forwarded(&frame(5, 1025, 80).tcp(tcp::SYN)), Some(69), "no service has mark 2");
    assert_eq!(lab.forwarded(&frame(5, 1024, 80).tcp(tcp::ACK)), Some(68), "connections go on");
    assert!(is_stray(&lab.receive(&frame(5, 1026, 53).udp())), "no rule any more");
}

/// What rules match belongs to the director on every worker, fragments' and strangers' addresses included.
#[test]
fn marked_flows_have_one_owner() {
    let mut lab = Lab::new(DirectorConfig { workers: 4, ..DirectorConfig::default() });
    lab.editor.set_marks([rule(6, 80)].into());
    lab.service(MARK, SchedulerKind::Rr, None);
    lab.destination(MARK, server(64), 1);
    for client in 1..40 {
        assert_eq!(lab.forwarded(&frame(client, 1024, 80).tcp(tcp::SYN)), Some(64));
        assert_eq!(lab.forwarded(&frame(client, 1024, 80).tcp(tcp::ACK)), Some(64));
    }
    assert_eq!(lab.open_connections(), 39);
    assert!(lab.director.count(Counter::RedirectedIn) > 0);
    lab.editor.set_marks([].into());
    lab.publish();
    for client in 1..40 {
        assert_eq!(lab.forwarded(&frame(client, 1024, 80).tcp(tcp::ACK)), Some(64), "the rule is gone");
    }
}

/// Sections 1.3 and 1.6: unprivileged TCP ports belong to the FTP service where there is one, and are the local stack's when
/// it cannot serve them.
#[test]
fn an_ftp_service_takes_data_ports_when_persistent() {
    let mut lab = Lab::new(DirectorConfig::default());
    lab.service(tcp_key(21), SchedulerKind::Rr, None);
    lab.destination(tcp_key(21), server(64), 1);
    assert!(is_stray(&lab.receive(&frame(5, 1024, 40_001).tcp(tcp::SYN))), "FTP alone, not persistent");
    assert_eq!(lab.forwarded(&frame(5, 1024, 21).tcp(tcp::SYN)), Some(64));

    let mut lab = Lab::new(DirectorConfig::default());
    lab.service(tcp_key(21), SchedulerKind::Rr, Some(120));
    lab.destination(tcp_key(21), server(64), 1);
    lab.destination(tcp_key(21), server(68), 1);
    assert_eq!(lab.forwarded(&frame(5, 1024, 21).tcp(tcp::SYN)), Some(68));
    assert_eq!(lab.forwarded(&frame(6, 1024, 21).tcp(tcp::SYN)), Some(64));
    assert_eq!(
        lab.forwarded(&frame(5, 1025, 40_001).tcp(tcp::SYN)),
        Some(68),
        "where the control connection is"
    );
    assert!(is_stray(&lab.receive(&frame(5, 1025, 80).tcp(tcp::SYN))), "privileged");
    assert_eq!(templates(&lab), [(6, address(VIP), 0, 0), (6, address(VIP), 0, 0)]);
    let view = lab.director.engines[0].connections_v4().read(ConnectionId(2)).unwrap();
    assert_eq!(view.server_port, 40_001, "the port the client asked for");
}

/// Section 1.5: nothing from port 20 opens a connection, be it a datagram.
#[test]
fn ftp_data_comes_from_servers() {
    let mut lab = Lab::web(SchedulerKind::Rr, None, DirectorConfig::default());
    lab.service(udp_key(53), SchedulerKind::Rr, None);
    lab.destination(udp_key(53), server(64), 1);
    assert!(is_stray(&lab.receive(&frame(5, 20, 80).tcp(tcp::SYN))));
    assert!(is_stray(&lab.receive(&frame(5, 20, 53).udp())));
    assert!(is_stray(&lab.receive(&frame(5, 1024, 80).tcp(tcp::SYN | tcp::RST))));
    for (port, flags) in [(1024, tcp::SYN | tcp::ACK), (1025, tcp::SYN | tcp::FIN)] {
        assert!(lab.forwarded(&frame(5, port, 80).tcp(flags)).is_some());
    }
}

/// Section 5: a mark's template holds for all of its ports and protocols.
#[test]
fn a_marks_template_is_named_by_the_mark() {
    let mut lab = marked([rule(6, 80), rule(6, 443), rule(17, 443)], Some(120));
    assert_eq!(lab.forwarded(&frame(5, 1024, 80).tcp(tcp::SYN)), Some(68));
    assert_eq!(lab.forwarded(&frame(5, 1025, 443).tcp(tcp::SYN)), Some(68));
    assert_eq!(lab.forwarded(&frame(5, 1025, 443).udp()), Some(68));
    assert_eq!(lab.forwarded(&frame(6, 1024, 443).tcp(tcp::SYN)), Some(64));
    let mark = address("0.0.0.1");
    assert_eq!(templates(&lab), [(0, mark, 0, 0), (0, mark, 0, 0)]);
}

/// Sections 1.3 and 5: every port of the address goes where the client's first one went, but for ports that have a service.
#[test]
fn a_service_of_every_port_keeps_a_client_on_one_server() {
    let mut lab = Lab::new(DirectorConfig::default());
    lab.service(tcp_key(0), SchedulerKind::Rr, Some(120));
    lab.destination(tcp_key(0), server(64), 1);
    lab.destination(tcp_key(0), server(68), 1);
    lab.service(tcp_key(8443), SchedulerKind::Rr, None);
    lab.destination(tcp_key(8443), server(69), 1);
    for port in [80, 443, 22, 65_535] {
        assert_eq!(lab.forwarded(&frame(5, 1000 + port / 8, port).tcp(tcp::SYN)), Some(68));
    }
    assert_eq!(lab.forwarded(&frame(6, 1024, 80).tcp(tcp::SYN)), Some(64));
    assert_eq!(lab.forwarded(&frame(5, 1024, 8443).tcp(tcp::SYN)), Some(69));
    assert_eq!(templates(&lab), [(6, address(VIP), 0, 0), (6, address(VIP), 0, 0)]);
    let ports =
        (0..4).map(|id| lab.director.engines[0].connections_v4().read(ConnectionId(id)).unwrap().server_port);
    assert_eq!(ports.collect::<Vec<_>>(), [80, 443, 22, 65_535]);
}

/// Section 1.6: a service of every port that is not persistent takes no port at all.
#[test]
fn every_port_needs_persistence() {
    let mut lab = Lab::new(DirectorConfig::default());
    lab.service(tcp_key(0), SchedulerKind::Rr, None);
    lab.destination(tcp_key(0), server(64), 1);
    assert!(is_unreachable(&lab.receive(&frame(5, 1024, 80).tcp(tcp::SYN))));
}

/// Section 5: quiesced servers keep their templates, unless `expire_quiescent_template` is set; the template is then listed
/// with ports 65535 until it expires, and the next one is made.
#[test]
fn templates_of_quiesced_servers_are_invalidated_when_asked_for() {
    let mut lab = Lab::web(SchedulerKind::Rr, Some(300), DirectorConfig::default());
    assert_eq!(lab.forwarded(&frame(5, 1024, 80).tcp(tcp::SYN)), Some(68));
    lab.weigh(server(68), 0);
    assert_eq!(lab.forwarded(&frame(5, 1025, 80).tcp(tcp::SYN)), Some(68));
    lab.set(Settings { expire_quiescent_template: true, ..Settings::default() });
    assert_eq!(lab.forwarded(&frame(5, 1026, 80).tcp(tcp::SYN)), Some(64));
    assert_eq!(templates(&lab), [(6, address(VIP), 65_535, 65_535), (6, address(VIP), 80, 80)]);
    assert_eq!(lab.forwarded(&frame(5, 1025, 80).tcp(tcp::ACK)), Some(68), "its connections go on");
}

/// Section 5: `-M 24` is 0.0.0.24, for better or worse.
#[test]
fn any_mask_groups_clients() {
    let mut lab = Lab::new(DirectorConfig::default());
    let persistence = Some(Persistence { timeout: 300_000, mask: ClientMask::V4(24) });
    let spec = ServiceSpec { persistence, ..ServiceSpec::new(tcp_key(80), SchedulerKind::Rr) };
    lab.editor.add_service(spec).unwrap();
    lab.destination(tcp_key(80), server(64), 1);
    lab.destination(tcp_key(80), server(68), 1);
    assert_eq!(lab.forwarded(&frame(8, 1024, 80).tcp(tcp::SYN)), Some(68));
    assert_eq!(lab.forwarded(&frame(15, 1024, 80).tcp(tcp::SYN)), Some(68), "bit 3 of both is set");
    assert_eq!(lab.forwarded(&frame(16, 1024, 80).tcp(tcp::SYN)), Some(64));
}

/// Section 5: every datagram is scheduled anew, counted, and leaves nothing behind. TCP is not concerned.
#[test]
fn one_packet_scheduling_forgets_at_once() {
    let mut lab = Lab::new(DirectorConfig::default());
    for key in [udp_key(53), tcp_key(53)] {
        let spec = ServiceSpec { one_packet: true, ..ServiceSpec::new(key, SchedulerKind::Rr) };
        lab.editor.add_service(spec).unwrap();
        lab.destination(key, server(64), 1);
        lab.destination(key, server(68), 1);
    }
    let servers: Vec<_> = (0..4).map(|_| lab.forwarded(&frame(5, 4000, 53).udp()).unwrap()).collect();
    assert_eq!(servers, [68, 64, 68, 64]);
    assert_eq!(lab.open_connections(), 0);
    let totals = lab.totals(&udp_key(53), server(68));
    assert_eq!((totals.connections, totals.in_packets, totals.active, totals.inactive), (2, 2, 0, 0));
    let same: Vec<_> =
        [tcp::SYN, tcp::ACK].map(|flags| lab.forwarded(&frame(5, 4000, 53).tcp(flags)).unwrap()).to_vec();
    assert_eq!((same, lab.open_connections()), (vec![68, 68], 1));
    // What the director answers in the service's name is of no connection, and so not the server's.
    let last_hop = Frame { ttl: 1, ..frame(5, 4000, 53) }.udp();
    assert!(matches!(lab.receive(&last_hop).as_slice(), [Outcome::Transmitted(..)]));
    assert_eq!(lab.totals(&udp_key(53), server(68)).out_packets, 0);
    assert_eq!(lab.totals(&udp_key(53), server(64)).out_packets, 0);
}

/// Section 3, with one-packet scheduling: a threshold of 1 is never in the way, since nothing remains.
#[test]
fn one_packet_scheduling_gives_its_place_back() {
    let mut lab = Lab::new(DirectorConfig::default());
    let key = udp_key(53);
    let spec = ServiceSpec { one_packet: true, ..ServiceSpec::new(key, SchedulerKind::Rr) };
    lab.editor.add_service(spec).unwrap();
    lab.limited(key, server(64), 1);
    assert!((0..5).all(|_| lab.forwarded(&frame(5, 4000, 53).udp()) == Some(64)));
}

/// Section 1.6: with `cache_bypass` a mark's packets go on by route while nobody serves them; they are no service's, so that
/// the host's own route decides, and the entry names no server.
#[test]
fn bypassed_packets_go_on_unchanged() {
    let mut lab = Lab::new(DirectorConfig::default());
    let everything =
        MarkRule { destination: Some(Prefix { address: address("172.16.0.0"), length: 16 }), ..rule(6, 80) };
    lab.editor.set_marks([everything].into());
    lab.service(MARK, SchedulerKind::Rr, None);
    lab.destination(MARK, server(64), 0);
    let mut syn = frame(5, 1024, 80);
    syn.destination = "172.16.9.9:80".parse().unwrap();
    let syn = syn.tcp(tcp::SYN);
    lab.receive(&syn);
    assert_eq!((lab.director.dropped(DropReason::NoDestination), lab.open_connections()), (1, 0));
    lab.set(Settings { cache_bypass: true, ..Settings::default() });
    for _ in 0..2 {
        assert_eq!(lab.receive(&syn), [Outcome::Punted(PuntClass::Local, PORT, syn.clone())]);
    }
    // A datagram in pieces goes the same way, all of it.
    let mut first = [&syn[..], &[0; 4]].concat();
    first[16..18].copy_from_slice(&44_u16.to_be_bytes());
    let mut later = first.clone();
    first[20] = 0x20;
    later[20..22].copy_from_slice(&3_u16.to_be_bytes());
    for piece in [&mut first, &mut later] {
        dataplane::packet::checksum::fill_header(&mut piece[14..34]);
    }
    assert_eq!((lab.receive(&first).len(), lab.receive(&later).len()), (0, 2));
    let view = lab.director.engines[0].connections_v4().read(ConnectionId(0)).unwrap();
    assert_eq!(
        (view.server.to_string(), view.server_port, view.state.name()),
        ("0.0.0.0".into(), 0, "SYN_RECV")
    );
    lab.leap_checked(70_000);
    assert_eq!(lab.open_connections(), 0);
}
