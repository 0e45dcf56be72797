//! What Linux does, written down from its behaviour and as plainly as possible: a list whose removals are real, a pointer to the
//! last choice, weights that are counted down one step at a time.

mod hashing;
mod locality;

use crate::scheduler::{Random, Request};
use crate::snapshot::SchedulerKind;
use locality::{Known, Timer};
use std::collections::HashMap;
use std::net::IpAddr;

#[derive(Debug, Clone, Copy)]
struct Server {
    name: u8,
    weight: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    active: u64,
    inactive: u64,
    overload: bool,
    /// Thresholds; a removed server keeps them while it has connections.
    upper: u32,
    lower: u32,
}

pub(super) struct Kernel {
    kind: SchedulerKind,
    /// `-b`: bit 0 flag-1, bit 1 flag-2.
    flags: u8,
    list: Vec<Server>,
    counts: HashMap<u8, Counts>,
    /// The last choice, `None`: the head of the list.
    pointer: Option<u8>,
    current: u32,
    greatest: u32,
    step: u32,
    /// mh: slots, bits of a weight that count, the table while it holds, the last weights above 0.
    size: u32,
    table_bits: u32,
    table: Vec<Option<u8>>,
    last_weights: HashMap<u8, u32>,
    /// lblc and lblcr: what is remembered of addresses, and for how long, in milliseconds.
    known: HashMap<IpAddr, Known>,
    timer: Timer,
    expiration: u64,
    now: u64,
    random: Random,
    /// Removed servers, and since when they are idle.
    trash: HashMap<u8, Option<u64>>,
    /// Whether servers have IPv6 addresses.
    v6: bool,
}

impl Kernel {
    /// `size` and `bits` are mh's.
    pub(super) fn new(kind: SchedulerKind, v6: bool, (size, table_bits): (u32, u32)) -> Self {
        let mut kernel = Self {
            kind,
            flags: 0,
            list: Vec::new(),
            counts: HashMap::new(),
            pointer: None,
            current: 0,
            greatest: 0,
            step: 1,
            size,
            table_bits,
            table: Vec::new(),
            last_weights: HashMap::new(),
            known: HashMap::new(),
            timer: Timer::default(),
            expiration: 86_400_000,
            now: 0,
            random: Random::seeded(0),
            trash: HashMap::new(),
            v6,
        };
        kernel.start_cache(86_400_000);
        kernel
    }

