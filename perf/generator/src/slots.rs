//! Loss, moment by moment: packets that were under way while the generator did not look at its port say nothing about whoever else
//! had them.

/// A run's time cut into moments of about a millisecond. Times are cycles.
#[derive(Debug)]
pub struct Slots {
    start: u64,
    shift: u32,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    offered: u32,
    returned: u32,
    spoiled: bool,
}

/// Moments in a second, at least.
const A_SECOND: u64 = 1000;

impl Slots {
    /// From `start` to `end`, on a clock of `hz` cycles a second.
    #[must_use]
    pub fn new(start: u64, end: u64, hz: u64) -> Self {
        let shift = (hz / A_SECOND).max(1).ilog2();
        let count = (end.saturating_sub(start) >> shift) + 1;
        Self { start, shift, slots: vec![Slot::default(); usize::try_from(count).unwrap_or(0)] }
    }

    #[inline(always)]
    fn index(&self, time: u64) -> usize {
        usize::try_from(time.saturating_sub(self.start) >> self.shift).unwrap_or(usize::MAX)
    }

    /// A packet was due at this time.
    #[inline(always)]
    pub fn offered(&mut self, time: u64) {
        let index = self.index(time);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.offered += 1;
        }
    }

    /// The packet that was due at this time is back.
    #[inline(always)]
    pub fn returned(&mut self, time: u64) {
        let index = self.index(time);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.returned += 1;
        }
    }

    /// Nobody looked between these times: nor is the moment before to be judged, whose packets were under way.
    pub fn spoil(&mut self, from: u64, to: u64) {
        let (first, last) = (self.index(from).saturating_sub(1), self.index(to));
        for slot in self.slots.iter_mut().take(last.saturating_add(1)).skip(first) {
            slot.spoiled = true;
        }
    }

    /// Packets of moments that can be judged, and how many of them did not come back.
    #[must_use]
    pub fn judge(&self) -> (u64, u64) {
        let fine = || self.slots.iter().filter(|slot| !slot.spoiled);
        let offered = fine().map(|slot| u64::from(slot.offered)).sum();
        (offered, fine().map(|slot| u64::from(slot.offered.saturating_sub(slot.returned))).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stall_spoils_is_not_judged() {
        let mut slots = Slots::new(0, 10 << 10, 1_024_000);
        for time in (0..10 << 10).step_by(64) {
            slots.offered(time);
            if (time >> 10) != 2 && (time >> 10) != 5 {
                slots.returned(time);
            }
        }
        assert_eq!(slots.judge(), (160, 32));
        slots.spoil(6 << 10, (6 << 10) + 9);
        assert_eq!(slots.judge(), (128, 16));
        // Beyond the end nothing is counted, and nothing breaks.
        slots.offered(u64::MAX);
        slots.spoil(u64::MAX - 1, u64::MAX);
        assert_eq!(slots.judge().1, 16);
    }
}
