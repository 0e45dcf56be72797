//! The socket itself: borders of messages, bounds, clients that misbehave.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::testing::{IPVSADM, KEEPALIVED, Modelled, Served, bytes, cases};

fn info() -> Vec<u8> {
    bytes("1400000020000500010000002a0000000f010000")
}

fn send(client: &UnixStream, datagram: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(client, datagram, SendFlags::NOSIGNAL)
}

fn receive(client: &UnixStream) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 1 << 17];
    let (_, length) = rustix::net::recv(client, &mut buffer[..], RecvFlags::empty())?;
    buffer.truncate(length);
    Ok(buffer)
}

/// A client that is answered.
fn answers(served: &Served) {
    let client = served.client();
    send(&client, &info()).unwrap();
    assert_eq!(receive(&client).unwrap().len(), 36);
    assert_eq!(receive(&client).unwrap().len(), 36);
}

fn clients(served: &Served) -> u64 {
    served.server.occupancy().status().clients
}

fn wait_for_clients(served: &Served, count: u64) {
    let until = Instant::now() + Duration::from_secs(5);
    while clients(served) != count {
        assert!(Instant::now() < until, "{} clients, not {count}", clients(served));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_conversation_keeps_the_borders_of_its_messages() {
    let served = Served::new("borders", Arc::new(Modelled::default()));
    let client = served.client();
    for case in cases(KEEPALIVED).iter().chain(cases(IPVSADM).iter().take(5)) {
        for exchange in &case.exchanges {
            send(&client, &exchange.asked).unwrap();
            let mut answered = receive(&client).unwrap();
            while answered[4..6] != [2, 0] {
                answered = receive(&client).unwrap();
            }
            assert_eq!(answered[8..16], exchange.asked[8..16], "sequence and port come back");
        }
    }
}

#[test]
fn a_place_that_is_taken_is_given_back() {
    let served = Served::new("places", Arc::new(Modelled::default()));
    let held: Vec<UnixStream> = (0..8).map(|_| served.client()).collect();
    wait_for_clients(&served, 8);
    let ninth = served.client();
    assert_eq!(receive(&ninth).map(|read| read.len()), Ok(0));
    drop(held);
    wait_for_clients(&served, 0);
    answers(&served);
}

#[test]
fn the_client_that_was_silent_longest_gives_way() {
    let served = Served::sparing("spared", Arc::new(Modelled::default()), Duration::from_millis(50));
    let first = served.client();
    wait_for_clients(&served, 1);
    std::thread::sleep(Duration::from_millis(20));
    let second = served.client();
    wait_for_clients(&served, 2);
    std::thread::sleep(Duration::from_millis(20));
    let _others: Vec<UnixStream> = (0..6).map(|_| served.client()).collect();
    wait_for_clients(&served, 8);
    send(&first, &info()).unwrap();
    assert_eq!(receive(&first).unwrap().len(), 36);
    std::thread::sleep(Duration::from_millis(60));
    answers(&served);
    assert_eq!(receive(&second).map(|read| read.len()), Ok(0), "the longest silence");
    assert_eq!(receive(&first).unwrap().len(), 36, "it spoke since and keeps its place");
    send(&first, &info()).unwrap();
    assert_eq!(receive(&first).unwrap().len(), 36);
}

#[test]
fn oversize_ends_the_conversation_and_nothing_else() {
    let served = Served::new("oversize", Arc::new(Modelled::default()));
    let client = served.client();
    send(&client, &vec![0; 64 * 1024]).unwrap();
    assert!(matches!(receive(&client), Ok(rest) if rest.is_empty()));
    // As much as fits is read: it holds no request.
    let client = served.client();
    send(&client, &vec![0; 32 * 1024]).unwrap();
    send(&client, &info()).unwrap();
    assert_eq!(receive(&client).unwrap().len(), 36);
    answers(&served);
}

#[test]
fn a_client_that_does_not_read_holds_up_itself() {
    let served = Served::new("slow", Arc::new(Modelled::default()));
    let slow = served.client();
    slow.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let many = info().repeat(1500);
    while send(&slow, &many).is_ok() {}
    let started = Instant::now();
    answers(&served);
    assert!(started.elapsed() < Duration::from_secs(2));
    drop(slow);
    wait_for_clients(&served, 0);
}

#[test]
fn stopping_ends_clients_and_removes_the_socket() {
    let mut served = Served::new("stop", Arc::new(Modelled::default()));
    let client = served.client();
    wait_for_clients(&served, 1);
    served.server.stop();
    assert_eq!(receive(&client).map(|read| read.len()), Ok(0));
    assert!(!served.path().exists());
}
