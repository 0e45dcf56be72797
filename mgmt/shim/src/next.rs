//! The functions this library stands in front of: the next definition after ours in the search order.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{FILE, c_char, c_int, c_uint, c_void, msghdr, size_t, sockaddr, socklen_t, ssize_t};

use crate::{fail, fail_length, fail_stream};

/// One function, looked up when first needed; [`look_up_all`] sees to it that this is not in a signal handler.
struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn get(&self) -> *mut c_void {
        let found = self.found.load(Ordering::Relaxed);
        if !found.is_null() {
            return found;
        }
        // SAFETY: the name is a C string; dlsym may be called at any time after the loader mapped this library.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        // Every thread finds the same address.
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

/// Declares wrappers that call the next function of the same name; `$missing` is the answer where there is none.
macro_rules! next {
    ($($function:ident $name:literal ($($argument:ident: $type:ty),*) -> $result:ty as $kind:ty, else $missing:expr;)*) => {
        /// One place for each function's address, by its name.
        #[allow(non_upper_case_globals)]
        mod place {
            $(pub(super) static $function: super::Next = super::Next::new($name);)*
        }

        $(
            /// The next function of this name; its contract is libc's.
            pub(crate) unsafe fn $function($($argument: $type),*) -> $result {
                let found = place::$function.get();
                if found.is_null() {
                    return $missing;
                }
                // SAFETY: libc's function of this name has this signature (its manual page).
                let function = unsafe { std::mem::transmute::<*mut c_void, $kind>(found) };
                // SAFETY: the caller keeps libc's contract.
                unsafe { function($($argument),*) }
            }
        )*

        /// Looks all of them up.
        pub(crate) fn look_up_all() {
            $(let _found = place::$function.get();)*
        }
    };
}

type Socket = unsafe extern "C" fn(c_int, c_int, c_int) -> c_int;
type Address = unsafe extern "C" fn(c_int, *const sockaddr, socklen_t) -> c_int;
type AddressOut = unsafe extern "C" fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int;
type GetOption = unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int;
type SetOption = unsafe extern "C" fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int;
type SendMessage = unsafe extern "C" fn(c_int, *const msghdr, c_int) -> ssize_t;
type SendTo =
    unsafe extern "C" fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t;
type Send = unsafe extern "C" fn(c_int, *const c_void, size_t, c_int) -> ssize_t;
type ReceiveMessage = unsafe extern "C" fn(c_int, *mut msghdr, c_int) -> ssize_t;
type ReceiveFrom =
    unsafe extern "C" fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
type Receive = unsafe extern "C" fn(c_int, *mut c_void, size_t, c_int) -> ssize_t;
type ReceiveFromChecked =
    unsafe extern "C" fn(c_int, *mut c_void, size_t, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
type ReceiveChecked = unsafe extern "C" fn(c_int, *mut c_void, size_t, size_t, c_int) -> ssize_t;
type Duplicate = unsafe extern "C" fn(c_int) -> c_int;
type DuplicateTo = unsafe extern "C" fn(c_int, c_int) -> c_int;
type DuplicateWith = unsafe extern "C" fn(c_int, c_int, c_int) -> c_int;
// Variadic in C; the extra argument is always passed on, as the kernel ignores it where it has no meaning.
type Control = unsafe extern "C" fn(c_int, c_int, ...) -> c_int;
type Open = unsafe extern "C" fn(*const c_char, c_int, ...) -> c_int;
type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, ...) -> c_int;
type OpenChecked = unsafe extern "C" fn(*const c_char, c_int) -> c_int;
type OpenAtChecked = unsafe extern "C" fn(c_int, *const c_char, c_int) -> c_int;
type OpenStream = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut FILE;
type ReopenStream = unsafe extern "C" fn(*const c_char, *const c_char, *mut FILE) -> *mut FILE;
type Access = unsafe extern "C" fn(*const c_char, c_int) -> c_int;
type AccessAt = unsafe extern "C" fn(c_int, *const c_char, c_int, c_int) -> c_int;
// The two kinds of `struct stat` are filled by libc; this library only hands the pointer on.
type Stat = unsafe extern "C" fn(*const c_char, *mut c_void) -> c_int;
type StatAt = unsafe extern "C" fn(c_int, *const c_char, *mut c_void, c_int) -> c_int;
type Statx = unsafe extern "C" fn(c_int, *const c_char, c_int, c_uint, *mut c_void) -> c_int;

next! {
    socket c"socket" (domain: c_int, kind: c_int, protocol: c_int) -> c_int as Socket, else fail(libc::ENOSYS);
    bind c"bind" (fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int as Address, else fail(libc::ENOSYS);
    connect c"connect" (fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int as Address, else fail(libc::ENOSYS);
    getsockname c"getsockname" (fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int as AddressOut, else fail(libc::ENOSYS);
    getpeername c"getpeername" (fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int as AddressOut, else fail(libc::ENOSYS);
    getsockopt c"getsockopt" (fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int as GetOption, else fail(libc::ENOSYS);
    setsockopt c"setsockopt" (fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t) -> c_int as SetOption, else fail(libc::ENOSYS);
    sendmsg c"sendmsg" (fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t as SendMessage, else fail_length(libc::ENOSYS);
    sendto c"sendto" (fd: c_int, data: *const c_void, length: size_t, flags: c_int, address: *const sockaddr, address_length: socklen_t) -> ssize_t as SendTo, else fail_length(libc::ENOSYS);
    send c"send" (fd: c_int, data: *const c_void, length: size_t, flags: c_int) -> ssize_t as Send, else fail_length(libc::ENOSYS);
    recvmsg c"recvmsg" (fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t as ReceiveMessage, else fail_length(libc::ENOSYS);
    recvfrom c"recvfrom" (fd: c_int, data: *mut c_void, length: size_t, flags: c_int, address: *mut sockaddr, address_length: *mut socklen_t) -> ssize_t as ReceiveFrom, else fail_length(libc::ENOSYS);
    recv c"recv" (fd: c_int, data: *mut c_void, length: size_t, flags: c_int) -> ssize_t as Receive, else fail_length(libc::ENOSYS);
    recvfrom_chk c"__recvfrom_chk" (fd: c_int, data: *mut c_void, length: size_t, room: size_t, flags: c_int, address: *mut sockaddr, address_length: *mut socklen_t) -> ssize_t as ReceiveFromChecked, else fail_length(libc::ENOSYS);
    recv_chk c"__recv_chk" (fd: c_int, data: *mut c_void, length: size_t, room: size_t, flags: c_int) -> ssize_t as ReceiveChecked, else fail_length(libc::ENOSYS);
    dup c"dup" (fd: c_int) -> c_int as Duplicate, else fail(libc::ENOSYS);
    dup2 c"dup2" (fd: c_int, other: c_int) -> c_int as DuplicateTo, else fail(libc::ENOSYS);
    dup3 c"dup3" (fd: c_int, other: c_int, flags: c_int) -> c_int as DuplicateWith, else fail(libc::ENOSYS);
    fcntl c"fcntl" (fd: c_int, command: c_int, argument: *mut c_void) -> c_int as Control, else fail(libc::ENOSYS);
    fcntl64 c"fcntl64" (fd: c_int, command: c_int, argument: *mut c_void) -> c_int as Control, else fail(libc::ENOSYS);
    open c"open" (path: *const c_char, flags: c_int, mode: c_uint) -> c_int as Open, else fail(libc::ENOSYS);
    open64 c"open64" (path: *const c_char, flags: c_int, mode: c_uint) -> c_int as Open, else fail(libc::ENOSYS);
    openat c"openat" (directory: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int as OpenAt, else fail(libc::ENOSYS);
    openat64 c"openat64" (directory: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int as OpenAt, else fail(libc::ENOSYS);
    open_2 c"__open_2" (path: *const c_char, flags: c_int) -> c_int as OpenChecked, else fail(libc::ENOSYS);
    open64_2 c"__open64_2" (path: *const c_char, flags: c_int) -> c_int as OpenChecked, else fail(libc::ENOSYS);
    openat_2 c"__openat_2" (directory: c_int, path: *const c_char, flags: c_int) -> c_int as OpenAtChecked, else fail(libc::ENOSYS);
    openat64_2 c"__openat64_2" (directory: c_int, path: *const c_char, flags: c_int) -> c_int as OpenAtChecked, else fail(libc::ENOSYS);
    fopen c"fopen" (path: *const c_char, mode: *const c_char) -> *mut FILE as OpenStream, else fail_stream(libc::ENOSYS);
    fopen64 c"fopen64" (path: *const c_char, mode: *const c_char) -> *mut FILE as OpenStream, else fail_stream(libc::ENOSYS);
    freopen c"freopen" (path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE as ReopenStream, else fail_stream(libc::ENOSYS);
    freopen64 c"freopen64" (path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE as ReopenStream, else fail_stream(libc::ENOSYS);
    access c"access" (path: *const c_char, mode: c_int) -> c_int as Access, else fail(libc::ENOSYS);
    faccessat c"faccessat" (directory: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int as AccessAt, else fail(libc::ENOSYS);
    stat c"stat" (path: *const c_char, place: *mut c_void) -> c_int as Stat, else fail(libc::ENOSYS);
    stat64 c"stat64" (path: *const c_char, place: *mut c_void) -> c_int as Stat, else fail(libc::ENOSYS);
    lstat c"lstat" (path: *const c_char, place: *mut c_void) -> c_int as Stat, else fail(libc::ENOSYS);
    lstat64 c"lstat64" (path: *const c_char, place: *mut c_void) -> c_int as Stat, else fail(libc::ENOSYS);
    fstatat c"fstatat" (directory: c_int, path: *const c_char, place: *mut c_void, flags: c_int) -> c_int as StatAt, else fail(libc::ENOSYS);
    fstatat64 c"fstatat64" (directory: c_int, path: *const c_char, place: *mut c_void, flags: c_int) -> c_int as StatAt, else fail(libc::ENOSYS);
    statx c"statx" (directory: c_int, path: *const c_char, flags: c_int, mask: c_uint, place: *mut c_void) -> c_int as Statx, else fail(libc::ENOSYS);
}
