mod concurrent;
mod director;
mod kernel;
mod rules;
mod traces;

use crate::counters::Activity;
use crate::id::{Ticks, WorkerId};
use crate::scheduler::Request;
use crate::snapshot::{Maglev, SchedulerKind, ServiceKey, ServiceSpec, Settings};
use director::{Director, ticks};
use kernel::Kernel;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// A small generator (xorshift64*): scenarios are the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        u32::try_from(high).unwrap() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(u32::try_from(from.len()).unwrap()) as usize]
    }
}

/// A request for schedulers that do not look at it.
const ANYBODY: Request = Request {
    client: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)),
    client_port: 1024,
    destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    now: Ticks(0),
};

fn activity(active: bool) -> Activity {
    if active { Activity::Active } else { Activity::Inactive }
}

/// Where clocks begin: the engine's soon wraps.
const EPOCH: u64 = (1 << 32) - 3_000_000;

/// A random client's packet, half of them to one of a few addresses.
fn request(dice: &mut Dice, now: u64) -> Request {
    let bound = if dice.below(2) == 0 { 30 } else { u32::MAX };
    let [client, destination] = [u32::MAX, bound].map(|bound| {
        let low = dice.below(bound);
        if dice.below(2) == 0 {
            IpAddr::from(low.to_be_bytes())
        } else {
            let words = [u128::from(low), u128::from(low.rotate_left(7))];
            IpAddr::from((words[0] << 96 | words[1] << 40 | 1).to_be_bytes())
        }
    });
    let client_port = u16::try_from(dice.below(1 << 16)).unwrap();
    Request { client, client_port, destination, now: ticks(now) }
}

/// The director and the kernel's model of one service. `bits` is how many bits of a weight count in mh's table of `size`.
fn both(scheduler: SchedulerKind, v6: bool, size: u32, bits: u32) -> (Director, Kernel) {
    let spec = ServiceSpec {
        maglev: Maglev { size, canonical: false },
        ..ServiceSpec::new(ServiceKey::Mark { mark: 1, v6 }, scheduler)
    };
    let mut director = Director::with(spec, 1, EPOCH);
    let settings = Settings { lblc_expiration: 3600, lblcr_expiration: 3600, ..Settings::default() };
    director.configure(settings);
    let mut kernel = Kernel::new(scheduler, v6, (size, bits));
    kernel.leap(EPOCH);
    kernel.start_cache(3_600_000);
    (director, kernel)
}

/// Random life of a service, the director and the kernel's model side by side; every choice must be the same.
fn side_by_side(kind: SchedulerKind, seed: u64, operations: u32) -> BTreeMap<&'static str, u32> {
    let mut dice = Dice::new(seed);
    let v6 = seed.is_multiple_of(2);
    let (size, bits) = if seed % 7 == 3 { (4093, 6) } else { (251, 4) };
    let (mut director, mut kernel) = both(kind, v6, size, bits);
    let mut open: Vec<(u8, bool)> = Vec::new();
    let mut done = BTreeMap::new();
    let mut now = EPOCH;
    let weights = [0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 12, 100];
    for _ in 0..operations {
        let server = u8::try_from(dice.below(9)).unwrap() + 1;
        let weight = dice.pick(&weights);
        let upper = dice.pick(&[0, 0, 0, 2, 5, 9]);
        let lower = if upper > 0 { dice.below(upper) } else { 0 };
        let what = match dice.below(100) {
            0..60 => {
                let request = request(&mut dice, now);
                let choice = kernel.choose(&request);
                assert_eq!(
                    director.choose(0, &request),
                    choice,
                    "{request:?} {kind:?} seed {seed} after {done:?}"
                );
                if let Some(server) = choice {
                    kernel.opened(server);
                    director.opened(0, server, Activity::Active);
                    open.push((server, true));
                    "chosen"
                } else {
                    "none"
                }
            }
            60..80 if !open.is_empty() => {
                let which = dice.below(u32::try_from(open.len()).unwrap()) as usize;
                let (server, active) = open.swap_remove(which);
                kernel.closed(server, active);
                director.closed(0, server, activity(active));
                "closed"
            }
            80..84 if !open.is_empty() => {
                let which = dice.below(u32::try_from(open.len()).unwrap()) as usize;
                let (server, active) = &mut open[which];
                *active = !*active;
                kernel.changed(*server, *active);
                director.changed(0, *server, activity(*active));
                "changed"
            }
            84..89 if !kernel.has(server) => {
                kernel.add(server, weight, upper, lower);
                director.add(server, weight, upper, lower);
                "added"
            }
            89..93 if kernel.has(server) => {
                kernel.remove(server);
                director.remove(server);
                "removed"
            }
            93..98 if kernel.has(server) => {
                kernel.edit(server, weight, upper, lower);
                director.edit(server, weight, upper, lower);
                "edited"
            }
            98 if dice.below(10) == 0 => {
                let other = if dice.below(3) > 0 { kind } else { dice.pick(&SchedulerKind::ALL) };
                let flags = u8::try_from(dice.below(4)).unwrap();
                kernel.switch(other, flags);
                director.switch(other, flags);
                "switched"
            }
            99 => {
                now += dice.pick(&[1_000, 40_000, 40_000, 130_000, 700_000, 2_000_000]);
                director.leap(now);
                kernel.leap(now);
                director.housekeep();
                kernel.housekeep();
                assert_eq!(director.remembered(), kernel.remembered(), "{kind:?} seed {seed} after {done:?}");
                "housekept"
            }
            _ => "nothing",
        };
        *done.entry(what).or_default() += 1;
    }
    done
}

