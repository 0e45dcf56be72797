//! Several workers behind a NIC: whatever the NIC hashes, the same packets come out, and every flow stays on its server.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test figures are small, helpers may fail"
)]

mod common;

use common::*;
use dataplane::bench::{DirectorConfig, Frame, Outcome};
use dataplane::counters::Counter;
use dataplane::packet::{HeapPacket, tcp};
use dataplane::snapshot::SchedulerKind;
use dataplane::steering::Steering;
use dataplane::steering::nic::{Fields, SoftwareNic};
use std::collections::BTreeMap;

const CLIENTS: u16 = 400;

/// What a flow of a client's frames did, as a client would see it: the servers that got them.
type Servers = BTreeMap<u16, Vec<u8>>;

fn requests() -> Vec<Vec<u8>> {
    let mut frames: Vec<_> = (0..CLIENTS).map(syn).collect();
    frames.extend((0..CLIENTS).map(ack));
    frames.extend((0..CLIENTS).flat_map(|client| pieces(client, 3000)));
    frames.extend((0..CLIENTS).map(fin));
    frames
}

/// A UDP datagram of `length` bytes in pieces of 1480, the first one last.
fn pieces(client: u16, length: usize) -> Vec<Vec<u8>> {
    let mut frame = from_client(client, 53);
    frame.dont_fragment = false;
    frame.id = client;
    frame.payload = vec![client as u8; length];
    let whole = frame.clone().udp();
    let data = &whole[34..];
    let mut pieces: Vec<_> = data
        .chunks(1480)
        .enumerate()
        .map(|(index, chunk)| {
            let mut piece = frame.ip(17, chunk);
            let offset = u16::try_from(index * 1480 / 8).unwrap();
            let more = if (index + 1) * 1480 < data.len() { 0x2000 } else { 0 };
            piece[20..22].copy_from_slice(&(offset | more).to_be_bytes());
            dataplane::packet::checksum::fill_header(&mut piece[14..34]);
            piece
        })
        .collect();
    pieces.reverse();
    pieces
}

fn lab(workers: u8, steering: Steering) -> Lab {
    let config = DirectorConfig { workers, steering, ..DirectorConfig::default() };
    let mut lab = Lab::web(SchedulerKind::Rr, None, config);
    lab.service(udp_key(53), SchedulerKind::Rr, None);
    lab.destination(udp_key(53), server(64), 1);
    lab.destination(udp_key(53), server(68), 1);
    lab
}

/// Sends everything through the NIC and returns the frames that came out, and which servers each client's TCP frames reached.
fn run(lab: &mut Lab, nic: &SoftwareNic) -> (Vec<Vec<u8>>, Servers) {
    let mut sent = Vec::new();
    for frame in requests() {
        let mut packet = HeapPacket::new(&frame);
        let queue = nic.receive(&mut packet);
        lab.director.receive(queue, PORT, [packet]);
        for outcome in lab.director.take_outcomes() {
            let Outcome::Transmitted(_, frame) = outcome else { panic!("{outcome:?}") };
            sent.push(frame);
        }
    }
    lab.check();
    let mut servers = Servers::new();
    for frame in sent.iter().filter(|frame| frame[23] == 6) {
        let client = u16::from_be_bytes([frame[28], frame[29]]);
        servers.entry(client).or_default().push(frame[5]);
    }
    let mut bytes: Vec<_> = sent.iter().map(|frame| frame[12..].to_vec()).collect();
    bytes.sort_unstable();
    (bytes, servers)
}

#[test]
fn the_same_packets_come_out_whatever_the_nic_does() {
    let one_nic = SoftwareNic::for_workers(1, Fields::None);
    let (expected, _) = run(&mut lab(1, Steering::Client), &one_nic);
    assert_eq!(expected.len(), requests().len());
    println!("workers  steering  NIC          redirected  of which fragments");
    for workers in [1_u8, 2, 4, 8] {
        for steering in [Steering::Client, Steering::Flow] {
            for fields in Fields::ALL {
                let mut lab = lab(workers, steering);
                let (bytes, servers) = run(&mut lab, &SoftwareNic::for_workers(workers, fields));
                assert_eq!(bytes, expected, "{workers} workers, {steering:?}, {fields:?}");
                assert_eq!(servers.len(), usize::from(CLIENTS));
                for (client, servers) in servers {
                    assert!(
                        servers.iter().all(|server| *server == servers[0]),
                        "client {client}: {servers:?}"
                    );
                }
                let percent = |counter| {
                    lab.director.count(counter) as f64 * 100.0 / lab.director.count(Counter::Received) as f64
                };
                println!(
                    "{workers:>7}  {steering:<8}  {fields:<11}  {:>8.1} %  {:>16.1} %",
                    percent(Counter::RedirectedOut),
                    percent(Counter::RedirectedFragments),
                    steering = format!("{steering:?}"),
                    fields = format!("{fields:?}"),
                );
            }
        }
    }
}

#[test]
fn a_nic_that_hashes_what_the_steering_wants_causes_no_redirect() {
    for (steering, fields) in [(Steering::Client, Fields::Source), (Steering::Flow, Fields::Flow)] {
        let config = DirectorConfig { workers: 4, steering, trusted_rss: true, ..DirectorConfig::default() };
        let mut lab = Lab::web(SchedulerKind::Wlc, None, config);
        let nic = SoftwareNic::for_workers(4, fields);
        for frame in (0..CLIENTS).flat_map(|client| [syn(client), ack(client), fin(client)]) {
            let mut packet = HeapPacket::new(&frame);
            let queue = nic.receive(&mut packet);
            lab.director.receive(queue, PORT, [packet]);
        }
        lab.check();
        assert_eq!(lab.director.count(Counter::RedirectedOut), 0, "{steering:?}");
        assert_eq!(lab.director.count(Counter::Forwarded), 3 * u64::from(CLIENTS));
    }
}

#[test]
fn thresholds_and_persistence_hold_over_workers() {
    let config = DirectorConfig { workers: 4, ..DirectorConfig::default() };
    let mut lab = Lab::new(config);
    lab.service(tcp_key(80), SchedulerKind::Wlc, Some(300));
    for last in [64, 68] {
        let spec = dataplane::snapshot::editor::DestinationSpec {
            upper: 50,
            ..dataplane::snapshot::editor::DestinationSpec::new(server(last), 80, 1)
        };
        lab.destination_with(tcp_key(80), spec);
    }
    let nic = SoftwareNic::for_workers(4, Fields::None);
    let mut chosen = BTreeMap::<u16, u8>::new();
    for round in 0..3 {
        for client in 0..200 {
            let mut frame: Frame = from_client(client, 80);
            frame.source.set_port(2000 + round * 1000 + client);
            let mut packet = HeapPacket::new(&frame.tcp(tcp::SYN));
            let queue = nic.receive(&mut packet);
            lab.director.receive(queue, PORT, [packet]);
            for outcome in lab.director.take_outcomes() {
                let Outcome::Transmitted(_, sent) = outcome else { continue };
                if sent[23] == 6 {
                    assert_eq!(
                        *chosen.entry(client).or_insert(sent[5]),
                        sent[5],
                        "client {client} left its server"
                    );
                }
            }
        }
        lab.check();
    }
    assert_eq!(
        chosen.len(),
        100,
        "two servers of 50 take 100 clients, and templates bring those back above the threshold"
    );
}
