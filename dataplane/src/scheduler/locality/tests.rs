use super::*;
use crate::scheduler::tests::Dice;
use crate::snapshot::{DestinationSpec, Editor, Limits, ServiceKey, ServiceSpec};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counts who is held.
#[derive(Default)]
struct Held(RefCell<BTreeMap<DestinationSlot, u32>>);

impl Loads for Held {
    fn overloaded(&self, _: DestinationSlot) -> bool {
        false
    }

    fn active(&self, _: DestinationSlot) -> u32 {
        0
    }

    fn inactive(&self, _: DestinationSlot) -> u32 {
        0
    }

    fn hold(&self, slot: DestinationSlot) {
        *self.0.borrow_mut().entry(slot).or_default() += 1;
    }

    fn release(&self, slot: DestinationSlot) {
        *self.0.borrow_mut().get_mut(&slot).unwrap() -= 1;
    }
}

impl Held {
    fn sum(&self) -> u32 {
        self.0.borrow().values().sum()
    }
}

fn key(mark: u32) -> ServiceKey {
    ServiceKey::Mark { mark, v6: false }
}

fn address(number: u32) -> IpAddr {
    IpAddr::from(number.to_be_bytes())
}

/// Services 1 and 2 with three destinations each.
fn two_services(scheduler: SchedulerKind) -> Editor {
    let mut editor = Editor::new(Limits { services: 4, destinations: 16 }, Arc::default());
    for mark in [1, 2] {
        editor.add_service(ServiceSpec::new(key(mark), scheduler)).unwrap();
        for server in 1..=3 {
            editor.add_destination(&key(mark), DestinationSpec::new(address(server), 80, 1)).unwrap();
        }
    }
    editor
}

fn view(snapshot: &Snapshot, mark: u32) -> &ServiceView {
    snapshot.service(snapshot.index.get(&key(mark)).unwrap()).unwrap()
}

#[test]
fn a_full_cache_remembers_no_more_and_counts_it() {
    let snapshot = two_services(SchedulerKind::Lblcr).publish();
    let (service, held, now) = (view(&snapshot, 1), Held::default(), Ticks(5));
    let mut cache = Localities::new(4, 4, 1);
    for number in 0..6 {
        assert_eq!(cache.find(service, address(number), now, &held), None);
        cache.insert(service, address(number), 0, now, &held);
    }
    assert_eq!((cache.len(), cache.refused(), held.sum()), (4, 2, 4));
    // Twice as many destinations as addresses have room.
    for number in 0..4 {
        let entry = cache.find(service, address(number), now, &held).unwrap();
        for candidate in 0..3 {
            assert_eq!(cache.add(entry, service, candidate, now, &held), candidate == 0 || number < 2);
        }
    }
    assert_eq!((cache.len(), cache.refused(), held.sum()), (4, 6, 8));
    for number in 0..4 {
        let entry = cache.find(service, address(number), now, &held).unwrap();
        cache.forget(entry, &held);
    }
    assert!(cache.is_empty() && held.sum() == 0);
    for number in 10..14 {
        cache.insert(service, address(number), 1, now, &held);
    }
    assert_eq!((cache.len(), cache.refused()), (4, 6));
}

#[test]
fn a_cache_without_room_works_without_remembering() {
    let snapshot = two_services(SchedulerKind::Lblc).publish();
    let (service, held, now) = (view(&snapshot, 1), Held::default(), Ticks(5));
    let mut cache = Localities::new(0, 4, 1);
    cache.insert(service, address(1), 0, now, &held);
    cache.tidy(&snapshot, now.after(90_000), 64, &held);
    assert_eq!((cache.find(service, address(1), now, &held), cache.refused()), (None, 1));
}

#[test]
fn a_full_check_every_half_hour_drops_what_nobody_asked_for() {
    for (scheduler, expiration) in [(SchedulerKind::Lblc, 1000), (SchedulerKind::Lblcr, 2000)] {
        let snapshot = two_services(scheduler).publish();
        let (service, held, start) = (view(&snapshot, 1), Held::default(), Ticks(u32::MAX - 60_000));
        let mut cache = Localities::new(64, 4, 1);
        cache.configure(&Settings { lblc_expiration: 1000, lblcr_expiration: 2000, ..Settings::default() });
        cache.begin(service, start);
        let at = |second: u32| start.after(second * 1000);
        cache.insert(service, address(1), 0, start, &held);
        cache.insert(service, address(2), 0, at(1800 - expiration.min(1799)), &held);
        cache.insert(service, address(3), 0, at(1801 - expiration.min(1799)), &held);
        for second in 0..1800 {
            cache.tidy(&snapshot, at(second), 64, &held);
            assert_eq!(cache.len(), 3, "{scheduler:?} after {second} s");
        }
        cache.tidy(&snapshot, at(1800), 64, &held);
        assert_eq!(cache.len(), if scheduler == SchedulerKind::Lblc { 1 } else { 3 });
        cache.tidy(&snapshot, at(3601), 64, &held);
        assert!(cache.is_empty() && held.sum() == 0, "{scheduler:?}");
    }
}

