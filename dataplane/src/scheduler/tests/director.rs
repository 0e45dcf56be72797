//! The real thing: editor, snapshots, cursors and shared counts, as the engine drives them.

use crate::counters::{Activity, DestinationTable};
use crate::id::{DestinationSlot, ServiceSlot, Ticks, WorkerId};
use crate::scheduler::{Cursor, Localities, Own, Random, Request, Standings, choose};
use crate::snapshot::{
    Cursors, DestinationSpec, Editor, Limits, SchedulerKind, ServiceKey, ServiceSpec, Settings, Snapshot,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Places for destinations, those in the trash included.
const DESTINATIONS: u32 = 128;
/// Addresses that a worker's cache has room for.
const CACHED: u32 = 4096;

pub(super) struct Director {
    editor: Editor,
    snapshot: Snapshot,
    table: DestinationTable,
    cursors: Vec<Cursor>,
    own: Vec<(Random, Localities, Standings)>,
    service: ServiceSlot,
    spec: ServiceSpec,
    /// Addresses and ports of servers that are not at their usual ones.
    elsewhere: BTreeMap<u8, (IpAddr, u16)>,
    /// Milliseconds.
    now: u64,
}

struct Positions<'a>(&'a [Cursor]);

impl Cursors for Positions<'_> {
    fn stands_on(&self, _: ServiceSlot, position: u32) -> bool {
        self.0.iter().any(|cursor| cursor.position == position)
    }
}

/// The engine's clock, which wraps.
pub(super) fn ticks(milliseconds: u64) -> Ticks {
    Ticks(u32::try_from(milliseconds % (1 << 32)).unwrap())
}

impl Director {
    pub(super) fn new(scheduler: SchedulerKind, workers: u8) -> Self {
        let address = IpAddr::from([192, 0, 2, 1]);
        let key = ServiceKey::Address { protocol: 6, address, port: 80 };
        Self::with(ServiceSpec::new(key, scheduler), workers, 0)
    }

    pub(super) fn with(spec: ServiceSpec, workers: u8, now: u64) -> Self {
        let mut editor = Editor::new(Limits { services: 4, destinations: DESTINATIONS }, Arc::default());
        let service = editor.add_service(spec).unwrap();
        let snapshot = editor.publish();
        let table = DestinationTable::new(workers.into(), DESTINATIONS as usize);
        let cursors = (0..workers).map(|worker| Cursor::start(WorkerId(worker))).collect();
        let own = |worker: u8| {
            let standings = Standings::new(WorkerId(worker), 4, DESTINATIONS as usize);
            (Random::seeded(worker.into()), Localities::new(CACHED, 4, worker.into()), standings)
        };
        let own = (0..workers).map(own).collect();
        let elsewhere = BTreeMap::new();
        let mut director = Self { editor, snapshot, table, cursors, own, service, spec, elsewhere, now };
        director.configure(Settings::default());
        director.follow();
        director
    }

    /// Gives a server another address and port, before it is added.
    pub(super) fn place(&mut self, server: u8, address: IpAddr, port: u16) {
        self.elsewhere.insert(server, (address, port));
    }

