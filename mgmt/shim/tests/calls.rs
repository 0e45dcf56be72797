//! The calls themselves: this test runs itself again with the library preloaded, once for each program below, and that
//! child then uses sockets as netlink programs do.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::multiple_unsafe_ops_per_block,
    clippy::tests_outside_test_module
)]

mod common;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use common::{FAMILY, StandIn};

const PROGRAM: &str = "UVS_SHIM_TEST_PROGRAM";
const NETLINK_GENERIC: i32 = 16;

/// Runs test `name` of this file again, preloaded; there [`preloaded`] is true. The child's failure is ours.
fn run(director: &StandIn, name: &str) {
    let test = std::env::current_exe().unwrap();
    let output = std::process::Command::new(test)
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env("LD_PRELOAD", common::library())
        .env("UVS_IPVS_SOCKET", director.socket())
        .env(PROGRAM, name)
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// True in the child that runs test `name`.
fn preloaded(name: &str) -> bool {
    std::env::var(PROGRAM).is_ok_and(|program| program == name)
}

fn netlink(kind: i32) -> OwnedFd {
    // SAFETY: makes a descriptor of numbers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, NETLINK_GENERIC) };
    assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
    // SAFETY: new, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn raw() -> OwnedFd {
    netlink(libc::SOCK_RAW | libc::SOCK_CLOEXEC)
}

/// A message of `kind` with `body` behind the header.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    // REQUEST and ACK.
    bytes.extend(5_u16.to_ne_bytes());
    bytes.extend(7_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn look_up(name: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 1, 0, 0];
    body.extend(((4 + name.len() + 1) as u16).to_ne_bytes());
    body.extend(2_u16.to_ne_bytes());
    body.extend(name);
    body.push(0);
    body.resize(body.len().next_multiple_of(4), 0);
    message(0x10, &body)
}

fn send(fd: RawFd, message: &[u8]) -> io::Result<usize> {
    let kernel = kernel();
    // SAFETY: message and address are valid for their lengths.
    let sent = unsafe {
        libc::sendto(fd, message.as_ptr().cast(), message.len(), 0, (&raw const kernel).cast(), 12)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn kernel() -> libc::sockaddr_nl {
    // SAFETY: integers only.
    let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_nl>() };
    address.nl_family = libc::AF_NETLINK as u16;
    address
}

/// One datagram, whose sender must be the kernel's netlink address.
fn receive(fd: RawFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0_u8; 65_536];
    let mut from = [0xff_u8; 128];
    let mut length = 128_u32;
    // SAFETY: buffers are valid for their lengths.
    let received = unsafe {
        libc::recvfrom(
            fd,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            from.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    assert_eq!((length, &from[..12]), (12, [16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].as_slice()));
    buffer.truncate(received);
    Ok(buffer)
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

/// The errno in an NLMSG_ERROR, 0 for an acknowledgement.
fn errno(message: &[u8]) -> i32 {
    assert_eq!(kind(message), 2, "{message:?}");
    -i32::from_ne_bytes(message[16..20].try_into().unwrap())
}

/// Port in the address that `getsockname` tells.
fn port(fd: RawFd) -> u32 {
    let mut address = kernel();
    let mut length = 12_u32;
    // SAFETY: the address is valid for that length.
    let status = unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut length) };
    assert_eq!((status, length, i32::from(address.nl_family)), (0, 12, libc::AF_NETLINK));
    address.nl_pid
}

fn bind(fd: RawFd, port: u32) -> i32 {
    let mut address = kernel();
    address.nl_pid = port;
    // SAFETY: the address is valid for that length.
    unsafe { libc::bind(fd, (&raw const address).cast(), 12) }
}

fn number_option(fd: RawFd, level: i32, name: i32) -> Result<i32, i32> {
    let (mut value, mut length) = (-1_i32, 4_u32);
    // SAFETY: the value is valid for that length.
    let status = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
    if status == 0 { Ok(value) } else { Err(io::Error::last_os_error().raw_os_error().unwrap()) }
}

fn set_option(fd: RawFd, name: i32, value: i32) -> i32 {
    // SAFETY: the value is valid for that length.
    unsafe { libc::setsockopt(fd, 270, name, (&raw const value).cast(), 4) }
}

/// What the system says the socket really is.
fn real_domain(fd: RawFd) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    let inode = link.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']').to_owned();
    let netlink = std::fs::read_to_string("/proc/self/net/netlink").unwrap();
    let is_netlink = netlink.lines().any(|line| line.split_whitespace().last() == Some(inode.as_str()));
    if is_netlink { "netlink".into() } else { "other".into() }
}

