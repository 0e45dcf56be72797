//! VS/TUN: outer headers of every kind and family, what routers say about them, and how long a packet may be.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test figures are small, helpers may fail"
)]

mod gateway;

use dataplane::bench::{Frame, Outcome};
use dataplane::counters::DropReason;
use dataplane::exception::PuntClass;
use dataplane::flow::protocol;
use dataplane::packet::{HeapPacket, Packet, checksum, tcp};
use dataplane::snapshot::{Method, Settings, Tunnel, TunnelChecksum, TunnelKind};
use dataplane::steering::Steering;
use gateway::*;
use std::net::{IpAddr, SocketAddr};

const WEB: &str = "10.0.0.100:80";
const WEB6: &str = "[2001:db8::100]:80";
const CLIENT: &str = "10.1.0.5:1024";
const CLIENT6: &str = "[2001:db8:1::5]:1024";
const FAR: &str = "172.16.5.4";
const NEAR6: &str = "fd00:10::4";

fn ipip() -> Method {
    Method::Tunnel(Tunnel::default())
}

fn tunnel(kind: TunnelKind, checksum: TunnelChecksum) -> Method {
    Method::Tunnel(Tunnel { kind, checksum, port: 6080 })
}

fn web(mut gateway: Gateway, virtual_end: &str, server: &str, method: Method) -> Gateway {
    let service = key(6, &end(virtual_end).ip().to_string(), 80);
    gateway.service(service);
    gateway.destination(service, ip(server), 80, method);
    gateway
}

/// The packet inside a frame's outer headers, as a server finds it that believes nothing: lengths and checksums are checked.
fn unwrap(frame: &[u8], method: Method) -> Vec<u8> {
    let Method::Tunnel(tunnel) = method else { panic!("{method:?}") };
    let (header, next, payload) = if frame[12..14] == [8, 0] {
        assert!(checksum::header_valid(&frame[14..34]));
        let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        assert_eq!(frame.len(), 14 + length);
        (20, frame[23], length - 20)
    } else {
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        (40, frame[20], usize::from(u16::from_be_bytes([frame[18], frame[19]])))
    };
    let inside = &frame[14 + header..];
    assert_eq!(inside.len(), payload);
    let (rest, inner) = match tunnel.kind {
        TunnelKind::Ipip => (inside, next),
        TunnelKind::Gue => {
            assert_eq!((next, &inside[2..4]), (protocol::UDP, &6080_u16.to_be_bytes()[..]));
            assert_eq!(usize::from(u16::from_be_bytes([inside[4], inside[5]])), payload);
            let source = u16::from_be_bytes([inside[0], inside[1]]);
            assert!((32_768..61_000).contains(&source));
            if tunnel.checksum == TunnelChecksum::None {
                assert_eq!(inside[6..8], [0, 0]);
            } else {
                let addresses = if header == 20 { &frame[26..34] } else { &frame[22..54] };
                let pseudo = checksum::add(checksum::sum(addresses), checksum::add(17, payload as u16));
                assert_eq!(checksum::add(pseudo, checksum::sum(inside)), 0xffff, "GUE's checksum");
            }
            assert_eq!((inside[8], &inside[10..12]), (0, &[0, 0][..]));
            (&inside[12..], inside[9])
        }
        TunnelKind::Gre => {
            assert_eq!(next, 47);
            let with = tunnel.checksum != TunnelChecksum::None;
            assert_eq!(inside[..2], [if with { 0x80 } else { 0 }, 0]);
            if with {
                assert_eq!(checksum::sum(inside), 0xffff, "GRE's checksum");
            }
            let inner = if inside[2..4] == [8, 0] { 4 } else { 41 };
            (&inside[if with { 8 } else { 4 }..], inner)
        }
    };
    assert_eq!(rest[0] >> 4, if inner == 4 { 4 } else { 6 });
    rest.to_vec()
}

