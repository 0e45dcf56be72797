//! uvsd's endpoint: a `SOCK_SEQPACKET` unix socket on which every message is one netlink datagram.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{AF_UNIX, c_char, c_int, sockaddr_un, socklen_t};

use crate::next;

const DEFAULT: &[u8] = b"/run/uvs/ipvs.sock";
/// Seconds a program waits for a director that accepts or answers nothing: bounded, where the kernel answers at once.
const PATIENCE_S: i64 = 30;

/// The endpoint's address, fixed when the library is loaded: reading the environment later would race with `setenv`.
struct Address {
    known: AtomicBool,
    address: UnsafeCell<(sockaddr_un, socklen_t)>,
}

// SAFETY: the cell is written once, by `remember`, before `known` is set, in the loader's only thread; from then on it
// is only read.
unsafe impl Sync for Address {}

static ADDRESS: Address = Address {
    known: AtomicBool::new(false),
    address: UnsafeCell::new((sockaddr_un { sun_family: 0, sun_path: [0; 108] }, 0)),
};

/// The address of the socket at `path`; the default where it is empty, `None` where it is too long for one.
fn address_of(path: &[u8]) -> Option<(sockaddr_un, socklen_t)> {
    let path = if path.is_empty() { DEFAULT } else { path };
    let mut address =
        sockaddr_un { sun_family: libc::sa_family_t::try_from(AF_UNIX).ok()?, sun_path: [0; 108] };
    // The last byte stays the NUL.
    let room = address.sun_path.len() - 1;
    if path.len() > room {
        return None;
    }
    for (place, byte) in address.sun_path.iter_mut().zip(path) {
        *place = c_char::from_ne_bytes([*byte]);
    }
    Some((address, socklen_t::try_from(size_of::<sockaddr_un>()).ok()?))
}

/// Notes the path from the environment. To be called once, while the process has one thread: by the loader.
pub(crate) fn remember(path: &[u8]) {
    if let Some(address) = address_of(path) {
        // SAFETY: nobody reads before `known` is set below, and this is called once.
        unsafe { ADDRESS.address.get().write(address) };
        ADDRESS.known.store(true, Ordering::Release);
    }
}

/// An unconnected socket for the endpoint; `flags`: `SOCK_CLOEXEC`, `SOCK_NONBLOCK`. Negative: errno is set.
pub(crate) fn socket(flags: c_int) -> c_int {
    // SAFETY: makes a descriptor of numbers.
    let fd = unsafe { next::socket(AF_UNIX, libc::SOCK_SEQPACKET | flags, 0) };
    if fd >= 0 {
        be_patient(fd, libc::SO_RCVTIMEO);
        be_patient(fd, libc::SO_SNDTIMEO);
    }
    fd
}

fn be_patient(fd: c_int, option: c_int) {
    let patience = libc::timeval { tv_sec: PATIENCE_S, tv_usec: 0 };
    let length = socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or(0);
    // SAFETY: `patience` is a timeval of that length.
    let _without_it_one_waits_longer =
        unsafe { next::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const patience).cast(), length) };
}

/// Connects `fd`; 0, or -1 with errno. A socket that is connected already counts as done.
pub(crate) fn connect(fd: c_int) -> c_int {
    if !ADDRESS.known.load(Ordering::Acquire) {
        // The path in the environment is too long for a socket.
        return crate::fail(libc::ENAMETOOLONG);
    }
    // SAFETY: `known` says that the cell was written and will not be again.
    let (address, length) = unsafe { ADDRESS.address.get().read() };
    // SAFETY: `address` is a sockaddr_un of that length.
    let status = unsafe { next::connect(fd, (&raw const address).cast(), length) };
    if status == 0 || crate::errno() == libc::EISCONN { 0 } else { -1 }
}

/// Whether there is a director: errno otherwise, `ENOENT` as on a kernel without IPVS where nobody listens.
pub(crate) fn reach() -> Result<(), c_int> {
    connected().map(drop)
}

/// A connected socket; errno as for [`reach`].
pub(crate) fn connected() -> Result<Descriptor, c_int> {
    let socket = Descriptor::new(socket(libc::SOCK_CLOEXEC))?;
    if connect(socket.0) == 0 {
        return Ok(socket);
    }
    Err(match crate::errno() {
        error @ (libc::EACCES | libc::EPERM | libc::EMFILE | libc::ENFILE | libc::ENOMEM) => error,
        _ => libc::ENOENT,
    })
}

/// A descriptor of the library's own, which is closed in the end.
pub(crate) struct Descriptor(pub(crate) c_int);

impl Drop for Descriptor {
    fn drop(&mut self) {
        let before = crate::errno();
        // SAFETY: the descriptor is ours alone.
        unsafe { libc::close(self.0) };
        crate::set_errno(before);
    }
}

impl Descriptor {
    /// What a call that makes a descriptor returned; errno where that is negative.
    pub(crate) fn new(fd: c_int) -> Result<Self, c_int> {
        if fd < 0 { Err(crate::errno()) } else { Ok(Self(fd)) }
    }

    /// The descriptor, which somebody else closes.
    pub(crate) fn keep(self) -> c_int {
        let fd = self.0;
        std::mem::forget(self);
        fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_in(address: &sockaddr_un) -> Vec<u8> {
        let bytes = address.sun_path.iter().map(|byte| byte.to_ne_bytes()[0]);
        bytes.take_while(|byte| *byte != 0).collect()
    }

    #[test]
    fn the_path_of_the_environment_is_taken_the_default_where_there_is_none() {
        let (address, _) = address_of(b"/run/lab/ipvs.sock").unwrap();
        assert_eq!(path_in(&address), b"/run/lab/ipvs.sock");
        assert_eq!(path_in(&address_of(b"").unwrap().0), DEFAULT);
    }

    #[test]
    fn a_path_longer_than_a_socket_may_have_is_refused() {
        let longest = [b'x'; 107];
        assert_eq!(path_in(&address_of(&longest).unwrap().0), longest);
        assert!(address_of(&[b'x'; 108]).is_none());
    }
}
