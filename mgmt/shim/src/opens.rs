//! The calls that open files: those of `/proc/net/ip_vs*` give uvsd's text.

use std::ffi::CStr;

use libc::{FILE, c_char, c_int, c_uint};

use crate::{fail, fail_stream, files, next};

/// The file of IPVS that `path`, seen from `directory`, names.
///
/// # Safety
///
/// `path` is null or a C string.
pub(crate) unsafe fn named(directory: c_int, path: *const c_char) -> Option<&'static str> {
    if path.is_null() {
        return None;
    }
    // SAFETY: a C string by the caller's word.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if !files::might_be(path) {
        return None;
    }
    if path.first() == Some(&b'/') {
        return files::named(path);
    }
    // A relative path: from where? `cd /proc/net; cat ip_vs` is ours as well.
    let mut whole = [0_u8; 512];
    let start = directory_path(directory, &mut whole)?;
    let end = start.checked_add(1)?.checked_add(path.len())?;
    *whole.get_mut(start)? = b'/';
    whole.get_mut(start + 1..end)?.copy_from_slice(path);
    files::named(whole.get(..end)?)
}

/// Writes the path of an open directory, or of the working directory, into `place`; returns its length.
fn directory_path(directory: c_int, place: &mut [u8]) -> Option<usize> {
    let before = crate::errno();
    let link = if directory == libc::AT_FDCWD {
        "/proc/thread-self/cwd\0".to_owned()
    } else {
        format!("/proc/thread-self/fd/{directory}\0")
    };
    // SAFETY: `link` ends with a NUL, and `place` has room for its length.
    let length = unsafe { libc::readlink(link.as_ptr().cast(), place.as_mut_ptr().cast(), place.len()) };
    crate::set_errno(before);
    usize::try_from(length).ok()
}

/// The descriptor for a file of IPVS, opened with `flags`.
fn opened(name: &str, flags: c_int) -> c_int {
    if flags & libc::O_ACCMODE != libc::O_RDONLY {
        return fail(libc::EACCES);
    }
    if flags & libc::O_DIRECTORY != 0 {
        return fail(libc::ENOTDIR);
    }
    files::fetch(name, flags & libc::O_CLOEXEC != 0).unwrap_or_else(fail)
}

/// # Safety
///
/// As libc's. Variadic in C: on the ABIs of Linux the last argument arrives in the same register either way.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(libc::AT_FDCWD, path) } {
        Some(name) => opened(name, flags),
        // SAFETY: passed on as it came.
        None => unsafe { next::open(path, flags, mode) },
    }
}

/// # Safety
///
/// As libc's; see [`open`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(libc::AT_FDCWD, path) } {
        Some(name) => opened(name, flags),
        // SAFETY: passed on as it came.
        None => unsafe { next::open64(path, flags, mode) },
    }
}

/// # Safety
///
/// As libc's; see [`open`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn openat(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: c_uint,
) -> c_int {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(directory, path) } {
        Some(name) => opened(name, flags),
        // SAFETY: passed on as it came.
        None => unsafe { next::openat(directory, path, flags, mode) },
    }
}

/// # Safety
///
/// As libc's; see [`open`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn openat64(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: c_uint,
) -> c_int {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(directory, path) } {
        Some(name) => opened(name, flags),
        // SAFETY: passed on as it came.
        None => unsafe { next::openat64(directory, path, flags, mode) },
    }
}

/// What `open` of a program built with `_FORTIFY_SOURCE` is called.
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(libc::AT_FDCWD, path) } {
        Some(name) => opened(name, flags),
        // SAFETY: passed on as it came.
        None => unsafe { next::open_2(path, flags) },
    }
}

/// See [`__open_2`].
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(libc::AT_FDCWD, path) } {
        Some(name) => opened(name, flags),
        // SAFETY: passed on as it came.
        None => unsafe { next::open64_2(path, flags) },
    }
}

/// See [`__open_2`].
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn __openat_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(directory, path) } {
        Some(name) => opened(name, flags),
        // SAFETY: passed on as it came.
        None => unsafe { next::openat_2(directory, path, flags) },
    }
}

