//! The control directory: one director at a time, nobody in it before the modes are right.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

const LOCK: &str = "uvsd.lock";
const DIRECTORY_MODE: u32 = 0o750;
const SOCKET_MODE: u32 = 0o660;
/// Connections the kernel holds until the accept thread comes.
const BACKLOG: i32 = 16;

/// Why the directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another director is alive.
    #[error("uvsd {who} already serves {}; stop it first, or set control.directory and dpdk.file_prefix for a second one", .directory.display())]
    Taken {
        /// The directory.
        directory: PathBuf,
        /// `pid 4711`, or a word where the other has not written it yet.
        who: String,
    },
    /// It holds things that are not a director's, and its mode would have to change.
    #[error("{} holds `{other}` and is open to others; set control.directory to a directory of its own, such as /run/uvs", .directory.display())]
    NotOurs {
        /// The directory.
        directory: PathBuf,
        /// A file in it.
        other: String,
    },
    /// The configured group does not exist.
    #[error("there is no group `{0}`; create it with `groupadd {0}` or set control.group")]
    NoGroup(String),
    /// A system call failed.
    #[error("{}: {doing}: {error}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// How it failed.
        error: io::Error,
    },
}

fn doing(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    let path = path.to_owned();
    move |error| ClaimError::Io { doing, path, error }
}

/// A claimed directory. Dropping it removes the lock, and the socket if there is one.
#[derive(Debug)]
pub struct ControlDirectory {
    path: PathBuf,
    gid: u32,
    lock: File,
}

impl ControlDirectory {
    /// Makes the directory with its mode and group, and takes the lock in it.
    ///
    /// # Errors
    ///
    /// Another director has it, it belongs to something else, or the system refuses.
    pub fn claim(path: &Path, group: &str) -> Result<Self, ClaimError> {
        let gid = group_id(group)?;
        match DirBuilder::new().mode(DIRECTORY_MODE).recursive(false).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_ours(path)?,
            Err(error) => return Err(doing("cannot be created", path)(error)),
        }
        let lock = take_lock(path)?;
        // The group first: while the mode still lets nobody in, it does not matter whose it is.
        give(path, gid, DIRECTORY_MODE)?;
        Ok(Self { path: path.to_owned(), gid, lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The group that may connect, as a number.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Binds a socket of this name and kind; what a dead director left there is replaced. Its mode and group are set before
    /// `listen`, so that there is no moment in which others could connect.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn listen(&self, name: &str, kind: SocketType) -> Result<UnixListener, ClaimError> {
        let path = self.path.join(name);
        let fail = |what| doing(what, &path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail("cannot be removed")(error));
            }
            _ => {}
        }
        let socket: OwnedFd = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(|error| fail("no socket")(error.into()))?;
        let address =
            SocketAddrUnix::new(&path).map_err(|error| fail("not a socket's path")(error.into()))?;
        bind(&socket, &address).map_err(|error| fail("cannot be bound")(error.into()))?;
        give(&path, self.gid, SOCKET_MODE)?;
        listen(&socket, BACKLOG).map_err(|error| fail("cannot listen")(error.into()))?;
        Ok(UnixListener::from(socket))
    }

    /// Removes a socket, if it is there.
    pub fn unlink(&self, name: &str) {
        let _already_gone = fs::remove_file(self.path.join(name));
    }
}

impl Drop for ControlDirectory {
    fn drop(&mut self) {
        // While the lock is held: whoever opens the file now sees that it is no longer the one in the directory.
        self.unlink(LOCK);
        let _released_by_close = self.lock.unlock();
    }
}

fn give(path: &Path, gid: u32, mode: u32) -> Result<(), ClaimError> {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(0), Some(gid)).map_err(doing("its group cannot be set", path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(doing("its mode cannot be set", path))
}

/// An existing directory is ours when nobody else may look into it, or when there is nothing of others in it.
fn check_ours(path: &Path) -> Result<(), ClaimError> {
    let metadata = fs::metadata(path).map_err(doing("cannot be read", path))?;
    if !metadata.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(doing("cannot hold sockets", path)(error));
    }
    if metadata.mode() & 0o027 == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(doing("cannot be read", path))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name == LOCK || Path::new(&name).extension().is_some_and(|extension| extension == "sock");
        if !ours {
            return Err(ClaimError::NotOurs { directory: path.to_owned(), other: name });
        }
    }
    Ok(())
}

