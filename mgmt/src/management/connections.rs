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

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::address::Address;
    use dataplane::connection::tcp::State;
    use dataplane::connection::{HashKey, Line, NewConnection, Region, Size, Table};
    use dataplane::engine::{Shared, SharedLimits};
    use dataplane::flow::Tuple;
    use dataplane::id::{PortId, Ticks};
    use dataplane::snapshot::ClientMask;
    use dataplane::template::TemplateKey;
    use dataplane::worker::Connections;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const NOW: Ticks = Ticks(1000);

    /// A table of a worker that had a connection from the client's port i where `open[i]`, and another in between that is gone.
    fn table<A: Address>(client: A, virtual_address: A, open: &[bool]) -> Table<A> {
        let size = Size { capacity: 64, both_directions: false };
        let region = Region::anonymous(size.footprint::<A>().total()).unwrap();
        let mut table = Table::create(region, size, HashKey([1, 2]), NOW).unwrap();
        for (port, stays) in (1000..).zip(open) {
            let tuple = Tuple {
                source: client,
                destination: virtual_address,
                source_port: port,
                destination_port: 80,
                protocol: 6,
            };
            let new = NewConnection {
                tuple,
                server: virtual_address,
                server_port: 80,
                state: State::Established,
                flags: flags::DIRECT,
                timeout: 60_000,
                destination: DestinationSlot(0),
                template: Line::<A>::NONE,
                side: Line::<A>::NONE,
                client_mac: [0; 6],
                ingress: PortId(0),
                both_directions: false,
            };
            let id = table.open(table.hash(&tuple), &new, NOW).unwrap();
            if !stays {
                table.close(id);
            }
        }
        table
    }

    /// All pages of at most `limit` entries, one after the other.
    fn pages(query: &ConnectionQuery, limit: u32, view: &View<'_>) -> Vec<Vec<ConnectionEntry>> {
        let mut all = Vec::new();
        let mut cursor = None;
        loop {
            let query = ConnectionQuery { cursor: cursor.take(), limit: Some(limit), ..query.clone() };
            let one = page(&query, view, &Servers::default()).unwrap();
            all.push(one.connections);
            match one.next {
                Some(next) => cursor = Some(next),
                None => return all,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        /// Whatever the size of a page: every connection of every worker and family once, and every template.
        #[test]
        fn pages_are_the_whole_list(
            open in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 0..12), 4),
            templates in 0_u8..9, limit in 1_u32..20, filtered: bool,
        ) {
            let (client, client6) = (Ipv4Addr::new(10, 1, 0, 5), Ipv6Addr::LOCALHOST);
            let (vip, vip6) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::UNSPECIFIED);
            let tables: Vec<(Table<Ipv4Addr>, Table<Ipv6Addr>)> = open
                .chunks(2)
                .map(|pair| (table(client, vip, &pair[0]), table(client6, vip6, &pair[1])))
                .collect();
            let tables: Vec<Connections> =
                tables.iter().map(|(v4, v6)| Connections { v4: v4.slab(), v6: v6.slab() }).collect();
            let limits = SharedLimits { workers: 2, services: 1, destinations: 1, templates: 64 };
            let shared = Shared::new(limits, 1);
            for last in 0..templates {
                let key = TemplateKey::new(6, Ipv4Addr::new(10, 9, 0, last), ClientMask::HOST_V4, vip, 80);
                shared.templates.insert(&key, DestinationSlot(0), 300_000, NOW).unwrap();
            }
            let view = View { shared: &shared, tables: &tables, now: NOW };
            let query = ConnectionQuery { client: filtered.then_some(client.into()), ..ConnectionQuery::default() };
            let pages = pages(&query, limit, &view);
            prop_assert!(pages.iter().all(|page| page.len() <= limit as usize));

            let mut listed: Vec<_> =
                pages.concat().iter().map(|entry| (entry.worker, entry.client.ip, entry.client.port)).collect();
            let live = |part: usize| (1000..).zip(&open[part]).filter(|(_, stays)| **stays).map(|(port, _)| port);
            let mut expected: Vec<(Option<u8>, IpAddr, u16)> = Vec::new();
            for part in 0..4 {
                let address = if part % 2 == 0 { IpAddr::V4(client) } else { IpAddr::V6(client6) };
                let worker = if part < 2 { 0 } else { 1 };
                expected.extend(live(part).map(|port| (Some(worker), address, port)));
            }
            expected.extend((0..templates).map(|last| (None, [10, 9, 0, last].into(), 0)));
            expected.retain(|(_, address, _)| !filtered || *address == IpAddr::V4(client));
            listed.sort();
            expected.sort();
            prop_assert_eq!(listed, expected);
        }
    }
}