#[test]
fn what_comes_out_of_a_tunnel_is_what_went_in_one_hop_on() {
    use TunnelChecksum::{None, Plain, Remote};
    let kinds = [
        tunnel(TunnelKind::Ipip, None),
        tunnel(TunnelKind::Gue, None),
        tunnel(TunnelKind::Gue, Plain),
        tunnel(TunnelKind::Gue, Remote),
        tunnel(TunnelKind::Gre, None),
        tunnel(TunnelKind::Gre, Plain),
    ];
    for method in kinds {
        for (client, virtual_end) in [(CLIENT, WEB), (CLIENT6, WEB6)] {
            for server in [FAR, NEAR6] {
                let mut gateway = web(Gateway::alone(), virtual_end, server, method);
                for (flags, length) in [(tcp::SYN, 0), (tcp::ACK, 1), (tcp::ACK, 700)] {
                    let frame = Frame { payload: vec![0x5a; length], ..request(client, virtual_end) };
                    let (port, sent) = gateway.sent(CLIENTS, &frame.clone().tcp(flags));
                    let next = if server == FAR { gateway::server(254) } else { ip(server) };
                    assert_eq!(
                        (port, &sent[..6], &sent[6..12]),
                        (SERVERS, &server_mac(next)[..], &SERVER_SIDE[..])
                    );
                    let expected = Frame { ttl: 63, ..frame }.tcp(flags);
                    assert_eq!(unwrap(&sent, method), expected[14..], "{method:?} to {server}");
                }
            }
        }
    }
}

#[test]
fn the_outer_header_follows_the_inner_one() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, ipip());
    for (tos, outer) in [(0, 0), (0xb8, 0xb8), (1, 1), (2, 2), (3, 2), (0xff, 0xfe)] {
        for whole in [true, false] {
            let mut frame = Frame { dont_fragment: whole, ttl: 9, ..request(CLIENT, WEB) }.tcp(tcp::SYN);
            frame[15] = tos;
            checksum::fill_header(&mut frame[14..34]);
            let sent = gateway.sent(CLIENTS, &frame).1;
            assert_eq!((sent[15], sent[22], sent[23]), (outer, 8, 4));
            assert_eq!(
                (sent[20] == 0x40, sent[18..20] == [0, 0]),
                (whole, whole),
                "an id where it may be needed"
            );
            assert_eq!((&sent[26..30], &sent[30..34]), (&[192, 168, 10, 1][..], &[172, 16, 5, 4][..]));
            assert_eq!((sent[35], sent[42]), (tos, 8));
        }
    }
    let mut gateway = web(Gateway::alone(), WEB6, FAR, ipip());
    let sent = gateway.sent(CLIENTS, &request(CLIENT6, WEB6).tcp(tcp::SYN)).1;
    assert_eq!((sent[20], sent[23]), (0, 41), "IPv6 in IPv4 may be fragmented");
    let mut gateway = web(Gateway::alone(), WEB6, NEAR6, ipip());
    let mut frame = request(CLIENT6, WEB6).tcp(tcp::SYN);
    (frame[14], frame[15]) = (0x6b, 0x80);
    let sent = gateway.sent(CLIENTS, &frame).1;
    assert_eq!((sent[14], sent[15], sent[21]), (0x6b, 0x80, 63), "traffic class 0xb8");
}

#[test]
fn padding_stays_outside() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, tunnel(TunnelKind::Gue, TunnelChecksum::Plain));
    let mut frame = request(CLIENT, WEB).tcp(tcp::SYN);
    let inner = frame[34..].to_vec();
    frame.extend([0xee; 6]);
    let sent = gateway.sent(CLIENTS, &frame).1;
    assert_eq!(unwrap(&sent, tunnel(TunnelKind::Gue, TunnelChecksum::Plain))[20..], inner);
}

#[test]
fn vlan_tags_stay_in_front() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, ipip());
    let mut frame = request(CLIENT, WEB).tcp(tcp::SYN);
    frame.splice(12..12, [0x81, 0, 0, 7]);
    let sent = gateway.sent(CLIENTS, &frame).1;
    assert_eq!(sent[12..18], [0x81, 0, 0, 7, 8, 0]);
    assert_eq!((sent[18], sent[27], sent[38]), (0x45, 4, 0x45));
}

