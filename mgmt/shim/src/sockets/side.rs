//! Which side a socket leads to, and turning it to the other.

use libc::{AF_NETLINK, c_int, socklen_t};

use super::{NETLINK_GENERIC, SOL_NETLINK};
use crate::table::{OPTIONS, Side, Socket};
use crate::{address, endpoint, errno, next, route, table};

/// Turns the socket to the side that the message wants.
pub(super) fn turned(fd: c_int, socket: Socket, head: &[u8]) -> Result<Side, c_int> {
    let wanted = route::of(head, socket.side);
    if wanted != socket.side {
        match wanted {
            Side::Kernel => to_kernel(fd, socket)?,
            Side::Director => to_director(fd, socket)?,
        }
    }
    Ok(wanted)
}

/// Puts a socket of the kernel's in the place of `fd`, bound and set as the program believes it to be.
pub(super) fn to_kernel(fd: c_int, socket: Socket) -> Result<(), c_int> {
    // SAFETY: makes a descriptor of numbers.
    let new = unsafe { next::socket(AF_NETLINK, libc::SOCK_RAW | type_flags(fd), NETLINK_GENERIC) };
    if new < 0 {
        return Err(errno());
    }
    for name in (0..OPTIONS).filter(|name| socket.options & (1 << name) != 0) {
        let on: c_int = 1;
        let length = socklen_t::try_from(size_of::<c_int>()).unwrap_or(0);
        let name = c_int::try_from(name).unwrap_or(0);
        // SAFETY: `on` is valid for that length. What this kernel does not know it would not have known before.
        unsafe { next::setsockopt(new, SOL_NETLINK, name, (&raw const on).cast(), length) };
    }
    let mut port = socket.port;
    if port != 0 && bind_to(new, port) != 0 {
        // Taken by another program: one that the kernel chooses.
        port = 0;
        bind_to(new, port);
    }
    replace(fd, new, Socket { side: Side::Kernel, port, ..socket })
}

fn bind_to(fd: c_int, port: u32) -> c_int {
    let place = address::of_port(port);
    // SAFETY: `place` is a netlink address of that length.
    unsafe { next::bind(fd, (&raw const place).cast(), address::LENGTH) }
}

/// Puts an unconnected socket of ours in the place of `fd`.
pub(super) fn to_director(fd: c_int, socket: Socket) -> Result<(), c_int> {
    let new = endpoint::socket(type_flags(fd));
    if new < 0 {
        return Err(errno());
    }
    replace(fd, new, Socket { side: Side::Director, ..socket })
}

/// Makes `fd` mean what `new` means, and `new` nothing any more.
pub(super) fn replace(fd: c_int, new: c_int, socket: Socket) -> Result<(), c_int> {
    // SAFETY: both are open; the program holds `fd` as a number only.
    let status = unsafe { next::dup3(new, fd, type_flags(fd) & libc::O_CLOEXEC) };
    let error = errno();
    // SAFETY: `new` is ours alone.
    unsafe { libc::close(new) };
    if status < 0 {
        return Err(error);
    }
    if table::set(fd, socket) { Ok(()) } else { Err(libc::EMFILE) }
}

/// `SOCK_CLOEXEC` and `SOCK_NONBLOCK` as `fd` has them.
pub(super) fn type_flags(fd: c_int) -> c_int {
    // SAFETY: asks about a number.
    let descriptor = unsafe { next::fcntl(fd, libc::F_GETFD, std::ptr::null_mut()) };
    // SAFETY: asks about a number.
    let status = unsafe { next::fcntl(fd, libc::F_GETFL, std::ptr::null_mut()) };
    let cloexec = if descriptor & libc::FD_CLOEXEC != 0 { libc::SOCK_CLOEXEC } else { 0 };
    cloexec | (status & libc::SOCK_NONBLOCK)
}
