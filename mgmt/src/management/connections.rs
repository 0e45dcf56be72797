//! Pages of connections and templates, read from the tables while the workers write them.

use super::View;
use crate::address::Endpoint;
use crate::protocol::{
    ConnectionEntry, ConnectionPage, ConnectionQuery, EntryProtocol, Fault, FaultKind, PAGE_MAX,
};
use dataplane::address::Address;
use dataplane::connection::{ConnectionId, ConnectionView, Slab, flags};
use dataplane::id::DestinationSlot;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// Lines looked at for one page: a page of an almost empty table ends early, with a cursor to go on.
const LOOK_MAX: u32 = 1 << 20;

/// Whom a slot serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// The destination as it is listed.
    pub server: Endpoint,
    /// The mark of its service.
    pub mark: Option<u32>,
}

/// Destinations by slot, removed ones included while their connections may be there. The management plane writes, listings read.
#[derive(Debug, Clone, Default)]
pub struct Servers(Arc<RwLock<HashMap<DestinationSlot, Served>>>);

impl Servers {
    pub(super) fn insert(&self, slot: DestinationSlot, served: Served) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(slot, served);
    }

    pub(super) fn remove(&self, slot: DestinationSlot) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&slot);
    }

    fn get(&self, slot: DestinationSlot) -> Option<Served> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&slot).copied()
    }
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

/// One page of connections and templates.
///
/// # Errors
///
/// A cursor that was not given out.
pub fn page(query: &ConnectionQuery, view: &View<'_>, servers: &Servers) -> Result<ConnectionPage, Fault> {
    let mut cursor = Cursor::parse(query.cursor.as_deref())?;
    let limit = query.limit.unwrap_or(PAGE_MAX) as usize;
    let mut page = ConnectionPage { connections: Vec::new(), next: None };
    let mut budget = LOOK_MAX;
    let templates = view.tables.len() * 2;
    while cursor.part <= templates {
        let room = limit.saturating_sub(page.connections.len());
        let mut add = |entry: ConnectionEntry| {
            if entry.matches(query.service, query.client) {
                page.connections.push(entry);
            }
            page.connections.len() < limit
        };
        let worker = cursor.part / 2;
        let part = Part { view, servers, worker };
        let stopped = match view.tables.get(worker) {
            Some(tables) if cursor.part.is_multiple_of(2) => {
                part.walk(&tables.v4, cursor.line, &mut budget, &mut add)
            }
            Some(tables) => part.walk(&tables.v6, cursor.line, &mut budget, &mut add),
            None => part.templates(cursor.line, room, &mut add),
        };
        if let Some(line) = stopped {
            page.next = Some(format!("{}.{line}", cursor.part));
            return Ok(page);
        }
        cursor = Cursor { part: cursor.part + 1, line: 0 };
    }
    Ok(page)
}

/// A worker's table of one family, or the templates of all.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    view: &'a View<'a>,
    servers: &'a Servers,
    worker: usize,
}

impl Part<'_> {
    /// Walks a table's lines; returns where it stopped, `None` at the end.
    fn walk<A: Address>(
        &self,
        slab: &Slab<A>,
        from: u32,
        budget: &mut u32,
        add: &mut impl FnMut(ConnectionEntry) -> bool,
    ) -> Option<u32> {
        for line in from..slab.used() {
            if *budget == 0 {
                return Some(line);
            }
            *budget -= 1;
            let Some(view) = slab.read(ConnectionId(line)) else { continue };
            if !add(self.entry(&view)) {
                return Some(line + 1);
            }
        }
        None
    }

    fn entry<A: Address>(&self, view: &ConnectionView<A>) -> ConnectionEntry {
        let served = self.servers.get(view.destination);
        // A tunnel's end of the other family has no place in the connection itself.
        let across = served.filter(|served| A::from_ip(served.server.ip).is_none());
        ConnectionEntry {
            protocol: EntryProtocol::of(view.tuple.protocol),
            client: Endpoint { ip: view.tuple.source.ip(), port: view.tuple.source_port },
            virtual_address: Endpoint { ip: view.tuple.destination.ip(), port: view.tuple.destination_port },
            destination: Endpoint {
                ip: across.map_or_else(|| view.server.ip(), |served| served.server.ip),
                port: view.server_port,
            },
            state: view.state.name().to_owned(),
            expires_ms: view.expires_in(self.view.now).into(),
            packets: view.packets_in.into(),
            worker: u8::try_from(self.worker).ok(),
            template: false,
            flags: view.flags,
            mark: served.and_then(|served| served.mark),
        }
    }

    fn templates(
        &self,
        from: u32,
        room: usize,
        add: &mut impl FnMut(ConnectionEntry) -> bool,
    ) -> Option<u32> {
        let (views, next) = self.view.shared.templates.list(from, room, self.view.now);
        for view in views {
            let protocol = EntryProtocol::of(view.key.protocol());
            let served = self.servers.get(view.destination);
            let unknown = Endpoint { ip: view.key.virtual_address(), port: 0 };
            let server = served.map_or(unknown, |served| served.server);
            let (virtual_port, server_port) = view.ports(server.port);
            let virtual_address = Endpoint { port: virtual_port, ..unknown };
            let destination = Endpoint { port: server_port, ..server };
            add(ConnectionEntry {
                protocol,
                client: Endpoint { ip: view.key.client(), port: 0 },
                virtual_address,
                destination,
                state: if view.assured { "ASSURED" } else { "NONE" }.to_owned(),
                expires_ms: view.remaining.into(),
                packets: 0,
                worker: None,
                template: true,
                flags: flags::TEMPLATE,
                mark: match (protocol, virtual_address.ip) {
                    (EntryProtocol::Ip, IpAddr::V4(mark)) => Some(mark.into()),
                    _ => served.and_then(|served| served.mark),
                },
            });
        }
        next
    }
}
