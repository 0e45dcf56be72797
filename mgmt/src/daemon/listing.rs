//! Pages of connections and templates, read from the tables while the workers write them.

use crate::address::Endpoint;
use crate::protocol::{
    ConnectionEntry, ConnectionPage, ConnectionQuery, EntryProtocol, Fault, FaultKind, PAGE_MAX,
};
use dataplane::address::Address;
use dataplane::connection::{ConnectionId, ConnectionView, Slab, flags};
use dataplane::engine::Shared;
use dataplane::id::DestinationSlot;
use dataplane::worker::{Clock, Connections};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Lines looked at for one page: a page of an almost empty table ends early, with a cursor to go on.
const LOOK_MAX: u32 = 1 << 20;

/// Where the servers of templates are looked up; the publisher keeps it.
pub(super) type Servers = Arc<RwLock<HashMap<DestinationSlot, Endpoint>>>;

/// Reads what the engines hold.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) connections: Vec<Connections>,
    pub(super) shared: Arc<Shared>,
    pub(super) servers: Servers,
    pub(super) clock: Clock,
}

/// A place in the order of listing: parts are the workers' IPv4 and IPv6 tables, then the templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    part: usize,
    line: u32,
}

impl Cursor {
    fn parse(text: Option<&str>) -> Result<Self, Fault> {
        let Some(text) = text else { return Ok(Self { part: 0, line: 0 }) };
        let parsed = text
            .split_once('.')
            .and_then(|(part, line)| Some(Self { part: part.parse().ok()?, line: line.parse().ok()? }));
        parsed.ok_or_else(|| {
            Fault::new(FaultKind::InvalidParameters, "`cursor` is not what `next` of a page before was")
        })
    }
}

impl Listing {
    /// One page.
    pub(super) fn page(&self, query: &ConnectionQuery) -> Result<ConnectionPage, Fault> {
        let mut cursor = Cursor::parse(query.cursor.as_deref())?;
        let limit = query.limit.unwrap_or(PAGE_MAX) as usize;
        let mut page = ConnectionPage { connections: Vec::new(), next: None };
        let mut budget = LOOK_MAX;
        let templates = self.connections.len() * 2;
        while cursor.part <= templates {
            let room = limit.saturating_sub(page.connections.len());
            let mut add = |entry: ConnectionEntry| {
                if entry.matches(query.service, query.client) {
                    page.connections.push(entry);
                }
                page.connections.len() < limit
            };
            let worker = cursor.part / 2;
            let stopped = match self.connections.get(worker) {
                Some(tables) if cursor.part.is_multiple_of(2) => {
                    self.walk(&tables.v4, worker, cursor.line, &mut budget, &mut add)
                }
                Some(tables) => self.walk(&tables.v6, worker, cursor.line, &mut budget, &mut add),
                None => self.templates(cursor.line, room, &mut add),
            };
            if let Some(line) = stopped {
                page.next = Some(format!("{}.{line}", cursor.part));
                return Ok(page);
            }
            cursor = Cursor { part: cursor.part + 1, line: 0 };
        }
        Ok(page)
    }

    /// Walks a table's lines; returns where it stopped, `None` at the end.
    fn walk<A: Address>(
        &self,
        slab: &Slab<A>,
        worker: usize,
        from: u32,
        budget: &mut u32,
        add: &mut impl FnMut(ConnectionEntry) -> bool,
    ) -> Option<u32> {
        let now = self.clock.now();
        for line in from..slab.used() {
            if *budget == 0 {
                return Some(line);
            }
            *budget -= 1;
            let Some(view) = slab.read(ConnectionId(line)) else { continue };
            if !add(entry(&view, worker, view.expires_in(now))) {
                return Some(line + 1);
            }
        }
        None
    }

    fn templates(
        &self,
        from: u32,
        room: usize,
        add: &mut impl FnMut(ConnectionEntry) -> bool,
    ) -> Option<u32> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let (views, next) = self.shared.templates.list(from, room, self.clock.now());
        for view in views {
            let virtual_address = Endpoint { ip: view.key.virtual_address(), port: view.key.virtual_port() };
            let unknown = Endpoint { ip: virtual_address.ip, port: 0 };
            add(ConnectionEntry {
                protocol: EntryProtocol::of(view.key.protocol()),
                client: Endpoint { ip: view.key.client(), port: 0 },
                virtual_address,
                destination: servers.get(&view.destination).copied().unwrap_or(unknown),
                state: if view.assured { "ASSURED" } else { "NONE" }.to_owned(),
                expires_ms: view.remaining.into(),
                packets: 0,
                worker: None,
                template: true,
                flags: flags::TEMPLATE,
                mark: None,
            });
        }
        next
    }
}

fn entry<A: Address>(view: &ConnectionView<A>, worker: usize, expires_in: u32) -> ConnectionEntry {
    ConnectionEntry {
        protocol: EntryProtocol::of(view.tuple.protocol),
        client: Endpoint { ip: view.tuple.source.ip(), port: view.tuple.source_port },
        virtual_address: Endpoint { ip: view.tuple.destination.ip(), port: view.tuple.destination_port },
        destination: Endpoint { ip: view.server.ip(), port: view.server_port },
        state: view.state.name().to_owned(),
        expires_ms: expires_in.into(),
        packets: view.packets_in.into(),
        worker: u8::try_from(worker).ok(),
        template: false,
        flags: view.flags,
        mark: None,
    }
}
