//! One service as its editor knows it: above all the list of its destinations, in the kernel's order.

use super::types::{DestinationSpec, ServiceSpec};
use crate::id::{DestinationSlot, ServiceSlot};
use crate::scheduler::{self, Cursor, Share, greatest_common_divisor, wrr_adjust};
use crate::snapshot::{Candidate, SchedulerKind, ServiceView, WrrEdit};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// Edits kept for wrr cursors that have not seen them.
const WRR_EDITS: usize = 32;
/// Marks of removed destinations that a list may hold. More of them between two rounds of housekeeping let the service's
/// cursors start afresh, so that a list stays bounded.
const TOMBSTONES: usize = 256;

/// Who has a service slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tenancy {
    /// Nobody.
    Free,
    /// A service.
    Live,
    /// A service that was removed in this revision. Its removed destinations still name the slot, and the slot is its own
    /// again when it comes back.
    Gone(u64),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    candidate: Candidate,
    /// The server and its port.
    server: (IpAddr, u16),
    /// The last weight above 0 that it was given since it was added, 0 if none was: mh's shares do not change when it is quiesced.
    last_weight: u32,
    /// The revision that removed it.
    removed_in: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) tenancy: Tenancy,
    pub(super) spec: ServiceSpec,
    /// Destinations, removed ones included, that name this slot.
    pub(super) references: u32,
    generation: u32,
    list_version: u32,
    next_position: u32,
    list: Vec<Entry>,
    tombstones: usize,
    with_threshold: usize,
    wrr_edits: VecDeque<WrrEdit>,
    wrr_start: u32,
    /// The scheduler's table, until the list changes.
    table: Option<Arc<[u16]>>,
}

impl Service {
    pub(super) fn new(spec: ServiceSpec) -> Self {
        Self {
            tenancy: Tenancy::Free,
            spec,
            references: 0,
            generation: 0,
            list_version: 0,
            next_position: 0,
            list: Vec::new(),
            tombstones: 0,
            with_threshold: 0,
            wrr_edits: VecDeque::new(),
            wrr_start: 0,
            table: None,
        }
    }

    /// Gives the slot to a service.
    pub(super) fn occupy(&mut self, spec: ServiceSpec) {
        self.tenancy = Tenancy::Live;
        self.spec = spec;
        self.list = Vec::new();
        self.with_threshold = 0;
        self.start_generation();
    }

    /// Takes the service out of the slot; returns its destinations.
    pub(super) fn vacate(&mut self, revision: u64) -> Vec<DestinationSlot> {
        self.tenancy = Tenancy::Gone(revision);
        self.wrr_edits = VecDeque::new();
        self.tombstones = 0;
        let list = std::mem::take(&mut self.list);
        list.iter().map(|entry| entry.candidate).filter(|one| !one.removed).map(|one| one.slot).collect()
    }

    /// Changes all but the key. Another scheduler starts its state afresh.
    pub(super) fn edit(&mut self, spec: ServiceSpec) {
        let switched = spec.scheduler != self.spec.scheduler;
        if spec.maglev != self.spec.maglev {
            self.table = None;
        }
        self.spec = spec;
        if switched {
            self.start_generation();
        }
    }

    pub(super) fn add(&mut self, slot: DestinationSlot, spec: &DestinationSpec) {
        if self.next_position == Cursor::HEAD {
            self.start_generation();
        }
        let position = self.next_position;
        self.next_position += 1;
        // A cursor on a leading mark stands where the kernel's pointer would be back at the head of the list, whose next
        // destination is the new one.
        let place = self.list.iter().take_while(|entry| entry.candidate.removed).count();
        let DestinationSpec { address, port, weight, upper, .. } = *spec;
        let candidate = Candidate { position, slot, weight, upper_threshold: upper, removed: false };
        self.list
            .insert(place, Entry { candidate, server: (address, port), last_weight: weight, removed_in: 0 });
        self.with_threshold += usize::from(upper != 0);
        self.list_changed();
    }

    pub(super) fn change(&mut self, slot: DestinationSlot, spec: &DestinationSpec) {
        let DestinationSpec { weight, upper, .. } = *spec;
        let Some(entry) = self.list.iter_mut().find(|entry| entry.candidate.is_live(slot)) else { return };
        self.with_threshold -= usize::from(entry.candidate.upper_threshold != 0);
        self.with_threshold += usize::from(upper != 0);
        entry.candidate.weight = weight;
        if weight > 0 {
            entry.last_weight = weight;
        }
        entry.candidate.upper_threshold = upper;
        self.list_changed();
    }

