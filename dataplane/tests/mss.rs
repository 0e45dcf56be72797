//! A service's MSS clamp, in every mode and from both ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail")]

mod gateway;

use dataplane::bench::{Frame, Outcome};
use dataplane::counters::Counter;
use dataplane::id::PortId;
use dataplane::packet::{checksum, tcp};
use dataplane::snapshot::{
    EditError, MarkRule, Method, SchedulerKind, ServiceKey, ServiceSpec, Tunnel, TunnelChecksum, TunnelKind,
};
use dataplane::steering::Steering;
use gateway::*;

const WEB: &str = "10.0.0.100:80";
const CLIENT: &str = "10.1.0.5:1024";
const SERVER: &str = "192.168.10.3:8080";

/// The options of a SYN as Linux sends it, with this MSS.
fn options(mss: u16) -> Vec<u8> {
    let [high, low] = mss.to_be_bytes();
    vec![2, 4, high, low, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]
}

fn offers(frame: Frame, mss: u16) -> Frame {
    Frame { tcp_options: options(mss), ..frame }
}

fn clamp(gateway: &mut Gateway, key: ServiceKey, most: Option<u16>) {
    let spec = ServiceSpec { mss_clamp: most, ..ServiceSpec::new(key, SchedulerKind::Rr) };
    gateway.editor.edit_service(spec).unwrap();
    gateway.publish();
}

fn web(workers: u8, server: &str, method: Method, most: u16) -> Gateway {
    let mut gateway = Gateway::of(workers, Steering::Flow);
    let server = end(server);
    let service = key(6, if server.is_ipv6() { VIP6 } else { VIP }, 80);
    gateway.service(service);
    gateway.destination(service, server.ip(), server.port(), method);
    clamp(&mut gateway, service, Some(most));
    gateway
}

fn sent(gateway: &mut Gateway, worker: usize, port: PortId, frame: &[u8]) -> Vec<u8> {
    match gateway.receive_on(worker, port, frame).as_slice() {
        [Outcome::Transmitted(_, frame)] => frame.clone(),
        other => panic!("{other:?}"),
    }
}

fn count(gateway: &Gateway) -> u64 {
    gateway.director.shared.counters.iter().map(|worker| worker.get(Counter::MssClamped)).sum()
}

#[test]
fn both_ends_offer_at_most_the_clamp_and_a_syn_sent_again_too() {
    for (client, virtual_end, real, most) in [
        (CLIENT, WEB, SERVER, 536),
        (CLIENT, WEB, SERVER, 1400),
        ("[2001:db8:1::5]:1024", "[2001:db8::100]:80", "[fd00:10::3]:8080", 1220),
    ] {
        for workers in [1, 3] {
            let mut gateway = web(workers, real, Method::Masquerade, most);
            let (there, back) = (request(client, virtual_end), answer(real, client));
            let real = end(real);
            for worker in 0..4 {
                let syn = offers(there.clone(), 1460).tcp(tcp::SYN);
                let expected =
                    Frame { destination: real, ..towards_server(offers(there.clone(), most), real.ip()) };
                assert_eq!(sent(&mut gateway, worker, CLIENTS, &syn), expected.tcp(tcp::SYN));
                let accepted = offers(back.clone(), 8960).tcp(tcp::SYN | tcp::ACK);
                let expected =
                    Frame { source: end(virtual_end), ..towards_client(offers(back.clone(), most)) };
                assert_eq!(sent(&mut gateway, worker, SERVERS, &accepted), expected.tcp(tcp::SYN | tcp::ACK));
            }
            assert_eq!(count(&gateway), 8);
        }
    }
}

#[test]
fn nothing_is_raised_or_added_and_only_syns_are_looked_at() {
    let mut gateway = web(1, SERVER, Method::Masquerade, 1400);
    let real = end(SERVER);
    for (tcp_options, flags) in [
        (options(536), tcp::SYN),
        (options(1400), tcp::SYN),
        (vec![], tcp::SYN),
        (vec![4, 2], tcp::SYN),
        (options(1460), tcp::ACK),
        (options(1460), tcp::RST),
    ] {
        let there = Frame { tcp_options, payload: vec![5; 3], ..request(CLIENT, WEB) };
        let expected = Frame { destination: real, ..towards_server(there.clone(), real.ip()) };
        assert_eq!(gateway.sent(CLIENTS, &there.tcp(flags)).1, expected.tcp(flags));
    }
    assert_eq!(count(&gateway), 0);
}

