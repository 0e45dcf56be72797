//! The map's rules one by one, then against a model on random pieces.

use super::*;
use crate::packet::sample::{Random, Sample, fragment};
use crate::packet::{Family, Parsed, parse};

const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
const START: Ticks = Ticks(u32::MAX - 1000);

/// A piece of a datagram of 10.1.0.5; ports only in the first.
fn piece(identification: u32, offset: u16, length: u16, more: bool, ports: (u16, u16)) -> Headers {
    let (source_port, destination_port) = if offset == 0 { ports } else { (0, 0) };
    Headers { source_port, destination_port, ..fragment(identification, offset, length, more) }
}

fn key(identification: u32) -> FragmentKey {
    FragmentKey::new(&[7; 40], &fragment(identification, 8, 8, true))
}

type Map = FragmentMap<u32>;
/// Passed with these ports, or dropped.
type Fate = Result<(u16, u16), DropReason>;

/// Gives the map a piece named `packet` and says what came out: names that passed (with their ports) or were dropped.
fn give(map: &mut Map, packet: u32, identification: u32, headers: Headers, now: Ticks) -> Vec<(u32, Fate)> {
    map.accept(packet, key(identification), &headers, now);
    fetch(map)
}

fn fetch(map: &mut Map) -> Vec<(u32, Fate)> {
    std::iter::from_fn(|| map.pop())
        .map(|out| match out {
            Fragment::Pass { packet, headers } => {
                (packet, Ok((headers.source_port, headers.destination_port)))
            }
            Fragment::Drop { packet, reason } => (packet, Err(reason)),
        })
        .collect()
}

const PORTS: (u16, u16) = (4000, 53);
const PASS: Fate = Ok(PORTS);
const INVALID: Fate = Err(DropReason::FragmentInvalid);
const FULL: Fate = Err(DropReason::FragmentFull);
const ORPHAN: Fate = Err(DropReason::FragmentOrphan);

#[test]
fn a_datagram_leaves_whole_and_in_order() {
    let mut map = Map::new(4, 4, SECRET);
    assert_eq!(give(&mut map, 1, 7, piece(7, 1600, 100, false, PORTS), START), []);
    assert_eq!(give(&mut map, 2, 7, piece(7, 0, 800, true, PORTS), START), []);
    assert_eq!(map.in_flight(), 2);
    assert_eq!(
        give(&mut map, 3, 7, piece(7, 800, 800, true, PORTS), START),
        [(2, PASS), (3, PASS), (1, PASS)]
    );
    assert_eq!((map.counters().completed, map.in_flight()), (1, 0));
    // The identification is free again.
    assert_eq!(give(&mut map, 4, 7, piece(7, 800, 80, false, PORTS), START), []);
    assert_eq!(
        give(&mut map, 5, 7, piece(7, 0, 800, true, (1, 2)), START),
        [(5, Ok((1, 2))), (4, Ok((1, 2)))]
    );
}

#[test]
fn headers_of_a_piece_are_its_own_with_the_firsts_ports_and_protocol() {
    let mut map = Map::new(4, 4, SECRET);
    let later = Headers { protocol: 60, ..piece(7, 400, 88, false, PORTS) };
    map.accept(1, key(7), &later, START);
    map.accept(2, key(7), &piece(7, 0, 400, true, PORTS), START);
    let first = map.pop();
    assert!(matches!(first, Some(Fragment::Pass { packet: 2, headers }) if headers.first_fragment()));
    let expected = Headers { source_port: 4000, destination_port: 53, protocol: 17, ..later };
    assert_eq!(map.pop(), Some(Fragment::Pass { packet: 1, headers: expected }));
}

/// As in the kernel the next piece begins a new datagram then.
#[test]
fn overlaps_and_lies_end_the_datagram() {
    for (name, second) in [
        ("overlap from below", piece(7, 640, 320, true, PORTS)),
        ("overlap from above", piece(7, 1520, 160, true, PORTS)),
        ("around", piece(7, 640, 1600, true, PORTS)),
        ("last before others", piece(7, 1592, 4, false, PORTS)),
        ("first over others", piece(7, 0, 808, true, PORTS)),
    ] {
        let mut map = Map::new(4, 4, SECRET);
        assert_eq!(give(&mut map, 1, 7, piece(7, 800, 800, true, PORTS), START), []);
        assert_eq!(give(&mut map, 2, 7, second, START), [(1, INVALID), (2, INVALID)], "{name}");
        assert_eq!(give(&mut map, 3, 7, piece(7, 0, 80, true, PORTS), START), [], "{name}");
        assert_eq!(
            give(&mut map, 4, 7, piece(7, 80, 8, false, PORTS), START),
            [(3, PASS), (4, PASS)],
            "{name}"
        );
    }
    for (name, second) in [
        ("beyond the end", piece(7, 1600, 80, true, PORTS)),
        ("another end", piece(7, 1600, 40, false, PORTS)),
        ("a shorter end", piece(7, 720, 40, false, PORTS)),
    ] {
        let mut map = Map::new(4, 4, SECRET);
        assert_eq!(give(&mut map, 1, 7, piece(7, 800, 800, false, PORTS), START), []);
        assert_eq!(give(&mut map, 2, 7, second, START), [(1, INVALID), (2, INVALID)], "{name}");
    }
}

