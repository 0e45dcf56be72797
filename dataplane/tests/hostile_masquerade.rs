//! VS/NAT under truncated, malformed and lying frames from clients and servers, control connections of FTP and SCTP among them: no
//! panic, every packet accounted for, everything forgotten in the end. `UVS_FRAMES` says how many (default 150,000).

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test figures are small, helpers may fail"
)]

mod gateway;
mod random;

use dataplane::bench::{DirectorConfig, Frame, Outcome};
use dataplane::id::{PortId, WorkerId};
use dataplane::packet::{HeapPacket, checksum, tcp};
use dataplane::snapshot::{Method, Settings};
use dataplane::steering::Steering;
use gateway::*;
use random::{Random, bend};

const VIP6: &str = "2001:db8::100";
const SERVER6: &str = "fd00:10::3";

/// What is said on control connections: right, wrong, cut and of numbers at the edge.
const TEXTS: [&str; 16] = [
    "",
    "USER x\r\n",
    "PASV\r\n",
    "EPSV\r\n",
    "EPSV 1\r\n",
    "PORT 10,1,0,5,200,10\r\n",
    "PORT 255,255,255,255,255,255\r\n",
    "PORT 10,1,0,5,",
    "EPRT |1|10.1.0.5|51211|\r\n",
    "EPRT |2|2001:db8:1::5|51211|\r\n",
    "227 Entering Passive Mode (192,168,10,3,156,64)\r\n",
    "227 (1,1,1,1,1,1)\r\n",
    "227 (255,255,255,255,255,255)",
    "227 (0,0,0,0,0,0)\r\n",
    "229 Entering Extended Passive Mode (|||40001|)\r\n",
    "229 (|||65535|)",
];

/// Ends of a conversation: client, virtual end, server.
fn ends(protocol: u8, v6: bool, random: &mut Random) -> [String; 3] {
    let (service, real) = match protocol {
        17 => (53, 5353),
        132 => (80, 8080),
        _ => [(80, 8080), (21, 21), (21, 21), (20, 20), (40_000, 40_000), (40_001, 40_001)][random.below(6)],
    };
    let port = 1024 + random.below(40);
    if v6 {
        let client = format!("[2001:db8:1::5]:{port}");
        [client, format!("[{VIP6}]:{service}"), format!("[{SERVER6}]:{real}")]
    } else {
        [format!("10.1.0.5:{port}"), format!("{VIP}:{service}"), format!("192.168.10.3:{real}")]
    }
}

