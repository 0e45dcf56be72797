//! `libuvs_ipvs.so`: preloaded, it lets programs that manage the kernel's IPVS manage `uvsd` instead, unmodified.
//!
//! What is interposed, and what for:
//!
//! * **Generic-netlink sockets** ([`sockets`]): `socket(AF_NETLINK, …, NETLINK_GENERIC)` makes a `SOCK_SEQPACKET` unix
//!   socket, connected to `$UVS_IPVS_SOCKET` when the program first sends. Seqpackets keep message borders as netlink
//!   does; addresses are made up. A program that looks up another family than IPVS (nl80211, wireguard, ethtool) or
//!   joins a multicast group gets a socket of the kernel's in its place, so that what keepalived's scripts run works
//!   as ever. Looking up IPVS always leads to uvsd.
//!   Without a director a request is taken and refused, as by a kernel: programs do not expect sending to fail.
//! * **IPVS socket options**: `ENOPROTOOPT`, as on a kernel without IPVS; the tools use them when netlink has failed.
//! * **`/proc/net/ip_vs*`** ([`opens`], [`looks`]): the text comes from uvsd, in a memfd; they are there where uvsd is.
//! * **`modprobe ip_vs`** ([`start`]): does nothing and succeeds. The tools run it when they find no IPVS, and
//!   this library is loaded into it, too.
//!
//! So nothing reaches the host kernel's IPVS, whether uvsd runs or not. Everything else goes to the next definition in
//! the process's search order with one table look-up for calls on descriptors, and none for the rest.
//!
//! What it cannot see: statically linked programs, set-user-ID programs, and raw `syscall`s.

#![cfg_attr(test, allow(dead_code))]

mod address;
mod endpoint;
mod files;
mod looks;
mod next;
mod opens;
mod route;
mod sockets;
mod start;
mod table;

use libc::{FILE, c_int, ssize_t};

/// Sets `errno`.
fn set_errno(value: c_int) {
    // SAFETY: glibc's errno location is valid for the calling thread.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else writes this thread's errno meanwhile.
    unsafe { place.write(value) }
}

/// The calling thread's `errno`.
fn errno() -> c_int {
    // SAFETY: glibc's errno location is valid for the calling thread.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { place.read() }
}

/// The answer of a call that fails with `errno`.
fn fail(errno: c_int) -> c_int {
    set_errno(errno);
    -1
}

/// The same for calls that answer with a length.
fn fail_length(errno: c_int) -> ssize_t {
    set_errno(errno);
    -1
}

/// The same for calls that answer with a stream.
fn fail_stream(errno: c_int) -> *mut FILE {
    set_errno(errno);
    std::ptr::null_mut()
}