#[test]
fn a_packet_is_as_long_as_the_outer_headers_leave_room_for() {
    use TunnelChecksum::{None, Plain};
    for (kind, checksum, server, client, virtual_end, most) in [
        (TunnelKind::Ipip, None, FAR, CLIENT, WEB, 1480),
        (TunnelKind::Gre, None, FAR, CLIENT, WEB, 1476),
        (TunnelKind::Gre, Plain, FAR, CLIENT, WEB, 1472),
        (TunnelKind::Gue, None, FAR, CLIENT, WEB, 1468),
        (TunnelKind::Ipip, None, FAR, CLIENT6, WEB6, 1480),
        (TunnelKind::Ipip, None, NEAR6, CLIENT6, WEB6, 1460),
    ] {
        let mut gateway = web(Gateway::alone(), virtual_end, server, tunnel(kind, checksum));
        let v6 = client == CLIENT6;
        let headers = if v6 { 60 } else { 40 };
        let frame =
            |length: usize| Frame { payload: vec![3; length - headers], ..request(client, virtual_end) };
        let (_, sent) = gateway.sent(CLIENTS, &frame(most).tcp(tcp::SYN));
        assert_eq!(sent.len(), 1514);
        let (port, error) = gateway.sent(CLIENTS, &frame(most + 1).tcp(tcp::SYN));
        assert_eq!(port, CLIENTS);
        let (kind, mtu) = if v6 { ([2, 0], &error[58..62]) } else { ([3, 4], &error[38..42]) };
        assert_eq!(error[if v6 { 54..56 } else { 34..36 }], kind);
        assert_eq!(mtu, (most as u32).to_be_bytes());
        let source = if v6 { error[22..38].to_vec() } else { error[26..30].to_vec() };
        let virtual_address = match end(virtual_end).ip() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        assert_eq!(source, virtual_address);
    }
}

#[test]
fn a_frame_without_headroom_is_dropped_and_counted() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, ipip());
    let frame = request(CLIENT, WEB).tcp(tcp::SYN);
    let mut front = HeapPacket::new(&[]);
    front.prepend(HeapPacket::HEADROOM).unwrap();
    assert!(front.set_length(frame.len()));
    front.data_mut().copy_from_slice(&frame);
    gateway.director.receive(dataplane::id::WorkerId(0), CLIENTS, [front]);
    gateway.check();
    assert_eq!(gateway.director.take_outcomes(), []);
    assert_eq!(gateway.director.dropped(DropReason::Headroom), 1);
}

/// An ICMP error of a router about a frame the director sent, to `to`, quoting its first `quote` bytes.
fn from_router(to: &str, kind: [u8; 2], mtu: u16, sent: &[u8], quote: usize) -> Vec<u8> {
    let frame = Frame {
        destination_mac: SERVER_SIDE,
        source_mac: server_mac(server(254)),
        dont_fragment: false,
        ..Frame::new(SocketAddr::new(ip("192.168.10.254"), 0), SocketAddr::new(ip(to), 0))
    };
    let [high, low] = mtu.to_be_bytes();
    let mut message = vec![kind[0], kind[1], 0, 0, 0, 0, high, low];
    message.extend(&sent[14..sent.len().min(14 + quote)]);
    let sum = !checksum::sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.ip(1, &message)
}

fn data(length: usize) -> Vec<u8> {
    Frame { payload: vec![1; length], ..request(CLIENT, WEB) }.tcp(tcp::ACK)
}

#[test]
fn what_routers_say_of_the_outer_packet_is_told_to_the_client_and_learnt() {
    for workers in [1, 3] {
        for method in [
            ipip(),
            tunnel(TunnelKind::Gue, TunnelChecksum::Plain),
            tunnel(TunnelKind::Gre, TunnelChecksum::Plain),
        ] {
            let mut gateway = web(Gateway::of(workers, Steering::Client), WEB, FAR, method);
            gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(tcp::SYN));
            let sent = gateway.sent(CLIENTS, &data(600)).1;
            let inner = unwrap(&sent, method);
            let overhead = sent.len() - 14 - inner.len();
            let most = |mtu: usize| u16::try_from(mtu - overhead).unwrap().to_be_bytes();

            let quote = overhead + 28;
            for (worker, kind) in [[11, 0], [3, 1]].into_iter().enumerate() {
                let error = from_router(DIRECTOR, kind, 0, &sent, quote);
                let [Outcome::Transmitted(port, told)] = &gateway.receive_on(worker, SERVERS, &error)[..]
                else {
                    panic!()
                };
                assert_eq!((*port, &told[..6], &told[6..12]), (CLIENTS, &ROUTER[..], &CLIENT_SIDE[..]));
                assert_eq!((&told[26..30], &told[34..36]), (&[10, 0, 0, 100][..], &kind[..]));
                assert_eq!((told[22], told[15], &told[42..]), (64, 0xc0, &inner[..28]));
                assert!(checksum::header_valid(&told[14..34]));
                assert_eq!(checksum::sum(&told[34..]), 0xffff);
            }
            // The first one still tells the link's MTU, as the kernel does; what was learnt counts from then on.
            let error = from_router(DIRECTOR, [3, 4], 1400, &sent, quote);
            let told = gateway.sent(SERVERS, &error).1;
            assert_eq!((&told[34..36], &told[40..42]), (&[3, 4][..], &most(1500)[..]));
            let too_long = gateway.sent(CLIENTS, &data(1400)).1;
            assert_eq!((&too_long[34..36], &too_long[40..42]), (&[3, 4][..], &most(1400)[..]));
            assert_eq!(gateway.sent(CLIENTS, &data(1300)).0, SERVERS);
            // A longer path is not believed; the known one is forgotten after ten minutes.
            gateway.sent(SERVERS, &from_router(DIRECTOR, [3, 4], 1450, &sent, quote));
            assert_eq!(gateway.sent(CLIENTS, &data(1400)).0, CLIENTS);
            for _ in 0..61 {
                gateway.director.leap(10_000);
                gateway.sent(CLIENTS, &data(0));
            }
            assert_eq!(gateway.sent(CLIENTS, &data(1400)).0, SERVERS);
        }
    }
}

