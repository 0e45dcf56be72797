use super::tcp::State;
use super::*;
use crate::id::{DestinationSlot, PortId};
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

const KEY: HashKey = HashKey([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]);

fn table<A: Address>(capacity: u32, both_directions: bool, now: Ticks) -> Table<A> {
    let size = Size { capacity, both_directions };
    let region = Region::anonymous(size.footprint::<A>().total()).unwrap();
    Table::create(region, size, KEY, now).unwrap()
}

fn v4(client: u32, port: u16) -> Tuple<Ipv4Addr> {
    Tuple {
        source: Ipv4Addr::from_bits(0x0A00_0000 + client),
        destination: Ipv4Addr::new(192, 168, 132, 254),
        source_port: port,
        destination_port: 80,
        protocol: 6,
    }
}

fn v6(client: u32, port: u16) -> Tuple<Ipv6Addr> {
    Tuple {
        source: Ipv6Addr::from_bits(0xFD00 << 112 | u128::from(client) << 40),
        destination: Ipv6Addr::from_bits(0xFD00 << 112 | 0xFE),
        source_port: port,
        destination_port: 80,
        protocol: 6,
    }
}

fn new<A: Address>(tuple: Tuple<A>, timeout: u32) -> NewConnection<A> {
    NewConnection {
        tuple,
        server: A::from_words([0xFD00_0000, 0, 0, 0xC0A8_8440]),
        server_port: 8080,
        state: State::SynRecv,
        flags: flags::DIRECT | flags::NO_OUTPUT,
        timeout,
        destination: DestinationSlot(7),
        template: Line::<A>::NONE,
        side: Line::<A>::NONE,
        client_mac: [2, 0, 0, 0, 0, 1],
        ingress: PortId(3),
        both_directions: false,
    }
}

fn open<A: Address>(
    table: &mut Table<A>,
    new: &NewConnection<A>,
    now: Ticks,
) -> Result<ConnectionId, TableFull> {
    let hash = table.hash(&new.tuple);
    table.open(hash, new, now)
}

fn find<A: Address>(table: &Table<A>, tuple: &Tuple<A>) -> Option<Found> {
    let hash = table.hash(tuple);
    let staged = table.find_at(table.candidate(hash), hash, tuple);
    assert_eq!(staged, table.find(hash, tuple));
    staged
}

fn opens_finds_closes<A: Address>(tuple: Tuple<A>) {
    let mut table = table::<A>(16, true, Ticks(0));
    let wanted = NewConnection { both_directions: true, ..new(tuple, 60_000) };
    let id = open(&mut table, &wanted, Ticks(5)).unwrap();
    assert_eq!(find(&table, &tuple), Some(Found { id, reverse: false }));
    let reply = table.line(id).reply_tuple();
    assert_eq!((reply.source, reply.destination), (wanted.server, tuple.source));
    assert_eq!(find(&table, &reply), Some(Found { id, reverse: true }));
    assert_eq!(find(&table, &tuple.reversed()), None);
    let view = table.slab().read(id).unwrap();
    assert_eq!((view.tuple, view.server, view.server_port), (tuple, wanted.server, 8080));
    assert_eq!(
        (view.client_mac, view.ingress, view.destination),
        ([2, 0, 0, 0, 0, 1], PortId(3), DestinationSlot(7))
    );
    assert!(table.close(id) && !table.close(id));
    assert_eq!((find(&table, &tuple), find(&table, &reply), table.len()), (None, None, 0));
    assert!(table.slab().read(id).is_none());
}

#[test]
fn a_connection_is_opened_found_and_closed() {
    opens_finds_closes(v4(1, 1000));
    opens_finds_closes(v6(1, 1000));
}

#[test]
fn expiry_is_never_early_and_late_by_less_than_a_slot() {
    let mut table = table::<Ipv4Addr>(16, false, Ticks(1000));
    let id = open(&mut table, &new(v4(1, 1), 60_000), Ticks(1000)).unwrap();
    let mut now = Ticks(1000);
    let mut gone = None;
    while gone.is_none() && now.0 < 100_000 {
        now = now.after(1);
        table.expire(now, 1000, |found, line| {
            assert!(line.is_expired(now));
            gone = Some((found, now.0));
        });
    }
    let (found, when) = gone.unwrap();
    assert_eq!(found, id);
    assert!((61_000..61_000 + SLOT_MS).contains(&when), "{when}");
    assert_eq!(table.len(), 0);
}
