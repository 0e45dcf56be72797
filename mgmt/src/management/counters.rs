//! What destinations, services and the whole director forwarded, and how fast, as the kernel's IPVS counts it.
//!
//! The data path counts by destination slot and never starts over. Everything else is a difference: a destination counts from its
//! own zero, a service and the director sum up what their destinations counted while they were there.

use crate::protocol::Traffic;
use dataplane::counters::{DestinationTable, DestinationTotals};
use dataplane::id::{DestinationSlot, ServiceSlot};
use dataplane::snapshot::editor::{Destination, Editor};

/// Milliseconds between two looks of the kernel's estimator.
const PERIOD_MS: u64 = 2_000;
/// Looks that are made up for after a pause; by then a rate is a hundred millionth of what it was.
const MISSED_MAX: u64 = 64;
/// Fractional bits of a rate of connections or packets, and of bytes.
const FRACTION: [u32; 5] = [10, 10, 10, 5, 5];

/// Connections, packets in and out, bytes in and out. Differences wrap, so that a sum may start anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums([u64; 5]);

impl Sums {
    fn of(totals: &DestinationTotals) -> Self {
        let DestinationTotals { connections, in_packets, out_packets, in_bytes, out_bytes, .. } = *totals;
        Self([connections, in_packets, out_packets, in_bytes, out_bytes])
    }

    fn at(table: &DestinationTable, slot: DestinationSlot) -> Self {
        Self::of(&table.totals(slot))
    }

    fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index].wrapping_add(other.0[index])))
    }

    fn minus(self, other: Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index].wrapping_sub(other.0[index])))
    }
}

/// The kernel's estimator (`net/netfilter/ipvs/ip_vs_est.c`): every 2 s a rate moves by a quarter of its difference to the new
/// one, in fixed point.
#[derive(Debug, Clone, Copy, Default)]
struct Estimator {
    last: Sums,
    rates: [u64; 5],
}

impl Estimator {
    fn look(&mut self, now: Sums) {
        let new = now.minus(self.last).0;
        self.last = now;
        for ((rate, count), bits) in self.rates.iter_mut().zip(new).zip(FRACTION) {
            // A count of two seconds, so one bit less.
            let new = count.saturating_mul(1 << (bits - 1));
            let step = (i128::from(new) - i128::from(*rate)) >> 2;
            *rate = u64::try_from(i128::from(*rate) + step).unwrap_or(0);
        }
    }

    fn shown(&self) -> [u64; 5] {
        std::array::from_fn(|index| {
            let bits = FRACTION[index];
            self.rates[index].saturating_add((1 << (bits - 1)) - 1) >> bits
        })
    }
}

/// Something that is counted from a zero.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    zero: Sums,
    estimator: Estimator,
}

impl Counted {
    fn from(now: Sums) -> Self {
        Self { zero: now, estimator: Estimator { last: now, rates: [0; 5] } }
    }

    /// The rates start at 0; what happened since the last look still belongs to the next one, as in the kernel.
    fn set_zero(&mut self, now: Sums) {
        self.zero = now;
        self.estimator.rates = [0; 5];
    }

    fn traffic(&self, now: Sums) -> Traffic {
        let [connections, in_packets, out_packets, in_bytes, out_bytes] = now.minus(self.zero).0;
        let rates = self.estimator.shown();
        let [connections_per_s, in_packets_per_s, out_packets_per_s, in_bytes_per_s, out_bytes_per_s] = rates;
        Traffic {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
            connections_per_s,
            in_packets_per_s,
            out_packets_per_s,
            in_bytes_per_s,
            out_bytes_per_s,
        }
    }
}

/// A sum over destinations that come and go: what those that are there have counted, plus an offset that makes it neither jump
/// when one comes nor when one goes.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    /// Tells a service from one that had the slot before.
    made: u64,
    offset: Sums,
    counted: Counted,
}

impl Group {
    fn comes(&mut self, counted: Sums) {
        self.offset = self.offset.minus(counted);
    }

