mod full;
mod hostile;
mod listing;
mod model;

use super::tcp::State;
use super::*;
use crate::id::{DestinationSlot, PortId};
use std::net::{Ipv4Addr, Ipv6Addr};

const KEY: HashKey = HashKey([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]);

fn region<A: Address>(size: Size) -> Region {
    Region::anonymous(size.footprint::<A>().total()).unwrap()
}

fn table<A: Address>(capacity: u32, both_directions: bool, now: Ticks) -> Table<A> {
    let size = Size { capacity, both_directions };
    Table::create(region::<A>(size), size, KEY, now).unwrap()
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

fn find_at<A: Address>(
    table: &Table<A>,
    candidate: Candidate,
    hash: FlowHash,
    tuple: &Tuple<A>,
) -> Option<Found> {
    table.confirm(candidate, tuple).or_else(|| table.find(hash, tuple))
}

fn find<A: Address>(table: &Table<A>, tuple: &Tuple<A>) -> Option<Found> {
    let hash = table.hash(tuple);
    table.prefetch(hash);
    let staged = find_at(table, table.candidate(hash), hash, tuple);
    assert_eq!(staged, table.find(hash, tuple));
    staged
}

/// Entries in the wheel, those that count and those overtaken, must be what it has.
fn assert_wheel_adds_up<A: Address>(table: &Table<A>) {
    let filed = table.lines.iter().filter(|line| line.filed() != 0).count();
    let stale = table.header().wheel_stale.load(Relaxed) as usize;
    assert_eq!(filed + stale, table.wheel.len() as usize);
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
    assert_eq!(find(&table, &Tuple { protocol: 17, ..tuple }), None);
    let view = table.slab().read(id).unwrap();
    assert_eq!((view.tuple, view.server, view.server_port), (tuple, wanted.server, 8080));
    assert_eq!((view.client_mac, view.ingress), (wanted.client_mac, PortId(3)));
    assert_eq!(
        (view.destination, view.state, view.flags),
        (DestinationSlot(7), State::SynRecv, wanted.flags)
    );
    assert_eq!((view.last_seen, view.timeout, view.expires_in(Ticks(20_005))), (Ticks(5), 60_000, 40_000));
    let line = table.line(id);
    line.set_state(State::Established);
    line.set_flags(3);
    line.set_side(44);
    assert_eq!((line.count_packet(), line.count_packet(), line.packets_in()), (1, 2, 2));
    assert_eq!(
        (line.client_link(), line.state(), line.flags(), line.side()),
        ((wanted.client_mac, PortId(3)), State::Established, 3, 44)
    );
    assert_eq!((line.server(), line.server_port(), line.template()), (wanted.server, 8080, Line::<A>::NONE));
    assert!(table.close(id) && !table.close(id));
    assert_eq!((find(&table, &tuple), find(&table, &reply), table.len()), (None, None, 0));
    assert!(table.slab().read(id).is_none());
    assert_eq!(table.index.histogram().0[0], table.index.histogram().0.iter().sum::<usize>());
}

#[test]
fn a_connection_is_opened_found_and_closed() {
    opens_finds_closes(v4(1, 1000));
    opens_finds_closes(v6(1, 1000));
}

#[test]
fn a_candidate_of_before_is_only_a_hint() {
    let mut table = table::<Ipv4Addr>(16, false, Ticks(0));
    let (first, second) = (v4(1, 1), v4(2, 2));
    let hash = table.hash(&first);
    let unknown = table.candidate(hash);
    let id = open(&mut table, &new(first, 1000), Ticks(0)).unwrap();
    assert_eq!(find_at(&table, unknown, hash, &first), Some(Found { id, reverse: false }));
    let candidate = table.candidate(hash);
    table.close(id);
    assert_eq!(find_at(&table, candidate, hash, &first), None);
    assert_eq!(open(&mut table, &new(second, 1000), Ticks(0)), Ok(id));
    assert_eq!(find_at(&table, candidate, hash, &first), None);
    let other = open(&mut table, &new(first, 1000), Ticks(0)).unwrap();
    assert_eq!(find_at(&table, candidate, hash, &first), Some(Found { id: other, reverse: false }));
}

#[test]
fn expiry_is_never_early_and_late_by_less_than_a_slot() {
    for start in [Ticks(1000), Ticks(u32::MAX - 30_000)] {
        let mut table = table::<Ipv4Addr>(16, false, start);
        let id = open(&mut table, &new(v4(1, 1), 60_000), start).unwrap();
        let step = if cfg!(miri) { 61 } else { 1 };
        let mut now = start;
        let mut gone = None;
        while gone.is_none() && now.since(start) < 100_000 {
            now = now.after(step);
            table.expire(now, 1000, |found, line| {
                assert!(line.is_expired(now));
                gone = Some((found, now.since(start)));
            });
        }
        let (found, age) = gone.unwrap();
        assert_eq!(found, id);
        assert!((60_000..60_000 + SLOT_MS + step).contains(&age), "{age}");
        assert_eq!((table.len(), table.wheel.len()), (0, 0));
    }
}

#[test]
fn a_full_table_refuses_and_stays_as_it_is() {
    let capacity = 40;
    let mut table = table::<Ipv4Addr>(capacity, true, Ticks(0));
    let both = |number| NewConnection { both_directions: true, ..new(v4(number, 80), 60_000) };
    let ids: Vec<_> =
        (0..capacity).map(|number| open(&mut table, &both(number), Ticks(0)).unwrap()).collect();
    let before = table.index.histogram();
    assert_eq!(open(&mut table, &both(capacity), Ticks(0)), Err(TableFull));
    assert_eq!((table.index.histogram(), table.len()), (before, 40));
    table.close(ids[17]);
    assert_eq!(open(&mut table, &both(capacity), Ticks(0)), Ok(ids[17]));
    let mut expired = 0;
    let done = table.expire(Ticks(70_000), u32::MAX, |_, _| expired += 1);
    assert_eq!((expired, done.expired, done.behind, table.len()), (40, 40, false, 0));
    assert_eq!(table.index.histogram().1, 0);
    assert_wheel_adds_up(&table);
}

#[test]
fn a_shorter_timeout_is_filed_again_and_a_longer_one_found_later() {
    let mut table = table::<Ipv4Addr>(4, false, Ticks(0));
    let id = open(&mut table, &new(v4(1, 1), 60_000), Ticks(0)).unwrap();
    table.touch(id, 900_000, Ticks(1_000));
    assert_eq!(table.wheel.len(), 1);
    table.expire(Ticks(100_000), u32::MAX, |_, _| panic!("early"));
    table.touch(id, 10_000, Ticks(100_000));
    assert_eq!((table.wheel.len(), table.header().wheel_stale.load(Relaxed)), (2, 1));
    table.touch(id, 9_000, Ticks(104_000));
    assert_eq!(table.wheel.len(), 2, "the entry at 110 s comes first");
    table.expire(Ticks(112_999), u32::MAX, |_, _| panic!("early"));
    assert!(!table.line(id).is_expired(Ticks(112_999)) && table.line(id).is_expired(Ticks(113_000)));
    assert_eq!(table.expire(Ticks(113_200), u32::MAX, |_, _| ()).expired, 1);
    assert_wheel_adds_up(&table);
    table.expire(Ticks(2_000_000), u32::MAX, |_, _| ());
    assert_eq!((table.wheel.len(), table.header().wheel_stale.load(Relaxed)), (0, 0));
}

#[test]
fn a_wheel_full_of_overtaken_entries_expires_late_but_expires() {
    let mut table = table::<Ipv4Addr>(4, false, Ticks(0));
    let ids: Vec<_> =
        (0..4).map(|number| open(&mut table, &new(v4(number, 1), 30_000), Ticks(0)).unwrap()).collect();
    for round in 1..=20 {
        for id in &ids {
            table.touch(*id, 30_000 - round * 1_000, Ticks(0));
        }
    }
    assert_eq!(table.wheel_full(), 4 * 20 - 4);
    assert_eq!(table.wheel.len(), 8);
    assert_wheel_adds_up(&table);
    table.expire(Ticks(9_999), u32::MAX, |_, _| panic!("early"));
    assert_eq!(table.expire(Ticks(29_200), u32::MAX, |_, _| ()).expired, 4);
    assert_wheel_adds_up(&table);
    assert!(
        open(&mut table, &new(v4(9, 1), 1_000), Ticks(29_200)).is_ok(),
        "first entries have their own room"
    );
    assert_wheel_adds_up(&table);
    assert_eq!(table.expire(Ticks(30_400), u32::MAX, |_, _| ()).expired, 1);
}

/// As many come as go: half open, established for ten seconds, then the kernel's two minutes in FIN_WAIT.
#[test]
fn short_connections_leave_the_wheel_with_those_that_end() {
    const EACH: u32 = 10;
    let (seconds, population) = if cfg!(miri) { (140, 1_400) } else { (2_000, 1_400) };
    let mut table = table::<Ipv4Addr>(population, false, Ticks(0));
    for second in 0..seconds {
        let now = Ticks(second * 1_000);
        table.expire(now, u32::MAX, |_, _| ());
        for client in second * EACH..(second + 1) * EACH {
            let id = open(&mut table, &new(v4(client, 1), 2_000), now).unwrap();
            table.touch(id, 60_000, now);
            table.touch(id, 900_000, now);
        }
        let ending = second.checked_sub(10).map(|second| second * EACH..(second + 1) * EACH);
        for client in ending.into_iter().flatten() {
            let id = find(&table, &v4(client, 1)).unwrap().id;
            table.touch(id, 120_000, now);
        }
    }
    assert_eq!(table.wheel_full(), 0);
    assert!(table.len() <= (132 * EACH) as usize, "{}", table.len());
}

#[test]
fn a_line_used_again_keeps_its_entry() {
    let mut table = table::<Ipv4Addr>(4, false, Ticks(0));
    for round in 0..100 {
        let id = open(&mut table, &new(v4(round, 1), 60_000), Ticks(round)).unwrap();
        table.close(id);
    }
    assert_eq!(table.wheel.len(), 1);
    let id = open(&mut table, &new(v4(1, 1), 60_000), Ticks(50_000)).unwrap();
    table.expire(Ticks(109_999), u32::MAX, |_, _| panic!("early"));
    assert_eq!(table.expire(Ticks(110_200), u32::MAX, |gone, _| assert_eq!(gone, id)).expired, 1);
}

#[test]
fn the_budget_bounds_a_call_and_the_rest_follows() {
    let mut table = table::<Ipv4Addr>(100, false, Ticks(0));
    for number in 0..100 {
        open(&mut table, &new(v4(number, 1), 1_000), Ticks(0)).unwrap();
    }
    let mut calls = 0;
    loop {
        let done = table.expire(Ticks(400_000), 32, |_, _| ());
        assert!(done.looked_at < 32 + 28, "{done:?}");
        calls += 1;
        if !done.behind {
            break;
        }
    }
    assert!(table.is_empty());
    assert!((3..200).contains(&calls), "{calls}");
    // A sleep of weeks costs one round of the wheel, not one visit for each slot that passed.
    let mut calls = 0;
    while table.expire(Ticks(2_000_000_000), 32, |_, _| ()).behind {
        calls += 1;
    }
    assert!(calls <= wheel::SLOTS / 32 + 1, "{calls}");
}

#[test]
fn timeouts_beyond_the_horizon_and_beyond_all_bounds() {
    let step = if cfg!(miri) { 100_000 } else { 10_000 };
    let mut table = table::<Ipv4Addr>(4, false, Ticks(u32::MAX - 5_000_000));
    let start = Ticks(u32::MAX - 5_000_000);
    let day = open(&mut table, &new(v4(1, 1), 10_000_000), start).unwrap();
    let id = open(&mut table, &new(v4(2, 1), u32::MAX), start).unwrap();
    assert_eq!(table.line(id).timeout(), Table::<Ipv4Addr>::LONGEST_TIMEOUT);
    let mut now = start;
    while now.since(start) < 10_000_000 - step {
        now = now.after(step);
        table.expire(now, u32::MAX, |_, _| panic!("early"));
    }
    assert_eq!(table.expire(now.after(step + SLOT_MS), u32::MAX, |gone, _| assert_eq!(gone, day)).expired, 1);
    table.touch(id, u32::MAX, now);
    assert_eq!((table.line(id).timeout(), table.wheel.len()), (Table::<Ipv4Addr>::LONGEST_TIMEOUT, 1));
}

#[test]
fn a_table_outlives_its_owner_in_its_region() {
    let mut first = table::<Ipv6Addr>(50, true, Ticks(7_000));
    let ids: Vec<_> = (0..50)
        .map(|number| {
            let new = NewConnection { both_directions: number % 2 == 0, ..new(v6(number, 9), 30_000) };
            open(&mut first, &new, Ticks(7_000)).unwrap()
        })
        .collect();
    first.close(ids[3]);
    let slab = first.slab();
    assert_eq!((slab.capacity(), slab.used(), slab.live()), (50, 50, 49));
    drop(slab);
    let mut second = Table::<Ipv6Addr>::attach(first.release().unwrap()).unwrap();
    assert_eq!(second.len(), 49);
    assert_eq!(find(&second, &v6(4, 9)), Some(Found { id: ids[4], reverse: false }));
    assert_eq!(find(&second, &v6(3, 9)), None);
    assert_eq!(open(&mut second, &new(v6(3, 9), 30_000), Ticks(7_001)), Ok(ids[3]));
    assert_eq!(second.expire(Ticks(37_200), u32::MAX, |_, _| ()).expired, 50);
    let reader = second.slab();
    assert!(second.release().is_none(), "a listing still reads");
    drop(reader);
}

#[test]
fn other_memory_is_refused() {
    let size = Size { capacity: 10, both_directions: false };
    let length = size.footprint::<Ipv4Addr>().total();
    assert_eq!(Table::<Ipv4Addr>::attach(region::<Ipv4Addr>(size)).err(), Some(RegionError::NotATable));
    let short = Region::anonymous(length - 64).unwrap();
    let error = Table::<Ipv4Addr>::create(short, size, KEY, Ticks(0)).err();
    assert_eq!(error, Some(RegionError::TooShort { length: length - 64 }));
    let made = || Table::<Ipv4Addr>::create(region::<Ipv4Addr>(size), size, KEY, Ticks(0)).unwrap();
    let attached = |table: Table<Ipv4Addr>| Table::<Ipv4Addr>::attach(table.release().unwrap()).err();
    assert_eq!(attached(made()), None);
    let table = made();
    table.header().layout.store(LAYOUT + 1, Relaxed);
    assert_eq!(attached(table), Some(RegionError::OtherLayout { found: LAYOUT + 1 }));
    let table = made();
    table.header().capacity.store(11_000, Relaxed);
    assert_eq!(attached(table), Some(RegionError::Damaged));
    let table = made();
    table.header().fresh.store(11, Relaxed);
    assert_eq!(attached(table), Some(RegionError::Damaged));
    let other = Table::<Ipv6Addr>::attach(made().release().unwrap()).err();
    assert_eq!(other, Some(RegionError::OtherFamily { found: 4 }));
}

#[test]
fn lent_memory_is_cleared_before_it_is_a_table() {
    let size = Size { capacity: 10, both_directions: false };
    let length = size.footprint::<Ipv4Addr>().total();
    let memory = vec![0xA5u8; length + 64].leak();
    let skip = memory.as_ptr().align_offset(64);
    let (misaligned, memory) = memory.split_at_mut(skip);
    assert!(misaligned.len() < 64);
    let mut table = Table::create(Region::lent(memory), size, KEY, Ticks(0)).unwrap();
    let id = open(&mut table, &new(v4(1, 1), 1_000), Ticks(0)).unwrap();
    assert_eq!(find(&table, &v4(1, 1)).map(|found| found.id), Some(id));
    assert_eq!(table.lines.iter().filter(|line| line.is_live()).count(), 1);
}

#[test]
fn a_touched_region_is_still_zero() {
    let mut region = Region::anonymous(3 << 20).unwrap();
    region.touch();
    assert_eq!(region.length(), 3 << 20);
    assert_eq!(Table::<Ipv4Addr>::attach(region).err(), Some(RegionError::NotATable));
    assert!(Region::anonymous(usize::MAX).is_err());
}

#[test]
fn memory_for_each_connection_keeps_to_its_budget() {
    for (both_directions, limit) in [(false, 90.0), (true, 96.0)] {
        let size = Size { capacity: 100_000_000, both_directions };
        let each = size.footprint::<Ipv4Addr>().total() as f64 / 1e8;
        assert!(each < limit, "{each}");
        let each = size.footprint::<Ipv6Addr>().total() as f64 / 1e8;
        assert!(each < limit + 64.0, "{each}");
    }
    let table = table::<Ipv4Addr>(1000, true, Ticks(0));
    let size = Size { capacity: 1000, both_directions: true };
    assert_eq!(table.bytes_per_connection(), size.footprint::<Ipv4Addr>().total() as f64 / 1e3);
}
