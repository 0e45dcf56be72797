use super::*;
use crate::counters::{Activity, DestinationTable};
use crate::flow::protocol;
use crate::snapshot::{DestinationSpec, Editor, Limits, ServiceKey, ServiceSpec, Snapshot};
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

const COUNTING: [SchedulerKind; 8] = [
    SchedulerKind::Wlc,
    SchedulerKind::Lc,
    SchedulerKind::Sed,
    SchedulerKind::Nq,
    SchedulerKind::Fo,
    SchedulerKind::Ovf,
    SchedulerKind::Lblc,
    SchedulerKind::Lblcr,
];
const MOST: u16 = 300;

struct Field {
    editor: Editor,
    snapshot: Snapshot,
    table: DestinationTable,
    kind: SchedulerKind,
}

fn key(port: u16) -> ServiceKey {
    ServiceKey::Address { protocol: protocol::TCP, address: IpAddr::from([192, 0, 2, 1]), port }
}

fn spec(number: u16, weight: u32, upper: u32) -> DestinationSpec {
    let [high, low] = number.to_be_bytes();
    DestinationSpec { upper, ..DestinationSpec::new(IpAddr::from([10, 0, high, low]), 80, weight) }
}

impl Field {
    fn new(kind: SchedulerKind, lengths: &[u16]) -> Self {
        let limits = Limits { services: 4, destinations: MOST.into() };
        let mut editor = Editor::new(limits, [].into());
        for (port, length) in (1..).zip(lengths) {
            editor.add_service(ServiceSpec::new(key(port), kind)).unwrap();
            for number in 0..*length {
                let upper = if number % 3 == 0 { 4 } else { 0 };
                editor.add_destination(&key(port), spec(number, 1 + u32::from(number % 5), upper)).unwrap();
            }
        }
        let snapshot = editor.publish();
        Self { editor, snapshot, table: DestinationTable::new(2, MOST.into()), kind }
    }

    fn service(&self, number: u16) -> &ServiceView {
        self.snapshot.service(ServiceSlot(number.into())).unwrap()
    }

    fn walked(&self, number: u16) -> Option<usize> {
        let burden = |candidate: &crate::snapshot::Candidate| {
            burden(self.kind, candidate.slot, candidate.weight, &self.table)
        };
        walk(self.service(number), &self.table, burden)
    }

    fn open(&self, worker: u8, slot: DestinationSlot, activity: Activity) -> bool {
        let upper = self.snapshot.destination(slot).unwrap().upper_threshold;
        self.table.fold(WorkerId(worker), slot);
        let reserved = self.table.reserve(slot, upper, 0);
        if reserved {
            self.table.opened(WorkerId(worker), slot, activity, true);
        }
        reserved
    }

    fn close(&self, worker: u8, slot: DestinationSlot, activity: Activity) {
        let view = self.snapshot.destination(slot).unwrap();
        self.table.closed(WorkerId(worker), slot, activity, view.upper_threshold, view.lower_threshold);
    }

    fn weigh(&mut self, service: u16, number: u16, weight: u32) {
        let upper = if number.is_multiple_of(3) { 4 } else { 0 };
        let changed = spec(number, weight, upper);
        let _ = self.editor.edit_destination(&key(service + 1), changed);
        self.snapshot = self.editor.publish();
    }
}

fn any_kind() -> impl Strategy<Value = SchedulerKind> {
    prop::sample::select(COUNTING.to_vec())
}

