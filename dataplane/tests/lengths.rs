//! Datagrams in pieces, packets over the next link's MTU, IPv4 options; "section" is that of the kernel's recorded behaviour.
#![allow(clippy::unwrap_used, reason = "what fails is the test")]

mod common;

use common::*;
use dataplane::bench::{DirectorConfig, Frame, Outcome};
use dataplane::counters::{Counter, DropReason};
use dataplane::exception::PuntClass;
use dataplane::id::{DestinationSlot, WorkerId};
use dataplane::packet::checksum::{fill_header, header_valid};
use dataplane::packet::{HeapPacket, tcp};
use dataplane::snapshot::editor::ServiceSpec;
use dataplane::snapshot::{NextHop, SchedulerKind};
use std::net::SocketAddr;

/// Servers .64 and .68 for datagrams to port 53.
fn names(config: DirectorConfig) -> Lab {
    let mut lab = Lab::new(config);
    lab.service(udp_key(53), SchedulerKind::Rr, None);
    lab.destination(udp_key(53), server(64), 1);
    lab.destination(udp_key(53), server(68), 1);
    lab
}

fn datagram(client_port: u16, length: usize) -> Vec<u8> {
    let source = SocketAddr::from(([10, 1, 0, 5], client_port));
    let mut frame = Frame::new(source, SocketAddr::new(address(VIP), 53));
    frame.dont_fragment = false;
    frame.id = client_port;
    frame.payload = (0..length).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
    frame.udp()
}

/// An IPv4 frame with options.
fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut longer = [&frame[..34], options, &frame[34..]].concat();
    longer[14] = 0x45 + u8::try_from(options.len() / 4).unwrap();
    let length = u16::try_from(longer.len() - 14).unwrap();
    longer[16..18].copy_from_slice(&length.to_be_bytes());
    fill_header(&mut longer[14..34 + options.len()]);
    longer
}

/// Cuts a frame as a sender would, `unit` bytes of data in each.
fn cut(frame: &[u8], unit: usize) -> Vec<Vec<u8>> {
    let header = 14 + usize::from(frame[14] & 15) * 4;
    let data = &frame[header..];
    let pieces = data.chunks(unit).enumerate().map(|(index, part)| {
        let mut piece = [&frame[..header], part].concat();
        let more = (index + 1) * unit < data.len();
        let bits = u16::try_from(index * unit / 8).unwrap() | if more { 0x2000 } else { 0 };
        let length = u16::try_from(piece.len() - 14).unwrap();
        piece[16..18].copy_from_slice(&length.to_be_bytes());
        piece[20..22].copy_from_slice(&bits.to_be_bytes());
        fill_header(&mut piece[14..header]);
        piece
    });
    pieces.collect()
}

/// Offset, more-fragments bit, length and last byte of the MAC.
type Sent = (u16, bool, usize, u8);

/// What was sent, and all of the data in it.
fn sent(outcomes: &[Outcome]) -> (Vec<Sent>, Vec<u8>) {
    let mut data = Vec::new();
    let pieces = outcomes.iter().map(|outcome| {
        let Outcome::Transmitted(_, frame) = outcome else { return (0, false, 0, 0) };
        let header = 14 + usize::from(frame[14] & 15) * 4;
        assert!(header_valid(&frame[14..header]));
        let bits = u16::from_be_bytes([frame[20], frame[21]]);
        data.extend(&frame[header..]);
        ((bits & 0x1fff) * 8, bits & 0x2000 != 0, frame.len() - 14, frame[5])
    });
    (pieces.collect(), data)
}

/// Gives the pieces in this order; nothing may come of any but the last.
fn give(lab: &mut Lab, pieces: &[Vec<u8>], order: &[usize]) -> Vec<Outcome> {
    let (last, first) = order.split_last().unwrap();
    for piece in first {
        assert_eq!(lab.receive(&pieces[*piece]), []);
    }
    lab.receive(&pieces[*last])
}

