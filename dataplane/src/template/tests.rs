use super::*;
use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Barrier;
use std::time::Instant;

const KEY: u128 = 0x0123_4567_89ab_cdef_1122_3344_5566_7788;
const TIMEOUT: u32 = 300_000;

fn key(client: u32) -> TemplateKey {
    let virtual_address = Ipv4Addr::new(192, 0, 2, 1);
    TemplateKey::new(6, Ipv4Addr::from_bits(client), ClientMask::HOST_V4, virtual_address, 80)
}

fn server(number: u32) -> DestinationSlot {
    DestinationSlot(number)
}

fn make(table: &Templates, client: u32, now: Ticks) -> TemplateHandle {
    table.insert(&key(client), server(client), TIMEOUT, now).unwrap().0
}

fn sweep_all(table: &Templates, now: Ticks) -> Vec<DestinationSlot> {
    let mut gone = Vec::new();
    table.sweep(now, u32::MAX, &mut |destination| gone.push(destination));
    gone
}

#[test]
fn a_key_says_what_it_was_made_of_and_tells_families_apart() {
    let client: Ipv6Addr = "fd00::1:2:3:4".parse().unwrap();
    let virtual_address: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let v6 = TemplateKey::new(17, client, ClientMask::V6(64), virtual_address, 53);
    assert_eq!((v6.protocol(), v6.virtual_port()), (17, 53));
    assert_eq!(v6.client(), "fd00::".parse::<IpAddr>().unwrap());
    assert_eq!(v6.virtual_address(), virtual_address);
    let v4 = TemplateKey::new(
        6,
        Ipv4Addr::new(10, 1, 2, 3),
        ClientMask::V4(0xffff_ff00),
        Ipv4Addr::new(10, 0, 0, 1),
        0,
    );
    assert_eq!((v4.client(), v4.virtual_port()), ("10.1.2.0".parse::<IpAddr>().unwrap(), 0));
    let mapped = |tail: u128| Ipv6Addr::from_bits(tail);
    let alike = TemplateKey::new(6, mapped(0x0a01_0200), ClientMask::HOST_V6, mapped(0x0a00_0001), 0);
    assert_ne!(v4, alike);
}

#[test]
fn entries_and_buckets_are_a_line_each() {
    assert_eq!((size_of::<Entry>(), Index::new(7 * 1024, 0).bytes()), (64, 2048 * 64));
    let handle = TemplateHandle { index: 7, generation: 3 };
    assert_eq!(TemplateHandle::from_bits(handle.to_bits()), Some(handle));
    assert_eq!(TemplateHandle::from_bits(0), None);
}

#[test]
fn the_first_one_wins_and_lives_until_its_timeout() {
    let table = Templates::new(16, KEY);
    let start = Ticks(u32::MAX - 1000);
    let (handle, destination, inserted) = table.insert(&key(1), server(1), TIMEOUT, start).unwrap();
    assert_eq!((destination, inserted, table.len()), (server(1), true, 1));
    assert_eq!(table.insert(&key(1), server(2), TIMEOUT, start), Ok((handle, server(1), false)));
    assert_eq!(table.find(&key(1), start.after(TIMEOUT - 1)), Some((handle, server(1))));
    assert_eq!(table.find(&key(1), start.after(TIMEOUT)), None);
    assert!(table.restart(handle, start.after(1000)));
    assert_eq!(table.find(&key(1), start.after(TIMEOUT + 999)), Some((handle, server(1))));
    assert_eq!(sweep_all(&table, start.after(TIMEOUT + 999)), []);
    assert_eq!(sweep_all(&table, start.after(TIMEOUT + 1000)), [server(1)]);
    assert!(table.is_empty() && !table.restart(handle, start) && !table.attach(handle));
}

#[test]
fn connections_keep_it_alive_by_the_minute() {
    let table = Templates::new(16, KEY);
    let start = Ticks(7);
    let handle = make(&table, 1, start);
    assert!(table.attach(handle) && table.attach(handle) && table.set_assured(handle.index()));
    let late = start.after(TIMEOUT + 3 * 60_000 + 10_000);
    assert_eq!(table.find(&key(1), late), Some((handle, server(1))));
    let (views, next) = table.list(0, 10, late);
    let view = views[0];
    assert_eq!((views.len(), next, view.remaining, view.timeout), (1, None, 50_000, 60_000));
    assert_eq!((view.controlled, view.assured, view.invalid), (2, true, false));
    assert!(table.detach(handle, late) && table.detach(handle, late));
    assert_eq!(table.find(&key(1), late.after(49_999)), Some((handle, server(1))));
    assert_eq!(table.find(&key(1), late.after(50_000)), None);
    assert_eq!(sweep_all(&table, late.after(50_000)), [server(1)]);
}

