//! Sending and receiving.

use libc::{c_int, c_void, iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t};

use super::side::{to_director, turned};
use super::{directed, refusal, with_port};
use crate::table::{Header, Side, Socket};
use crate::{address, endpoint, errno, fail_length, next, route, table};

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let Some(socket) = table::get(fd).filter(|_| !message.is_null()) else {
        // SAFETY: passed on as it came.
        return unsafe { next::sendmsg(fd, message, flags) };
    };
    // SAFETY: not null, and a message by the caller's word.
    let mut plain = unsafe { message.read() };
    let mut head = [0; route::HEAD];
    // SAFETY: the message's buffers are as libc wants them.
    let length = unsafe { gather(&plain, &mut head) };
    match turned(fd, socket, head.get(..length).unwrap_or_default()) {
        Err(error) => fail_length(error),
        // SAFETY: passed on as it came.
        Ok(Side::Kernel) => unsafe { next::sendmsg(fd, message, flags) },
        Ok(Side::Director) => {
            // A unix socket would take neither a netlink address nor netlink's credentials.
            plain.msg_name = std::ptr::null_mut();
            plain.msg_namelen = 0;
            plain.msg_control = std::ptr::null_mut();
            plain.msg_controllen = 0;
            // SAFETY: the message's buffers are as libc wants them.
            unsafe { deliver(fd, socket, &plain, flags, &head) }
        }
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn sendto(
    fd: c_int,
    data: *const c_void,
    length: size_t,
    flags: c_int,
    place: *const sockaddr,
    place_length: socklen_t,
) -> ssize_t {
    let Some(socket) = table::get(fd) else {
        // SAFETY: passed on as it came.
        return unsafe { next::sendto(fd, data, length, flags, place, place_length) };
    };
    let mut buffer = iovec { iov_base: data.cast_mut(), iov_len: length };
    // SAFETY: a msghdr is integers and pointers; all zeros is one.
    let mut message = unsafe { std::mem::zeroed::<msghdr>() };
    message.msg_iov = &raw mut buffer;
    message.msg_iovlen = 1;
    let mut head = [0; route::HEAD];
    // SAFETY: the caller's data is valid for its length.
    let looked_at = unsafe { gather(&message, &mut head) };
    match turned(fd, socket, head.get(..looked_at).unwrap_or_default()) {
        Err(error) => fail_length(error),
        // SAFETY: passed on as it came.
        Ok(Side::Kernel) => unsafe { next::sendto(fd, data, length, flags, place, place_length) },
        // SAFETY: the caller's data is valid for its length.
        Ok(Side::Director) => unsafe { deliver(fd, socket, &message, flags, &head) },
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn send(
    fd: c_int,
    data: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    if table::get(fd).is_none() {
        // SAFETY: passed on as it came.
        return unsafe { next::send(fd, data, length, flags) };
    }
    // SAFETY: passed on as it came; no address is what `send` means.
    unsafe { sendto(fd, data, length, flags, std::ptr::null(), 0) }
}

/// Copies the first bytes of the message's buffers; returns how many.
///
/// # Safety
///
/// The message's buffers are valid for reading.
unsafe fn gather(message: &msghdr, head: &mut [u8]) -> usize {
    let mut filled = 0;
    if message.msg_iov.is_null() {
        return 0;
    }
    for index in 0..message.msg_iovlen {
        let left = head.len() - filled;
        if left == 0 {
            break;
        }
        // SAFETY: there are `msg_iovlen` of them by the caller's word.
        let buffer = unsafe { message.msg_iov.add(index) };
        // SAFETY: as above.
        let buffer = unsafe { buffer.read() };
        let count = buffer.iov_len.min(left);
        if count == 0 || buffer.iov_base.is_null() {
            continue;
        }
        let Some(place) = head.get_mut(filled..filled + count) else { break };
        // SAFETY: `count` is at most what either side has room for.
        unsafe { std::ptr::copy_nonoverlapping(buffer.iov_base.cast::<u8>(), place.as_mut_ptr(), count) };
        filled += count;
    }
    filled
}

/// Sends to uvsd, connecting first where need be; a director that was started anew gets a new connection, and where there is
/// none the message is taken and refused.
///
/// # Safety
///
/// The message is one, with valid buffers; `head` is how it starts.
unsafe fn deliver(fd: c_int, socket: Socket, message: &msghdr, flags: c_int, head: &[u8]) -> ssize_t {
    let socket = with_port(fd, socket);
    // SAFETY: by the caller's word.
    let total = unsafe { length(message) };
    let request: Option<Header> = head.first_chunk().copied().filter(|_| total >= size_of::<Header>());
    let mut renewed = false;
    loop {
        if let Some(request) = request {
            table::note_request(fd, request);
        }
        // Without a reader there is an error, not a signal: netlink has none either.
        // SAFETY: by the caller's word.
        let sent = unsafe { next::sendmsg(fd, message, flags | libc::MSG_NOSIGNAL) };
        if sent >= 0 {
            return sent;
        }
        match errno() {
            libc::ENOTCONN => {}
            libc::EPIPE | libc::ECONNRESET if !renewed => {
                renewed = true;
                if let Err(error) = to_director(fd, socket) {
                    return fail_length(error);
                }
            }
            _ => return -1,
        }
        if endpoint::connect(fd) != 0 {
            let error = errno();
            return match request.map(|request| refusal::answer(fd, socket, request, error)) {
                Some(Ok(())) => ssize_t::try_from(total).unwrap_or(ssize_t::MAX),
                Some(Err(error)) => fail_length(error),
                None => fail_length(error),
            };
        }
    }
}

/// Bytes in the message's buffers.
///
/// # Safety
///
/// The message is one.
unsafe fn length(message: &msghdr) -> usize {
    let mut total = 0_usize;
    for index in 0..message.msg_iovlen {
        // SAFETY: there are `msg_iovlen` of them by the caller's word.
        let buffer = unsafe { message.msg_iov.add(index) };
        // SAFETY: as above.
        total = total.saturating_add(unsafe { buffer.read() }.iov_len);
    }
    total
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    if message.is_null() || directed(fd).is_none() {
        // SAFETY: passed on as it came.
        return unsafe { next::recvmsg(fd, message, flags) };
    }
    // SAFETY: not null, and a message by the caller's word.
    let before = unsafe { message.read() };
    let received = whole(fd, || {
        // SAFETY: as above.
        let again = unsafe { &mut *message };
        // What an attempt that found the end has written there.
        *again = before;
        // SAFETY: passed on as it came.
        unsafe { next::recvmsg(fd, message, flags) }
    });
    if received >= 0 && !before.msg_name.is_null() {
        let mut length = before.msg_namelen;
        // SAFETY: there is room for as many bytes as the program said.
        unsafe { address::write(0, before.msg_name.cast(), &raw mut length) };
        // SAFETY: not null, and a message by the caller's word.
        let after = unsafe { &mut *message };
        after.msg_namelen = length;
    }
    received
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn recvfrom(
    fd: c_int,
    data: *mut c_void,
    length: size_t,
    flags: c_int,
    place: *mut sockaddr,
    place_length: *mut socklen_t,
) -> ssize_t {
    if directed(fd).is_none() {
        // SAFETY: passed on as it came.
        return unsafe { next::recvfrom(fd, data, length, flags, place, place_length) };
    }
    let received = whole(fd, || {
        // SAFETY: passed on without the address.
        unsafe { next::recvfrom(fd, data, length, flags, std::ptr::null_mut(), std::ptr::null_mut()) }
    });
    if received >= 0 && !place.is_null() {
        // SAFETY: the caller's buffer is as libc wants it.
        unsafe { address::write(0, place, place_length) };
    }
    received
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn recv(fd: c_int, data: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    if directed(fd).is_none() {
        // SAFETY: passed on as it came.
        return unsafe { next::recv(fd, data, length, flags) };
    }
    whole(fd, || {
        // SAFETY: passed on as it came.
        unsafe { next::recv(fd, data, length, flags) }
    })
}

/// What `recvfrom` of a program built with `_FORTIFY_SOURCE` may be called; `room` is checked by libc's own.
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    data: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
    place: *mut sockaddr,
    place_length: *mut socklen_t,
) -> ssize_t {
    if length > room || directed(fd).is_none() {
        // SAFETY: passed on as it came.
        return unsafe { next::recvfrom_chk(fd, data, length, room, flags, place, place_length) };
    }
    // SAFETY: passed on as it came; the check was made above.
    unsafe { recvfrom(fd, data, length, flags, place, place_length) }
}

/// See [`__recvfrom_chk`].
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn __recv_chk(
    fd: c_int,
    data: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    if length > room || directed(fd).is_none() {
        // SAFETY: passed on as it came.
        return unsafe { next::recv_chk(fd, data, length, room, flags) };
    }
    // SAFETY: passed on as it came; the check was made above.
    unsafe { recv(fd, data, length, flags) }
}

/// What `receive` receives. An end of the connection answers the last request with a refusal, then it is an error: netlink
/// has no end, and programs take it for a success.
fn whole(fd: c_int, receive: impl Fn() -> ssize_t) -> ssize_t {
    let received = receive();
    if received != 0 || !at_end(fd) {
        return received;
    }
    if let (Some(socket), Some(request)) = (directed(fd), table::take_request(fd)) {
        return match refusal::answer(fd, socket, request, libc::ECONNRESET) {
            Ok(()) => receive(),
            Err(error) => fail_length(error),
        };
    }
    fail_length(libc::ECONNRESET)
}

/// Nothing is left, and nothing will come: a program may also receive nothing because it asked for nothing.
fn at_end(fd: c_int) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: there is room for one byte.
    unsafe { next::recv(fd, (&raw mut byte).cast(), 1, flags) == 0 }
}