    fn server(&self, server: u8) -> (IpAddr, u16) {
        let usual = if self.spec.key.is_v6() {
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(server)])
        } else {
            IpAddr::from([10, 0, 0, server])
        };
        self.elsewhere.get(&server).copied().unwrap_or((usual, 80))
    }

    pub(super) fn choose(&mut self, worker: u8, request: &Request) -> Option<u8> {
        let view = self.snapshot.service(self.service).unwrap();
        let (random, localities, standings) = &mut self.own[usize::from(worker)];
        let mut own = Own { cursor: &mut self.cursors[usize::from(worker)], random, localities, standings };
        let index = choose(view, request, &mut own, &self.table)?;
        let candidate = view.candidates[index];
        assert!(!candidate.removed && candidate.weight > 0);
        Some(self.name(candidate.slot))
    }

    fn slot(&self, server: u8) -> DestinationSlot {
        let mut all = (0..DESTINATIONS).filter_map(|slot| self.editor.destination(DestinationSlot(slot)));
        all.find(|one| (one.spec.address, one.spec.port) == self.server(server)).unwrap().slot
    }

    pub(super) fn opened(&mut self, worker: u8, server: u8, activity: Activity) {
        let slot = self.slot(server);
        self.table.fold(WorkerId(worker), slot);
        let view = self.snapshot.destination(slot).unwrap();
        let (upper, lower) = (view.upper_threshold, view.lower_threshold);
        if self.spec.scheduler.exceeds_thresholds() {
            self.table.exceed(slot, upper, lower);
        } else {
            assert!(self.table.reserve(slot, upper, lower));
        }
        self.table.opened(WorkerId(worker), slot, activity, true);
    }

    pub(super) fn closed(&mut self, worker: u8, server: u8, activity: Activity) {
        let slot = self.slot(server);
        let view = self.snapshot.destination(slot).unwrap();
        let (upper, lower) = (view.upper_threshold, view.lower_threshold);
        self.table.closed(WorkerId(worker), slot, activity, upper, lower);
    }

    pub(super) fn changed(&mut self, worker: u8, server: u8, to: Activity) {
        self.table.changed(WorkerId(worker), self.slot(server), to);
    }

    fn described(&self, server: u8, weight: u32, upper: u32, lower: u32) -> DestinationSpec {
        let (address, port) = self.server(server);
        DestinationSpec { upper, lower, ..DestinationSpec::new(address, port, weight) }
    }

    fn publish(&mut self) {
        self.snapshot = self.editor.publish();
        for change in self.editor.take_threshold_changes() {
            change.apply(&self.table);
        }
        self.follow();
    }

    /// What an engine does when it sees a new snapshot.
    fn follow(&mut self) {
        for (_, localities, _) in &mut self.own {
            localities.begin(self.snapshot.service(self.service).unwrap(), ticks(self.now));
        }
    }

    /// Lets time pass.
    pub(super) fn leap(&mut self, now: u64) {
        self.now = now;
        for (_, localities, _) in &mut self.own {
            localities.tidy(&self.snapshot, ticks(now), CACHED, &self.table);
        }
    }

    pub(super) fn configure(&mut self, settings: Settings) {
        for (_, localities, _) in &mut self.own {
            localities.configure(&settings);
        }
    }

    /// How many addresses remember each server.
    pub(super) fn remembered(&self) -> BTreeMap<u8, usize> {
        assert!(self.own.iter().all(|(_, localities, _)| localities.refused() == 0));
        let slots = (0..DESTINATIONS).map(DestinationSlot);
        let held = slots.map(|slot| (slot, self.table.shared(slot).cached.load(Relaxed) as usize));
        held.filter(|(_, held)| *held > 0).map(|(slot, held)| (self.name(slot), held)).collect()
    }

    fn name(&self, slot: DestinationSlot) -> u8 {
        let spec = self.editor.destination(slot).unwrap().spec;
        (0..=u8::MAX).find(|server| self.server(*server) == (spec.address, spec.port)).unwrap()
    }

    pub(super) fn add(&mut self, server: u8, weight: u32, upper: u32, lower: u32) {
        let spec = self.described(server, weight, upper, lower);
        self.editor.add_destination(&self.spec.key, spec).unwrap();
        self.publish();
    }

    pub(super) fn edit(&mut self, server: u8, weight: u32, upper: u32, lower: u32) {
        let spec = self.described(server, weight, upper, lower);
        self.editor.edit_destination(&self.spec.key, spec).unwrap();
        self.publish();
    }

    pub(super) fn remove(&mut self, server: u8) {
        let (address, port) = self.server(server);
        self.editor.remove_destination(&self.spec.key, address, port).unwrap();
        self.publish();
    }

    pub(super) fn switch(&mut self, scheduler: SchedulerKind, flags: u8) {
        self.spec = ServiceSpec { scheduler, flags, ..self.spec };
        self.editor.edit_service(self.spec).unwrap();
        self.publish();
    }

    pub(super) fn housekeep(&mut self) {
        let passed = self.snapshot.revision;
        self.editor.housekeep(self.now, &self.table, &Positions(&self.cursors), passed);
        self.publish();
    }
}
