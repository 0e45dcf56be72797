//! The kernel's late timers.
//!
//! Linux files a timer in a wheel whose slots grow with the distance, and rounds *up*: with HZ = 250 an entry armed for less than
//! 0.25, 2, 16, 129 and 1032 s goes as much as 4, 32, 256, 2048 and 16384 ms after its time, depending on where the machine's
//! clock stood. Until then listings show it with 00:00 and it is counted. Ours goes at its time. A persistence template that still
//! controls connections is given another 60 s whenever its timer goes, so that its lateness adds up.

use std::collections::BTreeMap;

use super::text::{self, ConnectionLine};

/// Distance in milliseconds up to which a level of the wheel serves, and the length of its slots.
const LEVELS: [(u64, u64); 6] =
    [(252, 4), (2016, 32), (16_128, 256), (129_024, 2048), (1_032_192, 16_384), (u64::MAX, 131_072)];

/// What a template is given that still controls connections.
const REARMED: u64 = 60_000;

/// How late a timer may go that was armed for this long; all in milliseconds.
#[must_use]
pub fn rounding(armed: u64) -> u64 {
    LEVELS.iter().find(|(reach, _)| armed < *reach).map_or(131_072, |(_, slot)| *slot)
}

/// A connection or template of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As [`text::ConnectionLine::name`] has it, in `ipvsadm -Lnc`.
    pub name: String,
    /// The same in `/proc/net/ip_vs_conn`.
    pub raw_name: String,
    /// Real server, as listings show it.
    pub server: String,
    /// Whether it counts as active; templates count as neither.
    pub active: bool,
    /// Whether it is a persistence template.
    pub template: bool,
    /// Milliseconds that remain.
    pub remaining: u64,
}

#[derive(Debug, Clone)]
struct Seen {
    entry: Entry,
    deadline: u64,
    armed: u64,
    /// By how much its deadline may be the later one in the kernel.
    behind: u64,
}

impl Seen {
    fn is(&self, line: &ConnectionLine) -> bool {
        [&self.entry.name, &self.entry.raw_name].contains(&&line.name)
    }

    /// When the kernel has taken it away at the latest.
    fn gone(&self) -> u64 {
        self.deadline + self.behind + rounding(self.armed)
    }

    /// The same entry as it is seen again.
    fn again(&self, entry: Entry, now: u64) -> Self {
        let (deadline, remaining) = (now + entry.remaining, entry.remaining);
        if self.deadline == deadline {
            return Self { entry, deadline, armed: self.armed.max(remaining), behind: self.behind };
        }
        // Armed anew: by a packet, or, where the time had passed, by itself.
        let behind = if self.deadline <= now && entry.template {
            let times = (deadline - self.deadline).div_ceil(REARMED);
            self.behind + rounding(self.armed) + (times - 1) * rounding(REARMED)
        } else {
            0
        };
        Self { entry, deadline, armed: remaining, behind }
    }
}

/// Entries seen, and those of them whose time has passed just now.
#[derive(Debug, Default)]
pub struct Late {
    seen: BTreeMap<String, Seen>,
    now: u64,
}

impl Late {
    /// Takes down which entries there are at `now` (milliseconds).
    pub fn see(&mut self, now: u64, entries: impl IntoIterator<Item = Entry>) {
        let mut next = BTreeMap::new();
        // One that has nothing left only waits to be swept up.
        for entry in entries.into_iter().filter(|entry| entry.remaining > 0) {
            let (deadline, armed) = (now + entry.remaining, entry.remaining);
            let seen = match self.seen.get(&entry.name) {
                Some(before) => before.again(entry, now),
                None => Seen { entry, deadline, armed, behind: 0 },
            };
            next.insert(seen.entry.name.clone(), seen);
        }
        // Those whose time has passed; one that went before its time was taken away by something else.
        for (name, seen) in std::mem::take(&mut self.seen) {
            if seen.deadline <= now && now <= seen.gone() {
                next.entry(name).or_insert(seen);
            }
        }
        self.seen = next;
        self.now = now;
    }