#[test]
fn quotes_that_end_before_the_inner_ports_are_the_kernels() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, ipip());
    let sent = gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(tcp::SYN)).1;
    for quote in [28, 40, 43] {
        let error = from_router(DIRECTOR, [3, 4], 600, &sent, quote);
        assert_eq!(gateway.receive(SERVERS, &error), [Outcome::Punted(PuntClass::Local, SERVERS, error)]);
    }
    assert_eq!(gateway.sent(CLIENTS, &data(1400)).0, SERVERS, "nothing was learnt");
}

#[test]
fn nobody_else_teaches_the_path() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, ipip());
    let sent = gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(tcp::SYN)).1;
    // About a tunnel that is not ours: other ends, another protocol, to somebody else, a wrong checksum.
    let changed = |at: usize, value: u8| {
        let mut frame = sent.clone();
        frame[at] = value;
        from_router(DIRECTOR, [3, 4], 600, &frame, 60)
    };
    for lie in
        [changed(33, 9), changed(29, 9), changed(23, 47), from_router("10.1.0.5", [3, 4], 600, &sent, 60)]
    {
        assert!(matches!(gateway.receive(SERVERS, &lie).as_slice(), [Outcome::Punted(..)]));
    }
    let mut wrong = from_router(DIRECTOR, [3, 4], 600, &sent, 60);
    wrong[36] ^= 1;
    assert_eq!(gateway.receive(SERVERS, &wrong), []);
    assert_eq!(gateway.director.dropped(DropReason::IcmpChecksum), 1);
    assert_eq!(gateway.sent(CLIENTS, &data(1400)).0, SERVERS);
}

/// A service that carries the tunnels of others: an error about those is one as any other.
#[test]
fn what_looks_like_our_tunnel_and_is_not_is_relayed() {
    let (service, client) = ("10.0.0.100:6080", "10.1.0.5:6080");
    let names = key(17, VIP, 6080);
    // To anybody, and as if from the client to the virtual address itself.
    for inner in [("192.0.2.1:5", "192.0.2.2:6"), (client, service)] {
        let inner = Frame::new(end(inner.0), end(inner.1)).udp();
        let carried = [&[0, 4, 0, 0], &inner[14..]].concat();
        for workers in [1, 3] {
            for method in [Method::Direct, Method::Masquerade, tunnel(TunnelKind::Gre, TunnelChecksum::None)]
            {
                let mut gateway = Gateway::of(workers, Steering::Client);
                gateway.service(names);
                gateway.destination(names, server(3), 6080, method);
                let asked = Frame { payload: carried.clone(), ..request(client, service) }.udp();
                let sent = gateway.sent(CLIENTS, &asked).1;
                let answered =
                    Frame { payload: carried.clone(), ..Frame::new(end(service), end(client)) }.udp();
                let mut error = from_router(VIP, [3, 1], 0, &answered, answered.len() - 14);
                error[..6].copy_from_slice(&CLIENT_SIDE);
                for worker in 0..workers {
                    let told = gateway.receive_on(worker.into(), CLIENTS, &error);
                    assert!(
                        matches!(told[..], [Outcome::Transmitted(SERVERS, _)]),
                        "{workers} {method:?}: {told:?}"
                    );
                }
                if method != Method::Masquerade {
                    continue;
                }
                let error = from_router("10.1.0.5", [3, 1], 0, &sent, sent.len() - 14);
                for worker in 0..workers {
                    let told = gateway.receive_on(worker.into(), SERVERS, &error);
                    assert!(matches!(told[..], [Outcome::Transmitted(CLIENTS, _)]), "{workers}: {told:?}");
                }
            }
        }
    }
}