#[test]
fn the_clamp_of_a_running_service_is_changed_and_taken_away() {
    let mut gateway = web(1, SERVER, Method::Direct, 1400);
    let service = key(6, VIP, 80);
    let offered = |gateway: &mut Gateway| {
        let sent = gateway.sent(CLIENTS, &offers(request(CLIENT, WEB), 1460).tcp(tcp::SYN)).1;
        u16::from_be_bytes([sent[56], sent[57]])
    };
    assert_eq!(offered(&mut gateway), 1400);
    clamp(&mut gateway, service, Some(1000));
    assert_eq!(offered(&mut gateway), 1000);
    clamp(&mut gateway, service, None);
    assert_eq!(offered(&mut gateway), 1460);
    for (service, most) in [
        (service, 535),
        (service, 65_496),
        (key(6, VIP6, 80), 1219),
        (key(6, VIP6, 80), 65_476),
        (key(17, VIP, 53), 1400),
        (key(132, VIP, 80), 1400),
    ] {
        let spec = ServiceSpec { mss_clamp: Some(most), ..ServiceSpec::new(service, SchedulerKind::Rr) };
        let refused = gateway.editor.add_service(spec).unwrap_err();
        assert_eq!(refused, EditError::MssClamp, "{service:?} {most}");
    }
}

#[test]
fn what_goes_into_a_tunnel_or_on_by_direct_routing_is_clamped() {
    let tunnel = |kind, checksum| Method::Tunnel(Tunnel { kind, checksum, port: 6080 });
    for (method, outer) in [
        (Method::Direct, 0),
        (tunnel(TunnelKind::Ipip, TunnelChecksum::None), 20),
        (tunnel(TunnelKind::Gre, TunnelChecksum::None), 24),
        (tunnel(TunnelKind::Gre, TunnelChecksum::Plain), 28),
        (tunnel(TunnelKind::Gue, TunnelChecksum::None), 32),
        (tunnel(TunnelKind::Gue, TunnelChecksum::Plain), 32),
    ] {
        let mut gateway = web(1, "192.168.10.3:80", method, 1400);
        let frame = offers(request(CLIENT, WEB), 1460).tcp(tcp::SYN);
        let expected = towards_server(offers(request(CLIENT, WEB), 1400), server(3)).tcp(tcp::SYN);
        let out = gateway.sent(CLIENTS, &frame).1;
        assert_eq!(out[14 + outer..], expected[14..], "{method:?}");
        if outer == 28 {
            assert_eq!(checksum::sum(&out[34..]), 0xffff, "GRE's checksum is over what left");
        }
    }
}

#[test]
fn options_and_extension_headers_before_the_segment_are_no_hiding_place() {
    let mut gateway = web(1, "192.168.10.3:80", Method::Direct, 1400);
    let plain = offers(request(CLIENT, WEB), 1460).tcp(tcp::SYN);
    let mut longer = [&plain[..34], &[1, 1, 1, 0], &plain[34..]].concat();
    (longer[14], longer[17]) = (0x46, longer[17] + 4);
    checksum::fill_header(&mut longer[14..38]);
    let expected = offers(request(CLIENT, WEB), 1400).tcp(tcp::SYN);
    assert_eq!(gateway.sent(CLIENTS, &longer).1[38..], expected[34..]);

    let mut gateway = web(1, "[fd00:10::3]:80", Method::Direct, 1400);
    let (client, web) = ("[2001:db8:1::5]:1024", "[2001:db8::100]:80");
    let plain = offers(request(client, web), 1460).tcp(tcp::SYN);
    let mut longer = [&plain[..54], &[6, 0, 1, 4, 0, 0, 0, 0], &plain[54..]].concat();
    (longer[19], longer[20]) = (longer[19] + 8, 60);
    let expected = offers(request(client, web), 1400).tcp(tcp::SYN);
    assert_eq!(gateway.sent(CLIENTS, &longer).1[62..], expected[54..]);
}

