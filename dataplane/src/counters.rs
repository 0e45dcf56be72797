//! Everything that is counted, by name. Writers are single threads unless a field says otherwise; readers sum.

mod names;
mod path;

pub use names::{Counter, DropReason};
pub use path::PathMtu;

use crate::engine::{Place, place};
use crate::id::{DestinationSlot, WorkerId};
use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// Counters of one worker; written by it alone, read by anybody.
#[derive(Debug)]
pub struct WorkerCounters {
    counters: [AtomicU64; Counter::ALL.len()],
    drops: [AtomicU64; DropReason::ALL.len()],
    /// Packets parked, held as early fragments or waiting in transmit buffers right now.
    in_flight: AtomicU64,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            counters: [const { AtomicU64::new(0) }; Counter::ALL.len()],
            drops: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
            in_flight: AtomicU64::new(0),
        }
    }
}

/// Adds to a cell that only the calling thread writes: no locked instruction is needed.
#[inline(always)]
fn bump(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

impl WorkerCounters {
    /// Adds `amount`; for the owning worker only.
    #[inline(always)]
    pub fn add(&self, counter: Counter, amount: u64) {
        bump(&self.counters[counter as usize], amount);
    }

    /// Sets a counter that is kept elsewhere; for the owning worker only.
    #[inline(always)]
    pub fn set(&self, counter: Counter, value: u64) {
        self.counters[counter as usize].store(value, Relaxed);
    }

    /// Counts one dropped packet; for the owning worker only.
    #[inline(always)]
    pub fn drop_one(&self, reason: DropReason) {
        bump(&self.drops[reason as usize], 1);
    }

    /// Sets how many packets the worker holds.
    #[inline(always)]
    pub fn set_in_flight(&self, packets: u64) {
        self.in_flight.store(packets, Relaxed);
    }

    /// Reads one counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }

    /// Reads how many packets were dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    /// Reads how many packets the worker holds.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Sum of all drops.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().map(|cell| cell.load(Relaxed)).sum()
    }

    /// What came in and was made here, less what went out, was dropped or is held. Zero when packets are conserved and the
    /// worker is between turns. Redirects count as out of one worker and into another.
    #[must_use]
    pub fn imbalance(&self) -> i64 {
        let sources = [Counter::Received, Counter::Injected, Counter::Generated, Counter::RedirectedIn];
        let sinks = [
            Counter::Transmitted,
            Counter::PuntedControl,
            Counter::PuntedLocal,
            Counter::PuntedStray,
            Counter::RedirectedOut,
        ];
        let sum = |set: &[Counter]| set.iter().map(|counter| self.get(*counter)).sum::<u64>();
        let came = sum(&sources);
        let went = sum(&sinks).wrapping_add(self.dropped_total()).wrapping_add(self.in_flight());
        came.wrapping_sub(went).cast_signed()
    }
}

/// What one worker counts for one destination; one line, written by that worker alone.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct DestinationCounts {
    /// Connections in an active state.
    pub active: AtomicU32,
    /// The other connections.
    pub inactive: AtomicU32,
    /// Connections ever opened.
    pub connections: AtomicU64,
    /// Packets from clients.
    pub in_packets: AtomicU64,
    /// IP bytes from clients.
    pub in_bytes: AtomicU64,
    /// Packets from the server.
    pub out_packets: AtomicU64,
    /// IP bytes from the server.
    pub out_bytes: AtomicU64,
    /// Whether this worker's connections are in [`SharedCounts`] too.
    folded: AtomicBool,
    /// Whether this worker's schedulers want to know of changes, and whether one waits to be told.
    watched: AtomicBool,
    changed: AtomicBool,
    /// The next destination in the chain of those that changed.
    next_changed: AtomicU32,
}

/// The end of a chain of destinations.
const NO_DESTINATION: u32 = u32::MAX;

impl DestinationCounts {
    /// Changes are to be told from now on.
    pub(crate) fn watch(&self) {
        self.watched.store(true, Relaxed);
    }

