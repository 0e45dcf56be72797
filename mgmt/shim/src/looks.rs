//! The calls that ask whether a file is there: `[ -e /proc/net/ip_vs ]` is how scripts find out whether there is IPVS.
//!
//! For the files of IPVS they are answered for another file of the same directory, with the same mode and owner, where
//! uvsd can be reached.

use std::ffi::CStr;

use libc::{c_char, c_int, c_uint, c_void};

use crate::opens::named;
use crate::{endpoint, fail, next};

/// What stands for a file of IPVS.
const STAND_IN: &CStr = c"/proc/net/dev";

/// The path to ask for: the program's own, or the stand-in's; errno where uvsd cannot be reached.
///
/// # Safety
///
/// `path` is null or a C string.
unsafe fn asked(directory: c_int, path: *const c_char) -> Result<*const c_char, c_int> {
    // SAFETY: by the caller's word.
    match unsafe { named(directory, path) } {
        None => Ok(path),
        Some(_) => endpoint::reach().map(|()| STAND_IN.as_ptr()),
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn access(path: *const c_char, mode: c_int) -> c_int {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { asked(libc::AT_FDCWD, path) } {
        // SAFETY: passed on as it came, or with a C string of ours.
        Ok(path) => unsafe { next::access(path, mode) },
        Err(error) => fail(error),
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn faccessat(
    directory: c_int,
    path: *const c_char,
    mode: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { asked(directory, path) } {
        // SAFETY: passed on as it came, or with a C string of ours.
        Ok(path) => unsafe { next::faccessat(directory, path, mode, flags) },
        Err(error) => fail(error),
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn stat(path: *const c_char, place: *mut c_void) -> c_int {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { asked(libc::AT_FDCWD, path) } {
        // SAFETY: passed on as it came, or with a C string of ours.
        Ok(path) => unsafe { next::stat(path, place) },
        Err(error) => fail(error),
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn stat64(path: *const c_char, place: *mut c_void) -> c_int {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { asked(libc::AT_FDCWD, path) } {
        // SAFETY: passed on as it came, or with a C string of ours.
        Ok(path) => unsafe { next::stat64(path, place) },
        Err(error) => fail(error),
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn lstat(path: *const c_char, place: *mut c_void) -> c_int {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { asked(libc::AT_FDCWD, path) } {
        // SAFETY: passed on as it came, or with a C string of ours.
        Ok(path) => unsafe { next::lstat(path, place) },
        Err(error) => fail(error),
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn lstat64(path: *const c_char, place: *mut c_void) -> c_int {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { asked(libc::AT_FDCWD, path) } {
        // SAFETY: passed on as it came, or with a C string of ours.
        Ok(path) => unsafe { next::lstat64(path, place) },
        Err(error) => fail(error),
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn fstatat(
    directory: c_int,
    path: *const c_char,
    place: *mut c_void,
    flags: c_int,
) -> c_int {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { asked(directory, path) } {
        // SAFETY: passed on as it came, or with a C string of ours.
        Ok(path) => unsafe { next::fstatat(directory, path, place, flags) },
        Err(error) => fail(error),
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn fstatat64(
    directory: c_int,
    path: *const c_char,
    place: *mut c_void,
    flags: c_int,
) -> c_int {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { asked(directory, path) } {
        // SAFETY: passed on as it came, or with a C string of ours.
        Ok(path) => unsafe { next::fstatat64(directory, path, place, flags) },
        Err(error) => fail(error),
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn statx(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    place: *mut c_void,
) -> c_int {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { asked(directory, path) } {
        // SAFETY: passed on as it came, or with a C string of ours.
        Ok(path) => unsafe { next::statx(directory, path, flags, mask, place) },
        Err(error) => fail(error),
    }
}
