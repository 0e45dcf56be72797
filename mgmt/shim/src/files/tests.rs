use super::*;

#[test]
fn the_six_files_are_known_by_all_their_paths() {
    for name in NAMES {
        for directory in [
            "/proc/net",
            "/proc/self/net",
            "/proc/thread-self/net",
            "/proc/4711/net",
            "/proc/4711/task/4712/net",
            "/proc/self/task/1/net",
            "//proc//net/",
            "/proc/./self/net/.",
        ] {
            assert_eq!(named(format!("{directory}/{name}").as_bytes()), Some(name), "{directory}/{name}");
        }
    }
}

#[test]
fn nothing_else_is() {
    for path in [
        "",
        "/",
        "ip_vs",
        "proc/net/ip_vs",
        "/proc/net",
        "/proc/net/tcp",
        "/proc/net/ip_vs_",
        "/proc/net/ip_vs/x",
        "/proc/ip_vs",
        "/net/ip_vs",
        "/x/proc/net/ip_vs",
        "/proc/x1/net/ip_vs",
        "/proc//task/1/net/ip_vs/",
        "/proc/1/2/net/ip_vs",
        "/proc/a/task/1/net/ip_vs",
        "/a/b/proc/1/task/1/net/ip_vs",
        "/proc/../net/ip_vs",
        "/tmp/net/ip_vs",
    ] {
        assert_eq!(named(path.as_bytes()), None, "{path}");
    }
    assert!(might_be(b"ip_vs") && might_be(b"x/ip_vs_conn") && !might_be(b"ip_vs/x") && !might_be(b""));
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(body);
    message
}

#[test]
fn a_datagram_is_taken_apart() {
    let mut datagram = message(TEXT, b"abc");
    datagram.resize(datagram.len().next_multiple_of(4), 0);
    datagram.extend(message(NLMSG_DONE, &[0; 4]));
    let mut left = datagram.as_slice();
    assert_eq!(take(&mut left), Some(Piece::Text(b"abc")));
    assert_eq!(take(&mut left), Some(Piece::Done));
    assert!(left.is_empty());
}

#[test]
fn errors_are_errno_and_zero_is_an_acknowledgement() {
    let error = |value: i32| message(NLMSG_ERROR, &value.to_ne_bytes());
    assert_eq!(take(&mut error(0).as_slice()), Some(Piece::Done));
    assert_eq!(take(&mut error(-libc::ENOENT).as_slice()), Some(Piece::Failed(libc::ENOENT)));
    assert_eq!(take(&mut error(i32::MIN).as_slice()), Some(Piece::Failed(libc::EPROTO)));
    assert_eq!(take(&mut message(NLMSG_ERROR, &[1]).as_slice()), None);
}

#[test]
fn lengths_that_lie_are_refused() {
    for length in [0_u32, 1, 15, 17, 1000, u32::MAX] {
        let mut bent = message(TEXT, b"");
        bent[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(take(&mut bent.as_slice()), None, "{length}");
    }
    assert_eq!(take(&mut message(99, b"abc").as_slice()), None);
    for length in 0..HEADER {
        assert_eq!(take(&mut &message(TEXT, b"")[..length]), None);
    }
}

#[test]
fn the_request_is_a_netlink_message_with_the_name() {
    let request = request("ip_vs_conn");
    assert_eq!(take(&mut request.as_slice()), Some(Piece::Text(b"ip_vs_conn")));
    assert_eq!(request.len(), 26);
}