    /// Counts a packet from a client of `bytes` IP bytes.
    #[inline(always)]
    pub fn count_in(&self, bytes: u64) {
        bump(&self.in_packets, 1);
        bump(&self.in_bytes, bytes);
    }

    /// Counts a packet from the server of `bytes` IP bytes.
    #[inline(always)]
    pub fn count_out(&self, bytes: u64) {
        bump(&self.out_packets, 1);
        bump(&self.out_bytes, bytes);
    }
}

/// What all workers share about one destination, for schedulers and thresholds that read it. Written by any worker, and only
/// when a connection opens, closes or changes between active and inactive.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct SharedCounts {
    /// Connections in an active state.
    pub active: AtomicU32,
    /// All connections, reserved before they are made.
    pub total: AtomicU32,
    /// Persistence templates that name the destination; kept for every destination.
    pub templates: AtomicU32,
    /// Cache entries of lblc and lblcr that name the destination.
    pub cached: AtomicU32,
    /// Set when the connections reach the upper threshold, cleared at the lower one.
    pub overloaded: AtomicBool,
}

impl SharedCounts {
    /// Marks the destination as overloaded, unless so many connections were closed meanwhile that it is not: whoever closed them
    /// either was seen in the total, or sees the mark and takes it away.
    fn overload(&self, lower: u32) {
        self.overloaded.store(true, SeqCst);
        if self.total.load(SeqCst) < lower {
            self.overloaded.store(false, SeqCst);
        }
    }
}

/// All destination counters of the director, sized at start.
#[derive(Debug)]
pub struct DestinationTable {
    workers: Box<[Arc<[DestinationCounts]>]>,
    /// By worker: its first watched destination whose counts have changed.
    changed: Box<[CachePadded<AtomicU32>]>,
    shared: Box<[SharedCounts]>,
    paths: Box<[PathMtu]>,
}

/// Sums of one destination over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DestinationTotals {
    /// Connections in an active state.
    pub active: u64,
    /// The other connections.
    pub inactive: u64,
    /// Persistence templates.
    pub templates: u64,
    /// Connections ever opened.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// IP bytes from clients.
    pub in_bytes: u64,
    /// Packets from the server.
    pub out_packets: u64,
    /// IP bytes from the server.
    pub out_bytes: u64,
}

fn defaults<T: Default>(count: usize) -> impl Iterator<Item = T> {
    std::iter::repeat_with(T::default).take(count)
}

/// Which of the two connection counts a state belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// SYN_SENT, SYN_RECV, ESTABLISHED, SYNACK.
    Active,
    /// Everything else.
    Inactive,
}

impl DestinationTable {
    /// Room for `destinations` destinations on `workers` workers.
    #[must_use]
    pub fn new(workers: usize, destinations: usize) -> Self {
        Self::with_lines((0..workers).map(|_| defaults(destinations).collect()).collect(), destinations)
    }

    /// The same with lines that the workers have allocated, `destinations` each.
    pub(crate) fn with_lines(workers: Box<[Arc<[DestinationCounts]>]>, destinations: usize) -> Self {
        let changed = || CachePadded::new(AtomicU32::new(NO_DESTINATION));
        Self {
            shared: defaults(destinations).collect(),
            paths: defaults(destinations).collect(),
            changed: std::iter::repeat_with(changed).take(workers.len()).collect(),
            workers,
        }
    }

