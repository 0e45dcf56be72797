//! The table against a map.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Clone)]
enum Step {
    Open { key: u16, timeout: u32, both: bool },
    Close(u16),
    Touch { key: u16, timeout: u32 },
    Pass { milliseconds: u32, budget: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let timeout =
        || prop_oneof![Just(0), 1u32..2_000, 10_000u32..200_000, Just(900_000), 1_000_000u32..3_000_000];
    let key = || 0u16..40;
    let step = prop_oneof![
        4 => (key(), timeout(), any::<bool>()).prop_map(|(key, timeout, both)| Step::Open { key, timeout, both }),
        1 => key().prop_map(Step::Close),
        3 => (key(), timeout()).prop_map(|(key, timeout)| Step::Touch { key, timeout }),
        2 => (prop_oneof![0u32..300, 0u32..100_000, 500_000u32..1_500_000], prop_oneof![Just(u32::MAX), 1u32..200])
            .prop_map(|(milliseconds, budget)| Step::Pass { milliseconds, budget }),
    ];
    proptest::collection::vec(step, 1..if cfg!(miri) { 40 } else { 200 })
}

struct Known {
    id: ConnectionId,
    last_seen: Ticks,
    timeout: u32,
    both: bool,
}

fn tuple(key: u16) -> Tuple<Ipv4Addr> {
    v4(u32::from(key) % 7, key)
}

/// Each has its own server, so that replies are told apart.
fn connection(key: u16, timeout: u32, both: bool) -> NewConnection<Ipv4Addr> {
    NewConnection { server_port: key, both_directions: both, ..new(tuple(key), timeout) }
}

fn check(table: &Table<Ipv4Addr>, known: &HashMap<u16, Known>) {
    assert_eq!(table.len(), known.len());
    for key in 0..40 {
        let wanted = known.get(&key).map(|known| Found { id: known.id, reverse: false });
        assert_eq!(find(table, &tuple(key)), wanted);
        let reply =
            Tuple { source: Ipv4Addr::new(192, 168, 132, 64), source_port: key, ..tuple(key).reversed() };
        let wanted =
            known.get(&key).filter(|known| known.both).map(|known| Found { id: known.id, reverse: true });
        assert_eq!(find(table, &reply), wanted);
    }
    let slab = table.slab();
    let listed = (0..slab.used()).filter_map(|id| slab.read(ConnectionId(id))).count();
    assert_eq!(listed, known.len());
    assert_wheel_adds_up(table);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 400 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_table_is_a_map_whose_entries_expire(start in any::<u32>(), steps in steps()) {
        const CAPACITY: u32 = 24;
        let mut now = Ticks(start);
        let mut table = table::<Ipv4Addr>(CAPACITY, true, now);
        let mut known: HashMap<u16, Known> = HashMap::new();
        for step in steps {
            match step {
                Step::Open { key, timeout, both } => {
                    if known.contains_key(&key) {
                        continue;
                    }
                    match open(&mut table, &connection(key, timeout, both), now) {
                        Ok(id) => {
                            prop_assert!(known.len() < CAPACITY as usize);
                            known.insert(key, Known { id, last_seen: now, timeout, both });
                        }
                        Err(TableFull) => prop_assert_eq!(known.len(), CAPACITY as usize),
                    }
                }
                Step::Close(key) => {
                    if let Some(gone) = known.remove(&key) {
                        prop_assert!(table.close(gone.id));
                    }
                }
                Step::Touch { key, timeout } => {
                    if let Some(known) = known.get_mut(&key) {
                        table.touch(known.id, timeout, now);
                        (known.last_seen, known.timeout) = (now, timeout);
                    }
                }
                Step::Pass { milliseconds, budget } => {
                    now = now.after(milliseconds);
                    loop {
                        let done = table.expire(now, budget, |id, line| {
                            let key = line.tuple().source_port;
                            let gone = known.remove(&key).expect("known");
                            assert_eq!(gone.id, id);
                            assert!(now.since(gone.last_seen) >= gone.timeout, "early");
                        });
                        prop_assert!(done.looked_at <= budget.saturating_add(34));
                        if !done.behind {
                            break;
                        }
                    }
                    if table.wheel_full() == 0 {
                        for known in known.values() {
                            prop_assert!(now.since(known.last_seen) < known.timeout + SLOT_MS, "late");
                        }
                    }
                }
            }
            check(&table, &known);
        }
        // Everything goes in the end, and leaves nothing behind.
        for _ in 0..8 {
            now = now.after(1_000_000);
            table.expire(now, u32::MAX, |_, _| ());
        }
        prop_assert!(table.is_empty());
        prop_assert_eq!(table.index.histogram().1, 0);
        prop_assert_eq!(table.wheel.len(), 0);
    }
}