#[test]
fn once_rearmed_a_minute_is_its_timeout() {
    let table = Templates::new(16, KEY);
    let handle = make(&table, 1, Ticks(0));
    assert!(table.attach(handle));
    let late = Ticks(TIMEOUT + 10_000);
    assert!(table.restart(handle, late) && table.detach(handle, late));
    assert!(table.find(&key(1), late.after(59_999)).is_some());
    assert!(table.find(&key(1), late.after(60_000)).is_none());
}

#[test]
fn a_template_kept_for_months_does_not_come_back_from_the_future() {
    let table = Templates::new(16, KEY);
    let handle = make(&table, 1, Ticks(0));
    assert!(table.attach(handle));
    let mut now = Ticks(0);
    for _ in 0..100 {
        now = now.after(86_400_000);
        assert_eq!(sweep_all(&table, now), []);
    }
    assert!(table.detach(handle, now));
    assert!(table.find(&key(1), now).is_some() && table.find(&key(1), now.after(60_000)).is_none());
}

#[test]
fn an_invalid_one_is_replaced_and_lives_on() {
    let table = Templates::new(16, KEY);
    let old = make(&table, 1, Ticks(0));
    assert!(table.attach(old) && table.invalidate(old));
    assert_eq!(table.find(&key(1), Ticks(1)), None);
    let (new, destination, inserted) = table.insert(&key(1), server(9), TIMEOUT, Ticks(1)).unwrap();
    assert_eq!((destination, inserted, table.len()), (server(9), true, 2));
    assert_eq!(table.find(&key(1), Ticks(2)), Some((new, server(9))));
    assert_eq!(table.list(0, 10, Ticks(2)).0.iter().filter(|view| view.invalid).count(), 1);
    assert!(table.detach(old, Ticks(3)));
    assert_eq!(sweep_all(&table, Ticks(TIMEOUT)), [server(1)]);
    assert_eq!(table.find(&key(1), Ticks(TIMEOUT)), Some((new, server(9))));
}

#[test]
fn the_place_of_an_expired_one_is_taken_before_any_sweep() {
    let table = Templates::new(16, KEY);
    let old = make(&table, 1, Ticks(0));
    let now = Ticks(TIMEOUT);
    let (new, destination, inserted) = table.insert(&key(1), server(2), TIMEOUT, now).unwrap();
    assert!(inserted && destination == server(2) && old != new);
    assert_eq!(table.find(&key(1), now), Some((new, server(2))));
    assert_eq!(sweep_all(&table, now), [server(1)], "the old one is still reported");
}

#[test]
fn it_fills_to_the_last_entry_and_then_refuses() {
    for (capacity, seed) in [(0, 1), (1, 2), (5, 3), (64, 4), (1000, 5), (4096, 6), (65_536, 7), (300_000, 8)]
    {
        let table = Templates::new(capacity, KEY.wrapping_mul(seed * 2 + 1));
        for client in 0..capacity {
            make(&table, client, Ticks(0));
        }
        assert_eq!((table.len(), table.capacity()), (capacity, capacity));
        let refused = table.insert(&key(capacity), server(0), TIMEOUT, Ticks(0));
        assert_eq!(refused, Err(TemplateError::Full));
        assert!((0..capacity).all(|client| table.find(&key(client), Ticks(1)).is_some()));
        let mut freed = 0;
        while freed < capacity {
            freed += table.sweep(Ticks(TIMEOUT), 1000, &mut |_| ());
        }
        assert!(table.is_empty() && table.sweep(Ticks(TIMEOUT), 1000, &mut |_| ()) == 0);
        if capacity > 0 {
            make(&table, 1, Ticks(TIMEOUT));
        }
    }
}

