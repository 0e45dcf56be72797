//! The control socket's server: who may connect, who may change, and how much anybody may ask at a time.
//!
//! One thread accepts, one serves each client. None of them touches the director: they hand a typed request to a
//! [`Backend`] and write its answer.

mod directory;
mod line;
mod peer;
mod reception;
mod server;
mod session;

pub use directory::{ClaimError, ControlDirectory};
pub use peer::{Operators, Peer};
pub use reception::Occupancy;
pub(crate) use reception::{Client, Host, Reception, Terms, Unserved};
pub use server::{Options, Server};

use crate::protocol::{Fault, Request, Response};

/// What answers requests: the publisher thread in the director, something small in tests.
pub trait Backend: Send + Sync {
    /// Answers one request. The server has already refused what `peer` may not do.
    ///
    /// # Errors
    ///
    /// Why there is no result.
    fn call(&self, request: Request, peer: Peer) -> Result<Response, Fault>;

    /// Revision of the desired state, for the greeting.
    fn revision(&self) -> u64;
}