/// See [`__open_2`].
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn __openat64_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(directory, path) } {
        Some(name) => opened(name, flags),
        // SAFETY: passed on as it came.
        None => unsafe { next::openat64_2(directory, path, flags) },
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(libc::AT_FDCWD, path) } {
        // SAFETY: `mode` is a C string by the caller's word.
        Some(name) => unsafe { stream(name, mode) },
        // SAFETY: passed on as it came.
        None => unsafe { next::fopen(path, mode) },
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: a C string by the caller's word.
    match unsafe { named(libc::AT_FDCWD, path) } {
        // SAFETY: `mode` is a C string by the caller's word.
        Some(name) => unsafe { stream(name, mode) },
        // SAFETY: passed on as it came.
        None => unsafe { next::fopen64(path, mode) },
    }
}

/// `open`'s flags for a stream's mode; only reading is possible.
fn flags_of(mode: &[u8]) -> c_int {
    let cloexec = if mode.contains(&b'e') { libc::O_CLOEXEC } else { 0 };
    if mode.first() == Some(&b'r') && !mode.contains(&b'+') { cloexec } else { cloexec | libc::O_RDWR }
}

/// A stream that reads the file.
///
/// # Safety
///
/// `mode` is a C string.
unsafe fn stream(name: &str, mode: *const c_char) -> *mut FILE {
    // SAFETY: by the caller's word.
    let fd = opened(name, flags_of(unsafe { CStr::from_ptr(mode) }.to_bytes()));
    if fd < 0 {
        return std::ptr::null_mut();
    }
    // SAFETY: `fd` is ours, and the stream's from now on.
    let stream = unsafe { libc::fdopen(fd, mode) };
    if stream.is_null() {
        let error = crate::errno();
        // SAFETY: there is no stream that owns it.
        unsafe { libc::close(fd) };
        return fail_stream(error);
    }
    stream
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn freopen(
    path: *const c_char,
    mode: *const c_char,
    stream: *mut FILE,
) -> *mut FILE {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { named(libc::AT_FDCWD, path) } {
        // SAFETY: mode and stream are as libc wants them.
        Some(name) => unsafe { reopened(name, mode, stream) },
        // SAFETY: passed on as it came.
        None => unsafe { next::freopen(path, mode, stream) },
    }
}

/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn freopen64(
    path: *const c_char,
    mode: *const c_char,
    stream: *mut FILE,
) -> *mut FILE {
    // SAFETY: null or a C string by the caller's word.
    match unsafe { named(libc::AT_FDCWD, path) } {
        // SAFETY: mode and stream are as libc wants them.
        Some(name) => unsafe { reopened(name, mode, stream) },
        // SAFETY: passed on as it came.
        None => unsafe { next::freopen64(path, mode, stream) },
    }
}

/// Opens the text by its descriptor's path, so that libc does with the stream what it always does.
///
/// # Safety
///
/// `mode` is a C string, `stream` an open stream.
unsafe fn reopened(name: &str, mode: *const c_char, stream: *mut FILE) -> *mut FILE {
    // SAFETY: by the caller's word.
    let fd = opened(name, flags_of(unsafe { CStr::from_ptr(mode) }.to_bytes()) | libc::O_CLOEXEC);
    if fd < 0 {
        let error = crate::errno();
        // As libc, which closes the stream when it cannot open the file.
        // SAFETY: the stream is open by the caller's word.
        unsafe { libc::fclose(stream) };
        return fail_stream(error);
    }
    let path = format!("/proc/self/fd/{fd}\0");
    // SAFETY: the path ends with a NUL; mode and stream are as libc wants them.
    let stream = unsafe { next::freopen(path.as_ptr().cast(), mode, stream) };
    let error = crate::errno();
    // SAFETY: the descriptor is ours alone.
    unsafe { libc::close(fd) };
    crate::set_errno(error);
    stream
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reading_is_possible() {
        assert_eq!(flags_of(b"r"), libc::O_RDONLY);
        assert_eq!(flags_of(b"re"), libc::O_CLOEXEC);
        for mode in [b"r+".as_slice(), b"w", b"a", b"rb+", b""] {
            assert_ne!(flags_of(mode) & libc::O_ACCMODE, libc::O_RDONLY, "{mode:?}");
        }
        assert_eq!(opened("ip_vs", libc::O_WRONLY), -1);
        assert_eq!(crate::errno(), libc::EACCES);
        assert_eq!(opened("ip_vs", libc::O_DIRECTORY), -1);
        assert_eq!(crate::errno(), libc::ENOTDIR);
    }
}