    /// Bytes taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let line = size_of::<DestinationCounts>();
        self.shared.len() * (size_of::<SharedCounts>() + size_of::<PathMtu>() + self.workers.len() * line)
    }

    /// Where everything lies, by name.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places =
            vec![place("shared counts", &self.shared), place("changed destinations", &self.changed)];
        places.extend(self.workers.iter().map(|lines| place("a worker's destination counts", lines)));
        places
    }

    /// Room in destinations.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.len()
    }

    /// All lines of one worker.
    #[must_use]
    pub fn own(&self, worker: WorkerId) -> Arc<[DestinationCounts]> {
        Arc::clone(&self.workers[worker.index()])
    }

    /// The line of one worker.
    #[inline(always)]
    #[must_use]
    pub fn of(&self, worker: WorkerId, slot: DestinationSlot) -> &DestinationCounts {
        &self.workers[worker.index()][slot.index()]
    }

    /// Has the worker's schedulers told of a change, where they want to know.
    #[inline]
    fn note(&self, worker: WorkerId, slot: DestinationSlot) {
        let (line, changed) = (self.of(worker, slot), &self.changed[worker.index()]);
        if line.watched.load(Relaxed) && !line.changed.load(Relaxed) {
            line.changed.store(true, Relaxed);
            line.next_changed.store(changed.load(Relaxed), Relaxed);
            changed.store(slot.0, Relaxed);
        }
    }

    /// A watched destination whose counts the worker has changed since this was last asked; for that worker only.
    #[inline]
    pub(crate) fn take_change(&self, worker: WorkerId) -> Option<DestinationSlot> {
        let changed = &self.changed[worker.index()];
        let slot = DestinationSlot(changed.load(Relaxed));
        let line = self.workers[worker.index()].get(slot.index())?;
        changed.store(line.next_changed.load(Relaxed), Relaxed);
        line.changed.store(false, Relaxed);
        Some(slot)
    }

    /// What the workers share.
    #[inline(always)]
    #[must_use]
    pub fn shared(&self, slot: DestinationSlot) -> &SharedCounts {
        &self.shared[slot.index()]
    }

    /// What was learnt of the way to a tunnel's end.
    #[inline(always)]
    #[must_use]
    pub fn path_mtu(&self, slot: DestinationSlot) -> &PathMtu {
        &self.paths[slot.index()]
    }

    /// Reserves a place under `upper` (0: none) in the shared count; the caller then opens the connection, or gives the place
    /// back with [`Self::release`]. `false` when the threshold is reached: then the destination is overloaded. `lower` as in
    /// [`Self::closed`].
    #[must_use]
    pub fn reserve(&self, slot: DestinationSlot, upper: u32, lower: u32) -> bool {
        let shared = self.shared(slot);
        if upper == 0 {
            shared.total.fetch_add(1, Relaxed);
            return true;
        }
        // Not added and taken back: who closes meanwhile would count it.
        let room = |total: u32| (total < upper).then_some(total + 1);
        let before = shared.total.fetch_update(SeqCst, Relaxed, room);
        if before.map_or(true, |before| before + 1 == upper) {
            shared.overload(lower_threshold(upper, lower));
        }
        before.is_ok()
    }

    /// Takes a place in the shared count whatever the threshold, for the caller to open a connection in.
    pub fn exceed(&self, slot: DestinationSlot, upper: u32, lower: u32) {
        let shared = self.shared(slot);
        let before = shared.total.fetch_add(1, SeqCst);
        if upper != 0 && before + 1 >= upper {
            shared.overload(lower_threshold(upper, lower));
        }
    }

    /// Gives a reserved place back. A threshold that only this place reached is not reached.
    pub fn release(&self, slot: DestinationSlot, upper: u32, lower: u32) {
        let shared = self.shared(slot);
        let left = shared.total.fetch_sub(1, SeqCst).wrapping_sub(1);
        if left + 1 == upper || left < lower_threshold(upper, lower) {
            shared.overloaded.store(false, SeqCst);
        }
    }

    /// Makes this worker's connections part of the shared counts, once.
    pub fn fold(&self, worker: WorkerId, slot: DestinationSlot) {
        let line = self.of(worker, slot);
        if line.folded.load(Relaxed) {
            return;
        }
        let (active, inactive) = (line.active.load(Relaxed), line.inactive.load(Relaxed));
        self.shared(slot).active.fetch_add(active, Relaxed);
        self.shared(slot).total.fetch_add(active.wrapping_add(inactive), Relaxed);
        line.folded.store(true, Relaxed);
        self.note(worker, slot);
    }

    /// Counts a new connection. `reserved` says that [`Self::reserve`] has already counted it in the shared total.
    pub fn opened(&self, worker: WorkerId, slot: DestinationSlot, activity: Activity, reserved: bool) {
        let line = self.of(worker, slot);
        bump(&line.connections, 1);
        self.joined(worker, slot, activity, reserved);
    }

    /// The same for a connection that belongs to another one, which alone counts as opened.
    pub fn joined(&self, worker: WorkerId, slot: DestinationSlot, activity: Activity, reserved: bool) {
        let line = self.of(worker, slot);
        step(line.cell(activity), 1);
        if line.folded.load(Relaxed) {
            if !reserved {
                self.shared(slot).total.fetch_add(1, Relaxed);
            }
            if activity == Activity::Active {
                self.shared(slot).active.fetch_add(1, Relaxed);
            }
            self.note(worker, slot);
        }
    }

    /// Counts a connection's change between active and inactive.
    pub fn changed(&self, worker: WorkerId, slot: DestinationSlot, to: Activity) {
        let line = self.of(worker, slot);
        let (gains, loses) = match to {
            Activity::Active => (&line.active, &line.inactive),
            Activity::Inactive => (&line.inactive, &line.active),
        };
        step(gains, 1);
        step(loses, u32::MAX);
        if line.folded.load(Relaxed) {
            let delta = if to == Activity::Active { 1 } else { u32::MAX };
            self.shared(slot).active.fetch_add(delta, Relaxed);
            self.note(worker, slot);
        }
    }

    /// Counts a connection that is gone; clears the overload when the total fell to `lower - 1` (the kernel's rule, with
    /// `lower` = three quarters of `upper` when it is 0).
    pub fn closed(
        &self,
        worker: WorkerId,
        slot: DestinationSlot,
        activity: Activity,
        upper: u32,
        lower: u32,
    ) {
        let line = self.of(worker, slot);
        step(line.cell(activity), u32::MAX);
        if !line.folded.load(Relaxed) {
            return;
        }
        let shared = self.shared(slot);
        if activity == Activity::Active {
            shared.active.fetch_sub(1, Relaxed);
        }
        let left = shared.total.fetch_sub(1, SeqCst).wrapping_sub(1);
        if left < lower_threshold(upper, lower) {
            shared.overloaded.store(false, SeqCst);
        }
        self.note(worker, slot);
    }

    /// The sums a listing shows.
    #[must_use]
    pub fn totals(&self, slot: DestinationSlot) -> DestinationTotals {
        let mut totals = DestinationTotals {
            templates: self.shared(slot).templates.load(Relaxed).into(),
            ..Default::default()
        };
        for worker in &self.workers {
            let line = &worker[slot.index()];
            totals.active += u64::from(line.active.load(Relaxed));
            totals.inactive += u64::from(line.inactive.load(Relaxed));
            totals.connections += line.connections.load(Relaxed);
            totals.in_packets += line.in_packets.load(Relaxed);
            totals.in_bytes += line.in_bytes.load(Relaxed);
            totals.out_packets += line.out_packets.load(Relaxed);
            totals.out_bytes += line.out_bytes.load(Relaxed);
        }
        totals
    }

    /// Whether no connection, no template and no scheduler's cache names the destination.
    #[must_use]
    pub fn unreferenced(&self, slot: DestinationSlot) -> bool {
        let totals = self.totals(slot);
        let cached = self.shared(slot).cached.load(Relaxed);
        totals.active == 0 && totals.inactive == 0 && totals.templates == 0 && cached == 0
    }
}

