//! The clients of one socket: accepted, counted, served on a thread each, ended.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::SocketType;

use super::{ClaimError, ControlDirectory, Operators, Peer};
use crate::protocol::SocketStatus;

/// A client's thread parses what comes to a bounded depth, and holds nothing large on its stack.
const STACK_BYTES: usize = 512 * 1024;
/// After a failed accept (out of file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a socket is, and how its clients are served.
pub(crate) trait Host: Send + Sync + 'static {
    /// Its name in the control directory.
    const SOCKET: &'static str;
    /// What borders its messages have.
    const KIND: SocketType;
    /// How its threads' names begin.
    const THREADS: &'static str;

    /// Serves a client until it leaves or breaks a rule.
    fn serve(&self, client: &Client, peer: Peer);

    /// Says why a client is not served.
    fn refuse(&self, stream: &UnixStream, why: &Unserved);
}

/// Why a client is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unserved {
    /// So many are connected already.
    #[error("all {0} places for clients are taken; try again later")]
    Full(usize),
    /// The system gives no thread.
    #[error("no thread for another client: {0}")]
    NoThread(io::Error),
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    /// The way to it.
    pub(crate) stream: UnixStream,
    epoch: Instant,
    /// Milliseconds of `epoch` when it last asked for something. Written by its thread, read by the accepting one.
    asked: AtomicU64,
}

impl Client {
    fn new(stream: UnixStream, epoch: Instant) -> Self {
        let client = Self { stream, epoch, asked: AtomicU64::new(0) };
        client.asks();
        client
    }

    /// It asks for something just now.
    pub(crate) fn asks(&self) {
        self.asked.store(milliseconds(self.epoch.elapsed()), Ordering::Relaxed);
    }

    fn silent_ms(&self) -> u64 {
        milliseconds(self.epoch.elapsed()).saturating_sub(self.asked.load(Ordering::Relaxed))
    }

    fn end(&self) {
        let _already_gone = self.stream.shutdown(Shutdown::Both);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Bounds of a reception.
#[derive(Clone)]
pub(crate) struct Terms {
    /// Who may change things.
    pub(crate) operators: Operators,
    /// Clients at a time.
    pub(crate) clients: usize,
    /// Silence after which a client gives its place to a new one when all are taken; `None`: never.
    pub(crate) spared_after: Option<Duration>,
    /// Called first on every thread: puts it on its CPU.
    pub(crate) on_thread: Option<Arc<dyn Fn() + Send + Sync>>,
}

struct Shared {
    stopping: AtomicBool,
    /// All clients, so that they can be ended from outside. A client's own thread removes its.
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<u64, Arc<Client>>) -> T) -> T {
        work(&mut self.clients.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How full a socket is.
pub struct Occupancy {
    path: PathBuf,
    places: usize,
    shared: Arc<Shared>,
}

impl fmt::Debug for Occupancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Occupancy").field("socket", &self.path).finish_non_exhaustive()
    }
}

impl Occupancy {
    /// As `status` shows it.
    #[must_use]
    pub fn status(&self) -> SocketStatus {
        let clients = self.shared.with(|clients| clients.len());
        SocketStatus {
            path: self.path.display().to_string(),
            clients: clients as u64,
            capacity: self.places as u64,
        }
    }
}

/// A served socket. Dropping it stops it.
pub(crate) struct Reception {
    directory: Arc<ControlDirectory>,
    socket: &'static str,
    places: usize,
    listener: UnixListener,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl fmt::Debug for Reception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reception")
            .field("socket", &self.directory.path().join(self.socket))
            .finish_non_exhaustive()
    }
}

