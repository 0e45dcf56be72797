//! The socket that programs written for the kernel's IPVS are led to.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send};

use super::answer::Responder;
use super::outbox::Outbox;
use crate::control::{
    Backend, ClaimError, Client, ControlDirectory, Host, Occupancy, Operators, Peer, Reception, Terms,
    Unserved,
};

/// Longest datagram of a client. The longest that ipvsadm sends has 200 bytes; libnl would send 32 KiB at most.
const DATAGRAM_MAX: usize = 32 * 1024;
/// For a client to take a datagram. Only its own thread waits.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds and rules of the server.
#[derive(Clone)]
pub struct Options {
    /// Who may change things.
    pub operators: Operators,
    /// Clients at a time.
    pub clients: usize,
    /// Silence after which a client gives its place to a new one when all are taken. Silence alone ends none: keepalived holds one
    /// connection as long as it runs, and may say nothing for days.
    pub spared_after: Duration,
    /// Called first on every thread the server starts: puts it on its CPU.
    pub on_thread: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Options {
    /// The director's own bounds.
    #[must_use]
    pub fn new(operators: Operators, clients: usize) -> Self {
        Self { operators, clients, spared_after: Duration::from_secs(60), on_thread: None }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("operators", &self.operators)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

/// A serving IPVS socket. Dropping it stops it.
#[derive(Debug)]
pub struct Server(Reception);

impl Server {
    /// Listens in a claimed directory and serves from a thread of its own.
    ///
    /// # Errors
    ///
    /// The socket cannot be made, or no thread started.
    pub fn start(
        directory: Arc<ControlDirectory>,
        options: Options,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, ClaimError> {
        let Options { operators, clients, spared_after, on_thread } = options;
        let spared_after = Some(spared_after);
        Reception::start(
            directory,
            Terms { operators, clients, spared_after, on_thread },
            Arc::new(Netlink { backend }),
        )
        .map(Self)
    }

    /// How many clients are connected, for `status`.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        self.0.occupancy()
    }

    /// Takes no more clients, ends those there are, removes the socket.
    pub fn stop(&mut self) {
        self.0.stop();
    }
}

struct Netlink {
    backend: Arc<dyn Backend>,
}

impl Host for Netlink {
    const SOCKET: &'static str = "ipvs.sock";
    const KIND: SocketType = SocketType::SEQPACKET;
    const THREADS: &'static str = "ipvs";

    fn serve(&self, client: &Client, peer: Peer) {
        let responder = Responder { backend: self.backend.as_ref(), peer };
        if let Err(error) = converse(&responder, client) {
            tracing::debug!(%error, pid = peer.pid, "ipvs socket: a client's connection broke");
        }
    }

    fn refuse(&self, _: &UnixStream, why: &Unserved) {
        // Nothing was asked yet that an error number could answer.
        tracing::warn!("ipvs socket: a client was turned away: {why}");
    }
}

fn converse(responder: &Responder<'_>, client: &Client) -> io::Result<()> {
    let mut outbox: &UnixStream = &client.stream;
    outbox.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // The length is the datagram's own, however much of it there is room for.
        let length = match recv(outbox, &mut buffer[..], RecvFlags::TRUNC) {
            Ok((_, length)) => length,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        client.asks();
        match buffer.get(..length) {
            Some([]) => return Ok(()),
            Some(datagram) => responder.answer(datagram, &mut outbox)?,
            None => return Err(io::Error::other(format!("a datagram of {length} bytes"))),
        }
    }
}

impl Outbox for &UnixStream {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        loop {
            match send(*self, datagram, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
