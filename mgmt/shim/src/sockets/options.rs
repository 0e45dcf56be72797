//! Socket options: a netlink socket's where it is asked for them, IPVS's on none.

use libc::{AF_NETLINK, SOL_SOCKET, c_int, c_void, socklen_t};

use super::side::to_kernel;
use super::{NETLINK_GENERIC, SOL_NETLINK, directed};
use crate::table::{OPTIONS, Socket};
use crate::{fail, next, table};

const NETLINK_ADD_MEMBERSHIP: c_int = 1;
const NETLINK_DROP_MEMBERSHIP: c_int = 2;
/// The kernel's IPVS socket options, in both directions, and as many again as it reserves (linux/ip_vs.h).
const IP_VS_OPTIONS: std::ops::RangeInclusive<c_int> = 0x480..=0x4bf;

fn is_ipvs_option(level: c_int, name: c_int) -> bool {
    level == libc::SOL_IP && IP_VS_OPTIONS.contains(&name)
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if is_ipvs_option(level, name) {
        return fail(libc::ENOPROTOOPT);
    }
    let answer = directed(fd).and_then(|socket| made_up(socket, level, name));
    match answer {
        // SAFETY: the caller's buffer is as libc wants it.
        Some(answer) => unsafe { write_number(answer, value.cast(), length) },
        // SAFETY: passed on as it came.
        None => unsafe { next::getsockopt(fd, level, name, value, length) },
    }
}

/// What a netlink socket would say of itself, where a unix socket would not say the same.
fn made_up(socket: Socket, level: c_int, name: c_int) -> Option<c_int> {
    match (level, name) {
        (SOL_SOCKET, libc::SO_DOMAIN) => Some(AF_NETLINK),
        (SOL_SOCKET, libc::SO_TYPE) => Some(libc::SOCK_RAW),
        (SOL_SOCKET, libc::SO_PROTOCOL) => Some(NETLINK_GENERIC),
        (SOL_NETLINK, _) => Some(c_int::from(option_bit(name).is_some_and(|bit| socket.options & bit != 0))),
        _ => None,
    }
}

/// # Safety
///
/// `value` is valid for writing `*length` bytes, and `length` for reading and writing.
unsafe fn write_number(number: c_int, value: *mut u8, length: *mut socklen_t) -> c_int {
    if value.is_null() || length.is_null() {
        return fail(libc::EFAULT);
    }
    let bytes = number.to_ne_bytes();
    // SAFETY: valid for reading by the caller's word.
    let room = usize::try_from(unsafe { length.read() }).unwrap_or(0);
    let count = bytes.len().min(room);
    // SAFETY: `count` is at most what either side has room for.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), value, count) };
    // SAFETY: valid for writing by the caller's word.
    unsafe { length.write(socklen_t::try_from(count).unwrap_or(0)) };
    0
}

fn option_bit(name: c_int) -> Option<u32> {
    let name = u32::try_from(name).ok().filter(|name| *name < OPTIONS)?;
    Some(1 << name)
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    if is_ipvs_option(level, name) {
        return fail(libc::ENOPROTOOPT);
    }
    match directed(fd).filter(|_| level == SOL_NETLINK) {
        None => {}
        // IPVS has no multicast groups: these are of other families.
        Some(socket) if name == NETLINK_ADD_MEMBERSHIP || name == NETLINK_DROP_MEMBERSHIP => {
            if let Err(error) = to_kernel(fd, socket) {
                return fail(error);
            }
        }
        Some(socket) => {
            // SAFETY: the caller's value is valid for its length.
            let on = unsafe { read_number(value, length) } != 0;
            let bit = option_bit(name).unwrap_or(0);
            let options = if on { socket.options | bit } else { socket.options & !bit };
            table::set(fd, Socket { options, ..socket });
            return 0;
        }
    }
    // SAFETY: passed on as it came.
    unsafe { next::setsockopt(fd, level, name, value, length) }
}

/// # Safety
///
/// `value` is null or valid for reading `length` bytes.
unsafe fn read_number(value: *const c_void, length: socklen_t) -> c_int {
    if value.is_null() || usize::try_from(length).unwrap_or(0) < size_of::<c_int>() {
        return 0;
    }
    // SAFETY: long enough; it need not be aligned.
    unsafe { value.cast::<c_int>().read_unaligned() }
}