#[test]
fn listing_goes_on_where_it_stopped() {
    let table = Templates::new(100, KEY);
    for client in 0..50 {
        make(&table, client, Ticks(0));
    }
    let (mut seen, mut cursor) = (HashSet::new(), Some(0));
    while let Some(at) = cursor {
        let (views, next) = table.list(at, 7, Ticks(1));
        assert!(views.len() <= 7);
        seen.extend(views.iter().map(|view| view.key));
        cursor = next;
    }
    assert_eq!(seen, (0..50).map(key).collect());
}

/// The same with real timers, one entry after the other.
#[derive(Debug, Clone)]
struct Model {
    client: u32,
    destination: DestinationSlot,
    handle: TemplateHandle,
    timeout: u64,
    expires: u64,
    controlled: u32,
    invalid: bool,
}

impl Model {
    /// Lets timers fire up to `now`; `false` when the template went.
    fn survives(&mut self, now: u64) -> bool {
        while self.expires <= now {
            if self.controlled == 0 {
                return false;
            }
            self.timeout = 60_000;
            self.expires += self.timeout;
        }
        true
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open { client: u32, destination: u32, timeout: u32 },
    Detach(usize),
    Restart(usize),
    Invalidate(usize),
    Wait(u32),
    Sweep(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6u32, 0..9u32, prop_oneof![Just(30_000u32), Just(300_000), Just(61_000)])
            .prop_map(|(client, destination, timeout)| Step::Open { client, destination, timeout }),
        3 => any::<usize>().prop_map(Step::Detach),
        1 => any::<usize>().prop_map(Step::Restart),
        1 => any::<usize>().prop_map(Step::Invalidate),
        4 => prop_oneof![1..500u32, 20_000..70_000u32, 200_000..1_000_000u32].prop_map(Step::Wait),
        1 => (1..8u32).prop_map(Step::Sweep),
    ]
}

proptest! {
    #[test]
    fn it_does_what_timers_would_do(start in any::<u32>(), steps in proptest::collection::vec(step(), 1..200)) {
        let table = Templates::new(32, KEY);
        let mut models: Vec<Model> = Vec::new();
        let mut gone = 0;
        let mut reported = 0;
        let mut elapsed = 0u64;
        for step in steps {
            let now = Ticks(start.wrapping_add(u32::try_from(elapsed & 0xFFFF_FFFF).unwrap()));
            let pick = |which: usize| (!models.is_empty()).then(|| which % models.len());
            match step {
                Step::Open { client, destination, timeout } => {
                    let known = models.iter().position(|model| model.client == client && !model.invalid);
                    let found = table.find(&key(client), now);
                    let expected = known.map(|at| (models[at].handle, models[at].destination));
                    prop_assert_eq!(found, expected);
                    let made = table.insert(&key(client), server(destination), timeout, now);
                    let Ok((handle, winner, inserted)) = made else {
                        sweep_all(&table, now).iter().for_each(|_| reported += 1);
                        continue;
                    };
                    prop_assert_eq!(inserted, known.is_none());
                    let at = known.unwrap_or_else(|| {
                        let timeout = u64::from(timeout);
                        let (controlled, invalid) = (0, false);
                        let expires = elapsed + timeout;
                        let destination = server(destination);
                        models.push(Model { client, destination, handle, timeout, expires, controlled, invalid });
                        models.len() - 1
                    });
                    prop_assert_eq!(winner, models[at].destination);
                    prop_assert!(table.attach(handle) && table.restart(handle, now));
                    models[at].controlled += 1;
                    models[at].expires = elapsed + models[at].timeout;
                }
                Step::Detach(which) => {
                    let controlling = models.iter_mut().filter(|model| model.controlled > 0);
                    let mut controlling: Vec<_> = controlling.collect();
                    let count = controlling.len();
                    if count > 0 {
                        let model = &mut controlling[which % count];
                        prop_assert!(table.detach(model.handle, now));
                        model.controlled -= 1;
                    }
                }
                Step::Restart(which) => {
                    if let Some(at) = pick(which) {
                        prop_assert!(table.restart(models[at].handle, now));
                        models[at].expires = elapsed + models[at].timeout;
                    }
                }
                Step::Invalidate(which) => {
                    if let Some(at) = pick(which) {
                        prop_assert!(table.invalidate(models[at].handle));
                        models[at].invalid = true;
                    }
                }
                Step::Wait(milliseconds) => {
                    elapsed += u64::from(milliseconds);
                    let before = models.len();
                    models.retain_mut(|model| model.survives(elapsed));
                    gone += before - models.len();
                }
                Step::Sweep(budget) => {
                    table.sweep(now, budget, &mut |_| reported += 1);
                }
            }
        }
        let now = Ticks(start.wrapping_add(u32::try_from(elapsed & 0xFFFF_FFFF).unwrap()));
        reported += sweep_all(&table, now).len();
        prop_assert_eq!((reported, table.len() as usize), (gone, models.len()));
        let mut listed: Vec<_> = table.list(0, 100, now).0;
        listed.sort_by_key(|view| (view.key.client(), view.destination.0, view.remaining, view.controlled));
        let expected = models.iter().map(|model| (
            key(model.client).client(),
            model.destination.0,
            u32::try_from(model.expires - elapsed).unwrap(),
            model.controlled,
        ));
        let mut expected: Vec<_> = expected.collect();
        expected.sort_unstable();
        let listed = listed.iter().map(|view| (
            view.key.client(), view.destination.0, view.remaining, view.controlled,
        ));
        prop_assert_eq!(listed.collect::<Vec<_>>(), expected);
    }
}