#[test]
fn a_look_up_of_ipvs_is_answered_by_the_director() {
    if !preloaded("a_look_up_of_ipvs_is_answered_by_the_director") {
        let director = StandIn::new();
        run(&director, "a_look_up_of_ipvs_is_answered_by_the_director");
        assert_eq!(director.connections.lock().unwrap().len(), 1);
        return;
    }
    let socket = raw();
    let fd = socket.as_raw_fd();
    assert_eq!(bind(fd, 0), 0);
    let told = port(fd);
    assert_ne!(told, 0);
    assert_eq!(bind(fd, 4711), 0);
    assert_eq!(port(fd), 4711);
    assert_eq!(number_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN), Ok(libc::AF_NETLINK));
    assert_eq!(number_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL), Ok(NETLINK_GENERIC));
    assert_eq!(number_option(fd, libc::SOL_SOCKET, libc::SO_TYPE), Ok(libc::SOCK_RAW));
    assert_eq!(set_option(fd, 11, 1), 0);
    assert_eq!(number_option(fd, 270, 11), Ok(1));
    assert_eq!(set_option(fd, 11, 0), 0);
    assert_eq!(number_option(fd, 270, 11), Ok(0));
    send(fd, &look_up(b"IPVS")).unwrap();
    assert_eq!(kind(&receive(fd).unwrap()), 0x10);
    assert_eq!(errno(&receive(fd).unwrap()), 0);
    // FLUSH
    send(fd, &message(FAMILY, &[17, 1, 0, 0])).unwrap();
    assert_eq!(errno(&receive(fd).unwrap()), 0);
    assert_eq!(real_domain(fd), "other");
}

#[test]
fn peeking_tells_the_length_of_what_is_left() {
    const NAME: &str = "peeking_tells_the_length_of_what_is_left";
    if !preloaded(NAME) {
        return run(&StandIn::new(), NAME);
    }
    let socket = raw();
    send(socket.as_raw_fd(), &look_up(b"IPVS")).unwrap();
    let mut small = [0_u8; 4];
    let mut name = [0xff_u8; 16];
    let mut buffer = libc::iovec { iov_base: small.as_mut_ptr().cast(), iov_len: small.len() };
    // SAFETY: integers and pointers only.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = 16;
    message.msg_iov = &raw mut buffer;
    message.msg_iovlen = 1;
    // SAFETY: buffers are valid for their lengths.
    let peeked =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_PEEK | libc::MSG_TRUNC) };
    let whole = receive(socket.as_raw_fd()).unwrap();
    assert_eq!(usize::try_from(peeked).unwrap(), whole.len());
    assert_eq!(message.msg_namelen, 12);
    assert_eq!(name[..2], [16, 0]);
    assert_eq!(message.msg_flags & libc::MSG_TRUNC, libc::MSG_TRUNC);
}