    fn address(&self, name: u8) -> (IpAddr, u16) {
        let (v4, v6) =
            (IpAddr::from([10, 0, 0, name]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, name.into()]));
        (if self.v6 { v6 } else { v4 }, 80)
    }

    fn place(&self, name: u8) -> Option<usize> {
        self.list.iter().position(|server| server.name == name)
    }

    pub(super) fn has(&self, name: u8) -> bool {
        self.place(name).is_some()
    }

    pub(super) fn add(&mut self, name: u8, weight: u32, upper: u32, lower: u32) {
        self.list.insert(0, Server { name, weight });
        self.trash.remove(&name);
        // Its weight at its addition is kept, 0 too; later only others are.
        self.last_weights.insert(name, weight);
        self.judge(name, upper, lower);
        self.list_changed();
    }

    pub(super) fn edit(&mut self, name: u8, weight: u32, upper: u32, lower: u32) {
        let place = self.place(name).unwrap();
        self.list[place].weight = weight;
        if weight > 0 {
            self.last_weights.insert(name, weight);
        }
        self.judge(name, upper, lower);
        self.list_changed();
    }

    pub(super) fn remove(&mut self, name: u8) {
        let place = self.place(name).unwrap();
        self.list.remove(place);
        self.trash.insert(name, None);
        if self.pointer == Some(name) {
            self.pointer = place.checked_sub(1).map(|before| self.list[before].name);
        }
        self.list_changed();
    }

    /// The trash: a server that is looked at without connections for 120 s is gone for good.
    pub(super) fn housekeep(&mut self) {
        let now = self.now;
        let mut trash = std::mem::take(&mut self.trash);
        for (name, idle_since) in &mut trash {
            let unused = self.counts.get(name).is_none_or(|counts| counts.active + counts.inactive == 0);
            let idle = unused && !self.remembers(*name);
            *idle_since = idle.then(|| idle_since.unwrap_or(now));
        }
        self.trash = trash;
        let old = self.trash.extract_if(|_, since| since.is_some_and(|since| now - since >= 120_000));
        for (name, _) in old {
            self.counts.remove(&name);
        }
    }

    pub(super) fn switch(&mut self, kind: SchedulerKind, flags: u8) {
        self.flags = flags;
        if kind != self.kind {
            self.kind = kind;
            self.pointer = None;
            self.current = 0;
            self.start_cache(self.expiration);
            self.list_changed();
        }
    }

    /// Overload after thresholds were set.
    fn judge(&mut self, name: u8, upper: u32, lower: u32) {
        let counts = self.counts.entry(name).or_default();
        let changed = (counts.upper, counts.lower) != (upper, lower);
        (counts.upper, counts.lower) = (upper, lower);
        let total = counts.active + counts.inactive;
        if changed && upper > 0 && total >= u64::from(upper) {
            counts.overload = true;
        } else if upper == 0 || total < counts.low() {
            counts.overload = false;
        }
    }

    fn list_changed(&mut self) {
        self.table.clear();
        if self.kind != SchedulerKind::Wrr {
            return;
        }
        self.pointer = None;
        let weights: Vec<u32> =
            self.list.iter().map(|server| server.weight).filter(|weight| *weight > 0).collect();
        let heaviest = weights.iter().copied().max().unwrap_or(0);
        self.step =
            (1..=heaviest).rev().find(|step| weights.iter().all(|weight| weight % step == 0)).unwrap_or(1);
        self.greatest = heaviest.saturating_sub(self.step - 1);
        if self.current == 0 || self.current > self.greatest {
            self.current = self.greatest;
        } else if self.step > 1 {
            self.current = self.current / self.step * self.step + 1;
        }
    }

    pub(super) fn opened(&mut self, name: u8) {
        let counts = self.counts.entry(name).or_default();
        counts.active += 1;
        if counts.upper > 0 && counts.active + counts.inactive >= u64::from(counts.upper) {
            counts.overload = true;
        }
    }

    pub(super) fn closed(&mut self, name: u8, active: bool) {
        let counts = self.counts.entry(name).or_default();
        *(if active { &mut counts.active } else { &mut counts.inactive }) -= 1;
        if counts.upper == 0 || counts.active + counts.inactive < counts.low() {
            counts.overload = false;
        }
    }

    pub(super) fn changed(&mut self, name: u8, active: bool) {
        let counts = self.counts.entry(name).or_default();
        let delta = if active { 1 } else { -1 };
        counts.active = counts.active.checked_add_signed(delta).unwrap();
        counts.inactive = counts.inactive.checked_add_signed(-delta).unwrap();
    }

    fn overloaded(&self, server: &Server) -> bool {
        self.counts.get(&server.name).is_some_and(|counts| counts.overload)
    }

    fn load(&self, server: &Server) -> u64 {
        self.counts.get(&server.name).map_or(0, |counts| counts.active * 256 + counts.inactive)
    }

    fn active(&self, server: &Server) -> u64 {
        self.counts.get(&server.name).map_or(0, |counts| counts.active)
    }

    fn usable(&self, server: &Server) -> bool {
        server.weight > 0 && !self.overloaded(server)
    }

    pub(super) fn choose(&mut self, request: &Request) -> Option<u8> {
        match self.kind {
            SchedulerKind::Rr => self.rr(),
            SchedulerKind::Wrr => self.wrr(),
            SchedulerKind::Lc => self.least(|one| self.load(one), |_| 1),
            SchedulerKind::Wlc => self.least(|one| self.load(one), |one| one.weight.into()),
            SchedulerKind::Sed => self.sed(),
            SchedulerKind::Nq => {
                let idle = self.list.iter().find(|one| self.usable(one) && self.active(one) == 0);
                idle.map(|one| one.name).or_else(|| self.sed())
            }
            SchedulerKind::Fo => self.heaviest(|one| self.usable(one)),
            SchedulerKind::Ovf => {
                self.heaviest(|one| self.usable(one) && self.active(one) <= one.weight.into())
            }
            SchedulerKind::Lblc => self.lblc(request),
            SchedulerKind::Lblcr => self.lblcr(request),
            SchedulerKind::Dh => self.dh(request),
            SchedulerKind::Sh => self.sh(request),
            SchedulerKind::Mh => self.mh(request),
            SchedulerKind::Twos => self.twos(),
        }
    }

    /// Two servers drawn by weight; the better one by wlc's measure, the first drawn of equals.
    fn twos(&mut self) -> Option<u8> {
        let usable: Vec<Server> = self.list.iter().copied().filter(|one| self.usable(one)).collect();
        let total: u64 = usable.iter().map(|one| u64::from(one.weight)).sum();
        if usable.is_empty() {
            return None;
        }
        let mut draw = || {
            let number = self.random.up_to(total);
            let ends = |place: &usize| usable[..=*place].iter().map(|one| u64::from(one.weight)).sum::<u64>();
            usable[(0..usable.len()).find(|place| ends(place) >= number).unwrap()]
        };
        let (first, second) = (draw(), draw());
        let better =
            self.load(&first) * u64::from(second.weight) > self.load(&second) * u64::from(first.weight);
        Some(if better { second.name } else { first.name })
    }

    fn sed(&self) -> Option<u8> {
        self.least(|one| self.active(one) + 1, |one| one.weight.into())
    }

    fn heaviest(&self, takes: impl Fn(&Server) -> bool) -> Option<u8> {
        let greatest = self.list.iter().filter(|one| takes(one)).map(|one| one.weight).max()?;
        self.list.iter().find(|one| takes(one) && one.weight == greatest).map(|one| one.name)
    }

    fn rr(&mut self) -> Option<u8> {
        let after = self.pointer.map_or(0, |name| self.place(name).unwrap() + 1);
        let count = self.list.len();
        let mut round = (0..count).map(|distance| self.list[(after + distance) % count]);
        let chosen = round.find(|server| self.usable(server))?.name;
        self.pointer = Some(chosen);
        Some(chosen)
    }

    fn least(&self, load: impl Fn(&Server) -> u64, factor: impl Fn(&Server) -> u64) -> Option<u8> {
        let mut least: Option<Server> = None;
        for server in self.list.iter().filter(|server| self.usable(server)) {
            if least.is_none_or(|best| load(&best) * factor(server) > load(server) * factor(&best)) {
                least = Some(*server);
            }
        }
        least.map(|server| server.name)
    }

    /// One pass after another over the list, the first from the pointer on. Gives up when every server was looked at for a
    /// weight of 1: at the end of a pass, or at the place where the search began if its first pass was already the last one.
    fn wrr(&mut self) -> Option<u8> {
        if self.greatest == 0 {
            return None;
        }
        let began = self.pointer.map(|name| self.place(name).unwrap());
        let mut first = began.map_or(0, |place| place + 1);
        let began_in_last_pass = began.is_some() && self.current <= self.step;
        let mut passes = 0;
        loop {
            let last_pass = self.current <= self.step;
            for place in first..self.list.len() {
                let server = self.list[place];
                if !self.overloaded(&server) && server.weight >= self.current {
                    self.pointer = Some(server.name);
                    return Some(server.name);
                }
                if passes > 0 && last_pass && began_in_last_pass && Some(place) == began {
                    return None;
                }
            }
            self.current = if self.current > self.step { self.current - self.step } else { self.greatest };
            if last_pass && (passes > 0 || began.is_none()) {
                self.pointer = None;
                return None;
            }
            first = 0;
            passes += 1;
        }
    }
}

impl Counts {
    fn low(&self) -> u64 {
        u64::from(if self.lower > 0 { self.lower } else { self.upper - self.upper / 4 })
    }
}