/// Section 1.2: nothing leaves before the datagram is whole; then it leaves in order, in the sizes it came in, and counts as one
/// packet of its whole length.
#[test]
fn a_datagram_in_pieces_is_one_packet() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut lab = names(DirectorConfig::default());
        let whole = datagram(4000, 1000);
        let outcomes = give(&mut lab, &cut(&whole, 400), &order);
        let (pieces, data) = sent(&outcomes);
        assert_eq!(pieces, [(0, true, 420, 68), (400, true, 420, 68), (800, false, 228, 68)]);
        assert_eq!(data, whole[34..]);
        let totals = lab.totals(&udp_key(53), server(68));
        assert_eq!((totals.connections, totals.in_packets, totals.in_bytes), (1, 1, 1028));
        assert_eq!(lab.director.count(Counter::Forwarded), 1);
    }
}

/// The kernel's director puts a datagram together and cuts it again: all pieces leave with the first one's TTL, less one. None goes
/// on for ever, and none stays behind.
#[test]
fn pieces_have_the_time_to_live_of_the_first() {
    for waits in [false, true] {
        let mut lab = names(DirectorConfig::default());
        let mut pieces = cut(&datagram(4000, 1000), 400);
        for (piece, ttl) in pieces.iter_mut().zip([9, 1, 0]) {
            piece[22] = ttl;
            fill_header(&mut piece[14..34]);
        }
        let hop = lab.director.snapshot.destination(DestinationSlot(1)).unwrap().next_hop;
        if waits {
            lab.editor.set_next_hop(DestinationSlot(1), NextHop::Unresolved, PORT, MTU);
            lab.publish();
        }
        let mut outcomes = give(&mut lab, &pieces, &[0, 1, 2]);
        if waits {
            assert_eq!(outcomes, []);
            lab.editor.set_next_hop(DestinationSlot(1), hop, PORT, MTU);
            lab.publish();
            outcomes = lab.director.take_outcomes();
        }
        let ttls: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Transmitted(_, frame) => Some(frame[22]),
                _ => None,
            })
            .collect();
        assert_eq!(ttls, [8; 3], "{waits}");
        assert_eq!(sent(&outcomes).0.len(), 3, "with right checksums");
    }
}

#[test]
fn pieces_find_their_flow_over_workers() {
    let mut lab = names(DirectorConfig { workers: 4, ..DirectorConfig::default() });
    for client_port in 4000..4040 {
        let pieces = cut(&datagram(client_port, 1000), 400);
        for (worker, piece) in [2, 0, 1].into_iter().enumerate() {
            let worker = WorkerId(u8::try_from(worker).unwrap());
            lab.director.receive(worker, PORT, [HeapPacket::new(&pieces[piece])]);
        }
        lab.check();
        let (pieces, _) = sent(&lab.director.take_outcomes());
        assert_eq!(pieces.len(), 3);
        assert!(pieces.iter().all(|piece| piece.3 == pieces[0].3), "{pieces:?}");
    }
    assert_eq!(lab.open_connections(), 40);
    assert!(lab.director.count(Counter::RedirectedFragments) > 0);
}

/// An IPv6 frame cut by its sender, who may send pieces of a datagram that is longer than any link.
fn cut_v6(frame: &[u8], unit: usize) -> Vec<Vec<u8>> {
    let data = &frame[54..];
    let pieces = data.chunks(unit).enumerate().map(|(index, part)| {
        let more = u16::from((index + 1) * unit < data.len());
        let mut fragment = vec![frame[20], 0, 0, 0, 0, 0, 0, 7];
        let offset = u16::try_from(index * unit).unwrap() | more;
        fragment[2..4].copy_from_slice(&offset.to_be_bytes());
        let mut piece = [&frame[..54], &fragment, part].concat();
        piece[18..20].copy_from_slice(&u16::try_from(8 + part.len()).unwrap().to_be_bytes());
        piece[20] = 44;
        piece
    });
    pieces.collect()
}

