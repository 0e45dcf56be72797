use super::Host;
use crate::replay::tables::{MACS, Tables};
use crate::replay::trace::{Action, Emitted, Trace};
use dataplane::bench::Frame;
use dataplane::id::PortId;
use proptest::prelude::*;
use std::path::Path;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn frame(from: &str, to: &str) -> Frame {
    let mut frame = Frame::new(from.parse().unwrap(), to.parse().unwrap());
    frame.destination_mac = MACS[0];
    frame.source_mac = [2, 0, 0, 0, 0, 0xfe];
    frame
}

fn emitted(frame: &[u8]) -> Vec<Emitted> {
    Host::default().receive(&Tables::new(), PortId(0), frame, 0)
}

/// The recorded kernel's answers to packets that are for no service.
#[test]
fn answers_are_the_recorded_kernels() {
    let trace = Trace::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/noconn.jsonl")).unwrap();
    let own = |address| Tables::new().is_own(address);
    let mut compared = 0;
    // All that is about ports without a service, before services without servers come.
    let cut =
        trace.records.iter().position(|record| record.line.contains("service without servers")).unwrap();
    let start =
        trace.records.iter().position(|record| record.line.contains("no service at this port")).unwrap();
    for record in &trace.records[start..cut] {
        if let Action::Packet(packet) = &record.action {
            let answers = Host::default().receive(&Tables::new(), PortId(0), &packet.frame, 0);
            assert_eq!(answers.len(), record.out.len(), "{}", record.line);
            for (answer, recorded) in answers.iter().zip(&record.out) {
                assert_eq!(answer.link, recorded.link);
                let equal =
                    super::super::mask::equal(&recorded.frame, &answer.frame, Some(&packet.frame), &own);
                assert!(equal, "{}: {answer:02x?} for {recorded:02x?}", record.line);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 7);
}

#[test]
fn resets_answer_segments_but_not_resets() {
    let tcp = |flags| frame("10.1.0.5:9", "10.0.0.100:81").tcp(flags);
    for (flags, expected) in [(SYN, RST | ACK), (ACK, RST), (0, RST | ACK), (SYN | ACK, RST)] {
        let answers = emitted(&tcp(flags));
        assert_eq!(answers[0].frame[47], expected, "{flags:#x}");
        assert_eq!(answers[0].frame[18..22], [0, 0, 0x40, 0]);
    }
    assert!(emitted(&tcp(RST)).is_empty());
    let mut wrong = tcp(SYN);
    wrong[50] ^= 1;
    assert!(emitted(&wrong).is_empty(), "a wrong checksum is not answered");
}

#[test]
fn others_packets_are_routed_or_refused() {
    let routed = emitted(&frame("10.1.0.5:9", "192.168.10.9:80").tcp(SYN));
    assert_eq!((routed[0].link, routed[0].frame[5], routed[0].frame[22]), (1, 9, 63));
    let mut last = frame("10.1.0.5:9", "192.168.10.9:80");
    last.ttl = 1;
    let refused = emitted(&last.clone().tcp(SYN));
    assert_eq!((refused[0].link, &refused[0].frame[34..36]), (0, &[11, 0][..]));
    assert_eq!(refused[0].frame[26..30], [10, 0, 0, 1], "from the link's address");
    // No neighbour, an own address as the source, not our MAC address.
    assert!(emitted(&frame("10.1.0.5:9", "192.168.10.77:80").tcp(SYN)).is_empty());
    assert!(emitted(&frame("10.0.0.100:9", "192.168.10.9:80").tcp(SYN)).is_empty());
    last.destination_mac = [2; 6];
    assert!(emitted(&last.tcp(SYN)).is_empty());
}

#[test]
fn long_packets_are_cut_or_refused() {
    let mut tables = Tables::new();
    tables.set_mtu(1, 1000);
    let mut long = frame("10.1.0.5:9", "192.168.10.9:80");
    long.payload = vec![7; 1200];
    let refused = Host::default().receive(&tables, PortId(0), &long.clone().udp(), 0);
    assert_eq!(
        (refused[0].frame.len(), &refused[0].frame[34..42]),
        (14 + 576, &[3, 4, refused[0].frame[36], refused[0].frame[37], 0, 0, 3, 0xe8][..])
    );
    long.dont_fragment = false;
    let pieces = Host::default().receive(&tables, PortId(0), &long.udp(), 0);
    let sizes: Vec<_> = pieces.iter().map(|piece| piece.frame.len() - 14).collect();
    assert_eq!(sizes, [996, 252]);
    assert_eq!((pieces[0].frame[20], pieces[1].frame[20], pieces[1].frame[21]), (0x20, 0, 122));
}

#[test]
fn pieces_leave_together_in_their_sizes() {
    let mut long = frame("10.1.0.5:9", "192.168.10.9:80");
    (long.dont_fragment, long.payload) = (false, vec![7; 1000]);
    let whole = long.udp();
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for (offset, size, more) in [(0_usize, 400, 0x20_u8), (400, 400, 0x20), (800, 208, 0)] {
        let mut piece = whole[..34].to_vec();
        piece[16..18].copy_from_slice(&u16::try_from(20 + size).unwrap().to_be_bytes());
        piece[20..22].copy_from_slice(&[more, u8::try_from(offset / 8).unwrap()]);
        dataplane::packet::checksum::fill_header(&mut piece[14..]);
        piece.extend(&whole[34 + offset..34 + offset + size]);
        pieces.push(piece);
    }
    let (mut host, tables) = (Host::default(), Tables::new());
    assert!(host.receive(&tables, PortId(0), &pieces[2], 0).is_empty());
    assert!(host.receive(&tables, PortId(0), &pieces[0], 0).is_empty());
    let out = host.receive(&tables, PortId(0), &pieces[1], 0);
    let sizes: Vec<_> = out.iter().map(|piece| piece.frame.len()).collect();
    assert_eq!(sizes, pieces.iter().map(Vec::len).collect::<Vec<_>>());
    assert!(
        out.iter().zip(&pieces).all(|(out, piece)| out.frame[34..] == piece[34..] && out.frame[22] == 63)
    );
}

#[test]
fn version_six_answers_too() {
    let reset = emitted(&frame("[2001:db8:1::5]:3000", "[2001:db8::100]:80").tcp(ACK));
    assert_eq!((reset[0].frame[21], reset[0].frame[67]), (64, RST));
    let refused = emitted(&frame("[2001:db8:1::5]:3000", "[2001:db8::100]:80").udp());
    assert_eq!(refused[0].frame[54..56], [1, 4]);
    let routed = emitted(&frame("[2001:db8:1::5]:3000", "[fd00:10::3]:80").tcp(SYN));
    assert_eq!((routed[0].link, routed[0].frame[5], routed[0].frame[21]), (1, 3, 63));
    let reply = emitted(&frame("[2001:db8::100]:80", "[2001:db8:1::5]:3000").tcp(SYN | ACK));
    assert_eq!(reply.len(), 1, "no martians in IPv6");
}

proptest! {
    #[test]
    fn any_frame_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in prop::sample::select(vec![0x45_u8, 0x60, 0x4f, 0x40]), right in any::<bool>()) {
        let mut frame = [&MACS[0][..], &[2, 0, 0, 0, 0, 0xfe, 8, 0, kind], &bytes].concat();
        if right && frame.len() >= 34 {
            let total = u16::try_from(frame.len() - 14).unwrap();
            frame[16..18].copy_from_slice(&total.to_be_bytes());
            let header = usize::from(kind & 15) * 4;
            if header >= 20 && frame.len() >= 14 + header {
                dataplane::packet::checksum::fill_header(&mut frame[14..14 + header]);
            }
        }
        let (mut host, tables) = (Host::default(), Tables::new());
        let _ = host.receive(&tables, PortId(0), &frame, 0);
        let _ = host.receive(&tables, PortId(0), &frame, 5);
    }
}