fn take_lock(directory: &Path) -> Result<File, ClaimError> {
    let path = directory.join(LOCK);
    // A director that ends removes the file it holds: then the lock was taken on a file that is no longer there.
    for _ in 0..16 {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(&path)
            .map_err(doing("cannot be opened", &path))?;
        if let Err(error) = file.try_lock() {
            return Err(match error {
                fs::TryLockError::WouldBlock => taken(directory, &mut file),
                fs::TryLockError::Error(error) => doing("cannot be locked", &path)(error),
            });
        }
        let held = file.metadata().map_err(doing("cannot be read", &path))?;
        let same =
            fs::metadata(&path).is_ok_and(|found| found.ino() == held.ino() && found.dev() == held.dev());
        if same {
            let written = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}", std::process::id()));
            written.map_err(doing("cannot be written", &path))?;
            return Ok(file);
        }
    }
    Err(ClaimError::Taken { directory: directory.to_owned(), who: "(starting)".into() })
}

fn taken(directory: &Path, file: &mut File) -> ClaimError {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    let who = match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("pid {pid}"),
        _ => "(starting)".to_owned(),
    };
    ClaimError::Taken { directory: directory.to_owned(), who }
}

/// The number of a group, by name in `/etc/group` or as a number.
fn group_id(name: &str) -> Result<u32, ClaimError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    if name == "root" {
        return Ok(0);
    }
    let path = Path::new("/etc/group");
    let groups = fs::read_to_string(path).map_err(doing("cannot be read", path))?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    });
    found.ok_or_else(|| ClaimError::NoGroup(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("uvs-directory-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    fn own_group() -> String {
        rustix::process::getegid().as_raw().to_string()
    }

    #[test]
    fn a_second_director_is_told_who_the_first_is() {
        let scratch = Scratch::new("second");
        let path = scratch.0.join("uvs");
        let first = ControlDirectory::claim(&path, &own_group()).unwrap();
        let sentence = ControlDirectory::claim(&path, &own_group()).unwrap_err().to_string();
        assert!(sentence.contains(&format!("uvsd pid {} already serves", std::process::id())), "{sentence}");
        drop(first);
        assert!(!path.join(LOCK).exists());
        ControlDirectory::claim(&path, &own_group()).unwrap();
    }

    #[test]
    fn what_a_dead_director_left_is_taken_over() {
        let scratch = Scratch::new("stale");
        let path = scratch.0.join("uvs");
        fs::create_dir(&path).unwrap();
        fs::write(path.join(LOCK), "999999\n").unwrap();
        drop(UnixListener::bind(path.join("control.sock")).unwrap());
        let directory = ControlDirectory::claim(&path, &own_group()).unwrap();
        let _listener = directory.listen("control.sock", SocketType::STREAM).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("control.sock"))), (0o750, 0o660));
        directory.unlink("control.sock");
        assert!(!path.join("control.sock").exists());
    }

    #[test]
    fn a_directory_of_others_keeps_its_mode() {
        let scratch = Scratch::new("others");
        fs::write(scratch.0.join("precious"), "").unwrap();
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
        let sentence = ControlDirectory::claim(&scratch.0, &own_group()).unwrap_err().to_string();
        assert!(sentence.contains("holds `precious`"), "{sentence}");
        assert_eq!(fs::metadata(&scratch.0).unwrap().permissions().mode() & 0o777, 0o755);
        let file = scratch.0.join("precious");
        assert!(ControlDirectory::claim(&file, &own_group()).is_err());
        assert!(matches!(ControlDirectory::claim(&scratch.0, "no-such-group"), Err(ClaimError::NoGroup(_))));
    }
}
