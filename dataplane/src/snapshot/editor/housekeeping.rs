//! What an editor forgets, and when.

use super::service::Tenancy;
use super::types::{Cursors, Housekept, References};
use super::{Editor, Life};
use crate::id::{DestinationSlot, ServiceSlot};
use crate::snapshot::servers::end_of;
use crate::snapshot::{MarkRule, Marks};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// How long a removed destination stays in the trash after the last moment at which something named it, in milliseconds: the
/// kernel's `IP_VS_DEST_TRASH_PERIOD`.
const TRASH_PERIOD: u64 = 120_000;

/// A virtual address.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Address {
    /// Services that have it.
    services: u32,
    /// The revision that removed the last of them.
    orphaned_in: u64,
}

impl Editor {
    /// Forgets what nobody needs any more; to be called now and then, a second apart or so. `now_ms` are milliseconds of a
    /// monotonic clock, `passed` is the revision that every worker has passed a quiescent point in.
    ///
    /// Needs no more than a walk over removed things. Freed slots may be handed out by the next edit.
    pub fn housekeep(
        &mut self,
        now_ms: u64,
        counts: &impl References,
        cursors: &impl Cursors,
        passed: u64,
    ) -> Housekept {
        let mut done = Housekept::default();
        self.passed = self.passed.max(passed);
        self.housekept_at = now_ms;
        self.prune_lists(cursors);
        self.empty_trash(now_ms, counts, &mut done);
        self.release_addresses(now_ms);
        self.release_marks(counts);
        self.release_services(&mut done);
        done.changed = self.changed;
        done
    }

    fn prune_lists(&mut self, cursors: &impl Cursors) {
        for slot in std::mem::take(&mut self.with_tombstones) {
            let service = &mut self.services[slot.index()];
            let pruned = service.prune(self.passed, |position| cursors.stands_on(slot, position));
            if service.has_tombstones() {
                self.with_tombstones.insert(slot);
            }
            if pruned {
                self.touch(slot);
            }
        }
    }

    fn empty_trash(&mut self, now_ms: u64, counts: &impl References, done: &mut Housekept) {
        for slot in self.trash.clone() {
            let Life::Trashed { removed_in, unreferenced_since } = self.destinations[slot.index()].life
            else {
                continue;
            };
            // A worker that has not passed may still open a connection to it.
            let idle = removed_in <= self.passed && counts.unreferenced(slot);
            let since = idle.then(|| unreferenced_since.unwrap_or(now_ms));
            if since.is_some_and(|since| now_ms.saturating_sub(since) >= TRASH_PERIOD) {
                self.free_destination(slot);
                done.destinations.push(slot);
            } else {
                self.destinations[slot.index()].life =
                    Life::Trashed { removed_in, unreferenced_since: since };
            }
        }
    }

    /// An address leaves the set when no service has it and no connection to a destination of it is left. Counts are sums
    /// of what several workers write, so they are believed when two rounds saw the same.
    fn release_addresses(&mut self, now_ms: u64) {
        if self.orphans.is_empty() {
            return;
        }
        let held: BTreeSet<IpAddr> = self
            .trash
            .iter()
            .map(|slot| &self.destinations[slot.index()])
            .filter(|place| !settled(place.life, now_ms))
            .filter_map(|place| place.key.address())
            .collect();
        let passed = self.passed;
        let addresses = &mut self.addresses;
        let set = &mut self.draft.virtual_addresses;
        let before = self.orphans.len();
        self.orphans.retain(|address| {
            let removed_in = addresses.get(address).map_or(0, |entry| entry.orphaned_in);
            let keep = held.contains(address) || removed_in > passed;
            if !keep {
                addresses.remove(address);
                Arc::make_mut(set).remove(*address);
            }
            keep
        });
        self.changed |= self.orphans.len() != before;
    }