#[test]
fn an_absurd_path_mtu_is_not_believed() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, ipip());
    let sent = gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(tcp::SYN)).1;
    gateway.sent(SERVERS, &from_router(DIRECTOR, [3, 4], 0, &sent, 60));
    let told = gateway.sent(CLIENTS, &data(1000)).1;
    assert_eq!(told[40..42], (552_u16 - 20).to_be_bytes(), "the kernel's shortest");
    assert_eq!(gateway.sent(CLIENTS, &data(532 - 40)).0, SERVERS);
}

#[test]
fn icmp_errors_of_the_clients_side_go_through_the_tunnel_with_a_right_checksum() {
    let method = tunnel(TunnelKind::Gue, TunnelChecksum::Plain);
    let mut gateway = web(Gateway::alone(), WEB, FAR, method);
    gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(tcp::SYN));
    let reply = Frame::new(end(WEB), end(CLIENT)).tcp(tcp::ACK);
    let frame = Frame {
        destination_mac: CLIENT_SIDE,
        source_mac: ROUTER,
        dont_fragment: false,
        ..Frame::new(SocketAddr::new(ip("10.9.9.9"), 0), SocketAddr::new(ip(VIP), 0))
    };
    for quote in [24, 28, 40] {
        let message = [&[3, 4, 0xba, 0xd0, 0, 0, 5, 0x78], &reply[14..14 + quote]].concat();
        let sent = gateway.sent(CLIENTS, &frame.ip(1, &message)).1;
        let expected = Frame { ttl: 63, ..frame.clone() }.ip(1, &message);
        assert_eq!(unwrap(&sent, method), expected[14..], "a wrong ICMP checksum passes, as in the kernel");
    }
}

#[test]
fn without_path_mtu_discovery_the_outer_packet_may_be_fragmented() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, ipip());
    gateway.settings(Settings { pmtu_disc: false, ..Settings::default() });
    let sent = gateway.sent(CLIENTS, &request(CLIENT, WEB).tcp(tcp::SYN)).1;
    assert_eq!((sent[20], sent[40]), (0, 0x40));
}

#[test]
fn a_tunnel_without_an_address_to_send_from_drops() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, ipip());
    gateway.editor.set_source(dataplane::id::DestinationSlot(0), None);
    gateway.publish();
    assert_eq!(gateway.receive(CLIENTS, &request(CLIENT, WEB).tcp(tcp::SYN)), []);
    assert_eq!(gateway.director.dropped(DropReason::NoRoute), 1);
}

#[test]
fn a_tunnel_in_a_tunnel_and_back_to_the_virtual_address_is_the_kernels() {
    let mut gateway = web(Gateway::alone(), WEB, FAR, ipip());
    let inner = request(CLIENT, WEB).tcp(tcp::SYN);
    let outside = Frame {
        destination_mac: CLIENT_SIDE,
        source_mac: ROUTER,
        ..Frame::new(SocketAddr::new(ip("10.9.9.9"), 0), SocketAddr::new(ip(VIP), 0))
    };
    let frame = outside.ip(4, &inner[14..]);
    assert_eq!(gateway.receive(CLIENTS, &frame), [Outcome::Punted(PuntClass::Stray, CLIENTS, frame)]);
}

/// Puts fragments together: the whole packet, if they are all there and name the same datagram.
fn together(frames: &[Vec<u8>]) -> Vec<u8> {
    let v6 = frames[0][12..14] == [0x86, 0xdd];
    let field = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if v6 && frames[0][20] != 44 {
        assert_eq!(frames.len(), 1);
        return frames[0].clone();
    }
    let name = if v6 { 58..62 } else { 18..20 };
    let mut parts: Vec<(usize, &[u8])> = Vec::new();
    for frame in frames {
        let (offset, start, end) = if v6 {
            (field(frame, 56) & 0xfff8, 62, 54 + field(frame, 18))
        } else {
            assert!(checksum::header_valid(&frame[14..34]));
            ((field(frame, 20) & 0x1fff) * 8, 34, 14 + field(frame, 16))
        };
        assert_eq!(frame[name.clone()], frames[0][name.clone()], "of the same datagram");
        parts.push((offset.into(), &frame[start..end.into()]));
    }
    assert!(frames.len() == 1 || frames[0][name].iter().any(|byte| *byte != 0), "fragments need a name");
    parts.sort_unstable();
    let mut data = Vec::new();
    for (offset, part) in parts {
        assert_eq!(offset, data.len(), "a gap, or an overlap");
        data.extend(part);
    }
    let mut whole = frames[0][..if v6 { 54 } else { 34 }].to_vec();
    if v6 {
        whole[20] = frames[0][54];
        whole[18..20].copy_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    } else {
        whole[16..18].copy_from_slice(&u16::try_from(20 + data.len()).unwrap().to_be_bytes());
        whole[20..22].fill(0);
        checksum::fill_header(&mut whole[14..34]);
    }
    [whole, data].concat()
}

