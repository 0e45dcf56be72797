//! Connections for a client's own thread: reading a long table holds nobody up.

use crate::management::{Servers, View, page};
use crate::protocol::{ConnectionPage, ConnectionQuery, Fault};
use dataplane::engine::Shared;
use dataplane::worker::{Clock, Connections};
use std::sync::Arc;

/// Reads what the engines hold.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) connections: Vec<Connections>,
    pub(super) shared: Arc<Shared>,
    pub(super) servers: Servers,
    pub(super) clock: Clock,
}

impl Listing {
    /// One page.
    pub(super) fn page(&self, query: &ConnectionQuery) -> Result<ConnectionPage, Fault> {
        let view = View { shared: &self.shared, tables: &self.connections, now: self.clock.now() };
        page(query, &view, &self.servers)
    }
}
