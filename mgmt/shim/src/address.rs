//! Addresses of netlink sockets, made up for sockets that are none.

use libc::{AF_NETLINK, sockaddr, sockaddr_nl, socklen_t};

/// Length of a `sockaddr_nl` in bytes.
pub(crate) const LENGTH: socklen_t = 12;
const _: () = assert!(size_of::<sockaddr_nl>() == 12);

/// A netlink address as the program reads it; port 0 is the kernel's.
fn bytes(port: u32) -> [u8; LENGTH as usize] {
    let mut bytes = [0; LENGTH as usize];
    bytes[..2].copy_from_slice(&FAMILY.to_ne_bytes());
    bytes[4..8].copy_from_slice(&port.to_ne_bytes());
    bytes
}

#[allow(clippy::cast_possible_truncation)] // 16
const FAMILY: u16 = AF_NETLINK as u16;

/// Writes the address of `port` as far as `*length` bytes reach, and the true length, as `getsockname` does.
///
/// # Safety
///
/// `address` is null or valid for writing `*length` bytes; `length` is null or valid for reading and writing.
pub(crate) unsafe fn write(port: u32, address: *mut sockaddr, length: *mut socklen_t) {
    if length.is_null() {
        return;
    }
    // SAFETY: valid for reading by the caller's word.
    let room = unsafe { length.read() };
    if !address.is_null() {
        let bytes = bytes(port);
        let count = bytes.len().min(usize::try_from(room).unwrap_or(0));
        // SAFETY: `count` is at most what either side has room for, and `bytes` is a local of ours.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address.cast::<u8>(), count) };
    }
    // SAFETY: valid for writing by the caller's word.
    unsafe { length.write(LENGTH) }
}

/// Port and multicast groups out of a netlink address; `None` for anything else.
///
/// # Safety
///
/// `address` is null or valid for reading `length` bytes.
pub(crate) unsafe fn read(address: *const sockaddr, length: socklen_t) -> Option<(u32, u32)> {
    if address.is_null() || length < LENGTH {
        return None;
    }
    let mut bytes = [0_u8; LENGTH as usize];
    // SAFETY: at least LENGTH bytes are there by the caller's word.
    unsafe { std::ptr::copy_nonoverlapping(address.cast::<u8>(), bytes.as_mut_ptr(), bytes.len()) };
    parse(bytes)
}

fn parse(bytes: [u8; LENGTH as usize]) -> Option<(u32, u32)> {
    let [f0, f1, _, _, p0, p1, p2, p3, g0, g1, g2, g3] = bytes;
    (u16::from_ne_bytes([f0, f1]) == FAMILY)
        .then(|| (u32::from_ne_bytes([p0, p1, p2, p3]), u32::from_ne_bytes([g0, g1, g2, g3])))
}

/// The address of `port` with no groups, for the kernel.
pub(crate) fn of_port(port: u32) -> sockaddr_nl {
    // SAFETY: a sockaddr_nl is integers only; all zeros is one.
    let mut address = unsafe { std::mem::zeroed::<sockaddr_nl>() };
    address.nl_family = FAMILY;
    address.nl_pid = port;
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_far_as_there_is_room() {
        for room in [0_u32, 2, 11, 12, 128] {
            let mut place = [0xaa_u8; 128];
            let mut length = room;
            // SAFETY: `place` has 128 bytes and `length` says at most that.
            unsafe { write(0x0102_0304, place.as_mut_ptr().cast(), &raw mut length) };
            assert_eq!(length, 12);
            let written = usize::try_from(room).unwrap().min(12);
            assert_eq!(place[..written], bytes(0x0102_0304)[..written]);
            assert!(place[written..].iter().all(|byte| *byte == 0xaa));
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_else_is() {
        let mut place = [0_u8; 12];
        let mut length = 12;
        // SAFETY: 12 bytes are there.
        unsafe { write(77, place.as_mut_ptr().cast(), &raw mut length) };
        // SAFETY: as above.
        assert_eq!(unsafe { read(place.as_ptr().cast(), 12) }, Some((77, 0)));
        // SAFETY: as above; too short to be one.
        assert_eq!(unsafe { read(place.as_ptr().cast(), 11) }, None);
        place[0] = 1;
        // SAFETY: as above; another family.
        assert_eq!(unsafe { read(place.as_ptr().cast(), 12) }, None);
        // SAFETY: null is allowed.
        assert_eq!(unsafe { read(std::ptr::null(), 12) }, None);
    }
}