impl Reception {
    /// Listens in a claimed directory and serves from a thread of its own.
    ///
    /// # Errors
    ///
    /// The socket cannot be made, or no thread started.
    pub(crate) fn start<H: Host>(
        directory: Arc<ControlDirectory>,
        terms: Terms,
        host: Arc<H>,
    ) -> Result<Self, ClaimError> {
        let listener = directory.listen(H::SOCKET, H::KIND)?;
        let path = directory.path().join(H::SOCKET);
        let fail = |error| ClaimError::Io { doing: "cannot be served", path: path.clone(), error };
        let places = terms.clients;
        let shared = Arc::new(Shared { stopping: AtomicBool::new(false), clients: Mutex::default() });
        let acceptor = Acceptor {
            listener: listener.try_clone().map_err(fail)?,
            shared: Arc::clone(&shared),
            terms,
            host,
            epoch: Instant::now(),
        };
        let accepting = Builder::new()
            .name(format!("{}-accept", H::THREADS))
            .stack_size(STACK_BYTES)
            .spawn(move || acceptor.run())
            .map_err(fail)?;
        Ok(Self { directory, socket: H::SOCKET, places, listener, shared, accepting: Some(accepting) })
    }

    /// How many clients are connected, now and whenever it is asked.
    pub(crate) fn occupancy(&self) -> Occupancy {
        let path = self.directory.path().join(self.socket);
        Occupancy { path, places: self.places, shared: Arc::clone(&self.shared) }
    }

    /// Takes no more clients, ends those there are, removes the socket. Returns when the accepting thread has ended; a
    /// client's thread ends by itself with the call it is in.
    pub(crate) fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.directory.unlink(self.socket);
        // Wakes the thread from accept(2), which then fails.
        let _only_wakes = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _panicked = accepting.join();
        self.shared.with(|clients| clients.values().for_each(|client| client.end()));
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Acceptor<H> {
    listener: UnixListener,
    shared: Arc<Shared>,
    terms: Terms,
    host: Arc<H>,
    epoch: Instant,
}

impl<H: Host> Acceptor<H> {
    fn run(&self) {
        if let Some(on_thread) = &self.terms.on_thread {
            on_thread();
        }
        let mut next = 0;
        loop {
            let accepted = self.listener.accept();
            if self.shared.stopping.load(Ordering::SeqCst) {
                return;
            }
            match accepted {
                Ok((stream, _)) => {
                    next += 1;
                    self.admit(stream, next);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "{}: accept failed", H::SOCKET);
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn admit(&self, stream: UnixStream, number: u64) {
        if !self.has_room() {
            return self.refuse(&stream, &Unserved::Full(self.terms.clients));
        }
        let Ok(peer) = self.terms.operators.identify(&stream) else { return };
        let client = Arc::new(Client::new(stream, self.epoch));
        self.shared.with(|clients| clients.insert(number, Arc::clone(&client)));
        let (shared, host, on_thread) =
            (Arc::clone(&self.shared), Arc::clone(&self.host), self.terms.on_thread.clone());
        let served = Arc::clone(&client);
        let session = move || {
            if let Some(on_thread) = on_thread {
                on_thread();
            }
            host.serve(&served, peer);
            served.end();
            shared.with(|clients| clients.remove(&number));
        };
        let name = format!("{}-client-{number}", H::THREADS);
        if let Err(error) = Builder::new().name(name).stack_size(STACK_BYTES).spawn(session) {
            self.shared.with(|clients| clients.remove(&number));
            self.refuse(&client.stream, &Unserved::NoThread(error));
        }
    }

    /// Whether one more can be served, if need be in the place of the one that has been silent longest.
    fn has_room(&self) -> bool {
        self.shared.with(|clients| {
            if clients.len() < self.terms.clients {
                return true;
            }
            let silent = clients.iter().map(|(number, client)| (client.silent_ms(), *number)).max();
            let spared = self.terms.spared_after.map(milliseconds);
            match (silent, spared) {
                (Some((silent, number)), Some(spared)) if silent >= spared => {
                    if let Some(client) = clients.remove(&number) {
                        client.end();
                    }
                    true
                }
                _ => false,
            }
        })
    }

    fn refuse(&self, stream: &UnixStream, why: &Unserved) {
        self.host.refuse(stream, why);
        let _already_gone = stream.shutdown(Shutdown::Both);
    }
}
