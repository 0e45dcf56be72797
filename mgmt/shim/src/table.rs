//! Which descriptors stand for generic-netlink sockets.
//!
//! A flat array of atomics, one place a descriptor: no lock that a `fork` in another thread could leave locked, and one
//! load for every descriptor that is none of ours. An entry also holds the socket's inode: a descriptor that was closed
//! where this library does not see it (inside libc, by a raw system call) and used again for something else is
//! recognised, so `close` need not be interposed.

use std::sync::atomic::{AtomicU64, Ordering};

use libc::c_int;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// uvsd, or nobody yet.
    Director,
    /// The kernel: the program uses another family than IPVS.
    Kernel,
}

/// What is known of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) side: Side,
    /// Netlink port ("pid") the program was told or chose; 0 while it is not bound.
    pub(crate) port: u32,
    /// Bit n: `SOL_NETLINK` option n, below [`OPTIONS`], is on.
    pub(crate) options: u32,
}

/// Options that are remembered.
pub(crate) const OPTIONS: u32 = 30;

impl Socket {
    pub(crate) const NEW: Self = Self { side: Side::Director, port: 0, options: 0 };

    /// Port, options, and two bits for the side, which are never both 0: that is a free place.
    fn pack(self) -> u64 {
        let side = match self.side {
            Side::Director => 1,
            Side::Kernel => 2,
        };
        (u64::from(self.port) << 32) | (u64::from(self.options & ((1 << OPTIONS) - 1)) << 2) | side
    }

    fn unpack(word: u64) -> Option<Self> {
        let side = match word & 3 {
            1 => Side::Director,
            2 => Side::Kernel,
            _ => return None,
        };
        let [low, high] = [word & 0xffff_ffff, word >> 32];
        Some(Self { side, port: u32::try_from(high).ok()?, options: u32::try_from(low).ok()? >> 2 })
    }
}

struct Place {
    word: AtomicU64,
    inode: AtomicU64,
    /// Header of the last request, zeros where there is none: what an end of the connection leaves unanswered.
    request: [AtomicU64; 2],
}

impl Place {
    const fn free() -> Self {
        let request = [AtomicU64::new(0), AtomicU64::new(0)];
        Self { word: AtomicU64::new(0), inode: AtomicU64::new(0), request }
    }
}

/// Descriptors from here on cannot be generic-netlink sockets: `EMFILE`.
const PLACES: usize = 65_536;

// Zeros in .bss: untouched places cost no memory.
static TABLE: [Place; PLACES] = [const { Place::free() }; PLACES];

fn place(fd: c_int) -> Option<&'static Place> {
    TABLE.get(usize::try_from(fd).ok()?)
}

/// The generic-netlink socket behind `fd`, if it is one.
pub(crate) fn get(fd: c_int) -> Option<Socket> {
    let place = place(fd)?;
    let socket = Socket::unpack(place.word.load(Ordering::Acquire))?;
    if inode(fd) == Some(place.inode.load(Ordering::Relaxed)) {
        return Some(socket);
    }
    place.word.store(0, Ordering::Release);
    None
}

/// A netlink header, as it is sent.
pub(crate) type Header = [u8; 16];

/// Notes the request that is about to be sent.
pub(crate) fn note_request(fd: c_int, header: Header) {
    let words = [0, 8].map(|at| u64::from_ne_bytes(std::array::from_fn(|index| header[at + index])));
    for (kept, word) in place(fd).iter().flat_map(|place| &place.request).zip(words) {
        kept.store(word, Ordering::Relaxed);
    }
}

/// The last request, once: answered or not, that cannot be told from here.
pub(crate) fn take_request(fd: c_int) -> Option<Header> {
    let request = &place(fd)?.request;
    let words = [0, 1].map(|index: usize| request[index].swap(0, Ordering::Relaxed).to_ne_bytes());
    let header = std::array::from_fn(|index| words[index / 8][index % 8]);
    (header != [0; 16]).then_some(header)
}

/// Remembers `fd` as `socket`, with no request. False: there is no place for such a high number.
pub(crate) fn set(fd: c_int, socket: Socket) -> bool {
    match (place(fd), inode(fd)) {
        (Some(place), Some(inode)) => {
            place.inode.store(inode, Ordering::Relaxed);
            for word in &place.request {
                word.store(0, Ordering::Relaxed);
            }
            place.word.store(socket.pack(), Ordering::Release);
            true
        }
        _ => false,
    }
}

/// Inode of an open descriptor; the program's `errno` stays as it is.
fn inode(fd: c_int) -> Option<u64> {
    let before = crate::errno();
    // SAFETY: a stat is integers only; all zeros is one.
    let mut stat = unsafe { std::mem::zeroed::<libc::stat>() };
    // SAFETY: `stat` is a local of the right type; a bad descriptor is an error, not more.
    let status = unsafe { libc::fstat(fd, &raw mut stat) };
    crate::set_errno(before);
    (status == 0).then_some(stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_survives_packing() {
        for side in [Side::Director, Side::Kernel] {
            for port in [0, 1, 0x8000_0001, u32::MAX] {
                for options in [0, 1, 0x2000_0000, 0x3fff_ffff] {
                    let socket = Socket { side, port, options };
                    assert_eq!(Socket::unpack(socket.pack()), Some(socket));
                }
            }
        }
        assert_eq!(Socket::unpack(0), None);
        assert_eq!(Socket::unpack(3), None);
    }

    #[test]
    fn a_number_used_again_for_another_socket_is_not_ours() {
        let (first, _other) = UnixStream::pair().unwrap();
        let (second, _another) = UnixStream::pair().unwrap();
        let fd = first.as_raw_fd();
        assert!(set(fd, Socket::NEW));
        assert_eq!(get(fd), Some(Socket::NEW));
        // What a dup2 inside libc would do: the number stays, the socket is another.
        // SAFETY: both are open; `first` keeps owning the number.
        assert_eq!(unsafe { libc::dup2(second.as_raw_fd(), fd) }, fd);
        assert_eq!(get(fd), None);
        drop(OwnedFd::from(first));
        assert_eq!(get(fd), None);
    }

    #[test]
    fn a_request_is_kept_once() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let fd = socket.as_raw_fd();
        assert!(set(fd, Socket::NEW));
        assert_eq!(take_request(fd), None);
        let header: Header = std::array::from_fn(|index| u8::try_from(index + 1).unwrap());
        note_request(fd, header);
        assert_eq!(take_request(fd), Some(header));
        assert_eq!(take_request(fd), None);
        note_request(fd, header);
        assert!(set(fd, Socket::NEW), "a new socket owes nothing");
        assert_eq!(take_request(fd), None);
    }

    #[test]
    fn there_is_no_place_for_a_number_that_is_too_high_or_not_open() {
        assert!(!set(65_536, Socket::NEW));
        assert!(!set(-1, Socket::NEW));
        assert!(!set(65_535, Socket::NEW));
        assert_eq!(get(-1), None);
        assert_eq!(get(i32::MAX), None);
    }
}
