//! What a worker does against floods: the kernel's `drop_packet`, `drop_entry` and `secure_tcp`, decided once a second and
//! whenever a snapshot is new.

use crate::snapshot::Settings;

/// A defence's modes that are not "never" and "always": it works while memory is short.
const AUTOMATIC: std::ops::RangeInclusive<u8> = 1..=2;
/// The mode that needs no reason.
const ALWAYS: u8 = 3;
/// A round over the whole table takes so many seconds.
const ROUND: u64 = 32;
/// Lines looked at in one millisecond at most.
const MOST_VISITS: u64 = 256;
/// An idle established connection with so many packets from the client or fewer may go.
const FEW_PACKETS: usize = 8;

/// The defences of one worker.
#[derive(Debug, Default)]
pub(crate) struct Defence {
    /// One of so many packets that would be scheduled is dropped; 0: none.
    drop_rate: u32,
    drop_counter: u32,
    /// TCP connections follow the defence tables.
    pub(crate) secure_tcp: bool,
    drop_entry: bool,
    /// By part of the walk: lines owed to the round, in thousandths times [`ROUND`].
    owed: [u64; 3],
    /// By packets from the client: how many more connections of that kind stay before one goes.
    stays: [u8; FEW_PACKETS + 1],
}

impl Defence {
    /// Decides what is to be done, with `free` places left for connections (`update_defense_level`).
    pub(crate) fn update(&mut self, settings: &Settings, free: usize) {
        let threshold = settings.amemthresh;
        let short_by = threshold.saturating_sub(u32::try_from(free).unwrap_or(u32::MAX));
        let works = |mode: u8| mode == ALWAYS || (short_by > 0 && AUTOMATIC.contains(&mode));
        self.secure_tcp = works(settings.secure_tcp);
        self.drop_entry = works(settings.drop_entry);
        if !works(settings.drop_packet) {
            self.drop_rate = 0;
        } else if settings.drop_packet == ALWAYS {
            self.drop_rate = settings.am_droprate.max(1);
        } else {
            self.drop_rate = (threshold / short_by.max(1)).max(1);
            self.drop_counter = self.drop_rate;
        }
    }

    /// Whether a packet that would be scheduled is dropped: the first one and then every `drop_rate`th (`ip_vs_todrop`).
    pub(crate) fn drops_packet(&mut self) -> bool {
        if self.drop_rate == 0 {
            return false;
        }
        self.drop_counter = self.drop_counter.saturating_sub(1);
        if self.drop_counter > 0 {
            return false;
        }
        self.drop_counter = self.drop_rate;
        true
    }

    /// How many of a part's `lines` lines are to be looked at after `elapsed` milliseconds: all of them within [`ROUND`] seconds.
    pub(crate) fn visits(&mut self, part: usize, lines: u32, elapsed: u32) -> u64 {
        if !self.drop_entry {
            return 0;
        }
        let owed = &mut self.owed[part];
        *owed += u64::from(lines) * u64::from(elapsed);
        let due = *owed / (1000 * ROUND);
        *owed -= due * 1000 * ROUND;
        due.min(MOST_VISITS)
    }

    /// Whether a connection goes that has been idle for a minute and got `packets` from its client: one of so many
    /// (`todrop_entry`).
    pub(crate) fn drops_idle(&mut self, packets: u32) -> bool {
        let Some(stays) = usize::try_from(packets).ok().and_then(|index| self.stays.get_mut(index)) else {
            return false;
        };
        if packets == 0 {
            return false;
        }
        *stays = stays.saturating_sub(1);
        if *stays > 0 {
            return false;
        }
        *stays = u8::try_from(packets).unwrap_or(u8::MAX);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn always() -> Settings {
        Settings { drop_packet: 3, drop_entry: 3, secure_tcp: 3, ..Settings::default() }
    }

    /// Trace `drop`: the first and then every tenth.
    #[test]
    fn every_tenth_packet_is_dropped() {
        let mut defence = Defence::default();
        assert!((0..50).all(|_| !defence.drops_packet()));
        defence.update(&always(), 1_000_000);
        let dropped: Vec<_> = (0..25).filter(|_| defence.drops_packet()).collect();
        assert_eq!(dropped, [0, 10, 20]);
        defence.update(&Settings::default(), 1_000_000);
        assert!(!defence.drops_packet() && defence.visits(0, 1 << 20, 1000) == 0);
    }

    #[test]
    fn automatic_defences_work_while_connections_are_short() {
        let settings = Settings { drop_packet: 1, drop_entry: 2, secure_tcp: 1, ..Settings::default() };
        let mut defence = Defence::default();
        defence.update(&settings, 1024);
        assert!(!defence.secure_tcp && !defence.drops_packet());
        // 256 of 1024 missing: one of four.
        defence.update(&settings, 768);
        assert!(defence.secure_tcp && defence.visits(0, 32, 1000) == 1);
        assert_eq!((1..=8).filter(|_| defence.drops_packet()).count(), 2);
        defence.update(&settings, 0);
        assert!(defence.drops_packet(), "none left: all of them");
    }

    #[test]
    fn a_round_takes_32_seconds_and_a_turn_is_bounded() {
        let mut defence = Defence::default();
        defence.update(&always(), 0);
        let visited: u64 = (0..32_000).map(|_| defence.visits(0, 100, 1)).sum();
        assert_eq!(visited, 100);
        assert_eq!(defence.visits(1, u32::MAX, 1), MOST_VISITS);
    }

    #[test]
    fn busy_connections_stay() {
        let mut defence = Defence::default();
        assert!(!defence.drops_idle(0) && !defence.drops_idle(9) && !defence.drops_idle(u32::MAX));
        assert_eq!((0..6).filter(|_| defence.drops_idle(3)).count(), 2);
        assert!(defence.drops_idle(1) && defence.drops_idle(1));
    }
}