    /// Entries that the kernel may still have.
    fn late(&self) -> impl Iterator<Item = &Entry> {
        self.seen.values().filter(|seen| seen.deadline <= self.now).map(|seen| &seen.entry)
    }

    /// Whether the kernel may have a line that we do not have: a connection that is late, or counts that include such ones
    /// where one of our own lines has less.
    #[must_use]
    pub fn explains(&self, kernel: &str, ours: &[&str]) -> bool {
        ours.iter().any(|line| self.differ(kernel, line))
            || text::connection(kernel).is_some_and(|line| self.listed(&line))
    }

    /// Whether the kernel may list an entry that we no longer have.
    fn listed(&self, line: &ConnectionLine) -> bool {
        self.seen.values().filter(|seen| seen.is(line) && seen.deadline <= self.now).any(|seen| {
            // With nothing left; a template that is behind has what it is behind by.
            line.seconds <= (seen.deadline + seen.behind).saturating_sub(self.now).div_ceil(1000)
        })
    }

    /// Whether a line of the kernel's and one of ours differ only by what is late.
    #[must_use]
    pub fn differ(&self, kernel: &str, ours: &str) -> bool {
        match (text::connection(kernel), text::connection(ours)) {
            (Some(theirs), Some(own)) => {
                let mut behind = self.seen.values().filter(|seen| seen.is(&theirs)).map(|seen| seen.behind);
                theirs.rest == own.rest
                    && behind.any(|behind| {
                        let possible = own.seconds..=own.seconds + behind.div_ceil(1000);
                        // Ours may have been armed again before the kernel's was.
                        possible.contains(&theirs.seconds)
                            || possible.contains(&(theirs.seconds + REARMED / 1000))
                    })
            }
            (None, None) => self.counts(kernel, ours),
            _ => false,
        }
    }

