//! The control socket's language: JSON-RPC 2.0, one object per line, the server speaks first.
//!
//! `docs/control-protocol.md` describes it for people and other languages; a test keeps that page complete.

mod fault;
mod request;
mod state;
mod status;

pub use fault::{Fault, FaultKind};
pub use request::{
    ConnectionQuery, CountersZero, EventQuery, METHODS, Method, PAGE_MAX, Request, ServicePageQuery,
    ServiceQuery, StatsQuery, parse,
};
pub use state::{
    Changed, Configuration, ConnectionEntry, ConnectionPage, DestinationList, DestinationState,
    EntryProtocol, Event, EventPage, ServicePage, ServiceState, Traffic, Zeroed,
};
pub use status::{
    Count, DestinationStats, Latency, MemoryUse, PortStatus, SocketStatus, Stats, Status, WorkerStatus,
};

use serde::{Deserialize, Serialize};

/// What a client may do, decided by who it is (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May look.
    Viewer,
    /// May look and change.
    Operator,
}

/// The first line a client reads: parameters of the `hello` notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The director's version.
    pub version: String,
    /// What this server can do beyond the first version of the protocol.
    pub capabilities: Vec<String>,
    /// Revision of the desired state.
    pub revision: u64,
    /// What this client may do.
    pub role: Role,
}

/// An answer's `result`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// To `status`.
    Status(Box<Status>),
    /// To `stats`.
    Stats(Box<Stats>),
    /// To `service.list`.
    Services(ServicePage),
    /// To `destination.list`.
    Destinations(DestinationList),
    /// To `config.get`.
    Configuration(Configuration),
    /// To `connection.list`.
    Connections(ConnectionPage),
    /// To `events.list`.
    Events(EventPage),
    /// To every change.
    Changed(Changed),
    /// To `counters.zero`.
    Zeroed(Zeroed),
}

#[cfg(test)]
mod tests;
