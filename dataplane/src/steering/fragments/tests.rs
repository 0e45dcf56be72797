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
fn later_pieces_follow_the_first_and_the_end_is_noticed() {
    let mut map = Map::new(4, 4, SECRET);
    assert_eq!(give(&mut map, 1, 7, piece(7, 0, 800, true, PORTS), START), [(1, PASS)]);
    assert_eq!(give(&mut map, 2, 7, piece(7, 800, 800, true, PORTS), START), [(2, PASS)]);
    assert_eq!(map.counters().completed, 0);
    assert_eq!(give(&mut map, 3, 7, piece(7, 1600, 100, false, PORTS), START), [(3, PASS)]);
    assert_eq!((map.counters().completed, map.in_flight()), (1, 0));
    // The identification is free again: what comes now waits for a first piece of its own.
    assert_eq!(give(&mut map, 4, 7, piece(7, 800, 800, true, PORTS), START), []);
    assert_eq!(
        give(&mut map, 5, 7, piece(7, 0, 800, true, (1, 2)), START),
        [(5, Ok((1, 2))), (4, Ok((1, 2)))]
    );
}

#[test]
fn early_pieces_wait_and_leave_in_order() {
    let mut map = Map::new(4, 4, SECRET);
    assert_eq!(give(&mut map, 1, 7, piece(7, 1600, 100, false, PORTS), START), []);
    assert_eq!(give(&mut map, 2, 7, piece(7, 800, 800, true, PORTS), START), []);
    assert_eq!(give(&mut map, 3, 7, piece(7, 800, 800, true, PORTS), START), [(3, INVALID)], "a duplicate");
    assert_eq!(map.in_flight(), 2);
    assert_eq!(give(&mut map, 4, 7, piece(7, 0, 800, true, PORTS), START), [(4, PASS), (1, PASS), (2, PASS)]);
    assert_eq!((map.in_flight(), map.counters().completed), (0, 1));
}

#[test]
fn headers_of_a_released_piece_are_its_own_with_the_firsts_ports_and_protocol() {
    let mut map = Map::new(4, 4, SECRET);
    let later = Headers { protocol: 60, ..piece(7, 800, 88, false, PORTS) };
    map.accept(1, key(7), &later, START);
    map.accept(2, key(7), &piece(7, 0, 400, true, PORTS), START);
    let first = map.pop();
    assert!(matches!(first, Some(Fragment::Pass { packet: 2, headers }) if headers.first_fragment()));
    let expected = Headers { source_port: 4000, destination_port: 53, protocol: 17, ..later };
    assert_eq!(map.pop(), Some(Fragment::Pass { packet: 1, headers: expected }));
}

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
        assert_eq!(give(&mut map, 3, 7, piece(7, 0, 80, true, PORTS), START), [(3, INVALID)], "{name}");
        assert_eq!(give(&mut map, 4, 7, piece(7, 0, 80, true, (9, 9)), START), [(4, INVALID)], "{name}");
        let later = START.after(LIFETIME);
        assert_eq!(give(&mut map, 5, 7, piece(7, 0, 80, true, PORTS), later), [(5, PASS)], "{name}");
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
fn duplicates_pass_once_the_ports_are_known() {
    let mut map = Map::new(4, 4, SECRET);
    for packet in 1..3 {
        assert_eq!(give(&mut map, packet, 7, piece(7, 0, 800, true, PORTS), START), [(packet, PASS)]);
        assert_eq!(give(&mut map, packet, 7, piece(7, 1600, 80, true, PORTS), START), [(packet, PASS)]);
    }
}

#[test]
fn an_identification_used_again_starts_afresh() {
    let mut map = Map::new(4, 4, SECRET);
    assert_eq!(give(&mut map, 1, 7, piece(7, 0, 800, true, PORTS), START), [(1, PASS)]);
    assert_eq!(give(&mut map, 2, 7, piece(7, 0, 1200, true, (9, 9)), START), [(2, Ok((9, 9)))]);
    assert_eq!(give(&mut map, 3, 7, piece(7, 1200, 8, false, PORTS), START), [(3, Ok((9, 9)))]);
    assert_eq!(map.counters().completed, 1);
}

#[test]
fn what_never_completes_goes_after_thirty_seconds() {
    let mut map = Map::new(4, 8, SECRET);
    assert_eq!(give(&mut map, 1, 7, piece(7, 800, 80, true, PORTS), START), []);
    let soon = START.after(LIFETIME - 1);
    assert_eq!(give(&mut map, 2, 8, piece(8, 800, 80, true, PORTS), soon), []);
    assert_eq!(give(&mut map, 3, 9, piece(9, 0, 800, true, PORTS), soon), [(3, PASS)]);
    map.advance(soon);
    assert_eq!(fetch(&mut map), []);
    map.advance(START.after(LIFETIME));
    assert_eq!(fetch(&mut map), [(1, ORPHAN)]);
    map.advance(soon.after(LIFETIME));
    assert_eq!(fetch(&mut map), [(2, ORPHAN)]);
    assert_eq!((map.counters().expired, map.in_flight()), (3, 0));
    // Not advanced in time, an old entry is no match either.
    let later = soon.after(LIFETIME);
    assert_eq!(give(&mut map, 4, 7, piece(7, 800, 80, true, PORTS), later), []);
    assert_eq!(
        give(&mut map, 5, 7, piece(7, 0, 80, true, PORTS), later.after(LIFETIME)),
        [(4, ORPHAN), (5, PASS)]
    );
}