/// Fills in numbers that conversations share, and the checksum.
fn segment(frame: Frame, flags: u8, random: &mut Random) -> Vec<u8> {
    let v6 = frame.source.is_ipv6();
    let transport = if v6 { 54 } else { 34 };
    let mut frame = frame.tcp(flags);
    let number = |random: &mut Random| [0_u32, 1000, 1001, 1007, 2000, 2049, u32::MAX][random.below(7)];
    for at in [4, 8] {
        frame[transport + at..][..4].copy_from_slice(&number(random).to_be_bytes());
    }
    frame[transport + 16..][..2].fill(0);
    let addresses = if v6 { 22..54 } else { 26..34 };
    let length = (frame.len() - transport) as u16;
    let pseudo = checksum::add(checksum::sum(&frame[addresses]), checksum::add(6, length));
    let sum = !checksum::add(pseudo, checksum::sum(&frame[transport..]));
    frame[transport + 16..][..2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// A frame as clients and servers send them, and the port it comes in by.
fn honest(random: &mut Random) -> (PortId, Vec<u8>) {
    let protocol = [6, 6, 6, 17, 132][random.below(5)];
    let [client, virtual_end, server] = ends(protocol, random.below(4) == 0, random);
    let (port, frame) = if random.below(2) == 0 {
        (CLIENTS, request(&client, &virtual_end))
    } else {
        (SERVERS, answer(&server, &client))
    };
    let control = virtual_end.ends_with(":21");
    let payload = match protocol {
        132 => {
            let chunk = [0, 1, 2, 6, 7, 8, 9, 10, 11, 14][random.below(10)];
            let mut payload = vec![chunk, 0, 0, 4];
            payload.resize(random.below(80), 7);
            payload
        }
        _ if control && random.below(8) > 0 => TEXTS[random.below(TEXTS.len())].as_bytes().to_vec(),
        _ => vec![random.next() as u8; random.below(1500)],
    };
    let ttl = [1, 2, 64, 64, 64][random.below(5)];
    let frame = Frame { payload, ttl, dont_fragment: random.below(2) == 0, ..frame };
    let bytes = match protocol {
        17 => {
            let mut bytes = frame.udp();
            if random.below(3) == 0 {
                let field = if bytes[14] == 0x45 { 40 } else { 60 };
                bytes[field..field + 2].fill(0);
            }
            bytes
        }
        132 => frame.sctp(),
        _ => {
            let flags = [tcp::SYN, tcp::SYN | tcp::ACK, tcp::ACK, tcp::ACK | tcp::PSH, tcp::FIN | tcp::ACK];
            segment(frame, flags[random.below(5)], random)
        }
    };
    (port, bytes)
}

/// An IPv4 frame's packet in fragments, in either order.
fn fragments(frame: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let (most, id) = (8 * (1 + random.below(12)), random.below(5) as u16);
    let data = &frame[34..];
    let fragment = |(index, part): (usize, &[u8])| {
        let mut fragment = [&frame[..34], part].concat();
        let more = if (index + 1) * most < data.len() { 0x2000 } else { 0 };
        let bits = (index * most / 8) as u16 | more;
        fragment[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        fragment[18..20].copy_from_slice(&id.to_be_bytes());
        fragment[20..22].copy_from_slice(&bits.to_be_bytes());
        checksum::fill_header(&mut fragment[14..34]);
        fragment
    };
    let mut fragments: Vec<_> = data.chunks(most).enumerate().map(fragment).collect();
    if random.below(2) == 0 {
        fragments.reverse();
    }
    fragments
}

#[test]
fn neither_clients_nor_servers_break_the_engine() {
    let frames: u64 =
        std::env::var("UVS_FRAMES").ok().and_then(|count| count.parse().ok()).unwrap_or(150_000);
    for (workers, steering) in [(1, Steering::Client), (3, Steering::Flow)] {
        let config = DirectorConfig {
            workers,
            steering,
            connections: 512,
            fragments: 32,
            ..DirectorConfig::default()
        };
        let mut gateway = Gateway::new(config);
        let mut slots = Vec::new();
        for (address, real) in [(VIP, server(3)), (VIP6, ip(SERVER6))] {
            for (protocol, port, real_port) in [(6, 80, 8080), (6, 21, 21), (17, 53, 5353), (132, 80, 8080)] {
                gateway.service(key(protocol, address, port));
                let slot =
                    gateway.destination(key(protocol, address, port), real, real_port, Method::Masquerade);
                slots.push(slot);
            }
        }
        gateway.settings(Settings { nat_icmp_send: true, sloppy_sctp: true, ..Settings::default() });
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut there, mut back) = (0_u64, 0_u64);
        for number in 0..frames / 2 {
            let (port, frame) = honest(&mut random);
            let given = match random.below(8) {
                0..=3 => vec![frame],
                4 if frame[14] == 0x45 => fragments(&frame, &mut random),
                _ => vec![bend(frame, &mut random)],
            };
            for frame in given {
                let packet = match random.below(16) {
                    0 if frame.len() > 60 => {
                        let (first, later) = frame.split_at(54 + random.below(frame.len() - 54));
                        HeapPacket::chained(first, &[later])
                    }
                    // No room behind it for a longer text.
                    1 => HeapPacket::with_room(&frame, 0),
                    _ => HeapPacket::new(&frame),
                };
                let worker = WorkerId(random.below(workers.into()) as u8);
                gateway.director.receive(worker, port, [packet]);
            }
            for outcome in gateway.director.take_outcomes() {
                match outcome {
                    Outcome::Transmitted(SERVERS, _) => there += 1,
                    Outcome::Transmitted(..) => back += 1,
                    Outcome::Punted(..) => {}
                }
            }
            if number % 64 == 0 {
                gateway.director.pass(1 + random.below(5) as u32);
            }
            if number % 4096 == 0 {
                gateway.director.leap(random.below(200_000) as u32);
                gateway.set_mtu([[1500, 600, 68, 1280][random.below(4)], 1500]);
                gateway.check();
            }
        }
        assert!(there > frames / 20 && back > frames / 20, "{there} {back}");
        gateway.director.leap(1_000_000);
        gateway.director.pass(60_000);
        gateway.check();
        for slot in slots {
            let totals = gateway.director.shared.destinations.totals(slot);
            assert_eq!((totals.active, totals.inactive), (0, 0), "{slot:?}");
        }
    }
}