#[test]
fn duplicates_are_dropped_and_harm_nothing() {
    let mut map = Map::new(4, 8, SECRET);
    assert_eq!(give(&mut map, 1, 7, piece(7, 0, 800, true, PORTS), START), []);
    assert_eq!(give(&mut map, 2, 7, piece(7, 800, 80, true, PORTS), START), []);
    for inside in
        [piece(7, 0, 800, true, (9, 9)), piece(7, 80, 8, true, PORTS), piece(7, 720, 160, true, PORTS)]
    {
        assert_eq!(give(&mut map, 9, 7, inside, START), [(9, INVALID)]);
    }
    assert_eq!(
        give(&mut map, 3, 7, piece(7, 880, 80, false, PORTS), START),
        [(1, PASS), (2, PASS), (3, PASS)]
    );
}

/// A duplicate adds nothing, but where it says that the datagram ends is believed (`ip_frag_queue` notes it first).
#[test]
fn a_duplicate_may_say_where_the_datagram_ends() {
    let mut map = Map::new(4, 8, SECRET);
    assert_eq!(give(&mut map, 1, 7, piece(7, 0, 800, true, PORTS), START), []);
    assert_eq!(give(&mut map, 2, 7, piece(7, 800, 80, true, PORTS), START), []);
    assert_eq!(give(&mut map, 3, 7, piece(7, 800, 80, false, PORTS), START), [(3, INVALID)]);
    let beyond = give(&mut map, 4, 7, piece(7, 880, 80, false, PORTS), START);
    assert_eq!(beyond, [(1, INVALID), (2, INVALID), (4, INVALID)]);
}

#[test]
fn what_is_not_whole_goes_after_thirty_seconds() {
    let mut map = Map::new(4, 8, SECRET);
    assert_eq!(give(&mut map, 1, 7, piece(7, 800, 80, true, PORTS), START), []);
    let soon = START.after(LIFETIME - 1);
    assert_eq!(give(&mut map, 2, 8, piece(8, 0, 80, true, PORTS), soon), []);
    assert_eq!(give(&mut map, 3, 7, piece(7, 880, 80, true, PORTS), soon), []);
    map.advance(soon);
    assert_eq!(fetch(&mut map), []);
    map.advance(START.after(LIFETIME));
    assert_eq!(fetch(&mut map), [(1, ORPHAN), (3, ORPHAN)]);
    map.advance(soon.after(LIFETIME));
    assert_eq!(fetch(&mut map), [(2, ORPHAN)]);
    assert_eq!((map.counters().expired, map.in_flight()), (2, 0));
    // Not advanced in time, an old entry is no match either.
    let later = soon.after(LIFETIME);
    assert_eq!(give(&mut map, 4, 7, piece(7, 800, 80, false, PORTS), later), []);
    let latest = later.after(LIFETIME);
    assert_eq!(give(&mut map, 5, 7, piece(7, 0, 800, true, PORTS), latest), [(4, ORPHAN)]);
}

#[test]
fn the_oldest_make_place() {
    let mut map = Map::new(3, 8, SECRET);
    for packet in 1..=3 {
        assert_eq!(give(&mut map, packet, packet, piece(packet, 0, 800, true, PORTS), START), []);
    }
    assert_eq!(give(&mut map, 4, 4, piece(4, 0, 800, true, PORTS), START), [(1, FULL)]);
    assert_eq!(give(&mut map, 5, 2, piece(2, 800, 8, false, PORTS), START), [(2, PASS), (5, PASS)]);
    assert_eq!(map.counters().evicted, 1);
    map.clear(DropReason::Shutdown);
    let rest = [(3, Err(DropReason::Shutdown)), (4, Err(DropReason::Shutdown))];
    assert_eq!(fetch(&mut map), rest);
}

