//! Silences the NIC's own kernel interface.
//!
//! With drivers that leave the NIC to the kernel as well (`af_packet`), the kernel's interface hears every frame too: it
//! would answer ARP a second time and reset every connection to a virtual address. An ingress drop of nftables keeps
//! the frames from the kernel's stack; packet sockets, and with them the driver, still get them.

use crate::mirror::socket::{NetlinkError, RouteSocket};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};

/// Why an interface was not silenced.
#[derive(Debug, thiserror::Error)]
pub enum SilenceError {
    /// No `nft` program.
    #[error(
        "silencing {interface}: the program nft is missing; install the package nftables (without it the kernel would \
         answer for the director on {interface})"
    )]
    Missing {
        /// The interface.
        interface: String,
    },
    /// The name cannot be quoted for nft.
    #[error("silencing {0:?}: not an interface name")]
    Name(String),
    /// No such interface. Newer kernels would take the rule and wait for the interface to come.
    #[error("silencing {0}: there is no such interface")]
    Absent(String),
    /// Another director has it: with its silence this one would take away, at its own end, what keeps the other's kernel
    /// from answering.
    #[error("another uvsd already works on {0}; stop it first, or give this one another NIC")]
    Taken(String),
    /// The kernel could not be asked.
    #[error("silencing {interface}: {error}")]
    Netlink {
        /// The interface.
        interface: String,
        /// Why.
        error: NetlinkError,
    },
    /// nft refused.
    #[error("silencing {interface}: nft: {message}")]
    Refused {
        /// The interface.
        interface: String,
        /// What nft said.
        message: String,
    },
    /// nft could not be run, or the interface not be claimed.
    #[error("silencing {interface}: {error}")]
    Io {
        /// The interface.
        interface: String,
        /// Why.
        error: std::io::Error,
    },
}

/// An interface that the kernel's stack does not hear, until [`Silence::remove`] or drop.
#[derive(Debug)]
pub struct Silence {
    interface: String,
    installed: bool,
    /// The interface's name in this network namespace's abstract sockets: one director for each, freed with the process.
    _owner: UnixDatagram,
}

impl Silence {
    /// Silences `interface`. To be called before the port starts, so that no frame is answered twice. What an earlier
    /// run left behind is replaced in the same transaction.
    ///
    /// # Errors
    /// [`SilenceError`].
    pub fn install(interface: &str) -> Result<Self, SilenceError> {
        let wrong = |c: char| c == '"' || c == '\\' || c == '/' || c.is_whitespace() || c.is_control();
        if !matches!(interface.len(), 1..=15) || interface.contains(wrong) {
            return Err(SilenceError::Name(interface.to_owned()));
        }
        RouteSocket::open().and_then(|mut socket| socket.link(interface)).map_err(|error| {
            match error.errno() {
                Some(Errno::NODEV) => SilenceError::Absent(interface.to_owned()),
                _ => SilenceError::Netlink { interface: interface.to_owned(), error },
            }
        })?;
        let owner = claim(interface)?;
        let table = table(interface);
        // Naming a table makes it, so that deleting it cannot fail.
        let script = format!(
            "table netdev {table}\ndelete table netdev {table}\ntable netdev {table} {{\n  chain ingress {{\n    \
             type filter hook ingress device \"{interface}\" priority -500; policy drop;\n  }}\n}}\n"
        );
        nft(interface, &script)?;
        Ok(Self { interface: interface.to_owned(), installed: true, _owner: owner })
    }

    /// Lets the kernel hear the interface again.
    ///
    /// # Errors
    /// [`SilenceError`].
    pub fn remove(mut self) -> Result<(), SilenceError> {
        self.lift()
    }

    fn lift(&mut self) -> Result<(), SilenceError> {
        if !std::mem::take(&mut self.installed) {
            return Ok(());
        }
        let table = table(&self.interface);
        nft(&self.interface, &format!("table netdev {table}\ndelete table netdev {table}\n"))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = self.lift() {
            tracing::warn!(%error, "the interface stays silenced");
        }
    }
}

fn claim(interface: &str) -> Result<UnixDatagram, SilenceError> {
    let bound = SocketAddr::from_abstract_name(format!("uvs/interface/{interface}"))
        .and_then(|address| UnixDatagram::bind_addr(&address));
    bound.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => SilenceError::Taken(interface.to_owned()),
        _ => SilenceError::Io { interface: interface.to_owned(), error },
    })
}

/// A table name for each interface: nft takes letters, digits and `_` only; `_` itself and the rest as hexadecimal
/// digits, so that no two interfaces share a name.
fn table(interface: &str) -> String {
    let mut name = String::from("uvs_");
    for byte in interface.bytes() {
        if byte.is_ascii_alphanumeric() {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "_{byte:02x}");
        }
    }
    name
}

fn nft(interface: &str, script: &str) -> Result<(), SilenceError> {
    let interface = || interface.to_owned();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => SilenceError::Missing { interface: interface() },
        _ => SilenceError::Io { interface: interface(), error },
    };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .or_else(|error| {
            // A daemon's PATH often lacks the directory that nft is in.
            if error.kind() != std::io::ErrorKind::NotFound {
                return Err(error);
            }
            Command::new("/usr/sbin/nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
        })
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // A refusal is read from its exit and words, also when it closed its input early.
        let _ = input.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message =
        said.lines().find(|line| !line.trim().is_empty()).unwrap_or("failed without a word").to_owned();
    Err(SilenceError::Refused { interface: interface(), message })
}

#[cfg(test)]
mod tests {
    use super::{Silence, SilenceError, claim, table};

    #[test]
    fn every_interface_has_its_own_table() {
        assert_eq!(table("nic0"), "uvs_nic0");
        assert_eq!(table("enp3s0f0np0"), "uvs_enp3s0f0np0");
        assert_ne!(table("a.b"), table("a_b"));
        assert_ne!(table("a_2eb"), table("a.b"));
    }

    #[test]
    fn an_interface_has_one_director_at_a_time() {
        let first = claim("test-claim").unwrap();
        let sentence = claim("test-claim").unwrap_err().to_string();
        assert!(sentence.contains("another uvsd already works on test-claim"), "{sentence}");
        drop(first);
        claim("test-claim").unwrap();
    }

    #[test]
    fn what_is_no_interface_name_never_reaches_nft() {
        for wrong in ["", "nic0\"; flush ruleset; \"", "a b", "1234567890123456", "a\\", "a\nb", "a/b"] {
            assert!(matches!(Silence::install(wrong), Err(SilenceError::Name(_))), "{wrong:?}");
        }
    }
}
