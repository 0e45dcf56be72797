//! One director for each EAL file prefix in a network namespace.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Why a prefix cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PrefixError {
    /// Another director has it.
    #[error(
        "another uvsd runs with dpdk.file_prefix = \"{0}\"; stop it first, or choose another prefix for a second one"
    )]
    Taken(String),
    /// The system refuses.
    #[error("dpdk.file_prefix \"{prefix}\" cannot be locked: {error}")]
    Io {
        /// The prefix.
        prefix: String,
        /// Why.
        error: io::Error,
    },
}

/// A held prefix. It is a name in the abstract socket namespace: the kernel frees it with the process, however that ends.
#[derive(Debug)]
pub struct PrefixLock {
    _name: UnixDatagram,
}

impl PrefixLock {
    /// Takes a prefix.
    ///
    /// # Errors
    ///
    /// Another director has it.
    pub fn take(prefix: &str) -> Result<Self, PrefixError> {
        let bound = SocketAddr::from_abstract_name(format!("uvs/prefix/{prefix}"))
            .and_then(|address| UnixDatagram::bind_addr(&address));
        bound.map(|name| Self { _name: name }).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => PrefixError::Taken(prefix.to_owned()),
            _ => PrefixError::Io { prefix: prefix.to_owned(), error },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_held_once_and_freed_with_its_holder() {
        let prefix = format!("test-{}", std::process::id());
        let held = PrefixLock::take(&prefix).unwrap();
        let sentence = PrefixLock::take(&prefix).unwrap_err().to_string();
        assert!(sentence.contains("another uvsd runs with dpdk.file_prefix"), "{sentence}");
        drop(held);
        PrefixLock::take(&prefix).unwrap();
    }
}