    pub(super) fn remove(&mut self, slot: DestinationSlot, revision: u64) {
        let Some(place) = self.list.iter().position(|entry| entry.candidate.is_live(slot)) else { return };
        self.with_threshold -= usize::from(self.list[place].candidate.upper_threshold != 0);
        if self.spec.scheduler.keeps_its_place() {
            let entry = &mut self.list[place];
            entry.candidate.removed = true;
            entry.removed_in = revision;
            self.tombstones += 1;
            if self.tombstones > TOMBSTONES {
                self.start_generation();
                return;
            }
        } else {
            self.list.remove(place);
        }
        self.list_changed();
    }

    pub(super) fn has_tombstones(&self) -> bool {
        self.tombstones > 0
    }

    /// Drops the marks of destinations removed in a revision that every worker has passed, except where `stands_on` says that
    /// a cursor is. Returns whether any was dropped.
    pub(super) fn prune(&mut self, passed: u64, stands_on: impl Fn(u32) -> bool) -> bool {
        let before = self.list.len();
        self.list.retain(|Entry { candidate, removed_in, .. }| {
            !candidate.removed || *removed_in > passed || stands_on(candidate.position)
        });
        let dropped = before - self.list.len();
        self.tombstones -= dropped;
        if dropped > 0 {
            self.list_version = self.list_version.wrapping_add(1);
        }
        dropped > 0
    }

    pub(super) fn view(&mut self, slot: ServiceSlot) -> ServiceView {
        if self.table.is_none() {
            let share = |entry: &Entry| Share {
                server: entry.server.0,
                port: entry.server.1,
                weight: entry.candidate.weight,
                last_weight: entry.last_weight,
            };
            let shares = self.list.iter().map(share);
            self.table = scheduler::table(&self.spec, shares).map(Arc::from);
        }
        ServiceView {
            slot,
            key: self.spec.key,
            generation: self.generation,
            scheduler: self.spec.scheduler,
            flags: self.spec.flags,
            persistence: self.spec.persistence,
            one_packet: self.spec.one_packet,
            mss_clamp: self.spec.mss_clamp,
            shared_counts: self.spec.scheduler.reads_counts() || self.with_threshold > 0,
            list_version: self.list_version,
            candidates: self.list.iter().map(|entry| entry.candidate).collect(),
            wrr_edits: self.wrr_edits.iter().copied().collect(),
            wrr_start: self.wrr_start,
            table: self.table.clone(),
        }
    }

    /// Cursors start afresh: nothing of the past needs to be kept for them.
    fn start_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.list.retain(|entry| !entry.candidate.removed);
        self.tombstones = 0;
        self.next_position = 0;
        for entry in self.list.iter_mut().rev() {
            entry.candidate.position = self.next_position;
            self.next_position += 1;
        }
        self.wrr_edits.clear();
        self.wrr_start = 0;
        self.list_changed();
    }

    fn list_changed(&mut self) {
        self.list_version = self.list_version.wrapping_add(1);
        self.table = None;
        if self.spec.scheduler != SchedulerKind::Wrr {
            return;
        }
        let weights = || self.list.iter().map(|entry| entry.candidate.weight).filter(|weight| *weight > 0);
        let divisor = weights().fold(0, greatest_common_divisor).max(1);
        let maximum = weights().max().map_or(0, |greatest| greatest - (divisor - 1));
        let edit = WrrEdit { version: self.list_version, maximum, divisor };
        // Doing the same adjustment twice is doing it once.
        let repeats = |last: &WrrEdit| (last.maximum, last.divisor) == (maximum, divisor);
        if self.wrr_edits.back().is_some_and(repeats) || self.wrr_edits.len() == WRR_EDITS {
            let out = if self.wrr_edits.back().is_some_and(repeats) {
                self.wrr_edits.pop_back()
            } else {
                self.wrr_edits.pop_front()
            };
            debug_assert!(out.is_some());
        }
        self.wrr_edits.push_back(edit);
        self.wrr_start = wrr_adjust(self.wrr_start, &edit);
    }
}

impl Candidate {
    fn is_live(&self, slot: DestinationSlot) -> bool {
        self.slot == slot && !self.removed
    }
}
