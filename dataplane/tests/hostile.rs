//! Truncated, malformed and random frames: no panic, every packet accounted for. `UVS_FRAMES` says how many (default 300,000).

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test figures are small, helpers may fail"
)]

mod common;
mod random;

use common::*;
use dataplane::bench::{DirectorConfig, Frame, Outcome};
use dataplane::id::WorkerId;
use dataplane::packet::{HeapPacket, tcp};
use dataplane::snapshot::{SchedulerKind, ServiceKey};
use dataplane::steering::Steering;
use random::{Random, bend};
use std::net::SocketAddr;

fn honest(random: &mut Random) -> Vec<u8> {
    let client = (random.next() % 3000) as u16;
    let flags = random.next() as u8 & 0x3f;
    let mut frame = match random.below(3) {
        0 => from_client(client, 80),
        1 => from_client(client, 53),
        _ => {
            let source = SocketAddr::new(address("fd00::77"), 1024 + client);
            Frame::new(source, SocketAddr::new(address(VIP6), 80))
        }
    };
    frame.ttl = [0, 1, 2, 64, 255][random.below(5)];
    frame.dont_fragment = random.below(2) == 0;
    frame.payload = vec![random.next() as u8; random.below(1600)];
    match random.below(4) {
        0 => frame.udp(),
        1 => frame.ip(
            [1, 58, 4, 41, 50, 51, 132, 0, 43, 44, 60][random.below(11)],
            &vec![random.next() as u8; random.below(200)],
        ),
        2 => quoting(&frame, random),
        _ => frame.tcp(flags),
    }
}

/// An ICMP error that quotes something like a reply.
fn quoting(frame: &Frame, random: &mut Random) -> Vec<u8> {
    let reply = Frame::new(frame.destination, frame.source).tcp(tcp::ACK);
    let mut message = vec![[3, 4, 11, 12, 1, 2][random.below(6)], random.below(16) as u8, 0, 0, 0, 0, 5, 0];
    message.extend(&reply[14..14 + random.below(reply.len() - 14)]);
    frame.ip(if frame.source.is_ipv4() { 1 } else { 58 }, &message)
}

#[test]
fn nothing_on_the_wire_breaks_the_engine() {
    let frames: u64 =
        std::env::var("UVS_FRAMES").ok().and_then(|count| count.parse().ok()).unwrap_or(300_000);
    let config = DirectorConfig {
        workers: 2,
        steering: Steering::Flow,
        connections: 512,
        templates: 64,
        fragments: 32,
        ..DirectorConfig::default()
    };
    let mut lab = Lab::web(SchedulerKind::Wlc, Some(5), config);
    lab.service(udp_key(53), SchedulerKind::Wrr, None);
    lab.destination(udp_key(53), server(64), 3);
    let key = ServiceKey::Address { protocol: 6, address: address(VIP6), port: 80 };
    lab.service(key, SchedulerKind::Lc, None);
    lab.destination(key, address("fd00::64"), 1);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut forwarded, mut punted) = (0_u64, 0_u64);
    for number in 0..frames {
        let frame = match random.below(8) {
            0 => (0..random.below(120)).map(|_| random.next() as u8).collect(),
            1 => honest(&mut random),
            _ => {
                let honest = honest(&mut random);
                bend(honest, &mut random)
            }
        };
        let packet = match random.below(16) {
            0 if frame.len() > 2 => {
                let (first, later) = frame.split_at(1 + random.below(frame.len() - 1));
                HeapPacket::chained(first, &[later])
            }
            _ => HeapPacket::new(&frame),
        };
        lab.director.receive(WorkerId((number % 2) as u8), PORT, [packet]);
        for outcome in lab.director.take_outcomes() {
            match outcome {
                Outcome::Transmitted(..) => forwarded += 1,
                Outcome::Punted(..) => punted += 1,
            }
        }
        if number % 64 == 0 {
            lab.director.pass(1 + random.below(5) as u32);
        }
        if number % 4096 == 0 {
            lab.director.leap(random.below(200_000) as u32);
            lab.check();
        }
    }
    lab.leap_checked(1_000_000);
    // Templates that still controlled connections live on for a minute, as in the kernel.
    lab.leap_checked(60_000);
    assert!(forwarded > frames / 50 && punted > frames / 50, "{forwarded} {punted}");
    assert_eq!(lab.open_connections(), 0, "everything expires");
    for slot in (0..4).map(dataplane::id::DestinationSlot) {
        let totals = lab.director.shared.destinations.totals(slot);
        assert_eq!((totals.active, totals.inactive, totals.templates), (0, 0, 0), "{slot:?}");
    }
}
