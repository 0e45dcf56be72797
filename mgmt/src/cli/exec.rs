//! `uvsctl exec -- COMMAND`: runs a program of LVS's own so that it manages uvsd instead of the kernel's IPVS.
//!
//! The program runs with `libuvs_ipvs.so` preloaded, which leads its IPVS netlink to the endpoint beside the control
//! socket; what it starts inherits that. Exit codes are the command's own; 126 and 127 as a shell has them where it
//! cannot be run or found.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::Failure;

const LIBRARY: &str = "libuvs_ipvs.so";
/// Names the library, where it lies elsewhere.
const LIBRARY_VARIABLE: &str = "UVS_IPVS_LIBRARY";
/// Where the library looks for the endpoint.
const SOCKET_VARIABLE: &str = "UVS_IPVS_SOCKET";
const ENDPOINT: &str = "ipvs.sock";
/// Below a prefix such as /usr.
const DIRECTORY: &str = "lib/uvs";

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The library is in none of the places.
    #[error("{LIBRARY} is not to be found; looked for {}; build it (cargo build --release -p uvs_ipvs) or set {LIBRARY_VARIABLE}", list(.0))]
    NoLibrary(Vec<PathBuf>),
    /// The loader takes no such path.
    #[error("the loader cannot preload `{}`: the path has a space or a colon in it, or is not absolute; install {LIBRARY} elsewhere or set {LIBRARY_VARIABLE}", .0.display())]
    Path(PathBuf),
    /// The command does not start.
    #[error("cannot run `{}`: {error}", .command.to_string_lossy())]
    Command {
        /// As it was given.
        command: OsString,
        /// The system's word.
        error: io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

impl ExecError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Command { error, .. } if error.kind() == io::ErrorKind::NotFound => 127,
            Self::Command { .. } => 126,
            _ => 1,
        }
    }
}

/// Becomes the command; returns only when that fails.
///
/// `control` is the control socket, beside which the endpoint lies unless the environment names another.
pub(super) fn exec(control: &Path, command: &[OsString]) -> Failure {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::Usage("name a command after --".into());
    };
    match prepared(control, program, arguments) {
        Ok(mut prepared) => {
            let error = prepared.exec();
            ExecError::Command { command: program.clone(), error }.into()
        }
        Err(error) => error.into(),
    }
}

fn prepared(control: &Path, program: &OsStr, arguments: &[OsString]) -> Result<Command, ExecError> {
    let library = library()?;
    let preload = preload(&library, env::var_os("LD_PRELOAD").as_deref())?;
    let endpoint = match env::var_os(SOCKET_VARIABLE) {
        Some(path) if !path.is_empty() => path.into(),
        _ => endpoint(control),
    };
    if let Err(error) = reach(&endpoint) {
        // Not fatal: keepalived may be started first, and `ipvsadm -h` needs nobody.
        let _nowhere_to_complain = writeln!(
            io::stderr(),
            "uvsctl: no director at {} ({error}); is uvsd running?",
            endpoint.display()
        );
    }
    let mut command = Command::new(program);
    command.args(arguments).env("LD_PRELOAD", preload).env(SOCKET_VARIABLE, endpoint);
    Ok(command)
}

/// The library: as the environment says, or around the executable, or below /usr.
///
/// # Errors
///
/// It is in none of these places.
pub fn library() -> Result<PathBuf, ExecError> {
    let named = env::var_os(LIBRARY_VARIABLE).filter(|name| !name.is_empty());
    found(candidates(named.as_deref(), env::current_exe().ok().as_deref()))
}