#[test]
fn held_pieces_are_bounded_for_each_datagram_and_in_all() {
    let mut map = Map::new(64, 1024, SECRET);
    let most = u32::from(MOST_PIECES);
    for packet in 0..most {
        let offset = u16::try_from(packet).unwrap() * 16;
        assert_eq!(give(&mut map, packet, 7, piece(7, offset, 8, true, PORTS), START), []);
    }
    let all = give(&mut map, most, 7, piece(7, 8000, 8, true, PORTS), START);
    assert_eq!((all.len(), map.in_flight()), (usize::from(MOST_PIECES) + 1, 0), "it could never be sent");
    assert!(all.iter().all(|(_, fate)| *fate == FULL));

    let mut map = Map::new(64, 2, SECRET);
    assert_eq!(give(&mut map, 1, 1, piece(1, 800, 8, true, PORTS), START), []);
    assert_eq!(give(&mut map, 2, 1, piece(1, 808, 8, true, PORTS), START), []);
    assert_eq!(give(&mut map, 3, 2, piece(2, 800, 8, true, PORTS), START), [(1, FULL), (2, FULL)]);
    assert_eq!(give(&mut map, 4, 2, piece(2, 808, 8, true, PORTS), START), []);
    let own = give(&mut map, 5, 2, piece(2, 816, 8, true, PORTS), START);
    assert_eq!(own, [(5, FULL), (3, FULL), (4, FULL)], "its own are the oldest");
    assert_eq!((map.in_flight(), map.counters().evicted), (0, 1));
}

#[test]
fn keys_tell_datagrams_apart() {
    let Sample { mut frame, headers } = {
        let mut random = Random::new(11);
        std::iter::repeat_with(|| Sample::new(&mut random))
            .find(|sample| sample.headers.family == Family::V6 && sample.headers.later_fragment())
            .unwrap()
    };
    assert_eq!(parse(&frame, frame.len(), 1), Parsed::Flow(headers));
    let same = FragmentKey::new(&frame, &Headers { protocol: headers.protocol ^ 1, ..headers });
    assert_eq!(same, FragmentKey::new(&frame, &headers), "later IPv6 pieces may name another header");
    let other_id = FragmentKey::new(&frame, &Headers { fragment_id: headers.fragment_id ^ 1, ..headers });
    let v4 = Headers { family: Family::V4, ..headers };
    let other_protocol = FragmentKey::new(&frame, &Headers { protocol: headers.protocol ^ 1, ..v4 });
    frame[usize::from(headers.network) + 20] ^= 1;
    let other_source = FragmentKey::new(&frame, &headers);
    let all = [same, other_id, FragmentKey::new(&frame, &v4), other_protocol, other_source];
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            assert!(one != other && one.hash(SECRET) != other.hash(SECRET));
        }
        assert_ne!(one.hash(SECRET), one.hash([SECRET[0] + 1, SECRET[1]]));
    }
}

#[test]
fn homes_are_spread_and_within_the_workers() {
    for workers in [1, 2, 3, 8, 255] {
        let mut counts = vec![0_u32; workers.into()];
        let mut key = key(1);
        for _ in 0..1000 * u32::from(workers.min(8)) {
            key.identification += 1;
            counts[key.home(SECRET, workers).index()] += 1;
        }
        assert!(workers > 8 || counts.iter().all(|count| count.abs_diff(1000) < 150), "{counts:?}");
    }
}

/// The rules with sets of bytes and unbounded memory, in eights of bytes.
#[derive(Default)]
struct Model {
    seen: std::collections::BTreeSet<u16>,
    total: Option<u16>,
    held: std::collections::BTreeMap<u16, (u32, (u16, u16))>,
}

impl Model {
    fn give(&mut self, packet: u32, headers: &Headers) -> Vec<(u32, Fate)> {
        let units = headers.fragment_offset / 8..(headers.fragment_offset + headers.fragment_length) / 8;
        let last = !headers.more_fragments();
        let known = units.clone().filter(|unit| self.seen.contains(unit)).count();
        let lies = self.total.is_some_and(|total| units.end > total || (last && units.end != total))
            || (last && self.seen.last().is_some_and(|most| *most >= units.end));
        if lies || (known > 0 && known < units.len()) {
            let held = std::mem::take(self).held.into_values().map(|(packet, _)| packet);
            return held.chain([packet]).map(|packet| (packet, INVALID)).collect();
        }
        self.total = self.total.or_else(|| last.then_some(units.end));
        if known > 0 {
            return vec![(packet, INVALID)];
        }
        self.held.insert(units.start, (packet, (headers.source_port, headers.destination_port)));
        self.seen.extend(units);
        if self.total.is_none_or(|total| self.seen.len() != usize::from(total)) {
            return Vec::new();
        }
        let whole = std::mem::take(self).held;
        let ports = whole[&0].1;
        whole.into_values().map(|(packet, _)| (packet, Ok(ports))).collect()
    }
}