/// All threads race for the same keys, again and again, with sweeps between; of each key and round one destination wins.
#[test]
fn threads_agree_on_one_destination_a_key() {
    const THREADS: u32 = 4;
    const KEYS: u32 = 400;
    let rounds = if cfg!(miri) { 2 } else { 200 };
    let table = Templates::new(KEYS, KEY);
    let barrier = Barrier::new(THREADS as usize);
    let swept = AtomicU32::new(0);
    let busy = AtomicU32::new(0);
    let work = |thread: u32| {
        let mut chosen = Vec::new();
        for round in 0..rounds {
            let now = Ticks(round * TIMEOUT);
            barrier.wait();
            for step in 0..KEYS {
                let client = (step + thread * 7) % KEYS;
                let mine = server(round * 1_000_000 + client * 10 + thread);
                let found =
                    table.find(&key(client), now).map(|(handle, destination)| (handle, destination, false));
                let made = found.unwrap_or_else(|| {
                    loop {
                        match table.insert(&key(client), mine, TIMEOUT, now) {
                            Err(TemplateError::Busy) => busy.fetch_add(1, Relaxed),
                            other => break other.unwrap(),
                        };
                        std::thread::yield_now();
                    }
                });
                assert!(table.attach(made.0));
                assert!(table.restart(made.0, now) && table.detach(made.0, now));
                chosen.push((round, client, made.1));
            }
            barrier.wait();
            if thread == 0 {
                let freed = table.sweep(now.after(TIMEOUT), u32::MAX, &mut |_| ());
                swept.fetch_add(freed, Relaxed);
            }
        }
        chosen
    };
    let mut results: Vec<Vec<_>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for result in &mut results {
        result.sort_unstable_by_key(|(round, client, _)| (*round, *client));
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!((swept.load(Relaxed), table.len()), (rounds * KEYS, 0));
    println!("{THREADS} threads, {rounds} rounds of {KEYS} keys: busy {} times", busy.load(Relaxed));
}

#[test]
fn what_it_costs() {
    let capacity = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let table = Templates::new(capacity, KEY);
    let per = |from: Instant| from.elapsed().as_nanos() / u128::from(capacity);
    let clients = || (0..capacity).map(|number| number.wrapping_mul(2_654_435_761));
    let start = Instant::now();
    clients().for_each(|client| assert!(table.insert(&key(client), server(1), TIMEOUT, Ticks(0)).is_ok()));
    let insert = per(start);
    let start = Instant::now();
    let found = clients().filter(|client| table.find(&key(*client), Ticks(1)).is_some()).count();
    let find = per(start);
    assert_eq!(found, capacity as usize);
    let start = Instant::now();
    let missed =
        clients().filter(|client| table.find(&key(client ^ 0xF000_0001), Ticks(1)).is_none()).count();
    let miss = per(start);
    let start = Instant::now();
    assert_eq!(table.sweep(Ticks(TIMEOUT), u32::MAX, &mut |_| ()), capacity);
    let bytes = table.bytes() / capacity as usize;
    println!(
        "{capacity} templates of {bytes} bytes: insert {insert} ns, find {find} ns, miss {miss} ns ({missed}), sweep {} ns",
        per(start)
    );
}
