//! `/proc/net/ip_vs*`: which paths they are, and their text from uvsd.

use libc::{c_int, c_void};

use crate::endpoint::{self, Descriptor};
use crate::{errno, next};

/// The files that the kernel's IPVS has.
const NAMES: [&str; 6] =
    ["ip_vs", "ip_vs_app", "ip_vs_conn", "ip_vs_conn_sync", "ip_vs_stats", "ip_vs_stats_percpu"];

/// Which of the files `path` names, if it names one: below /proc/net, or net of a process or thread.
pub(crate) fn named(path: &[u8]) -> Option<&'static str> {
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").rev();
    let last = parts.next()?;
    let name = NAMES.into_iter().find(|name| name.as_bytes() == last)?;
    if path.first() != Some(&b'/') || parts.next() != Some(b"net") {
        return None;
    }
    let between: [Option<&[u8]>; 5] = std::array::from_fn(|_| parts.next());
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let is_ours = match between {
        [Some(b"proc"), None, ..] | [Some(b"self" | b"thread-self"), Some(b"proc"), None, ..] => true,
        [Some(process), Some(b"proc"), None, ..] => is_number(process),
        [Some(thread), Some(b"task"), Some(process), Some(b"proc"), None] => {
            is_number(thread) && (process == b"self" || is_number(process))
        }
        _ => false,
    };
    is_ours.then_some(name)
}

/// True where the last part of `path` is one of the names: only then is it worth finding out where it starts.
pub(crate) fn might_be(path: &[u8]) -> bool {
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    NAMES.iter().any(|name| name.as_bytes() == last)
}

/// Request and answer: a netlink header of this type, then the file's name or a piece of its text.
const TEXT: u16 = 0x7e;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;
/// Bytes of the greatest datagram: a piece of 16 KiB with room to spare.
const DATAGRAM: usize = 65_536;
/// Bytes of text at most, in memory: eight million connections.
const TEXT_MAX: usize = 1 << 30;

/// One netlink message of a datagram.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a [u8]),
    Done,
    Failed(c_int),
}

fn number(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok()
}

/// Takes the first message off `datagram`; `None`: it is malformed, or none that belongs here.
fn take<'a>(datagram: &mut &'a [u8]) -> Option<Piece<'a>> {
    let length = usize::try_from(u32::from_ne_bytes(number(datagram, 0)?)).ok()?;
    let [kind0, kind1, ..] = number(datagram, 4)?;
    let body = datagram.get(HEADER..length)?;
    *datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    match u16::from_ne_bytes([kind0, kind1]) {
        TEXT => Some(Piece::Text(body)),
        NLMSG_DONE => Some(Piece::Done),
        // 0 is an acknowledgement.
        NLMSG_ERROR => match i32::from_ne_bytes(number(body, 0)?) {
            0 => Some(Piece::Done),
            error => Some(Piece::Failed(error.checked_abs().unwrap_or(libc::EPROTO))),
        },
        _ => None,
    }
}

fn request(name: &str) -> Vec<u8> {
    let length = HEADER + name.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    message.extend(TEXT.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(name.as_bytes());
    message
}

/// A new descriptor at the start of the file's text, close-on-exec where `cloexec` says so; or errno.
///
/// Without a director it is as on a kernel without IPVS: `ENOENT`.
pub(crate) fn fetch(name: &str, cloexec: bool) -> Result<c_int, c_int> {
    let socket = endpoint::connected()?;
    send(socket.0, &request(name))?;
    // SAFETY: the name is a C string.
    let file =
        unsafe { libc::memfd_create(c"uvs:ip_vs".as_ptr(), if cloexec { libc::MFD_CLOEXEC } else { 0 }) };
    let file = Descriptor::new(file)?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(DATAGRAM).map_err(|_| libc::ENOMEM)?;
    buffer.resize(DATAGRAM, 0_u8);
    let mut total = 0_usize;
    loop {
        let mut datagram = receive(socket.0, &mut buffer)?;
        while !datagram.is_empty() {
            match take(&mut datagram).ok_or(libc::EPROTO)? {
                Piece::Text(text) => {
                    total = total.saturating_add(text.len());
                    if total > TEXT_MAX {
                        return Err(libc::EFBIG);
                    }
                    write_all(file.0, text)?;
                }
                Piece::Done => return rewound(file),
                Piece::Failed(error) => return Err(error),
            }
        }
    }
}

fn rewound(file: Descriptor) -> Result<c_int, c_int> {
    // SAFETY: the descriptor is open.
    if unsafe { libc::lseek(file.0, 0, libc::SEEK_SET) } != 0 {
        return Err(errno());
    }
    Ok(file.keep())
}

fn send(socket: c_int, message: &[u8]) -> Result<(), c_int> {
    loop {
        let data = message.as_ptr().cast::<c_void>();
        // SAFETY: `data` is valid for that length.
        let sent = unsafe { next::send(socket, data, message.len(), libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(_) => return Ok(()),
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return Err(errno()),
        }
    }
}

/// One datagram; `EPROTO` where the other end went away before it was done, `ETIMEDOUT` where it says nothing.
fn receive(socket: c_int, buffer: &mut [u8]) -> Result<&[u8], c_int> {
    loop {
        let data = buffer.as_mut_ptr().cast::<c_void>();
        // SAFETY: `data` is valid for writing that length.
        let received = unsafe { next::recv(socket, data, buffer.len(), 0) };
        match usize::try_from(received) {
            Ok(0) => return Err(libc::EPROTO),
            Ok(length) => return buffer.get(..length).ok_or(libc::EPROTO),
            Err(_) => match errno() {
                libc::EINTR => {}
                libc::EAGAIN => return Err(libc::ETIMEDOUT),
                error => return Err(error),
            },
        }
    }
}

fn write_all(file: c_int, mut text: &[u8]) -> Result<(), c_int> {
    while !text.is_empty() {
        // SAFETY: `text` is valid for its length.
        let written = unsafe { libc::write(file, text.as_ptr().cast(), text.len()) };
        match usize::try_from(written) {
            Ok(count) => text = text.get(count..).unwrap_or_default(),
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return Err(errno()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
