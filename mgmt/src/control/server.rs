//! Accepts clients, counts them, ends them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::line::write_all;
use super::session::{fault_line, serve};
use super::{Backend, ClaimError, ControlDirectory, Operators};
use crate::protocol::{Fault, FaultKind};

const SOCKET: &str = "control.sock";
/// A client's thread parses JSON of at most 128 levels; nothing else of it is deep.
const STACK_BYTES: usize = 512 * 1024;
/// For the one line a client gets that cannot be served.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(100);
/// After a failed accept (out of file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds and words of a server.
#[derive(Clone)]
pub struct Options {
    /// Said in the greeting.
    pub version: String,
    /// Said in the greeting.
    pub capabilities: Vec<String>,
    /// Who may change things.
    pub operators: Operators,
    /// Clients at a time.
    pub clients: usize,
    /// Longest line of a client that may only look.
    pub viewer_line_bytes: usize,
    /// Longest line of an operator: the largest state must fit one `config.apply`.
    pub operator_line_bytes: usize,
    /// Silence after which a client is let go.
    pub idle_timeout: Duration,
    /// From a line's first byte to its last.
    pub line_timeout: Duration,
    /// For a client to take an answer.
    pub write_timeout: Duration,
    /// Called first on every thread the server starts: puts it on its CPU.
    pub on_thread: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("operators", &self.operators)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The director's own bounds.
    #[must_use]
    pub fn new(operators: Operators, clients: usize) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: ["apply", "wait", "pages", "events"].map(str::to_owned).to_vec(),
            operators,
            clients,
            viewer_line_bytes: 1 << 20,
            operator_line_bytes: 32 << 20,
            idle_timeout: Duration::from_secs(600),
            line_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            on_thread: None,
        }
    }
}

struct Shared {
    stopping: AtomicBool,
    /// The streams of all clients, so that they can be ended from outside. A client's own thread removes its.
    clients: Mutex<BTreeMap<u64, UnixStream>>,
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<u64, UnixStream>) -> T) -> T {
        work(&mut self.clients.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A serving control socket. Dropping it stops it.
pub struct Server {
    directory: Arc<ControlDirectory>,
    listener: UnixListener,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("directory", &self.directory.path()).finish_non_exhaustive()
    }
}

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
        let listener = directory.listen(SOCKET)?;
        let path = directory.path().join(SOCKET);
        let fail = |error| ClaimError::Io { doing: "cannot be served", path: path.clone(), error };
        let shared = Arc::new(Shared { stopping: AtomicBool::new(false), clients: Mutex::default() });
        let acceptor = Acceptor {
            listener: listener.try_clone().map_err(fail)?,
            shared: Arc::clone(&shared),
            options: Arc::new(options),
            backend,
        };
        let accepting = Builder::new()
            .name("uvs-accept".into())
            .stack_size(STACK_BYTES)
            .spawn(move || acceptor.run())
            .map_err(fail)?;
        Ok(Self { directory, listener, shared, accepting: Some(accepting) })
    }

    /// How many clients are connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.with(|clients| clients.len())
    }

    /// Takes no more clients, ends those there are, removes the socket. Returns when the accepting thread has ended; a
    /// client's thread ends by itself with the call it is in.
    pub fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.directory.unlink(SOCKET);
        // Wakes the thread from accept(2), which then fails.
        let _only_wakes = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _panicked = accepting.join();
        self.shared.with(|clients| {
            for stream in clients.values() {
                let _already_gone = stream.shutdown(Shutdown::Both);
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Acceptor {
    listener: UnixListener,
    shared: Arc<Shared>,
    options: Arc<Options>,
    backend: Arc<dyn Backend>,
}

impl Acceptor {
    fn run(&self) {
        if let Some(on_thread) = &self.options.on_thread {
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
                    tracing::warn!(%error, "control socket: accept failed");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn admit(&self, stream: UnixStream, number: u64) {
        let connected = self.shared.with(|clients| clients.len());
        if connected >= self.options.clients {
            let message =
                format!("all {} places for clients are taken; try again later", self.options.clients);
            return refuse(&stream, &Fault::new(FaultKind::TooManyClients, message));
        }
        let (Ok(peer), Ok(handle)) = (self.options.operators.identify(&stream), stream.try_clone()) else {
            return;
        };
        self.shared.with(|clients| clients.insert(number, handle));
        let (shared, options, backend) =
            (Arc::clone(&self.shared), Arc::clone(&self.options), Arc::clone(&self.backend));
        let session = move || {
            if let Some(on_thread) = &options.on_thread {
                on_thread();
            }
            serve(&stream, peer, &options, backend.as_ref());
            let _already_gone = stream.shutdown(Shutdown::Both);
            shared.with(|clients| clients.remove(&number));
        };
        let started =
            Builder::new().name(format!("uvs-client-{number}")).stack_size(STACK_BYTES).spawn(session);
        if let Err(error) = started
            && let Some(stream) = self.shared.with(|clients| clients.remove(&number))
        {
            refuse(&stream, &Fault::new(FaultKind::Busy, format!("no thread for another client: {error}")));
        }
    }
}

fn refuse(stream: &UnixStream, fault: &Fault) {
    let _may_be_gone = write_all(stream, &fault_line(&Value::Null, fault), REFUSAL_TIMEOUT);
    let _already_gone = stream.shutdown(Shutdown::Both);
}