#[test]
fn other_families_are_the_kernels() {
    const NAME: &str = "other_families_are_the_kernels";
    if !preloaded(NAME) {
        let director = StandIn::new();
        run(&director, NAME);
        let seen = director.seen.lock().unwrap();
        assert_eq!(seen.len(), 1, "only IPVS's look-up came: {seen:?}");
        return;
    }
    let socket = netlink(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    let fd = socket.as_raw_fd();
    assert_eq!(bind(fd, 0), 0);
    let told = port(fd);
    assert_eq!(set_option(fd, 11, 1), 0);
    send(fd, &look_up(b"uvs_no_such")).unwrap();
    let answer = receive(fd).unwrap();
    assert_eq!((errno(&answer), real_domain(fd).as_str()), (libc::ENOENT, "netlink"));
    assert_eq!(port(fd), told, "the kernel's socket has the port the program was told");
    assert_eq!(number_option(fd, 270, 11), Ok(1), "and its options");
    // SAFETY: asks about a number.
    let flags = unsafe { (libc::fcntl(fd, libc::F_GETFD), libc::fcntl(fd, libc::F_GETFL)) };
    assert_eq!(
        (flags.0 & libc::FD_CLOEXEC, flags.1 & libc::O_NONBLOCK),
        (libc::FD_CLOEXEC, libc::O_NONBLOCK)
    );
    // And back: IPVS is never the kernel's.
    send(fd, &look_up(b"IPVS")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!((kind(&receive(fd).unwrap()), real_domain(fd).as_str()), (0x10, "other"));
}

#[test]
fn multicast_groups_are_the_kernels() {
    const NAME: &str = "multicast_groups_are_the_kernels";
    if !preloaded(NAME) {
        return run(&StandIn::absent(), NAME);
    }
    let (one, two) = (raw(), raw());
    assert_eq!(bind(one.as_raw_fd(), 0), 0);
    assert_eq!(set_option(one.as_raw_fd(), 1, 16), 0);
    assert_eq!(real_domain(one.as_raw_fd()), "netlink");
    let mut address = kernel();
    address.nl_groups = 1;
    // SAFETY: the address is valid for that length.
    assert_eq!(unsafe { libc::bind(two.as_raw_fd(), (&raw const address).cast(), 12) }, 0);
    assert_eq!(real_domain(two.as_raw_fd()), "netlink");
}

#[test]
fn duplicates_and_children_lead_to_the_same_place() {
    const NAME: &str = "duplicates_and_children_lead_to_the_same_place";
    if !preloaded(NAME) {
        return run(&StandIn::new(), NAME);
    }
    let socket = raw();
    let fd = socket.as_raw_fd();
    assert_eq!(bind(fd, 99), 0);
    // SAFETY: makes descriptors of one that is open.
    let copies = unsafe {
        [
            libc::dup(fd),
            libc::dup2(fd, 400),
            libc::dup3(fd, 401, 0),
            libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 402),
        ]
    };
    for copy in copies {
        assert!(copy >= 0);
        assert_eq!(port(copy), 99);
        send(copy, &look_up(b"IPVS")).unwrap();
        assert_eq!((kind(&receive(fd).unwrap()), errno(&receive(copy).unwrap())), (0x10, 0));
    }
    // SAFETY: the child does system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let well =
            send(fd, &look_up(b"IPVS")).is_ok() && receive(fd).is_ok_and(|answer| kind(&answer) == 0x10);
        // SAFETY: ends the child.
        unsafe { libc::_exit(if well { 0 } else { 1 }) };
    }
    let mut status = -1;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}

#[test]
fn sockets_of_many_threads_do_not_mix() {
    const NAME: &str = "sockets_of_many_threads_do_not_mix";
    if !preloaded(NAME) {
        return run(&StandIn::new(), NAME);
    }
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            std::thread::spawn(move || {
                for round in 0..50 {
                    let socket = raw();
                    let fd = socket.as_raw_fd();
                    let port_wanted = 1000 * (thread + 1) + round;
                    assert_eq!(bind(fd, port_wanted), 0);
                    if round % 2 == 0 {
                        send(fd, &look_up(b"IPVS")).unwrap();
                        assert_eq!(kind(&receive(fd).unwrap()), 0x10);
                    } else {
                        send(fd, &look_up(b"uvs_no_such")).unwrap();
                        assert_eq!(errno(&receive(fd).unwrap()), libc::ENOENT);
                    }
                    assert_eq!(port(fd), port_wanted);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_director_that_goes_is_an_error_and_one_that_returns_is_found() {
    const NAME: &str = "a_director_that_goes_is_an_error_and_one_that_returns_is_found";
    if !preloaded(NAME) {
        let director = StandIn::new();
        let connections = director.connections.clone();
        // Breaks the first connection as soon as it is there; it listens on.
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(std::time::Duration::from_millis(200));
                if let Some(first) = connections.lock().unwrap().first() {
                    rustix::net::shutdown(first, rustix::net::Shutdown::Both).unwrap();
                    return;
                }
            }
        });
        return run(&director, NAME);
    }
    let socket = raw();
    let fd = socket.as_raw_fd();
    send(fd, &look_up(b"IPVS")).unwrap();
    assert_eq!(kind(&receive(fd).unwrap()), 0x10);
    assert_eq!(errno(&receive(fd).unwrap()), 0);
    assert_eq!(errno(&receive(fd).unwrap()), libc::ENOENT, "what was asked last is refused");
    let gone = receive(fd).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ECONNRESET), "never a 0, which libnl takes for success");
    // No SIGPIPE either, and the next message finds the director again.
    send(fd, &message(FAMILY, &[17, 1, 0, 0])).unwrap();
    assert_eq!(errno(&receive(fd).unwrap()), 0);
}

