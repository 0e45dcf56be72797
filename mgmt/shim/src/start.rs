//! What happens when the library is loaded into a program, before its `main`.

use std::ffi::CStr;

use libc::{c_char, c_int};

use crate::{endpoint, next};

/// The loader's list of functions to call; glibc hands them the program's arguments.
#[cfg_attr(not(test), used, unsafe(link_section = ".init_array"))]
#[cfg_attr(test, allow(dead_code))]
static START: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = start;

extern "C" fn start(count: c_int, arguments: *const *const c_char, _environment: *const *const c_char) {
    next::look_up_all();
    // SAFETY: the name is a C string, and the process has one thread yet.
    let path = unsafe { libc::getenv(c"UVS_IPVS_SOCKET".as_ptr()) };
    // SAFETY: null, or a C string in the environment that nobody changes meanwhile.
    endpoint::remember(unsafe { bytes(path) });
    let arguments = (0..usize::try_from(count).unwrap_or(0)).map(|index| {
        // SAFETY: the loader hands over `count` arguments.
        let argument = unsafe { arguments.add(index) };
        // SAFETY: as above.
        let argument = unsafe { argument.read() };
        // SAFETY: arguments are C strings that live as long as the process.
        unsafe { bytes(argument) }
    });
    match modprobe(arguments) {
        Modprobe::Run => {}
        // SAFETY: ends the process; nothing of the program has run that would want to be called back.
        Modprobe::Skip => unsafe { libc::_exit(0) },
    }
}

/// The bytes of a C string, none for null.
///
/// # Safety
///
/// `text` is null or a C string that lives and stays as it is for `'a`.
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: by the caller's word.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

/// What a program of these arguments should do.
#[derive(Debug, PartialEq, Eq)]
enum Modprobe {
    /// Go on.
    Run,
    /// End with success: it is a `modprobe` of the kernel's IPVS.
    Skip,
}

fn modprobe<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Modprobe {
    let program = arguments.next().unwrap_or_default();
    if program.rsplit(|byte| *byte == b'/').next() != Some(b"modprobe") {
        return Modprobe::Run;
    }
    // The first that is no option is the module; the rest are its parameters, or further modules after `-a`.
    match arguments.find(|argument| argument.first() != Some(&b'-')) {
        Some(module) if is_ipvs(module) => Modprobe::Skip,
        _ => Modprobe::Run,
    }
}

/// `ip_vs`, `ip_vs_rr`, …: modprobe takes a hyphen for an underscore.
fn is_ipvs(module: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'-' { b'_' } else { *byte };
    let start: Vec<u8> = module.iter().take(6).map(plain).collect();
    start == b"ip_vs" || start == b"ip_vs_"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(line: &str) -> Modprobe {
        modprobe(line.split(' ').map(str::as_bytes))
    }

    #[test]
    fn the_kernels_ipvs_is_not_loaded() {
        for line in [
            "/sbin/modprobe -- ip_vs",
            "modprobe -s -- ip_vs",
            "modprobe ip_vs",
            "modprobe ip-vs",
            "/usr/sbin/modprobe -q ip_vs_wlc",
            "modprobe ip_vs conn_tab_bits=20",
            "modprobe -r ip_vs",
            "modprobe -a ip_vs ip_vs_rr",
        ] {
            assert_eq!(judge(line), Modprobe::Skip, "{line}");
        }
    }

    #[test]
    fn every_other_program_and_module_is_left_alone() {
        for line in [
            "",
            "modprobe",
            "modprobe --",
            "modprobe -V",
            "modprobe ip_vsx",
            "modprobe ip_tables ip_vs",
            "modprobe wireguard",
            "/sbin/modprobe.d ip_vs",
            "cat ip_vs",
        ] {
            assert_eq!(judge(line), Modprobe::Run, "{line}");
        }
    }
}