/// Whether somebody listens: the tools would only say that the kernel has no IPVS.
fn reach(endpoint: &Path) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(endpoint)?) {
        // Busy is there.
        Ok(()) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The endpoint that belongs to a control socket: both lie in the directory of their instance.
fn endpoint(control: &Path) -> PathBuf {
    control.with_file_name(ENDPOINT)
}

/// Where the library may lie: as the environment says and nowhere else, or around the executable and below /usr.
fn candidates(named: Option<&OsStr>, executable: Option<&Path>) -> Vec<PathBuf> {
    if let Some(named) = named {
        return vec![named.into()];
    }
    let beside = executable.and_then(Path::parent);
    let prefix = beside.and_then(Path::parent).map(|prefix| prefix.join(DIRECTORY));
    let system = Path::new("/usr").join(DIRECTORY);
    let mut places: Vec<PathBuf> = beside.map(Path::to_path_buf).into_iter().chain(prefix).collect();
    if !places.contains(&system) {
        places.push(system);
    }
    places.into_iter().map(|place| place.join(LIBRARY)).collect()
}

fn found(candidates: Vec<PathBuf>) -> Result<PathBuf, ExecError> {
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(ExecError::NoLibrary(candidates)),
    }
}

/// The value for `LD_PRELOAD`: ours before what is preloaded already, and once.
fn preload(library: &Path, before: Option<&OsStr>) -> Result<OsString, ExecError> {
    let separator = |byte: &u8| *byte == b' ' || *byte == b':';
    if !library.is_absolute() || library.as_os_str().as_bytes().iter().any(separator) {
        return Err(ExecError::Path(library.to_path_buf()));
    }
    let mut value = library.as_os_str().to_owned();
    for other in before.iter().flat_map(|before| before.as_bytes().split(separator)) {
        if !other.is_empty() && other != library.as_os_str().as_bytes() {
            value.push(":");
            value.push(OsStr::from_bytes(other));
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_beside_the_control_socket() {
        assert_eq!(endpoint(Path::new("/run/uvs/control.sock")), Path::new("/run/uvs/ipvs.sock"));
        assert_eq!(endpoint(Path::new("/run/lab/a/control.sock")), Path::new("/run/lab/a/ipvs.sock"));
    }

    #[test]
    fn the_library_is_looked_for_around_the_executable() {
        let places = candidates(None, Some(Path::new("/usr/local/bin/uvsctl")));
        let expected = [
            "/usr/local/bin/libuvs_ipvs.so",
            "/usr/local/lib/uvs/libuvs_ipvs.so",
            "/usr/lib/uvs/libuvs_ipvs.so",
        ];
        assert_eq!(places, expected.map(PathBuf::from));
        assert_eq!(candidates(None, Some(Path::new("/usr/bin/uvsctl"))).len(), 2, "none twice");
        let named = candidates(Some(OsStr::new("/x/y.so")), Some(Path::new("/usr/bin/uvsctl")));
        assert_eq!(named, [PathBuf::from("/x/y.so")]);
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_every_place() {
        let error = found(candidates(None, Some(Path::new("/nonexistent/bin/uvsctl")))).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/nonexistent/bin/libuvs_ipvs.so, /nonexistent/lib/uvs/libuvs_ipvs.so"),
            "{text}"
        );
        assert!(text.contains("set UVS_IPVS_LIBRARY"), "{text}");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn what_was_preloaded_stays_preloaded() {
        let library = Path::new("/usr/lib/uvs/libuvs_ipvs.so");
        let value = |before: Option<&str>| preload(library, before.map(OsStr::new)).unwrap();
        assert_eq!(value(None), "/usr/lib/uvs/libuvs_ipvs.so");
        assert_eq!(value(Some("/a.so:/b.so /c.so")), "/usr/lib/uvs/libuvs_ipvs.so:/a.so:/b.so:/c.so");
        assert_eq!(value(Some("/usr/lib/uvs/libuvs_ipvs.so:/a.so")), "/usr/lib/uvs/libuvs_ipvs.so:/a.so");
    }

    #[test]
    fn a_path_that_the_loader_would_cut_is_refused() {
        for path in ["/a b/l.so", "/a:b/l.so", "l.so", "./l.so"] {
            let error = preload(Path::new(path), None).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}