#[test]
fn what_a_check_dropped_is_not_found_before_the_sweep_gets_there() {
    let snapshot = two_services(SchedulerKind::Lblc).publish();
    let (service, held) = (view(&snapshot, 1), Held::default());
    let mut cache = Localities::new(64, 4, 1);
    cache.configure(&Settings { lblc_expiration: 60, ..Settings::default() });
    cache.begin(service, Ticks(0));
    for number in 0..50 {
        cache.insert(service, address(number), 0, Ticks(0), &held);
    }
    cache.tidy(&snapshot, Ticks(1_800_000), 0, &held);
    assert_eq!(cache.len(), 50);
    assert_eq!(cache.find(service, address(7), Ticks(1_800_000), &held), None);
    assert_eq!((cache.len(), held.sum()), (49, 49));
}

#[test]
fn a_crowded_service_loses_idle_entries_early() {
    let snapshot = two_services(SchedulerKind::Lblc).publish();
    let (held, service) = (Held::default(), view(&snapshot, 1));
    let mut cache = Localities::new(64, 4, 1);
    cache.configure(&Settings::default());
    cache.begin(service, Ticks(0));
    // Half of the room is the most that counts as uncrowded; four thirds of what is above it go.
    for number in 0..41 {
        cache.insert(service, address(number), 0, Ticks(0), &held);
    }
    for minute in 1..=5 {
        cache.tidy(&snapshot, Ticks(minute * 60_000), 64, &held);
        assert_eq!(cache.len(), 41);
    }
    assert!(cache.find(service, address(0), Ticks(300_001), &held).is_some());
    cache.tidy(&snapshot, Ticks(360_000), 64, &held);
    assert_eq!((cache.len(), held.sum()), (41 - 12, 29));
    assert!(cache.find(service, address(0), Ticks(360_001), &held).is_some(), "it was not idle");
}

#[test]
fn entries_of_another_generation_and_of_a_removed_service_go() {
    let mut editor = two_services(SchedulerKind::Lblc);
    let (held, mut cache) = (Held::default(), Localities::new(64, 4, 1));
    cache.configure(&Settings::default());
    let snapshot = editor.publish();
    for mark in [1, 2] {
        cache.begin(view(&snapshot, mark), Ticks(0));
        for number in 0..5 {
            cache.insert(view(&snapshot, mark), address(number), 0, Ticks(0), &held);
        }
    }
    editor.edit_service(ServiceSpec::new(key(1), SchedulerKind::Lblcr)).unwrap();
    let snapshot = editor.publish();
    assert_eq!(cache.find(view(&snapshot, 1), address(1), Ticks(1), &held), None);
    cache.tidy(&snapshot, Ticks(1), 64, &held);
    assert_eq!((cache.len(), held.sum()), (5, 5));
    editor.remove_service(&key(2)).unwrap();
    cache.tidy(&editor.publish(), Ticks(2), 64, &held);
    assert_eq!((cache.len(), held.sum()), (0, 0));
}

/// Random work on a small cache, against a map.
#[test]
fn the_cache_is_a_map() {
    let snapshot = two_services(SchedulerKind::Lblcr).publish();
    let (held, mut cache) = (Held::default(), Localities::new(32, 4, 9));
    cache.configure(&Settings::default());
    let mut model: BTreeMap<(u32, u32), Vec<DestinationSlot>> = BTreeMap::new();
    let mut dice = Dice::new(3);
    for step in 0..50_000 {
        let (mark, number, now) = (dice.below(2) + 1, dice.below(40), Ticks(step));
        let service = view(&snapshot, mark);
        let candidate = dice.below(3) as usize;
        let slot = service.candidates[candidate].slot;
        let found = cache.find(service, address(number), now, &held);
        assert_eq!(found.is_some(), model.contains_key(&(mark, number)));
        let before = cache.refused();
        match found {
            None => {
                cache.insert(service, address(number), candidate, now, &held);
                if cache.refused() == before {
                    model.insert((mark, number), vec![slot]);
                }
            }
            Some(entry) => {
                let members = model.get_mut(&(mark, number)).unwrap();
                match dice.below(5) {
                    0 => {
                        cache.forget(entry, &held);
                        model.remove(&(mark, number));
                    }
                    1 if members.len() > 1 => {
                        let which = dice.below(u32::try_from(members.len()).unwrap()) as usize;
                        let (place, member) = cache.members(entry).nth(which).unwrap();
                        assert_eq!(member.slot, members.remove(which));
                        cache.remove(entry, place, now, &held);
                    }
                    _ => {
                        let added = cache.add(entry, service, candidate, now, &held);
                        if added && !members.contains(&slot) {
                            members.insert(0, slot);
                        }
                    }
                }
            }
        }
        if let Some(members) = model.get(&(mark, number)) {
            let entry = cache.find(service, address(number), now, &held).unwrap();
            let slots: Vec<_> = cache.members(entry).map(|(_, member)| member.slot).collect();
            assert_eq!(&slots, members);
        }
        assert_eq!(cache.len(), model.len());
        assert_eq!(held.sum() as usize, model.values().map(Vec::len).sum::<usize>());
    }
    assert!(cache.refused() > 100, "{}", cache.refused());
}