/// `UVS_SCHEDULER_OPERATIONS=100000` for a long look.
#[test]
fn every_choice_is_the_kernels() {
    let wanted = std::env::var("UVS_SCHEDULER_OPERATIONS").ok();
    let operations = wanted.map_or(30_000, |wanted| wanted.parse().unwrap());
    for kind in SchedulerKind::ALL {
        let done = side_by_side(kind, 1, operations);
        println!("{kind:?}: {done:?}");
        assert!(done["chosen"] > operations / 5 && done["none"] > operations / 1000, "{done:?}");
        assert!(done["removed"] > operations / 200 && done["switched"] > operations / 2000, "{done:?}");
    }
}

#[test]
fn every_choice_is_the_kernels_in_many_short_lives() {
    for seed in 0..150 {
        for kind in SchedulerKind::ALL {
            side_by_side(kind, seed + 1000, 300);
        }
    }
}

#[test]
fn edits_that_the_log_forgot_do_not_move_a_first_choice() {
    let (mut director, mut kernel) = both(SchedulerKind::Wrr, false, 251, 4);
    for server in 1..=100 {
        kernel.add(server, u32::from(server) * 3, 0, 0);
        director.add(server, u32::from(server) * 3, 0, 0);
    }
    for _ in 0..20_000 {
        let choice = kernel.choose(&ANYBODY);
        assert_eq!(director.choose(0, &ANYBODY), choice);
    }
}

#[test]
fn wrr_does_not_count_down_from_great_weights() {
    let mut director = Director::new(SchedulerKind::Wrr, 1);
    director.add(2, 1, 0, 0);
    director.add(1, 2_147_483_647, 1, 0);
    assert_eq!(director.choose(0, &ANYBODY), Some(1));
    director.opened(0, 1, Activity::Active);
    for _ in 0..1000 {
        assert_eq!(director.choose(0, &ANYBODY), Some(2));
    }
}

/// n workers, each with its own share of the packets: a destination's shares under rr differ by at most n.
#[test]
fn round_robin_shares_differ_by_at_most_the_workers() {
    for workers in [1, 2, 3, 4, 8] {
        let mut dice = Dice::new(u64::from(workers));
        let mut director = Director::new(SchedulerKind::Rr, workers);
        for server in 1..=5 {
            director.add(server, 1, 0, 0);
        }
        let mut shares = BTreeMap::new();
        for _ in 0..10_000 {
            let worker = WorkerId(u8::try_from(dice.below(workers.into())).unwrap());
            *shares.entry(director.choose(worker.0, &ANYBODY)).or_insert(0u32) += 1;
            let spread = shares.values().max().unwrap() - shares.values().min().unwrap();
            assert!(shares.len() < 5 || spread <= workers.into(), "{workers} workers: {shares:?}");
        }
        assert_eq!(shares.len(), 5);
    }
}

#[test]
fn workers_begin_at_different_places() {
    for kind in [SchedulerKind::Rr, SchedulerKind::Wrr] {
        let mut director = Director::new(kind, 4);
        for server in 1..=4 {
            director.add(server, 1, 0, 0);
        }
        let firsts: Vec<_> = (0..4).map(|worker| director.choose(worker, &ANYBODY)).collect();
        assert_eq!(firsts, [Some(4), Some(3), Some(2), Some(1)]);
        director.edit(1, 1, 0, 0);
        let firsts: Vec<_> = (0..4).map(|worker| director.choose(worker, &ANYBODY)).collect();
        assert_eq!(firsts.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{kind:?}");
    }
}

#[test]
fn quiesced_overloaded_and_removed_ones_are_never_chosen() {
    for kind in SchedulerKind::ALL {
        let mut director = Director::new(kind, 1);
        assert_eq!(director.choose(0, &ANYBODY), None);
        director.add(1, 0, 0, 0);
        director.add(2, 1, 1, 0);
        director.add(3, 7, 0, 0);
        director.remove(3);
        assert_eq!(director.choose(0, &ANYBODY), Some(2), "{kind:?}");
        director.opened(0, 2, Activity::Active);
        if kind.exceeds_thresholds() {
            assert_eq!(director.choose(0, &ANYBODY), Some(2), "{kind:?} remembers");
            let elsewhere = Request { destination: IpAddr::from([192, 0, 2, 2]), ..ANYBODY };
            assert_eq!(director.choose(0, &elsewhere), None, "{kind:?}");
        } else {
            assert_eq!(director.choose(0, &ANYBODY), None, "{kind:?}");
            assert_eq!(director.choose(0, &ANYBODY), None, "{kind:?}");
        }
        director.closed(0, 2, Activity::Active);
        assert_eq!(director.choose(0, &ANYBODY), Some(2), "{kind:?}");
    }
}
