//! The real thing: editor, snapshots, cursors and shared counts, as the engine drives them.

use crate::counters::{Activity, DestinationTable};
use crate::id::{DestinationSlot, ServiceSlot, WorkerId};
use crate::scheduler::{Cursor, Loads, choose};
use crate::snapshot::{
    Cursors, DestinationSpec, Editor, Limits, SchedulerKind, ServiceKey, ServiceSpec, Snapshot,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(super) struct Director {
    editor: Editor,
    snapshot: Snapshot,
    table: DestinationTable,
    cursors: Vec<Cursor>,
    service: ServiceSlot,
    now: u64,
}

struct Shared<'a>(&'a DestinationTable);

impl Loads for Shared<'_> {
    fn overloaded(&self, slot: DestinationSlot) -> bool {
        self.0.shared(slot).overloaded.load(Relaxed)
    }

    fn active(&self, slot: DestinationSlot) -> u32 {
        self.0.shared(slot).active.load(Relaxed)
    }

    fn inactive(&self, slot: DestinationSlot) -> u32 {
        self.0.shared(slot).total.load(Relaxed) - self.active(slot)
    }
}

struct Positions<'a>(&'a [Cursor]);

impl Cursors for Positions<'_> {
    fn stands_on(&self, _: ServiceSlot, position: u32) -> bool {
        self.0.iter().any(|cursor| cursor.position == position)
    }
}

fn key() -> ServiceKey {
    ServiceKey::Address { protocol: 6, address: IpAddr::from([192, 0, 2, 1]), port: 80 }
}

fn address(server: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, server])
}

fn activity(active: bool) -> Activity {
    if active { Activity::Active } else { Activity::Inactive }
}

impl Director {
    pub(super) fn new(scheduler: SchedulerKind, workers: u8) -> Self {
        let mut editor = Editor::new(Limits { services: 4, destinations: 128 }, Arc::default());
        let service = editor.add_service(ServiceSpec::new(key(), scheduler)).unwrap();
        let snapshot = editor.publish();
        let table = DestinationTable::new(workers.into(), 128);
        let cursors = (0..workers).map(|worker| Cursor::start(WorkerId(worker))).collect();
        Self { editor, snapshot, table, cursors, service, now: 0 }
    }

    pub(super) fn choose(&mut self, worker: u8) -> Option<u8> {
        let view = self.snapshot.service(self.service).unwrap();
        let index = choose(view, &mut self.cursors[usize::from(worker)], &Shared(&self.table))?;
        let candidate = view.candidates[index];
        assert!(!candidate.removed && candidate.weight > 0);
        let IpAddr::V4(address) = self.editor.destination(candidate.slot).unwrap().spec.address else {
            panic!()
        };
        Some(address.octets()[3])
    }

    fn slot(&self, server: u8) -> DestinationSlot {
        let mut all = (0..128).filter_map(|slot| self.editor.destination(DestinationSlot(slot)));
        all.find(|one| one.spec.address == address(server)).unwrap().slot
    }

    pub(super) fn opened(&mut self, worker: u8, server: u8) {
        let slot = self.slot(server);
        self.table.fold(WorkerId(worker), slot);
        let upper = self.snapshot.destination(slot).unwrap().upper_threshold;
        assert!(self.table.reserve(slot, upper));
        self.table.opened(WorkerId(worker), slot, Activity::Active, true);
    }

    pub(super) fn closed(&mut self, worker: u8, server: u8, active: bool) {
        let slot = self.slot(server);
        let view = self.snapshot.destination(slot).unwrap();
        let (upper, lower) = (view.upper_threshold, view.lower_threshold);
        self.table.closed(WorkerId(worker), slot, activity(active), upper, lower);
    }

    pub(super) fn changed(&mut self, worker: u8, server: u8, active: bool) {
        self.table.changed(WorkerId(worker), self.slot(server), activity(active));
    }

    fn spec(server: u8, weight: u32, upper: u32, lower: u32) -> DestinationSpec {
        DestinationSpec { upper, lower, ..DestinationSpec::new(address(server), 80, weight) }
    }

    fn publish(&mut self) {
        self.snapshot = self.editor.publish();
        for change in self.editor.take_threshold_changes() {
            change.apply(&self.table);
        }
    }

    pub(super) fn add(&mut self, server: u8, weight: u32, upper: u32, lower: u32) {
        self.editor.add_destination(&key(), Self::spec(server, weight, upper, lower)).unwrap();
        self.publish();
    }

    pub(super) fn edit(&mut self, server: u8, weight: u32, upper: u32, lower: u32) {
        self.editor.edit_destination(&key(), Self::spec(server, weight, upper, lower)).unwrap();
        self.publish();
    }

    pub(super) fn remove(&mut self, server: u8) {
        self.editor.remove_destination(&key(), address(server), 80).unwrap();
        self.publish();
    }

    pub(super) fn switch(&mut self, scheduler: SchedulerKind) {
        self.editor.edit_service(ServiceSpec::new(key(), scheduler)).unwrap();
        self.publish();
    }

    pub(super) fn housekeep(&mut self) {
        self.now += 40_000;
        let passed = self.snapshot.revision;
        self.editor.housekeep(self.now, &self.table, &Positions(&self.cursors), passed);
        self.publish();
    }
}