#[test]
fn without_a_director_requests_are_refused_and_nothing_reaches_the_kernel() {
    const NAME: &str = "without_a_director_requests_are_refused_and_nothing_reaches_the_kernel";
    if !preloaded(NAME) {
        return run(&StandIn::absent(), NAME);
    }
    let socket = raw();
    let fd = socket.as_raw_fd();
    // Taken and answered, with the request's number: libnl would be out of step for ever after a send that failed.
    for (request, refusal) in [
        (look_up(b"IPVS"), libc::ENOENT),
        (message(FAMILY, &[17, 1, 0, 0]), libc::ENODEV),
        (look_up(b"IPVS"), libc::ENOENT),
    ] {
        assert_eq!(send(fd, &request).unwrap(), request.len());
        let answer = receive(fd).unwrap();
        assert_eq!(
            (errno(&answer), &answer[8..12], &answer[20..]),
            (refusal, &request[8..12], &request[..16])
        );
        assert_eq!(port(fd).to_ne_bytes(), answer[12..16]);
    }
    assert_eq!(real_domain(fd), "other");
    // SAFETY: makes a descriptor of numbers.
    let plain = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
    for name in [0x480, 0x481, 0x482, 0x48f] {
        assert_eq!(number_option(plain, libc::SOL_IP, name), Err(libc::ENOPROTOOPT));
        let value = 0_i32;
        // SAFETY: the value is valid for that length.
        let set = unsafe { libc::setsockopt(plain, libc::SOL_IP, name, (&raw const value).cast(), 4) };
        assert_eq!((set, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOPROTOOPT)));
    }
    assert_eq!(number_option(plain, libc::SOL_IP, libc::IP_TTL), Ok(64));
}

#[test]
fn reading_nothing_is_not_the_end() {
    const NAME: &str = "reading_nothing_is_not_the_end";
    if !preloaded(NAME) {
        return run(&StandIn::new(), NAME);
    }
    let socket = raw();
    let fd = socket.as_raw_fd();
    send(fd, &look_up(b"IPVS")).unwrap();
    // SAFETY: no bytes are written.
    let received =
        unsafe { libc::recv(fd, std::ptr::NonNull::<u8>::dangling().as_ptr().cast(), 0, libc::MSG_PEEK) };
    assert_eq!(received, 0);
    assert_eq!(kind(&receive(fd).unwrap()), 0x10);
}

#[test]
fn a_number_that_libc_closed_and_used_again_is_left_alone() {
    const NAME: &str = "a_number_that_libc_closed_and_used_again_is_left_alone";
    if !preloaded(NAME) {
        return run(&StandIn::new(), NAME);
    }
    let socket = raw();
    let fd = socket.as_raw_fd();
    send(fd, &look_up(b"IPVS")).unwrap();
    let (one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
    // SAFETY: both are open; behind the library's back, as libc's own closes are.
    assert_eq!(unsafe { libc::syscall(libc::SYS_dup3, one.as_raw_fd(), fd, 0) }, i64::from(fd));
    assert_eq!(number_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN), Ok(libc::AF_UNIX));
}