/// The threshold below which an overload ends: `lower`, or three quarters of `upper` when it is 0; 1 without thresholds.
#[must_use]
pub const fn lower_threshold(upper: u32, lower: u32) -> u32 {
    if lower != 0 {
        lower
    } else if upper != 0 {
        upper - (upper >> 2)
    } else {
        u32::MAX
    }
}

impl DestinationCounts {
    fn cell(&self, activity: Activity) -> &AtomicU32 {
        match activity {
            Activity::Active => &self.active,
            Activity::Inactive => &self.inactive,
        }
    }
}

/// Changes a cell that only the calling thread writes; `u32::MAX` takes one away.
fn step(cell: &AtomicU32, delta: u32) {
    cell.store(cell.load(Relaxed).wrapping_add(delta), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: WorkerId = WorkerId(0);
    const SLOT: DestinationSlot = DestinationSlot(0);

    #[test]
    fn a_destinations_counts_of_a_worker_are_one_line() {
        assert_eq!(size_of::<DestinationCounts>(), 64);
        assert_eq!(size_of::<SharedCounts>(), 64);
    }

    #[test]
    fn watched_destinations_are_told_of_once_however_often_they_change() {
        let table = DestinationTable::new(2, 3);
        let slots = [0, 1, 2].map(DestinationSlot);
        for slot in slots {
            table.fold(WORKER, slot);
        }
        table.of(WORKER, slots[1]).watch();
        table.of(WORKER, slots[2]).watch();
        for slot in [slots[0], slots[1], slots[2], slots[1]] {
            table.opened(WORKER, slot, Activity::Inactive, false);
        }
        table.changed(WORKER, slots[1], Activity::Active);
        let told = [(); 3].map(|()| table.take_change(WORKER));
        assert_eq!(told, [Some(slots[2]), Some(slots[1]), None]);
        table.closed(WORKER, slots[1], Activity::Active, 0, 0);
        assert_eq!((table.take_change(WORKER), table.take_change(WorkerId(1))), (Some(slots[1]), None));
    }

    #[test]
    fn a_threshold_is_reserved_before_it_is_committed_and_clears_at_the_lower_one() {
        let table = DestinationTable::new(1, 1);
        table.fold(WORKER, SLOT);
        for _ in 0..4 {
            assert!(table.reserve(SLOT, 4, 0));
            table.opened(WORKER, SLOT, Activity::Active, true);
        }
        assert!(table.shared(SLOT).overloaded.load(Relaxed) && !table.reserve(SLOT, 4, 0));
        assert_eq!(table.shared(SLOT).total.load(Relaxed), 4);
        table.closed(WORKER, SLOT, Activity::Active, 4, 0);
        assert!(table.shared(SLOT).overloaded.load(Relaxed), "3 is not below 3");
        table.closed(WORKER, SLOT, Activity::Active, 4, 0);
        assert!(!table.shared(SLOT).overloaded.load(Relaxed));
    }

    /// A place that was given back, because the connection table is full, is nobody's: the last one to be closed already was.
    #[test]
    fn a_place_given_back_leaves_no_overload_behind() {
        let table = DestinationTable::new(1, 1);
        table.fold(WORKER, SLOT);
        for upper in [1, 4] {
            for _ in 1..upper {
                assert!(table.reserve(SLOT, upper, 0));
            }
            assert!(table.reserve(SLOT, upper, 0));
            table.release(SLOT, upper, 0);
            assert!(!table.shared(SLOT).overloaded.load(Relaxed));
            (1..upper).for_each(|_| table.release(SLOT, upper, 0));
        }
    }

    #[test]
    fn folding_later_adds_what_was_counted_before() {
        let table = DestinationTable::new(2, 1);
        table.opened(WORKER, SLOT, Activity::Active, false);
        table.opened(WorkerId(1), SLOT, Activity::Inactive, false);
        assert_eq!(table.shared(SLOT).total.load(Relaxed), 0);
        for worker in [WORKER, WorkerId(1), WORKER] {
            table.fold(worker, SLOT);
        }
        table.changed(WORKER, SLOT, Activity::Inactive);
        let shared = table.shared(SLOT);
        assert_eq!((shared.active.load(Relaxed), shared.total.load(Relaxed)), (0, 2));
        assert_eq!(table.totals(SLOT).inactive, 2);
    }
}