/// The first piece has the option, and no more of the segment than its header: the checksum of the whole is still right.
#[test]
fn a_syn_in_pieces_is_clamped_in_its_first() {
    for method in [Method::Direct, Method::Masquerade] {
        let mut gateway = web(1, "192.168.10.3:80", method, 1400);
        let offered = |mss| Frame { payload: vec![3; 64], ..offers(request(CLIENT, WEB), mss) };
        let cut = |frame: &Frame| {
            let whole = frame.clone().tcp(tcp::SYN);
            let mut pieces = [0, 40].map(|at| {
                let data = &whole[34 + at..];
                let mut piece = Frame { dont_fragment: false, ..frame.clone() }
                    .ip(6, if at == 0 { &data[..40] } else { data });
                piece[20..22].copy_from_slice(if at == 0 { &[0x20, 0] } else { &[0, 5] });
                piece
            });
            pieces.iter_mut().for_each(|piece| checksum::fill_header(&mut piece[14..34]));
            pieces
        };
        let expected = cut(&towards_server(
            Frame {
                destination: if method == Method::Direct { end(WEB) } else { end("192.168.10.3:80") },
                ..offered(1400)
            },
            server(3),
        ));
        let [first, rest] = cut(&offered(1460));
        assert_eq!(gateway.receive(CLIENTS, &rest), []);
        let outcomes = gateway.receive(CLIENTS, &first);
        let wanted = expected.map(|piece| Outcome::Transmitted(SERVERS, piece));
        assert_eq!(outcomes, wanted);
    }
}

#[test]
fn services_of_marks_clamp_what_they_take() {
    let mut gateway = Gateway::alone();
    let service = ServiceKey::Mark { mark: 7, v6: false };
    gateway.service(service);
    gateway.destination(service, server(3), 0, Method::Masquerade);
    clamp(&mut gateway, service, Some(1000));
    let rule = MarkRule {
        protocol: None,
        source: None,
        destination: None,
        source_ports: None,
        destination_ports: None,
        port: None,
        mark: 7,
    };
    gateway.editor.set_marks([rule].into());
    gateway.publish();
    let sent = gateway.sent(CLIENTS, &offers(request(CLIENT, WEB), 1460).tcp(tcp::SYN)).1;
    assert_eq!(sent[54..74], options(1000));
    // The same flag bit is an INIT's, in a packet that has no options.
    let init = [&[1, 0, 0, 20][..], &[0, 0, 0, 9, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1]].concat();
    let frame = Frame { payload: init.clone(), ..request("10.1.0.6:1024", "10.0.0.100:80") };
    let sent = gateway.sent(CLIENTS, &frame.sctp()).1;
    assert_eq!(sent[46..], init);
    assert_eq!(count(&gateway), 1);
}

/// An active data connection begins with the server's SYN.
#[test]
fn data_connections_of_ftp_are_clamped() {
    let mut gateway = Gateway::alone();
    let service = key(6, VIP, 21);
    gateway.service(service);
    gateway.destination(service, server(3), 21, Method::Masquerade);
    clamp(&mut gateway, service, Some(1000));
    let control = request(CLIENT, "10.0.0.100:21");
    gateway.sent(CLIENTS, &offers(control.clone(), 1460).tcp(tcp::SYN));
    gateway.sent(SERVERS, &offers(answer("192.168.10.3:21", CLIENT), 1460).tcp(tcp::SYN | tcp::ACK));
    gateway.sent(CLIENTS, &control.clone().tcp(tcp::ACK));
    gateway.sent(CLIENTS, &Frame { payload: b"PORT 10,1,0,5,200,10\r\n".to_vec(), ..control }.tcp(tcp::ACK));
    let (from, to) = ("10.1.0.5:51210", "192.168.10.3:20");
    let sent = gateway.sent(SERVERS, &offers(answer(to, from), 1460).tcp(tcp::SYN)).1;
    assert_eq!(sent[54..74], options(1000));
    let sent =
        gateway.sent(CLIENTS, &offers(request(from, "10.0.0.100:20"), 1460).tcp(tcp::SYN | tcp::ACK)).1;
    assert_eq!(sent[54..74], options(1000));
    assert_eq!(count(&gateway), 4);
}
