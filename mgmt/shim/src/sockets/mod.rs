//! The socket calls: what a program does with a generic-netlink socket, done with one that leads to uvsd.
//!
//! Every exported function first asks the table; a descriptor that is none of ours goes to the next definition with the
//! arguments untouched. A socket is only connected, or replaced by one of the kernel's, when the program first sends: then
//! the message says which family it wants.

mod duplicates;
mod options;
mod refusal;
mod side;
mod transfer;

use libc::{AF_NETLINK, c_int, sockaddr, socklen_t};

use crate::table::{Side, Socket};
use crate::{address, endpoint, fail, next, table};
use side::to_kernel;

const NETLINK_GENERIC: c_int = 16;
const SOL_NETLINK: c_int = 270;
const TYPE_FLAGS: c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let base = kind & !TYPE_FLAGS;
    let generic = domain == AF_NETLINK && protocol == NETLINK_GENERIC;
    if !generic || !(base == libc::SOCK_RAW || base == libc::SOCK_DGRAM) {
        // SAFETY: passed on as it came.
        return unsafe { next::socket(domain, kind, protocol) };
    }
    let fd = endpoint::socket(kind & TYPE_FLAGS);
    if fd >= 0 && !table::set(fd, Socket::NEW) {
        // SAFETY: the descriptor is new and ours.
        unsafe { libc::close(fd) };
        return fail(libc::EMFILE);
    }
    fd
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn bind(fd: c_int, place: *const sockaddr, length: socklen_t) -> c_int {
    let Some(socket) = directed(fd) else {
        // SAFETY: passed on as it came.
        return unsafe { next::bind(fd, place, length) };
    };
    // SAFETY: the caller's address is valid for its length.
    match unsafe { address::read(place, length) } {
        None => fail(libc::EINVAL),
        // IPVS has no multicast groups: these are of other families.
        Some((_, groups)) if groups != 0 => match to_kernel(fd, socket) {
            // SAFETY: passed on as it came.
            Ok(()) => unsafe { next::bind(fd, place, length) },
            Err(error) => fail(error),
        },
        Some((port, _)) => {
            table::set(fd, Socket { port: if port == 0 { automatic_port(fd) } else { port }, ..socket });
            0
        }
    }
}

/// A netlink port that is this process's and this descriptor's, as libnl makes them.
fn automatic_port(fd: c_int) -> u32 {
    let process = std::process::id() & 0x3f_ffff;
    process | (u32::try_from(fd).unwrap_or(0).wrapping_add(1) << 22)
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn connect(fd: c_int, place: *const sockaddr, length: socklen_t) -> c_int {
    let Some(socket) = directed(fd) else {
        // SAFETY: passed on as it came.
        return unsafe { next::connect(fd, place, length) };
    };
    // SAFETY: the caller's address is valid for its length.
    match unsafe { address::read(place, length) } {
        None => fail(libc::EINVAL),
        // Port 0 is the kernel, whom we are.
        Some((0, _)) => {
            with_port(fd, socket);
            0
        }
        Some(_) => fail(libc::ECONNREFUSED),
    }
}

/// The port of the socket; one that was never bound gets one now, as sending would give it.
fn with_port(fd: c_int, socket: Socket) -> Socket {
    if socket.port != 0 {
        return socket;
    }
    let bound = Socket { port: automatic_port(fd), ..socket };
    table::set(fd, bound);
    bound
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn getsockname(
    fd: c_int,
    place: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    match directed(fd) {
        Some(socket) => {
            // SAFETY: the caller's buffer is as libc wants it.
            unsafe { address::write(socket.port, place, length) };
            0
        }
        // SAFETY: passed on as it came.
        None => unsafe { next::getsockname(fd, place, length) },
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn getpeername(
    fd: c_int,
    place: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    match directed(fd) {
        Some(_) => {
            // SAFETY: the caller's buffer is as libc wants it.
            unsafe { address::write(0, place, length) };
            0
        }
        // SAFETY: passed on as it came.
        None => unsafe { next::getpeername(fd, place, length) },
    }
}

/// The entry of a socket that leads to uvsd.
fn directed(fd: c_int) -> Option<Socket> {
    table::get(fd).filter(|socket| socket.side == Side::Director)
}