proptest! {
    /// Whatever happens to counts, weights and thresholds, a race's best is what a walk of the list finds.
    #[test]
    fn a_race_ends_as_a_walk_does(
        kind in any_kind(),
        lengths in prop::collection::vec(1_u16..150, 1..3),
        events in prop::collection::vec((0_u8..8, 0_u16..2, 0_u16..150, 0_u32..6), 1..200),
    ) {
        let mut field = Field::new(kind, &lengths);
        let mut standings = Standings::new(WorkerId(0), 4, MOST.into());
        let mut open: Vec<(DestinationSlot, Activity)> = Vec::new();
        for (what, service, number, weight) in events {
            let service = service % u16::try_from(lengths.len()).unwrap();
            let number = number % lengths[usize::from(service)];
            match what {
                0 => field.weigh(service, number, weight),
                1 | 2 if !open.is_empty() => {
                    let (slot, activity) = open.swap_remove(usize::from(number) % open.len());
                    field.close(0, slot, activity);
                }
                3 if !open.is_empty() => {
                    let at = usize::from(number) % open.len();
                    let (slot, activity) = &mut open[at];
                    *activity = if *activity == Activity::Active { Activity::Inactive } else { Activity::Active };
                    field.table.changed(WorkerId(0), *slot, *activity);
                }
                _ => {
                    let chosen = standings.least(kind, field.service(service), &field.table);
                    prop_assert_eq!(chosen, field.walked(service));
                    let slot = field.service(service).candidates[chosen.unwrap_or_else(|| number.into())].slot;
                    if field.open(0, slot, Activity::Active) {
                        open.push((slot, Activity::Active));
                    }
                }
            }
            let view = field.service(service);
            prop_assert_eq!(standings.least(kind, view, &field.table), field.walked(service));
            if matches!(kind, SchedulerKind::Lblc | SchedulerKind::Lblcr) {
                let idle = |one: &crate::snapshot::Candidate| {
                    !one.removed && is_idle(field.table.shared(one.slot).active.load(Relaxed), one.weight)
                };
                prop_assert_eq!(standings.has_idle(view, &field.table), view.candidates.iter().any(idle));
            }
        }
    }
}

#[test]
fn a_destination_that_another_worker_loads_is_passed_over_at_once() {
    let field = Field::new(SchedulerKind::Wlc, &[20]);
    let mut standings = Standings::new(WorkerId(0), 4, MOST.into());
    let first = standings.least(SchedulerKind::Wlc, field.service(0), &field.table);
    let slot = field.service(0).candidates[first.unwrap()].slot;
    for _ in 0..3 {
        assert!(field.open(1, slot, Activity::Active));
    }
    let next = standings.least(SchedulerKind::Wlc, field.service(0), &field.table);
    assert_ne!(next, first);
    assert_eq!(next, field.walked(0));
}

#[test]
fn what_another_worker_unloads_is_noticed_after_a_sweep() {
    let field = Field::new(SchedulerKind::Wlc, &[20]);
    let mut standings = Standings::new(WorkerId(0), 4, MOST.into());
    let slots: Vec<_> = field.service(0).candidates.iter().map(|candidate| candidate.slot).collect();
    for slot in &slots {
        assert!(field.open(1, *slot, Activity::Active) && field.open(1, *slot, Activity::Active));
    }
    standings.least(SchedulerKind::Wlc, field.service(0), &field.table);
    field.close(1, slots[17], Activity::Active);
    field.close(1, slots[17], Activity::Active);
    let found = (0..=20 / SWEPT).map(|_| standings.least(SchedulerKind::Wlc, field.service(0), &field.table));
    assert_eq!(found.last().unwrap(), Some(17));
}

#[test]
fn lists_that_find_no_room_are_walked() {
    let field = Field::new(SchedulerKind::Wlc, &[40, 40]);
    let mut standings = Standings::new(WorkerId(0), 4, 30);
    for service in [0, 1] {
        let chosen = standings.least(SchedulerKind::Wlc, field.service(service), &field.table);
        assert_eq!(chosen, field.walked(service));
    }
    let mut standings = Standings::new(WorkerId(0), 4, 60);
    for service in [0, 1, 0, 1] {
        for _ in 0..3 {
            let chosen = standings.least(SchedulerKind::Wlc, field.service(service), &field.table);
            assert_eq!(chosen, field.walked(service));
            let slot = field.service(service).candidates[chosen.unwrap()].slot;
            assert!(field.open(0, slot, Activity::Active));
        }
    }
}