fn tunnels() -> [Method; 5] {
    use TunnelChecksum::{None, Plain};
    [
        tunnel(TunnelKind::Ipip, None),
        tunnel(TunnelKind::Gre, None),
        tunnel(TunnelKind::Gue, None),
        tunnel(TunnelKind::Gue, Plain),
        tunnel(TunnelKind::Gre, Plain),
    ]
}

/// A gateway with one tunnel's destination of a UDP service.
fn names(workers: u8, virtual_end: &str, server: &str, method: Method) -> Gateway {
    let mut gateway = Gateway::of(workers, Steering::Client);
    let service = key(17, &end(virtual_end).ip().to_string(), 53);
    gateway.service(service);
    gateway.destination(service, ip(server), 53, method);
    gateway
}

fn to_server(outcomes: Vec<Outcome>) -> Vec<Vec<u8>> {
    let sent = |outcome| match outcome {
        Outcome::Transmitted(SERVERS, frame) => {
            assert!(frame.len() <= 1514);
            frame
        }
        other => panic!("{other:?}"),
    };
    outcomes.into_iter().map(sent).collect()
}

const NAMES: [(&str, &str); 2] = [(CLIENT, "10.0.0.100:53"), (CLIENT6, "[2001:db8::100]:53")];

/// The kernel has put a datagram together before it goes into a tunnel: one outer packet with one checksum carries it.
#[test]
fn a_datagram_in_pieces_leaves_in_one_outer_packet() {
    for (workers, method) in [1, 3].into_iter().flat_map(|workers| tunnels().map(|method| (workers, method)))
    {
        for ((client, virtual_end), server) in NAMES.into_iter().flat_map(|name| [(name, FAR), (name, NEAR6)])
        {
            let mut gateway = names(workers, virtual_end, server, method);
            for (length, most) in [(3001, 400), (3001, 1336), (4001, 1000), (700, 400)] {
                let payload = vec![9; length];
                let frame = Frame { payload, dont_fragment: false, ..request(client, virtual_end) };
                let mut given = pieces(&frame, most);
                given.rotate_left(1);
                let received = given.iter().enumerate();
                let out = received.flat_map(|(worker, piece)| gateway.receive_on(worker, CLIENTS, piece));
                let out = to_server(out.collect());
                let expected = Frame { ttl: 63, ..frame }.udp();
                let inner = unwrap(&together(&out), method);
                assert_eq!(inner, expected[14..], "{method:?} to {server}, {most}");
            }
        }
    }
}

/// RFC 791 and the kernel: what may be cut is, whatever carries it.
#[test]
fn a_packet_too_long_for_a_tunnel_leaves_in_fragments_of_the_outer_one() {
    for (method, server) in tunnels().into_iter().flat_map(|method| [(method, FAR), (method, NEAR6)]) {
        let mut gateway = names(1, NAMES[0].1, server, method);
        let frame = request(CLIENT, NAMES[0].1);
        let frame = Frame { payload: vec![9; 1472], dont_fragment: false, ..frame };
        let out = to_server(gateway.receive(CLIENTS, &frame.clone().udp()));
        assert_eq!(out.len(), 2, "{method:?} to {server}");
        let expected = Frame { ttl: 63, ..frame }.udp();
        assert_eq!(unwrap(&together(&out), method), expected[14..]);
        assert_eq!(gateway.director.dropped(DropReason::Fragmented), 1);
    }
}

#[test]
fn a_datagram_that_outgrows_its_outer_packet_is_dropped() {
    for server in [FAR, NEAR6] {
        let mut gateway = names(1, NAMES[0].1, server, ipip());
        let frame = request(CLIENT, NAMES[0].1);
        let frame = Frame { payload: vec![9; 65_500], dont_fragment: false, ..frame };
        let given = pieces(&frame, 1480);
        let outcomes: Vec<_> = given.iter().flat_map(|piece| gateway.receive(CLIENTS, piece)).collect();
        assert_eq!((outcomes, gateway.director.dropped(DropReason::OverMtu)), (vec![], given.len() as u64));
    }
}