#[test]
fn the_oldest_make_place_and_those_without_ports_first() {
    let mut map = Map::new(3, 8, SECRET);
    assert_eq!(give(&mut map, 1, 1, piece(1, 0, 800, true, PORTS), START), [(1, PASS)]);
    assert_eq!(give(&mut map, 2, 2, piece(2, 800, 800, true, PORTS), START), []);
    assert_eq!(give(&mut map, 3, 3, piece(3, 800, 800, true, PORTS), START), []);
    assert_eq!(give(&mut map, 4, 4, piece(4, 0, 800, true, PORTS), START), [(2, FULL), (4, PASS)]);
    assert_eq!(give(&mut map, 5, 5, piece(5, 0, 800, true, PORTS), START), [(3, FULL), (5, PASS)]);
    assert_eq!(give(&mut map, 6, 6, piece(6, 0, 800, true, PORTS), START), [(6, PASS)]);
    assert_eq!(give(&mut map, 7, 1, piece(1, 800, 8, false, PORTS), START), [], "the first one is forgotten");
    assert_eq!(map.counters().evicted, 4);
    map.clear(DropReason::Shutdown);
    assert_eq!(fetch(&mut map), [(7, Err(DropReason::Shutdown))]);
}

#[test]
fn held_pieces_are_bounded_for_each_datagram_and_in_all() {
    let mut map = Map::new(64, 64, SECRET);
    let most = u32::from(MOST_HELD);
    for packet in 0..most {
        let offset = 800 + u16::try_from(packet).unwrap() * 16;
        assert_eq!(give(&mut map, packet, 7, piece(7, offset, 8, true, PORTS), START), []);
    }
    assert_eq!(give(&mut map, 99, 7, piece(7, 8000, 8, true, PORTS), START), [(99, FULL)]);
    assert_eq!(give(&mut map, 100, 7, piece(7, 0, 8, true, PORTS), START).len(), 17, "the first finds room");

    let mut map = Map::new(64, 2, SECRET);
    assert_eq!(give(&mut map, 1, 1, piece(1, 800, 8, true, PORTS), START), []);
    assert_eq!(give(&mut map, 2, 1, piece(1, 808, 8, true, PORTS), START), []);
    assert_eq!(
        give(&mut map, 3, 1, piece(1, 816, 8, true, PORTS), START),
        [(3, FULL)],
        "its own are the oldest"
    );
    assert_eq!(give(&mut map, 4, 2, piece(2, 800, 8, true, PORTS), START), [(1, FULL), (2, FULL)]);
    assert_eq!((map.in_flight(), map.counters().evicted), (1, 1));
}

#[test]
fn gaps_are_bounded() {
    let mut map = Map::new(4, 4, SECRET);
    assert_eq!(give(&mut map, 0, 7, piece(7, 0, 40, true, PORTS), START), [(0, PASS)]);
    for gap in 1..=16_u16 {
        assert_eq!(give(&mut map, 1, 7, piece(7, gap * 80, 40, true, PORTS), START), [(1, PASS)]);
    }
    assert_eq!(give(&mut map, 2, 7, piece(7, 8000, 40, true, PORTS), START), [(2, FULL)]);
    assert_eq!(give(&mut map, 3, 7, piece(7, 40, 40, true, PORTS), START), [(3, PASS)], "a gap is filled");
    assert_eq!(give(&mut map, 4, 7, piece(7, 8000, 40, true, PORTS), START), [(4, PASS)]);
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

/// The rules with sets of bytes and unbounded memory.
#[derive(Default)]
struct Model {
    seen: std::collections::BTreeSet<u16>,
    total: Option<u16>,
    ports: Option<(u16, u16)>,
    invalid: bool,
    held: Vec<u32>,
}

impl Model {
    /// The same, in eights of bytes; `None` for the rest when the datagram is whole.
    fn give(&mut self, packet: u32, headers: &Headers) -> Vec<(u32, Fate)> {
        if self.invalid {
            return vec![(packet, INVALID)];
        }
        let ports = headers.first_fragment().then_some((headers.source_port, headers.destination_port));
        if ports.is_some() && self.ports.is_some() && ports != self.ports {
            *self = Self::default();
        }
        let units = headers.fragment_offset / 8..(headers.fragment_offset + headers.fragment_length) / 8;
        let last = !headers.more_fragments();
        let known = units.clone().filter(|unit| self.seen.contains(unit)).count();
        let lies = self.total.is_some_and(|total| units.end > total || (last && units.end != total))
            || (last && self.seen.last().is_some_and(|most| *most >= units.end));
        if lies || (known > 0 && known < units.len()) {
            self.invalid = true;
            return self.held.drain(..).chain([packet]).map(|packet| (packet, INVALID)).collect();
        }
        let duplicate = known > 0;
        self.total = self.total.or_else(|| last.then_some(units.end));
        self.seen.extend(units);
        self.ports = ports.or(self.ports);
        match self.ports {
            None if duplicate => vec![(packet, INVALID)],
            None => {
                self.held.push(packet);
                Vec::new()
            }
            Some(ports) => {
                [packet].into_iter().chain(self.held.drain(..)).map(|packet| (packet, Ok(ports))).collect()
            }
        }
    }

    fn whole(&self) -> bool {
        self.ports.is_some()
            && !self.invalid
            && self.total.is_some_and(|total| self.seen.len() == usize::from(total))
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
            if models[at].whole() {
                totals[0] += 1;
                models[at] = Model::default();
            }
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