#[test]
fn ipv6_pieces_leave_as_they_came_and_are_judged_one_by_one() {
    let mut lab = Lab::new(DirectorConfig::default());
    let key = dataplane::snapshot::ServiceKey::Address { protocol: 17, address: address(VIP6), port: 53 };
    lab.service(key, SchedulerKind::Rr, None);
    lab.destination(key, address("fd00::68"), 1);
    let datagram = |port| {
        let source = SocketAddr::new(address("fd00::9"), port);
        let mut frame = Frame::new(source, SocketAddr::new(address(VIP6), 53));
        frame.payload = vec![5; 3000];
        frame.udp()
    };
    let pieces = cut_v6(&datagram(4000), 1400);
    let outcomes = give(&mut lab, &pieces, &[2, 0, 1]);
    for (outcome, piece) in outcomes.iter().zip(&pieces) {
        let Outcome::Transmitted(_, sent) = outcome else { panic!("{outcome:?}") };
        assert_eq!((sent[5], sent[21], &sent[22..]), (0x68, 63, &piece[22..]));
    }
    let totals = lab.totals(&key, address("fd00::68"));
    assert_eq!((outcomes.len(), totals.in_packets, totals.in_bytes), (3, 1, 3048));
    narrow(&mut lab, 1400);
    let outcomes = give(&mut lab, &cut_v6(&datagram(4001), 1400), &[0, 1, 2]);
    let [Outcome::Transmitted(_, icmp)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((icmp[54], &icmp[58..62]), (2, &1400_u32.to_be_bytes()[..]));
    // It quotes the datagram as the kernel has put it together, as far as fits: without a fragment header.
    let whole = datagram(4001);
    assert_eq!((icmp.len(), &icmp[62..69], &icmp[70..]), (14 + 1280, &whole[14..21], &whole[22..14 + 1232]));
}

/// RFC 6946: a fragment that is all of its datagram is none; the kernel takes its header out.
#[test]
fn an_atomic_fragment_leaves_without_its_header() {
    let mut lab = Lab::new(DirectorConfig::default());
    let key = dataplane::snapshot::ServiceKey::Address { protocol: 17, address: address(VIP6), port: 53 };
    lab.service(key, SchedulerKind::Rr, None);
    lab.destination(key, address("fd00::68"), 1);
    let source = SocketAddr::new(address("fd00::9"), 4000);
    let mut frame = Frame::new(source, SocketAddr::new(address(VIP6), 53));
    frame.payload = vec![5; 300];
    let whole = frame.udp();
    let [piece] = &cut_v6(&whole, 400)[..] else { panic!() };
    let outcomes = lab.receive(piece);
    let [Outcome::Transmitted(_, sent)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((&sent[12..21], sent[21], &sent[22..]), (&whole[12..21], 63, &whole[22..]));
    assert_eq!(lab.totals(&key, address("fd00::68")).in_bytes, 348);
    let chained = HeapPacket::chained(&piece[..100], &[&piece[100..]]);
    lab.director.receive(WorkerId(0), PORT, [chained]);
    lab.check();
    assert_eq!(lab.director.dropped(DropReason::Segments), 1);
}

/// Section 1.2: what is not whole within 30 s is dropped.
#[test]
fn an_unfinished_datagram_is_dropped_in_silence() {
    let mut lab = names(DirectorConfig::default());
    let pieces = cut(&datagram(4000, 1000), 400);
    assert_eq!(lab.receive(&pieces[0]), []);
    assert_eq!(lab.receive(&pieces[2]), []);
    lab.leap_checked(30_100);
    assert_eq!((lab.director.take_outcomes(), lab.open_connections()), (vec![], 0));
    assert_eq!(lab.director.dropped(DropReason::FragmentOrphan), 2);
}

/// Section 1.6: the error quotes the datagram as it was put together.
#[test]
fn an_error_about_a_datagram_quotes_it_whole() {
    let mut lab = Lab::new(DirectorConfig::default());
    lab.service(udp_key(53), SchedulerKind::Rr, None);
    let whole = datagram(4000, 1000);
    let outcomes = give(&mut lab, &cut(&whole, 400), &[0, 1, 2]);
    let [Outcome::Transmitted(_, icmp)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((icmp.len(), icmp[34], icmp[35]), (14 + 576, 3, 3));
    assert_eq!(icmp[42..], whole[14..14 + 548]);
    assert_eq!(lab.director.dropped(DropReason::NoDestination), 3);
}

#[test]
fn pieces_of_a_datagram_for_nobody_reach_the_local_stack() {
    let mut lab = names(DirectorConfig::default());
    let mut other = datagram(4000, 1000);
    other[37] = 54;
    let pieces = cut(&other, 400);
    let outcomes = give(&mut lab, &pieces, &[2, 0, 1]);
    let punted: Vec<_> =
        pieces.iter().map(|piece| Outcome::Punted(PuntClass::Stray, PORT, piece.clone())).collect();
    assert_eq!(outcomes, punted);
}

/// Section 5: the pieces of one datagram go to one server.
#[test]
fn one_packet_scheduling_takes_a_datagram_for_a_packet() {
    let mut lab = Lab::new(DirectorConfig::default());
    let spec = ServiceSpec { one_packet: true, ..ServiceSpec::new(udp_key(53), SchedulerKind::Rr) };
    lab.editor.add_service(spec).unwrap();
    lab.destination(udp_key(53), server(64), 1);
    lab.destination(udp_key(53), server(68), 1);
    for server in [68, 64, 68] {
        let (pieces, _) = sent(&give(&mut lab, &cut(&datagram(4000, 1000), 400), &[0, 1, 2]));
        assert!(pieces.len() == 3 && pieces.iter().all(|piece| piece.3 == server));
    }
}

#[test]
fn pieces_wait_for_their_next_hop_together() {
    let mut lab = names(DirectorConfig::default());
    let hop = lab.director.snapshot.destination(DestinationSlot(1)).unwrap().next_hop;
    lab.editor.set_next_hop(DestinationSlot(1), NextHop::Unresolved, PORT, MTU);
    lab.publish();
    assert_eq!(give(&mut lab, &cut(&datagram(4000, 1000), 400), &[0, 1, 2]), []);
    lab.editor.set_next_hop(DestinationSlot(1), hop, PORT, MTU);
    lab.publish();
    let (pieces, _) = sent(&lab.director.take_outcomes());
    assert_eq!(pieces, [(0, true, 420, 68), (400, true, 420, 68), (800, false, 228, 68)]);
    lab.check();
}

fn narrow(lab: &mut Lab, mtu: u16) {
    for slot in (0..).map(DestinationSlot).take(lab.editor.destinations().count()) {
        let hop = lab.director.snapshot.destination(slot).unwrap().next_hop;
        lab.editor.set_next_hop(slot, hop, PORT, mtu);
    }
    lab.publish();
}

/// Section 6: a packet that may be fragmented is (RFC 791); it counts as dropped, its fragments as generated.
#[test]
fn a_packet_over_the_mtu_is_cut() {
    let mut lab = names(DirectorConfig::default());
    narrow(&mut lab, 1400);
    let whole = datagram(4000, 1400);
    let (pieces, data) = sent(&lab.receive(&whole));
    assert_eq!(pieces, [(0, true, 1396, 68), (1376, false, 52, 68)]);
    assert_eq!(data, whole[34..]);
    assert_eq!(
        (lab.director.dropped(DropReason::Fragmented), lab.director.count(Counter::Generated)),
        (1, 2)
    );
    assert_eq!(lab.totals(&udp_key(53), server(68)).in_bytes, 1428);

    // A datagram whose pieces are too long is cut anew, as the kernel cuts what it put together.
    let whole = datagram(4001, 3000);
    let (pieces, data) = sent(&give(&mut lab, &cut(&whole, 1480), &[0, 1, 2]));
    assert_eq!(pieces, [(0, true, 1396, 64), (1376, true, 1396, 64), (2752, false, 276, 64)]);
    assert_eq!(data, whole[34..]);
    // One whose pieces fit keeps them.
    let (pieces, _) = sent(&give(&mut lab, &cut(&datagram(4002, 3000), 1200), &[0, 1, 2]));
    assert_eq!(pieces, [(0, true, 1220, 68), (1200, true, 1220, 68), (2400, false, 628, 68)]);
}

#[test]
fn without_buffers_nothing_is_cut() {
    let mut lab = names(DirectorConfig::default());
    narrow(&mut lab, 600);
    lab.director.sinks[0].buffers = 1;
    assert_eq!(lab.receive(&datagram(4000, 1400)).len(), 1, "one fragment, of use to nobody");
    assert_eq!(lab.director.dropped(DropReason::NoBuffer), 1);
}

/// Section 6 and RFC 791: options are filled in on the way; of a later fragment only the copied ones are left.
#[test]
fn options_are_filled_in() {
    let mut lab = Lab::web(SchedulerKind::Rr, None, DirectorConfig::default());
    let route = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let outcomes = lab.receive(&with_options(&syn(1), &route));
    let [Outcome::Transmitted(_, frame)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((frame[5], frame[22], &frame[34..42]), (68, 63, &[7, 11, 8, 192, 168, 132, 254, 0][..]));
    assert!(header_valid(&frame[14..46]));
    assert_eq!(lab.forwarded(&ack(1)), Some(68), "the connection is there");

    let mut lab = names(DirectorConfig::default());
    narrow(&mut lab, 1400);
    let outcomes = lab.receive(&with_options(&datagram(4000, 1440), &route));
    let (pieces, _) = sent(&outcomes);
    assert_eq!(pieces, [(0, true, 1400, 68), (1368, false, 112, 68)]);
    let [Outcome::Transmitted(_, first), Outcome::Transmitted(_, later)] = outcomes.as_slice() else {
        panic!()
    };
    assert_eq!(
        (&first[34..38], &later[34..46]),
        (&[7, 11, 8, 192][..], &[[1; 11].as_slice(), &[0]].concat()[..])
    );
    let pieces = cut(&with_options(&datagram(4001, 1000), &route), 400);
    let outcomes = give(&mut lab, &pieces, &[0, 1, 2]);
    let [_, Outcome::Transmitted(_, later), _] = outcomes.as_slice() else { panic!() };
    assert_eq!(later[34..46], [[1; 11].as_slice(), &[0]].concat());
}

/// RFC 1812, 4.3.2.5, and the kernel's recorded answers: an ICMP error has the options that the packet had, and quotes it with
/// them filled in.
#[test]
fn errors_repeat_options_and_the_type_of_service() {
    let mut lab = Lab::web(SchedulerKind::Rr, None, DirectorConfig::default());
    let mut frame = from_client(1, 80);
    frame.ttl = 1;
    let mut frame = with_options(&frame.tcp(tcp::SYN), &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame[15] = 0xff;
    fill_header(&mut frame[14..46]);
    let outcomes = lab.receive(&frame);
    let [Outcome::Transmitted(_, icmp)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    let recorded = [7, 11, 12, 192, 168, 132, 254, 192, 168, 132, 254, 0];
    assert_eq!((icmp.len(), icmp[14], icmp[15], &icmp[34..46]), (14 + 92, 0x48, 0xde, &recorded[..]));
    assert!(header_valid(&icmp[14..46]));
    assert_eq!(dataplane::packet::checksum::sum(&icmp[46..]), 0xffff);
    let quoted = [7, 11, 8, 192, 168, 132, 254, 0, 0, 0, 0, 0];
    assert_eq!((icmp[46], &icmp[64..66], &icmp[74..86]), (11, &frame[24..26], &quoted[..]));
}

/// Source routes and malformed options are the local stack's to refuse, unchanged.
#[test]
fn other_options_reach_the_local_stack() {
    let mut lab = Lab::web(SchedulerKind::Rr, None, DirectorConfig::default());
    for options in [[0x83, 7, 4, 192, 168, 132, 64, 0], [7, 7, 5, 0, 0, 0, 0, 0], [7, 99, 4, 0, 0, 0, 0, 0]] {
        let frame = with_options(&syn(1), &options);
        assert_eq!(lab.receive(&frame), [Outcome::Punted(PuntClass::Stray, PORT, frame)]);
    }
    let frame = with_options(&from_client(1, 81).tcp(tcp::SYN), &[7, 7, 4, 0, 0, 0, 0, 0]);
    assert_eq!(lab.receive(&frame), [Outcome::Punted(PuntClass::Stray, PORT, frame)], "no service, no route");
    assert_eq!(lab.open_connections(), 0);
}