    fn goes(&mut self, counted: Sums) {
        self.offset = self.offset.plus(counted);
    }

    fn traffic(&self, present: Sums) -> Traffic {
        self.counted.traffic(present.plus(self.offset))
    }

    fn set_zero(&mut self, present: Sums) {
        self.counted.set_zero(present.plus(self.offset));
    }

    fn look(&mut self, present: Sums) {
        self.counted.estimator.look(present.plus(self.offset));
    }
}

/// What a destination counted, and what it holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DestinationFigures {
    /// Since its zero.
    pub(super) traffic: Traffic,
    /// The data path's own.
    pub(super) totals: DestinationTotals,
}

/// Adds up a service's or the director's destinations while they are listed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Present(Sums);

impl Present {
    pub(super) fn add(&mut self, destination: &DestinationFigures) {
        self.0 = self.0.plus(Sums::of(&destination.totals));
    }

    pub(super) fn add_all(&mut self, other: Self) {
        self.0 = self.0.plus(other.0);
    }
}

/// Zeros and rates of everything that is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// By slot; with whose they are.
    destinations: Vec<(Option<Owner>, Counted)>,
    /// By slot.
    services: Vec<Group>,
    all: Group,
    /// Services that were ever made.
    made: u64,
    looked_ms: Option<u64>,
}

/// Whose figures a destination slot's are: the slot's tenant in one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    incarnation: u32,
    service: u64,
}

fn entry<T: Clone + Default>(list: &mut Vec<T>, index: usize) -> Option<&mut T> {
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    list.get_mut(index)
}

impl Counters {
    /// A service was made.
    pub(super) fn service_added(&mut self, service: ServiceSlot) {
        self.made += 1;
        if let Some(group) = entry(&mut self.services, service.index()) {
            *group = Group { made: self.made, ..Group::default() };
        }
    }

    /// A destination was put into a service's list. One that comes back to the service it left has its counts again, one that
    /// comes back to a service that was made anew begins at 0, as in the kernel.
    pub(super) fn added(&mut self, found: &Destination, table: &DestinationTable) {
        let now = Sums::at(table, found.slot);
        let Some(group) = entry(&mut self.services, found.service.index()) else { return };
        let new = Some(Owner { incarnation: found.incarnation, service: group.made });
        group.comes(now);
        self.all.comes(now);
        if let Some((owner, counted)) = entry(&mut self.destinations, found.slot.index())
            && *owner != new
        {
            *owner = new;
            *counted = Counted::from(now);
        }
    }

    /// A destination was taken out of a service's list.
    pub(super) fn removed(&mut self, slot: DestinationSlot, service: ServiceSlot, table: &DestinationTable) {
        let now = Sums::at(table, slot);
        if let Some(group) = entry(&mut self.services, service.index()) {
            group.goes(now);
        }
        self.all.goes(now);
    }

    /// A destination's figures.
    pub(super) fn destination(&self, slot: DestinationSlot, table: &DestinationTable) -> DestinationFigures {
        let totals = table.totals(slot);
        let counted = self.destinations.get(slot.index()).map(|(_, counted)| *counted).unwrap_or_default();
        DestinationFigures { traffic: counted.traffic(Sums::of(&totals)), totals }
    }

    /// What a service's destinations counted since its zero, removed ones included.
    pub(super) fn service(&self, slot: ServiceSlot, present: Present) -> Traffic {
        self.services.get(slot.index()).copied().unwrap_or_default().traffic(present.0)
    }

    /// The same for the director.
    pub(super) fn all(&self, present: Present) -> Traffic {
        self.all.traffic(present.0)
    }

    /// A service's destinations count from 0, and so does the service.
    pub(super) fn zero_service(
        &mut self,
        service: ServiceSlot,
        slots: impl Iterator<Item = DestinationSlot>,
        table: &DestinationTable,
    ) {
        let mut present = Sums::default();
        for slot in slots {
            let now = Sums::at(table, slot);
            present = present.plus(now);
            if let Some((_, counted)) = entry(&mut self.destinations, slot.index()) {
                counted.set_zero(now);
            }
        }
        if let Some(group) = entry(&mut self.services, service.index()) {
            group.set_zero(present);
        }
    }