    /// A rule that is gone is forgotten when no destination of a marked service has a connection left.
    fn release_marks(&mut self, counts: &impl References) {
        if self.former_marks.is_empty() {
            return;
        }
        let places = (0..).map(DestinationSlot).zip(&self.destinations);
        let marked = places.filter(|(_, place)| place.life != Life::Free && place.key.mark() != 0);
        let held: BTreeSet<u32> = marked
            .filter(|(slot, _)| !counts.unreferenced(*slot))
            .map(|(_, place)| place.key.mark())
            .collect();
        let (before, passed) = (self.former_marks.len(), self.passed);
        self.former_marks.retain(|(rule, gone_in)| *gone_in > passed || held.contains(&rule.mark));
        if self.former_marks.len() != before {
            self.draft.marks = Marks::new(self.draft.marks.rules().into(), self.former_rules());
            self.changed = true;
        }
    }

    pub(super) fn former_rules(&self) -> Arc<[MarkRule]> {
        self.former_marks.iter().map(|(rule, _)| rule.clone()).collect()
    }

    fn release_services(&mut self, done: &mut Housekept) {
        let (services, free, passed) = (&mut self.services, &mut self.free_services, self.passed);
        self.gone.retain(|_, slot| {
            let service = &mut services[slot.index()];
            let keep = service.references > 0
                || !matches!(service.tenancy, Tenancy::Gone(revision) if revision <= passed);
            if !keep {
                service.tenancy = Tenancy::Free;
                free.push(*slot);
                done.services.push(*slot);
            }
            keep
        });
    }

    fn free_destination(&mut self, slot: DestinationSlot) {
        let place = &mut self.destinations[slot.index()];
        place.life = Life::Free;
        let (identity, service) = (place.identity(), place.service);
        if std::mem::take(&mut place.replies) {
            let end = end_of(&place.key, place.spec.address, place.spec.port);
            Arc::make_mut(&mut self.draft.servers).remove(end);
            self.changed = true;
        }
        self.identities.remove(&identity);
        self.services[service.index()].references -= 1;
        self.trash.remove(&slot);
        self.free_destinations.push(slot);
    }

    /// With every slot taken, the destination that has been idle in the trash for longest gives up its slot early.
    pub(super) fn reclaim_destination(&mut self) {
        let idle = |slot: &DestinationSlot| match self.destinations[slot.index()].life {
            life @ Life::Trashed { unreferenced_since, .. } if settled(life, self.housekept_at) => {
                unreferenced_since
            }
            _ => None,
        };
        let oldest = self.trash.iter().filter_map(|slot| Some((idle(slot)?, *slot))).min();
        if let Some((_, slot)) = oldest {
            self.free_destination(slot);
        }
    }

    /// With every slot taken, removed services whose destinations are all idle in the trash give up their slots early.
    pub(super) fn reclaim_services(&mut self) {
        let gone: BTreeSet<ServiceSlot> = self.gone.values().copied().collect();
        for slot in self.trash.clone() {
            let place = &self.destinations[slot.index()];
            if settled(place.life, self.housekept_at) && gone.contains(&place.service) {
                self.free_destination(slot);
            }
        }
        self.release_services(&mut Housekept::default());
    }

    pub(super) fn address_gained(&mut self, address: IpAddr) {
        let entry = self.addresses.entry(address).or_default();
        entry.services += 1;
        if entry.services == 1 && !self.orphans.remove(&address) {
            Arc::make_mut(&mut self.draft.virtual_addresses).insert(address);
        }
    }

    pub(super) fn address_lost(&mut self, address: IpAddr, revision: u64) {
        let entry = self.addresses.entry(address).or_default();
        entry.services = entry.services.saturating_sub(1);
        if entry.services == 0 {
            entry.orphaned_in = revision;
            self.orphans.insert(address);
        }
    }
}

/// Whether a destination in the trash was found without references in an earlier round too.
fn settled(life: Life, now_ms: u64) -> bool {
    matches!(life, Life::Trashed { unreferenced_since: Some(since), .. } if since < now_ms)
}
