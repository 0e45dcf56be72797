//! Duplicates of descriptors.

use libc::{c_int, c_void};

use crate::{errno, next, set_errno, table};

/// A duplicate leads where the original leads.
fn copied(from: c_int, to: c_int) -> c_int {
    if to >= 0
        && from != to
        && let Some(socket) = table::get(from)
    {
        let before = errno();
        table::set(to, socket);
        set_errno(before);
    }
    to
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: passed on as it came.
    copied(fd, unsafe { next::dup(fd) })
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn dup2(fd: c_int, other: c_int) -> c_int {
    // SAFETY: passed on as it came.
    copied(fd, unsafe { next::dup2(fd, other) })
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn dup3(fd: c_int, other: c_int, flags: c_int) -> c_int {
    // SAFETY: passed on as it came.
    copied(fd, unsafe { next::dup3(fd, other, flags) })
}

/// Variadic in C: on the ABIs of Linux the third argument arrives in the same register either way.
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: passed on as it came.
    after_fcntl(fd, command, unsafe { next::fcntl(fd, command, argument) })
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: passed on as it came.
    after_fcntl(fd, command, unsafe { next::fcntl64(fd, command, argument) })
}

fn after_fcntl(fd: c_int, command: c_int, answer: c_int) -> c_int {
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => copied(fd, answer),
        _ => answer,
    }
}