    /// Whether two lines about a destination differ by late entries' counts alone.
    fn counts(&self, kernel: &str, ours: &str) -> bool {
        let kernel: Vec<&str> = kernel.split_whitespace().collect();
        let ours: Vec<&str> = ours.split_whitespace().collect();
        let (Some("->"), Some(server)) = (kernel.first().copied(), kernel.get(1)) else { return false };
        if kernel.len() != ours.len() || kernel.len() < 6 {
            return false;
        }
        let (mut active, mut inactive, mut templates) = (0, 0, 0);
        // Where a service takes every port, its servers have port 0 and their connections the packet's.
        let of_server = |entry: &&Entry| {
            let host = server.strip_suffix(":0").filter(|_| !entry.template);
            entry.server == *server
                || host.is_some_and(|host| entry.server.rsplit_once(':').is_some_and(|(own, _)| own == host))
        };
        for entry in self.late().filter(of_server) {
            let count = match entry {
                Entry { template: true, .. } => &mut templates,
                Entry { active: true, .. } => &mut active,
                Entry { .. } => &mut inactive,
            };
            *count += 1;
        }
        if active + inactive + templates == 0 {
            return false;
        }
        // ActiveConn and InActConn come last, PersistConn, where it is shown, before them.
        let last = kernel.len();
        kernel.iter().zip(&ours).enumerate().all(|(column, (kernel, ours))| {
            let more = match last - column {
                1 => inactive,
                2 => active,
                3 => templates,
                _ => 0,
            };
            let (theirs, own) = (kernel.parse::<u64>(), ours.parse::<u64>());
            kernel == ours
                || matches!((theirs, own), (Ok(theirs), Ok(own)) if theirs >= own && theirs - own <= more)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Late, rounding};

    const LINE: &str = "TCP 00:00  SYN_RECV    10.1.0.5:11000     10.0.0.100:80      192.168.10.2:80";

    fn entry(remaining: u64) -> Entry {
        Entry {
            name: "TCP 10.1.0.5:11000 10.0.0.100:80".to_owned(),
            raw_name: "TCP 0A010005 2AF8 0A000064 0050".to_owned(),
            server: "192.168.10.2:80".to_owned(),
            active: true,
            template: false,
            remaining,
        }
    }

    #[test]
    fn slots_grow_with_the_distance() {
        let recorded = [
            (2_000, 32),
            (10_000, 256),
            (60_000, 2048),
            (120_000, 2048),
            (300_000, 16_384),
            (900_000, 16_384),
        ];
        assert!(recorded.iter().all(|(armed, slot)| rounding(*armed) == *slot));
    }

    #[test]
    fn an_entry_is_late_for_a_slot() {
        let mut late = Late::default();
        late.see(1000, [entry(60_000)]);
        assert!(!late.explains(LINE, &[]), "it is still there");
        late.see(60_500, [entry(500)]);
        late.see(61_050, [entry(0)]);
        late.see(62_000, []);
        assert!(late.explains(LINE, &[]));
        assert!(late.explains("TCP 0A010005 2AF8 0A000064 0050 C0A80A02 0050 SYN_RECV  0", &[]));
        assert!(!late.explains(&LINE.replace("00:00", "00:01"), &[]));
        assert!(!late.explains(&LINE.replace("11000", "11001"), &[]));
        late.see(63_048, []);
        assert!(late.explains(LINE, &[]));
        late.see(63_049, []);
        assert!(!late.explains(LINE, &[]));
    }

    #[test]
    fn what_went_before_its_time_is_not_late() {
        let mut late = Late::default();
        late.see(1000, [entry(60_000)]);
        late.see(2000, []);
        late.see(61_500, []);
        assert!(!late.explains(LINE, &[]));
    }

    #[test]
    fn a_template_falls_behind_with_every_round() {
        let template = |remaining| Entry { template: true, active: false, ..entry(remaining) };
        let line = |seconds: u64| LINE.replace("00:00", &format!("00:{seconds:02}"));
        let mut late = Late::default();
        late.see(0, [template(30_000)]);
        late.see(31_000, [template(59_000)]);
        assert!(late.differ(&line(59), &line(59)) && late.differ(&line(62), &line(59)));
        assert!(!late.differ(&line(63), &line(59)) && !late.differ(&line(58), &line(59)));
        // Ours has just been armed again.
        assert!(late.differ(&line(0), &line(59)) && late.differ(&line(2), &line(59)));
        assert!(!late.differ(&line(3), &line(59)) && !late.differ(&line(0), &line(56)));
        // Two rounds later.
        late.see(151_000, [template(59_000)]);
        assert!(late.differ(&line(59), &line(53)) && !late.differ(&line(53), &line(59)));
        // Armed by a connection: on time again.
        late.see(152_000, [template(60_000)]);
        assert!(late.differ(&line(59), &line(59)) && !late.differ(&line(59), &line(58)));
    }

    #[test]
    fn counts_may_include_late_entries() {
        let mut late = Late::default();
        late.see(0, [entry(60_000)]);
        late.see(61_000, []);
        let line = |active, inactive| {
            format!("  -> 192.168.10.2:80              Route   1      {active}          {inactive}         ")
        };
        assert!(late.counts(&line(3, 1), &line(2, 1)));
        assert!(late.explains(&line(3, 1), &["x", &line(2, 1)]));
        let every_port = |active| line(active, 1).replace("10.2:80", "10.2:0");
        assert!(late.counts(&every_port(3), &every_port(2)));
        assert!(!late.counts(&line(4, 1), &line(2, 1)), "by one alone");
        assert!(!late.counts(&line(2, 1), &line(3, 1)), "in the kernel alone");
        assert!(!late.counts(&line(2, 2), &line(2, 1)), "it was active");
        assert!(!late.counts(&line(3, 1).replace("10.2", "10.3"), &line(2, 1).replace("10.2", "10.3")));
    }
}