#[test]
fn random_pieces_fare_as_in_the_model() {
    let mut random = Random::new(13);
    let first = piece(1, 0, 8, true, PORTS);
    let later = piece(1, 8, 8, true, PORTS);
    let last = piece(1, 8, 8, false, PORTS);
    let (mut map, mut totals) = (Map::new(64, 1024, SECRET), [0_u64; 3]);
    for round in 0..if cfg!(miri) { 20 } else { 20_000_u32 } {
        let mut models: Vec<Model> = std::iter::repeat_with(Model::default).take(3).collect();
        // Few units and few identifications, so that everything meets everything.
        for packet in 0..24 {
            let at = random.below(3);
            let identification = round * 3 + u32::try_from(at).unwrap();
            let start = u16::try_from(random.below(6)).unwrap() * 8;
            let length = 8 * (1 + u16::try_from(random.below(3)).unwrap());
            let base = if start == 0 {
                first
            } else if random.one_in(3) {
                last
            } else {
                later
            };
            let mut headers = Headers { fragment_offset: start, fragment_length: length, ..base };
            if start == 0 && random.one_in(16) {
                headers.source_port = 9;
            }
            let expected = models[at].give(packet, &headers);
            totals[0] += u64::from(expected.iter().any(|(_, fate)| fate.is_ok()));
            assert_eq!(give(&mut map, packet, identification, headers, START), expected, "{round}");
            totals[1] += expected.iter().filter(|(_, fate)| fate.is_ok()).count() as u64;
            totals[2] += expected.iter().filter(|(_, fate)| fate.is_err()).count() as u64;
        }
        let held: usize = models.iter().map(|model| model.held.len()).sum();
        assert_eq!(map.in_flight(), held, "{round}");
        map.clear(DropReason::Shutdown);
        let rest = fetch(&mut map);
        assert_eq!(rest.len(), held);
        totals[2] += rest.len() as u64;
    }
    let counters = map.counters();
    assert_eq!([counters.completed, counters.passed, counters.dropped], totals);
    assert_eq!(counters.accepted, counters.passed + counters.dropped);
}

#[test]
fn a_flood_never_loses_a_piece_nor_grows_the_map() {
    let mut random = Random::new(17);
    let mut map = Map::new(32, 16, SECRET);
    let room = map.out.capacity();
    let (mut now, mut given, mut left) = (START, 0_u64, 0_u64);
    for _ in 0..if cfg!(miri) { 500 } else { 300_000 } {
        now = now.after(u32::try_from(random.below(600)).unwrap());
        let identification = u32::try_from(random.below(200)).unwrap();
        let start = u16::try_from(random.below(8)).unwrap() * 8;
        let mut headers = piece(0, start, 8, start == 0 || !random.one_in(4), PORTS);
        headers.fragment_length = 8 * (1 + u16::try_from(random.below(2)).unwrap());
        map.accept(0, key(identification), &headers, now);
        given += 1;
        left += fetch(&mut map).len() as u64;
        map.advance(now);
        left += fetch(&mut map).len() as u64;
        assert!(map.in_flight() <= 16 && given == left + map.in_flight() as u64);
    }
    assert_eq!(map.out.capacity(), room);
    map.clear(DropReason::Shutdown);
    left += fetch(&mut map).len() as u64;
    assert_eq!((given, map.in_flight()), (left, 0));
    let counters = map.counters();
    // Miri plays too few rounds for either.
    assert!(cfg!(miri) || (counters.evicted > 0 && counters.completed > 0));
    // Every place is free again.
    let free = std::iter::successors(Some(map.free), |at| Some(map.datagrams.get(*at as usize)?.chain));
    assert_eq!(free.take_while(|at| *at != NONE).count(), 32);
    let free = std::iter::successors(Some(map.held_free), |at| Some(map.held.get(*at as usize)?.next));
    assert_eq!(free.take_while(|at| *at != NONE).count(), 16);
    assert!(map.buckets.iter().all(|bucket| *bucket == NONE));
}
