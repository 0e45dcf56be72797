//! Workers that choose at the same time, each with its own cursor and cache, over counts that they share.

use super::{Dice, EPOCH, request};
use crate::counters::Activity;
use crate::engine::{Shared, SharedLimits};
use crate::id::{DestinationSlot, WorkerId};
use crate::scheduler::{Cursor, Localities, Own, Random, Standings, choose};
use crate::snapshot::{DestinationSpec, Editor, Limits, SchedulerKind, ServiceKey, ServiceSpec};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

const DESTINATIONS: u8 = 6;

/// Opens and closes connections as an engine does; returns how many choices found a destination.
fn work(worker: u8, kind: SchedulerKind, shared: &Shared, open: &[AtomicU32], editor: &Editor) -> u32 {
    let snapshot = editor.clone().publish();
    let service = snapshot.services.iter().flatten().next().unwrap();
    let (mut cursor, mut random) = (Cursor::start(WorkerId(worker)), Random::seeded(worker.into()));
    let mut localities = Localities::new(256, 1, 7);
    let mut standings = Standings::new(WorkerId(worker), 1, DESTINATIONS.into());
    let mut dice = Dice::new(u64::from(worker) + 1);
    let mut mine: Vec<DestinationSlot> = Vec::new();
    let mut chosen = 0;
    for _ in 0..4000 {
        let request = request(&mut dice, EPOCH);
        let mut own = Own {
            cursor: &mut cursor,
            random: &mut random,
            localities: &mut localities,
            standings: &mut standings,
        };
        if let Some(index) = choose(service, &request, &mut own, &shared.destinations) {
            let candidate = service.candidates[index];
            let slot = candidate.slot;
            shared.destinations.fold(WorkerId(worker), slot);
            if shared.destinations.reserve(slot, candidate.upper_threshold, 0) {
                let now_open = open[slot.index()].fetch_add(1, SeqCst) + 1;
                assert!(now_open <= candidate.upper_threshold, "{kind:?}: {now_open}");
                shared.destinations.opened(WorkerId(worker), slot, Activity::Active, true);
                mine.push(slot);
                chosen += 1;
            }
        }
        if !mine.is_empty() && dice.below(3) > 0 {
            let slot = mine.swap_remove(dice.below(u32::try_from(mine.len()).unwrap()) as usize);
            let view = snapshot.destination(slot).unwrap();
            open[slot.index()].fetch_sub(1, SeqCst);
            shared.destinations.closed(
                WorkerId(worker),
                slot,
                Activity::Active,
                view.upper_threshold,
                view.lower_threshold,
            );
        }
    }
    for slot in mine {
        open[slot.index()].fetch_sub(1, SeqCst);
        shared.destinations.closed(WorkerId(worker), slot, Activity::Active, 0, 0);
    }
    chosen
}

#[test]
fn no_threshold_is_exceeded_whoever_chooses_at_the_same_time() {
    let kinds = SchedulerKind::ALL.into_iter().filter(|kind| !kind.exceeds_thresholds());
    for (kind, workers) in kinds.flat_map(|kind| [1, 2, 4].map(|workers| (kind, workers))) {
        let mut editor = Editor::new(Limits { services: 1, destinations: 16 }, Arc::default());
        let key = ServiceKey::Mark { mark: 1, v6: false };
        editor.add_service(ServiceSpec { flags: 3, ..ServiceSpec::new(key, kind) }).unwrap();
        for server in 1..=DESTINATIONS {
            let spec = DestinationSpec::new(IpAddr::from([10, 0, 0, server]), 80, u32::from(server) * 2);
            let spec = DestinationSpec { upper: u32::from(server) + 1, lower: 2, ..spec };
            editor.add_destination(&key, spec).unwrap();
        }
        let limits = SharedLimits { workers: workers.into(), services: 1, destinations: 16, templates: 16 };
        let shared = Shared::new(limits, 1);
        let open: Vec<_> = (0..16).map(|_| AtomicU32::new(0)).collect();
        let chosen: u32 = std::thread::scope(|scope| {
            let run = |worker| {
                scope.spawn({
                    let (shared, open, editor) = (&shared, &open, &editor);
                    move || work(worker, kind, shared, open, editor)
                })
            };
            let runs: Vec<_> = (0..workers).map(run).collect();
            runs.into_iter().map(|run| run.join().unwrap()).sum()
        });
        assert!(chosen > u32::from(workers) * 500, "{kind:?} on {workers}: {chosen}");
        for slot in (0..16).map(DestinationSlot) {
            assert_eq!(shared.destinations.totals(slot).active, 0);
            assert_eq!(shared.destinations.shared(slot).total.load(SeqCst), 0, "{kind:?}");
        }
    }
}