    /// Everything counts from 0.
    pub(super) fn zero_all(&mut self, editor: &Editor, table: &DestinationTable) {
        let (present, all) = self.present(editor, table, Counted::set_zero);
        for (slot, _) in editor.services() {
            if let Some(group) = entry(&mut self.services, slot.index()) {
                group.set_zero(present.get(slot.index()).copied().unwrap_or_default());
            }
        }
        self.all.set_zero(all);
    }

    /// Looks at the rates if 2 s have passed since the last look. `now_ms` are milliseconds of a monotonic clock.
    pub(super) fn tick(&mut self, now_ms: u64, editor: &Editor, table: &DestinationTable) {
        let mut looked = *self.looked_ms.get_or_insert(now_ms);
        let due = now_ms.saturating_sub(looked) / PERIOD_MS;
        if due > MISSED_MAX {
            looked += (due - MISSED_MAX) * PERIOD_MS;
        }
        for _ in 0..due.min(MISSED_MAX) {
            looked += PERIOD_MS;
            self.look(editor, table);
        }
        self.looked_ms = Some(looked);
    }

    fn look(&mut self, editor: &Editor, table: &DestinationTable) {
        let (present, all) = self.present(editor, table, |counted, now| counted.estimator.look(now));
        for (slot, _) in editor.services() {
            if let Some(group) = entry(&mut self.services, slot.index()) {
                group.look(present.get(slot.index()).copied().unwrap_or_default());
            }
        }
        self.all.look(all);
    }

    /// Does something with every destination there is; returns the sums by service slot and of all.
    fn present(
        &mut self,
        editor: &Editor,
        table: &DestinationTable,
        each: impl Fn(&mut Counted, Sums),
    ) -> (Vec<Sums>, Sums) {
        let mut services = vec![Sums::default(); self.services.len()];
        let mut all = Sums::default();
        for found in editor.destinations() {
            let now = Sums::at(table, found.slot);
            if let Some((_, counted)) = entry(&mut self.destinations, found.slot.index()) {
                each(counted, now);
            }
            if let Some(sum) = entry(&mut services, found.service.index()) {
                *sum = sum.plus(now);
            }
            all = all.plus(now);
        }
        (services, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's arithmetic, written out for one figure of packets.
    fn kernel(counts: &[u64]) -> Vec<u64> {
        let (mut last, mut rate, mut shown) = (0_i64, 0_i64, Vec::new());
        for count in counts {
            let now = i64::try_from(*count).unwrap();
            rate += (((now - last) << 9) - rate) >> 2;
            last = now;
            shown.push(u64::try_from((rate + 0x1ff) >> 10).unwrap());
        }
        shown
    }

    #[test]
    fn rates_are_the_kernels() {
        let counts: Vec<u64> =
            (1..40).map(|second| if second < 20 { second * 2_000 } else { 40_000 }).collect();
        let mut estimator = Estimator::default();
        let mut shown = Vec::new();
        for count in &counts {
            estimator.look(Sums([*count, *count, 0, *count, 0]));
            shown.push(estimator.shown()[1]);
        }
        assert_eq!(shown, kernel(&counts));
        assert!(shown[18] > 980 && shown[18] <= 1_000, "{shown:?}");
        assert!(*shown.last().unwrap() < 10);
    }

    #[test]
    fn bytes_have_five_fractional_bits() {
        let mut estimator = Estimator::default();
        estimator.look(Sums([0, 0, 0, 8_000, 0]));
        assert_eq!(estimator.shown(), [0, 0, 0, 1_000, 0]);
        estimator.look(Sums([u64::MAX; 5]));
        assert!(estimator.shown()[0] > 0, "no overflow");
    }
}
