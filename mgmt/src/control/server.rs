//! The control socket's server.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketType;
use serde_json::Value;

use super::line::write_all;
use super::reception::{Client, Host, Occupancy, Reception, Terms, Unserved};
use super::session::{fault_line, serve};
use super::{Backend, ClaimError, ControlDirectory, Operators, Peer};
use crate::protocol::{Fault, FaultKind};

/// For the one line a client gets that cannot be served.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(100);

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

struct Control {
    options: Options,
    backend: Arc<dyn Backend>,
}

impl Host for Control {
    const SOCKET: &'static str = "control.sock";
    const KIND: SocketType = SocketType::STREAM;
    const THREADS: &'static str = "uvs";

    fn serve(&self, client: &Client, peer: Peer) {
        serve(&client.stream, peer, &self.options, self.backend.as_ref());
    }

    fn refuse(&self, stream: &UnixStream, why: &Unserved) {
        let kind = match why {
            Unserved::Full(_) => FaultKind::TooManyClients,
            Unserved::NoThread(_) => FaultKind::Busy,
        };
        let fault = Fault::new(kind, why.to_string());
        let _may_be_gone = write_all(stream, &fault_line(&Value::Null, &fault), REFUSAL_TIMEOUT);
    }
}

/// A serving control socket. Dropping it stops it.
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
        let terms = Terms {
            operators: options.operators,
            clients: options.clients,
            // Silent clients are let go in any case, and told.
            spared_after: None,
            on_thread: options.on_thread.clone(),
        };
        Reception::start(directory, terms, Arc::new(Control { options, backend })).map(Self)
    }

    /// How many clients are connected, for `status`.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        self.0.occupancy()
    }

    /// Takes no more clients, ends those there are, removes the socket. Returns when the accepting thread has ended; a
    /// client's thread ends by itself with the call it is in.
    pub fn stop(&mut self) {
        self.0.stop();
    }
}
