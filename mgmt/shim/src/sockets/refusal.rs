//! What a program is told when there is no director: an error message, as the kernel would send one.
//!
//! Netlink to the kernel never fails to send, and never ends. Programs count on that: libnl numbers requests and answers,
//! and is out of step for ever after a request that could not be sent; keepalived reads until it has an answer. So a request
//! that cannot be delivered is taken and answered here, by a socket pair that is put in the place of the connection.

use libc::{AF_UNIX, c_int};

use super::side::{replace, type_flags};
use crate::endpoint::Descriptor;
use crate::table::{Header, Socket};
use crate::{errno, next, route};

const NLMSG_ERROR: u16 = 2;
const LENGTH: usize = 36;

/// The errno that a request is answered with when reaching the director failed with `error`.
///
/// Looking up a family that is not there is `ENOENT`: then the tools say that there is no IPVS. Anything else finds no device.
fn verdict(request: Header, error: c_int) -> c_int {
    match error {
        libc::EACCES | libc::EPERM => libc::EPERM,
        _ if route::is_for_families(&request) => libc::ENOENT,
        _ => libc::ENODEV,
    }
}

/// The answer to `request`: a header, the negative errno, the request's header.
fn message(request: Header, socket: Socket, error: c_int) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    let sequence = &request[8..12];
    let port = match &request[12..16] {
        [0, 0, 0, 0] => socket.port.to_ne_bytes(),
        port => std::array::from_fn(|index| port[index]),
    };
    let parts: [&[u8]; 7] = [
        &36_u32.to_ne_bytes(),
        &NLMSG_ERROR.to_ne_bytes(),
        &[0; 2],
        sequence,
        &port,
        &error.wrapping_neg().to_ne_bytes(),
        &request,
    ];
    for (place, byte) in message.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    message
}

/// Puts a socket that holds the answer to `request` in the place of `fd`; errno where that fails.
pub(super) fn answer(fd: c_int, socket: Socket, request: Header, error: c_int) -> Result<(), c_int> {
    let mut pair = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | type_flags(fd);
    // SAFETY: `pair` has room for two descriptors.
    if unsafe { libc::socketpair(AF_UNIX, kind, 0, pair.as_mut_ptr()) } != 0 {
        return Err(errno());
    }
    let [ours, theirs] = pair;
    // Closed at the end: what was sent stays to be read, then there is an end.
    let theirs = Descriptor::new(theirs)?;
    let message = message(request, socket, verdict(request, error));
    // SAFETY: `message` is valid for its length.
    let sent = unsafe { next::send(theirs.0, message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
    let error = errno();
    if sent < 0 {
        drop(Descriptor::new(ours));
        return Err(error);
    }
    replace(fd, ours, socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Header = [32, 0, 0, 0, 0x25, 0, 5, 0, 7, 0, 0, 0, 9, 0, 0, 0];

    #[test]
    fn an_answer_has_the_requests_number_and_port() {
        let message = message(REQUEST, Socket::NEW, libc::ENODEV);
        assert_eq!(message[..8], [36, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(message[8..16], REQUEST[8..16]);
        assert_eq!(message[16..20], (-libc::ENODEV).to_ne_bytes());
        assert_eq!(message[20..], REQUEST);
    }

    #[test]
    fn a_request_without_a_port_is_answered_to_the_sockets() {
        let mut request = REQUEST;
        request[12] = 0;
        let message = message(request, Socket { port: 0x0102_0304, ..Socket::NEW }, libc::ENODEV);
        assert_eq!(message[12..16], 0x0102_0304_u32.to_ne_bytes());
    }

    #[test]
    fn there_is_no_family_no_device_or_no_permission() {
        let mut look_up = REQUEST;
        look_up[4] = 0x10;
        assert_eq!(verdict(look_up, libc::ECONNREFUSED), libc::ENOENT);
        assert_eq!(verdict(REQUEST, libc::ENOENT), libc::ENODEV);
        assert_eq!(verdict(REQUEST, libc::EACCES), libc::EPERM);
        assert_eq!(verdict(look_up, libc::EACCES), libc::EPERM);
    }
}
