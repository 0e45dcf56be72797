//! FTP through VS/NAT: what is said on a control connection opens the way for its data connections, on whatever worker.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail")]

mod gateway;

use dataplane::bench::{Frame, Outcome};
use dataplane::counters::DropReason;
use dataplane::id::WorkerId;
use dataplane::packet::{HeapPacket, checksum, tcp};
use dataplane::snapshot::Method;
use dataplane::steering::Steering;
use gateway::*;

const CONTROL: &str = "10.0.0.100:21";
const CLIENT: &str = "10.1.0.5:1024";
const SERVER: &str = "192.168.10.3:21";

/// A control connection and its ends' sequence numbers.
struct Session {
    gateway: Gateway,
    client: u32,
    server: u32,
    turn: usize,
}

/// A segment with these numbers.
fn segment(frame: &Frame, flags: u8, sequence: u32, acknowledged: u32, text: &str) -> Vec<u8> {
    let mut frame = Frame { payload: text.as_bytes().to_vec(), ..frame.clone() }.tcp(flags);
    frame[38..42].copy_from_slice(&sequence.to_be_bytes());
    frame[42..46].copy_from_slice(&acknowledged.to_be_bytes());
    frame[50..52].fill(0);
    let length = u16::try_from(frame.len() - 34).unwrap();
    let pseudo = checksum::add(checksum::sum(&frame[26..34]), checksum::add(6, length));
    let sum = !checksum::add(pseudo, checksum::sum(&frame[34..]));
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn word(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
}

/// Everything that leaves has right lengths and checksums.
fn well_formed(frame: &[u8]) {
    assert!(checksum::header_valid(&frame[14..34]));
    let length = u16::from_be_bytes([frame[16], frame[17]]);
    assert_eq!(frame.len(), 14 + usize::from(length));
    let pseudo = checksum::add(checksum::sum(&frame[26..34]), checksum::add(6, length - 20));
    assert_eq!(checksum::add(pseudo, checksum::sum(&frame[34..])), 0xffff);
}

impl Session {
    fn new(workers: u8, steering: Steering) -> Self {
        let mut gateway = Gateway::of(workers, steering);
        gateway.service(key(6, VIP, 21));
        gateway.destination(key(6, VIP, 21), server(3), 21, Method::Masquerade);
        let mut session = Self { gateway, client: 1000, server: 1999, turn: 0 };
        session.passes(CLIENTS, &segment(&request(CLIENT, CONTROL), tcp::SYN, 1000, 0, ""));
        session.passes(SERVERS, &segment(&answer(SERVER, CLIENT), tcp::SYN | tcp::ACK, 1999, 1001, ""));
        (session.client, session.server) = (1001, 2000);
        session.client_says("");
        session
    }

    /// What comes out when a frame comes in by whatever worker.
    fn passes(&mut self, port: dataplane::id::PortId, frame: &[u8]) -> Vec<u8> {
        self.turn += 1;
        match self.gateway.receive_on(self.turn, port, frame).as_slice() {
            [Outcome::Transmitted(_, frame)] => {
                well_formed(frame);
                frame.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    fn client_says(&mut self, text: &str) -> Vec<u8> {
        let frame = segment(&request(CLIENT, CONTROL), tcp::ACK | tcp::PSH, self.client, self.server, text);
        self.client += u32::try_from(text.len()).unwrap();
        self.passes(CLIENTS, &frame)
    }

    /// The text that reaches the client.
    fn server_says(&mut self, text: &str) -> String {
        let frame = segment(&answer(SERVER, CLIENT), tcp::ACK | tcp::PSH, self.server, self.client, text);
        self.server += u32::try_from(text.len()).unwrap();
        let out = self.passes(SERVERS, &frame);
        String::from_utf8(out[54..].to_vec()).unwrap()
    }

    /// A data connection from the client: where it leads.
    fn connects_to(&mut self, from: &str, to: &str) -> Option<([u8; 4], u16)> {
        self.turn += 1;
        let frame = request(from, to).tcp(tcp::SYN);
        match self.gateway.receive_on(self.turn, CLIENTS, &frame).as_slice() {
            [Outcome::Transmitted(_, sent)] => {
                Some((sent[30..34].try_into().unwrap(), u16::from_be_bytes([sent[36], sent[37]])))
            }
            _ => None,
        }
    }
}

fn each(test: impl Fn(Session)) {
    for (workers, steering) in [(1, Steering::Client), (4, Steering::Client), (4, Steering::Flow)] {
        test(Session::new(workers, steering));
    }
}

#[test]
fn a_passive_data_connection_is_expected_where_the_virtual_address_says() {
    each(|mut session| {
        assert_eq!(session.connects_to("10.1.0.5:1025", "10.0.0.100:40000"), None, "not before");
        session.client_says("PASV\r\n");
        let text = session.server_says("227 Entering Passive Mode (192,168,10,3,156,64).\r\n");
        assert_eq!(text, "227 Entering Passive Mode (10,0,0,100,156,64).\r\n");
        let server = Some(([192, 168, 10, 3], 40_000));
        assert_eq!(session.connects_to("10.1.0.5:1025", "10.0.0.100:40000"), server);
        assert_eq!(session.connects_to("10.1.0.5:1025", "10.0.0.100:40000"), server, "its own from now on");
        assert_eq!(session.connects_to("10.1.0.5:1026", "10.0.0.100:40000"), None, "only one is expected");
        assert_eq!(session.connects_to("10.1.0.6:1025", "10.0.0.100:40000"), None, "and of this client");
        let back = answer("192.168.10.3:40000", "10.1.0.5:1025").tcp(tcp::SYN | tcp::ACK);
        let out = session.passes(SERVERS, &back);
        assert_eq!((&out[26..30], u16::from_be_bytes([out[34], out[35]])), (&[10, 0, 0, 100][..], 40_000));
    });
}

#[test]
fn numbers_follow_the_changed_text_and_a_retransmission_is_changed_again() {
    each(|mut session| {
        session.client_says("PASV\r\n");
        let answer_at = session.server;
        let said = "227 Entering Passive Mode (192,168,10,3,156,64)\r\n";
        let first = session.server_says(said);
        session.server = answer_at;
        assert_eq!(session.server_says(said), first);
        let next = segment(&answer(SERVER, CLIENT), tcp::ACK, session.server, session.client, "150 ok\r\n");
        let out = session.passes(SERVERS, &next);
        assert_eq!(word(&out, 38), session.server - 2);
        session.server += 8;
        let acknowledges = |number: u32, session: &Session| {
            segment(&request(CLIENT, CONTROL), tcp::ACK, session.client, number, "")
        };
        let all = acknowledges(session.server - 2, &session);
        let out = session.passes(CLIENTS, &all);
        assert_eq!(word(&out, 42), session.server);
        let too_much = acknowledges(session.server - 1, &session);
        assert_eq!(session.gateway.receive(CLIENTS, &too_much), []);
        assert_eq!(session.gateway.director.dropped(DropReason::OutOfWindow), 1);
    });
}

/// The same segment with a wrong checksum.
fn corrupt(mut frame: Vec<u8>) -> Vec<u8> {
    frame[51] ^= 0x10;
    frame
}

#[test]
fn a_segment_with_a_wrong_checksum_is_neither_believed_nor_sent_on() {
    each(|mut session| {
        let says = |session: &Session, text| {
            segment(&request(CLIENT, CONTROL), tcp::ACK, session.client, session.server, text)
        };
        let pasv = corrupt(says(&session, "PASV\r\n"));
        assert_eq!(session.gateway.receive(CLIENTS, &pasv), []);
        let port = corrupt(says(&session, "PORT 10,1,0,5,200,10\r\n"));
        assert_eq!(session.gateway.receive(CLIENTS, &port), []);
        let text = "227 Entering Passive Mode (192,168,10,3,156,64)\r\n";
        let before = session.server;
        assert_eq!(session.server_says(text), text, "nobody has asked");
        session.server = before;
        session.client_says("PASV\r\n");
        let answered = segment(&answer(SERVER, CLIENT), tcp::ACK, session.server, session.client, text);
        assert_eq!(session.gateway.receive(SERVERS, &corrupt(answered)), []);
        assert_eq!(session.connects_to("10.1.0.5:1025", "10.0.0.100:40000"), None);
        assert_eq!(session.connects_to("10.1.0.5:51210", "10.0.0.100:20"), None);
        assert_eq!(session.server_says(text), "227 Entering Passive Mode (10,0,0,100,156,64)\r\n");
        assert_eq!(session.gateway.director.dropped(DropReason::TcpChecksum), 3);
        session.gateway.check();
    });
}

/// A 227 in a segment that fills a link of this MTU, which `(1,1,1,1,156,64)` would exceed with the virtual address in it.
fn longest(mtu: usize, session: &Session) -> Frame {
    let mut text = b"227 Entering Passive Mode (1,1,1,1,156,64)".to_vec();
    text.resize(mtu - 42, b' ');
    text.extend(b"\r\n");
    let text = String::from_utf8(text).unwrap();
    let frame = segment(&answer(SERVER, CLIENT), tcp::ACK, session.server, session.client, &text);
    assert_eq!(frame.len(), 14 + mtu);
    Frame { payload: text.into_bytes(), ..answer(SERVER, CLIENT) }
}

#[test]
fn an_answer_that_would_outgrow_the_clients_link_is_asked_for_in_shorter_segments() {
    each(|mut session| {
        session.gateway.set_mtu([600, 1500]);
        session.client_says("PASV\r\n");
        let text = String::from_utf8(longest(600, &session).payload).unwrap();
        let frame = |text: &str, session: &Session| {
            segment(&answer(SERVER, CLIENT), tcp::ACK, session.server, session.client, text)
        };
        for _ in 0..2 {
            let given = frame(&text, &session);
            match session.gateway.receive(SERVERS, &given).as_slice() {
                [Outcome::Transmitted(SERVERS, error)] => {
                    // ICMP 3/4: three bytes fewer than the link takes, about the packet as it came.
                    assert_eq!((error[34], error[35], &error[40..42]), (3, 4, &597_u16.to_be_bytes()[..]));
                    assert_eq!(error[42..70], given[14..42]);
                }
                other => panic!("{other:?}"),
            }
        }
        let (first, rest) = text.split_at(557);
        let first = session.server_says(first);
        assert!(first.starts_with("227 Entering Passive Mode (10,0,0,100,156,64) "), "{first}");
        assert_eq!(session.server_says(rest), rest);
        session.gateway.check();
    });
}

#[test]
fn an_answer_that_outgrows_the_clients_link_and_may_be_cut_is_cut() {
    let mut session = Session::new(1, Steering::Client);
    session.gateway.set_mtu([600, 1500]);
    session.client_says("PASV\r\n");
    let frame = longest(600, &session);
    let mut whole = segment(
        &Frame { dont_fragment: false, ..frame.clone() },
        tcp::ACK,
        session.server,
        session.client,
        std::str::from_utf8(&frame.payload).unwrap(),
    );
    checksum::fill_header(&mut whole[14..34]);
    let out = session.gateway.receive(SERVERS, &whole);
    let lengths = |outcome: &Outcome| match outcome {
        Outcome::Transmitted(CLIENTS, frame) => frame.len() - 14,
        other => panic!("{other:?}"),
    };
    assert_eq!(out.iter().map(lengths).collect::<Vec<_>>(), [596, 27]);
    session.gateway.check();
}

#[test]
fn numbers_are_shifted_in_segments_whose_text_is_not_read() {
    let mut session = Session::new(1, Steering::Client);
    session.client_says("PASV\r\n");
    session.server_says("227 Entering Passive Mode (192,168,10,3,156,64)\r\n");
    // Two buffers, as a long segment comes on a link with a long MTU.
    let frame = segment(&answer(SERVER, CLIENT), tcp::ACK, session.server, session.client, "150 ok\r\n");
    let chained = HeapPacket::chained(&frame[..57], &[&frame[57..]]);
    session.gateway.director.receive(WorkerId(0), SERVERS, [chained]);
    match session.gateway.director.take_outcomes().as_slice() {
        [Outcome::Transmitted(CLIENTS, out)] => {
            well_formed(out);
            assert_eq!(word(out, 38), session.server - 2);
        }
        other => panic!("{other:?}"),
    }
    // In fragments.
    let said = segment(
        &Frame { dont_fragment: false, ..request(CLIENT, CONTROL) },
        tcp::ACK,
        session.client,
        session.server + 6,
        "NOOP\r\n",
    );
    let [first, second] = [(34..58, 0x2000_u16), (58..60, 3)].map(|(part, bits)| {
        let mut piece = [&said[..34], &said[part]].concat();
        let length = u16::try_from(piece.len() - 14).unwrap();
        piece[16..18].copy_from_slice(&length.to_be_bytes());
        piece[20..22].copy_from_slice(&bits.to_be_bytes());
        checksum::fill_header(&mut piece[14..34]);
        piece
    });
    assert_eq!(session.gateway.receive(CLIENTS, &second), []);
    match session.gateway.receive(CLIENTS, &first).as_slice() {
        [Outcome::Transmitted(SERVERS, first), Outcome::Transmitted(SERVERS, _)] => {
            assert_eq!(word(first, 42), session.server + 8);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn extended_commands_and_active_connections() {
    each(|mut session| {
        session.client_says("EPSV\r\n");
        let text = "229 Entering Extended Passive Mode (|||40001|)\r\n";
        assert_eq!(session.server_says(text), text);
        assert_eq!(
            session.connects_to("10.1.0.5:1030", "10.0.0.100:40001"),
            Some(([192, 168, 10, 3], 40_001))
        );
        for (command, port) in [("PORT 10,1,0,5,200,10\r\n", 51_210), ("EPRT |1|10.1.0.5|51211|\r\n", 51_211)]
        {
            session.client_says(command);
            let client = format!("10.1.0.5:{port}");
            let out = session.passes(SERVERS, &answer("192.168.10.3:20", &client).tcp(tcp::SYN));
            assert_eq!((&out[26..30], u16::from_be_bytes([out[34], out[35]])), (&[10, 0, 0, 100][..], 20));
            let there = session.connects_to(&client, "10.0.0.100:20");
            assert_eq!(there, Some(([192, 168, 10, 3], 20)));
        }
    });
}

#[test]
fn an_answer_that_nobody_asked_for_stays_as_it_is() {
    each(|mut session| {
        let text = "227 Entering Passive Mode (192,168,10,3,156,64)\r\n";
        assert_eq!(session.server_says(text), text);
        assert_eq!(session.connects_to("10.1.0.5:1025", "10.0.0.100:40000"), None);
    });
}

#[test]
fn a_control_connection_outlives_a_long_transfer() {
    each(|mut session| {
        session.client_says("PASV\r\n");
        session.server_says("227 Entering Passive Mode (192,168,10,3,156,64)\r\n");
        session.connects_to("10.1.0.5:1025", "10.0.0.100:40000").unwrap();
        let data = answer("192.168.10.3:40000", "10.1.0.5:1025");
        session.passes(SERVERS, &data.clone().tcp(tcp::SYN | tcp::ACK));
        session.passes(CLIENTS, &request("10.1.0.5:1025", "10.0.0.100:40000").tcp(tcp::ACK));
        for _ in 0..80 {
            session.gateway.director.leap(30_000);
            session.gateway.director.pass(2);
            session.passes(SERVERS, &data.clone().tcp(tcp::ACK));
        }
        assert_eq!(session.server_says("226 done\r\n"), "226 done\r\n");
        let quit =
            segment(&request(CLIENT, CONTROL), tcp::ACK, session.client, session.server - 2, "QUIT\r\n");
        session.passes(CLIENTS, &quit);
    });
}

#[test]
fn what_is_expected_is_forgotten_after_two_minutes() {
    each(|mut session| {
        session.client_says("PASV\r\n");
        session.server_says("227 Entering Passive Mode (192,168,10,3,156,64)\r\n");
        session.gateway.director.leap(121_000);
        session.gateway.director.pass(10);
        assert_eq!(session.connects_to("10.1.0.5:1025", "10.0.0.100:40000"), None);
        session.gateway.check();
    });
}
