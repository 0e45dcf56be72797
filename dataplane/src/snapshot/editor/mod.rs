//! From edits to snapshots: hands out stable slots, keeps what must outlive a snapshot, shares what did not change.
//!
//! An [`Editor`] belongs to the management thread alone. It does no I/O and reads no clock.
//!
//! Slots. A removed destination keeps its slot in the *trash* until nothing has named it for 120 s; the same server added to the
//! same service within that time takes it back with its counts and connections, even when the service itself was removed and
//! made again. A removed service keeps its slot as long as a destination in the trash names it, and takes it back likewise; its
//! slot goes to another service only when no destination names it and every worker has passed the removal. `generation` grows
//! with every tenant, so that a cursor of the tenant before is never believed.

mod housekeeping;
mod service;
#[cfg(test)]
mod tests;
mod types;

pub use types::{
    Cursors, Destination, DestinationSpec, EditError, Housekept, Limits, References, ServiceSpec,
    ThresholdChange,
};

use super::servers::{end_of, tells_virtual_end};
use super::{
    ClientMask, DestinationView, Encapsulation, MarkRule, Marks, Method, NextHop, Persistence, PortView,
    Routes, SHARING_LOG, SchedulerKind, ServiceKey, Settings, Snapshot, Timeouts,
};
use crate::id::{DestinationSlot, PortId, ServiceSlot};
use crate::packet::{Family, mss};
use housekeeping::Address;
use service::{Service, Tenancy};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

impl SchedulerKind {
    /// Whether a cursor's place in the list outlives a change of the list.
    pub(super) const fn keeps_its_place(self) -> bool {
        matches!(self, Self::Rr)
    }
}

/// Mark rules kept after they are gone. More of them are forgotten early: then their connections' packets are the kernel's.
const FORMER_MARKS: usize = 1024;

/// Names a destination over all services, removed ones included.
type Identity = (ServiceKey, IpAddr, u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Free,
    Live,
    /// Removed in a revision; unreferenced in every round of housekeeping since a moment.
    Trashed {
        removed_in: u64,
        unreferenced_since: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Place {
    life: Life,
    incarnation: u32,
    service: ServiceSlot,
    key: ServiceKey,
    spec: DestinationSpec,
    /// The director's address on the link towards it.
    source: Option<IpAddr>,
    /// Its packets are replies: it is, or was, masqueraded.
    replies: bool,
    /// It is masqueraded and in service.
    serves: bool,
}

impl Place {
    fn identity(&self) -> Identity {
        (self.key, self.spec.address, self.spec.port)
    }
}

/// Turns edits into snapshots. Clone it to try edits that may have to be taken back as a whole.
#[derive(Debug, Clone)]
pub struct Editor {
    limits: Limits,
    /// The next snapshot but for `dirty` services; its revision is that of the last one.
    draft: Snapshot,
    changed: bool,
    dirty: BTreeSet<ServiceSlot>,
    services: Vec<Service>,
    free_services: Vec<ServiceSlot>,
    gone: BTreeMap<ServiceKey, ServiceSlot>,
    destinations: Vec<Place>,
    free_destinations: Vec<DestinationSlot>,
    identities: HashMap<Identity, DestinationSlot>,
    trash: BTreeSet<DestinationSlot>,
    with_tombstones: BTreeSet<ServiceSlot>,
    addresses: HashMap<IpAddr, Address>,
    /// Addresses in V without a service.
    orphans: BTreeSet<IpAddr>,
    /// Mark rules that are gone, with the revision that took them away, the oldest first.
    former_marks: Vec<(MarkRule, u64)>,
    threshold_changes: BTreeMap<DestinationSlot, ThresholdChange>,
    /// Every worker has passed this revision.
    passed: u64,
    /// When housekeeping was done last, in its milliseconds.
    housekept_at: u64,
    /// Services into whose lists removed destinations came back, with connections that may not be in the shared counts yet.
    taken_back: BTreeSet<ServiceSlot>,
}

impl Editor {
    /// A director without any service on these ports.
    #[must_use]
    pub fn new(limits: Limits, ports: Arc<[PortView]>) -> Self {
        Self {
            limits,
            draft: Snapshot::empty(ports),
            changed: true,
            dirty: BTreeSet::new(),
            services: Vec::new(),
            free_services: Vec::new(),
            gone: BTreeMap::new(),
            destinations: Vec::new(),
            free_destinations: Vec::new(),
            identities: HashMap::new(),
            trash: BTreeSet::new(),
            with_tombstones: BTreeSet::new(),
            addresses: HashMap::new(),
            orphans: BTreeSet::new(),
            former_marks: Vec::new(),
            threshold_changes: BTreeMap::new(),
            passed: 0,
            housekept_at: 0,
            taken_back: BTreeSet::new(),
        }
    }

    /// Adds a service without destinations.
    ///
    /// # Errors
    /// [`EditError`]; nothing was changed.
    pub fn add_service(&mut self, spec: ServiceSpec) -> Result<ServiceSlot, EditError> {
        check_service(&spec)?;
        if self.draft.index.get(&spec.key).is_some() {
            return Err(EditError::ServiceExists);
        }
        let slot = match self.gone.remove(&spec.key) {
            Some(slot) => slot,
            None => self.take_service_slot(spec)?,
        };
        self.services[slot.index()].occupy(spec);
        self.draft.index.insert(spec.key, slot);
        if let Some(address) = spec.key.address() {
            self.address_gained(address);
        }
        self.touch(slot);
        Ok(slot)
    }

    /// Changes a service's scheduler and persistence.
    ///
    /// # Errors
    /// [`EditError`]; nothing was changed.
    pub fn edit_service(&mut self, spec: ServiceSpec) -> Result<ServiceSlot, EditError> {
        check_service(&spec)?;
        let slot = self.live(&spec.key)?;
        self.services[slot.index()].edit(spec);
        self.touch(slot);
        Ok(slot)
    }

    /// Removes a service and all its destinations.
    ///
    /// # Errors
    /// [`EditError::NoService`].
    pub fn remove_service(&mut self, key: &ServiceKey) -> Result<(), EditError> {
        let slot = self.live(key)?;
        let revision = self.next_revision();
        for destination in self.services[slot.index()].vacate(revision) {
            self.discard(destination, revision);
        }
        self.draft.index.remove(key);
        self.gone.insert(*key, slot);
        if let Some(address) = key.address() {
            self.address_lost(address, revision);
        }
        self.touch(slot);
        Ok(())
    }

    /// Adds a destination at the head of its service's list. One that is still in the trash comes back with its slot.
    ///
    /// # Errors
    /// [`EditError`]; nothing was changed.
    pub fn add_destination(
        &mut self,
        service: &ServiceKey,
        spec: DestinationSpec,
    ) -> Result<DestinationSlot, EditError> {
        check_destination(service, &spec)?;
        let owner = self.live(service)?;
        let slot = match self.identities.get(&(*service, spec.address, spec.port)) {
            Some(slot) if !self.trash.contains(slot) => return Err(EditError::DestinationExists),
            Some(slot) => *slot,
            None => self.take_destination_slot(owner, *service, spec)?,
        };
        if self.trash.remove(&slot) {
            self.taken_back.insert(owner);
        }
        let place = &mut self.destinations[slot.index()];
        place.life = Life::Live;
        place.spec = spec;
        self.services[owner.index()].add(slot, &spec);
        self.describe(slot);
        self.threshold_changes.insert(slot, threshold_change(slot, &spec));
        self.touch(owner);
        Ok(slot)
    }

    /// Changes method, weight and thresholds of a destination. It keeps its place in the list.
    ///
    /// # Errors
    /// [`EditError`]; nothing was changed.
    pub fn edit_destination(
        &mut self,
        service: &ServiceKey,
        spec: DestinationSpec,
    ) -> Result<DestinationSlot, EditError> {
        check_destination(service, &spec)?;
        let owner = self.live(service)?;
        let slot = self.live_destination(service, spec.address, spec.port)?;
        let place = &mut self.destinations[slot.index()];
        let old = place.spec;
        place.spec = spec;
        if (old.upper, old.lower) != (spec.upper, spec.lower) {
            self.threshold_changes.insert(slot, threshold_change(slot, &spec));
        }
        self.services[owner.index()].change(slot, &spec);
        self.describe(slot);
        self.touch(owner);
        Ok(slot)
    }

    /// Removes a destination; packets of its connections are dropped from then on.
    ///
    /// # Errors
    /// [`EditError::NoService`], [`EditError::NoDestination`].
    pub fn remove_destination(
        &mut self,
        service: &ServiceKey,
        address: IpAddr,
        port: u16,
    ) -> Result<DestinationSlot, EditError> {
        let owner = self.live(service)?;
        let slot = self.live_destination(service, address, port)?;
        let revision = self.next_revision();
        self.services[owner.index()].remove(slot, revision);
        self.discard(slot, revision);
        self.touch(owner);
        Ok(slot)
    }

    /// Says how packets to a destination are sent. Returns whether that is news.
    pub fn set_next_hop(&mut self, slot: DestinationSlot, next_hop: NextHop, port: PortId, mtu: u16) -> bool {
        if self.destinations.get(slot.index()).is_none_or(|place| place.life == Life::Free) {
            return false;
        }
        let old = self.draft.destination(slot).copied().unwrap_or_default();
        let new = DestinationView { next_hop, port, mtu, ..old };
        if new == old {
            return false;
        }
        self.draft.set_destination(slot, new);
        self.changed = true;
        true
    }

    /// Says which of the director's addresses tunnelled packets to a destination come from: that of the outgoing link.
    pub fn set_source(&mut self, slot: DestinationSlot, source: Option<IpAddr>) {
        let Some(place) = self.destinations.get_mut(slot.index()).filter(|place| place.life != Life::Free)
        else {
            return;
        };
        if place.source != source {
            place.source = source;
            self.encapsulate(slot);
        }
    }

    /// Replaces the routes.
    pub fn set_routes(&mut self, routes: Arc<Routes>) {
        self.changed |= !Arc::ptr_eq(&self.draft.routes, &routes);
        self.draft.routes = routes;
    }

    /// Replaces the ports.
    pub fn set_ports(&mut self, ports: Arc<[PortView]>) {
        self.changed |= self.draft.ports != ports;
        self.draft.ports = ports;
    }

    /// Changes the timeouts.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.changed |= self.draft.timeouts != timeouts;
        self.draft.timeouts = timeouts;
    }

    /// Changes the settings.
    pub fn set_settings(&mut self, settings: Settings) {
        self.changed |= self.draft.settings != settings;
        self.draft.settings = settings;
    }

    /// Replaces the mark rules. Those that are gone decide on ownership until [`Self::housekeep`] finds that no connection of
    /// a marked service is left.
    pub fn set_marks(&mut self, rules: Arc<[MarkRule]>) {
        if *rules == *self.draft.marks.rules() {
            return;
        }
        let revision = self.next_revision();
        let gone = self.draft.marks.rules().iter().filter(|rule| !rules.contains(rule));
        self.former_marks.extend(gone.map(|rule| (rule.clone(), revision)));
        self.former_marks.retain(|(rule, _)| !rules.contains(rule));
        let excess = self.former_marks.len().saturating_sub(FORMER_MARKS);
        self.former_marks.drain(..excess);
        self.draft.marks = Marks::new(rules, self.former_rules());
        self.changed = true;
    }

    /// The next snapshot. Threshold changes are to be taken and applied once workers can see it.
    pub fn publish(&mut self) -> Snapshot {
        let revision = self.next_revision();
        for slot in std::mem::take(&mut self.dirty) {
            let service = &mut self.services[slot.index()];
            let view = (service.tenancy == Tenancy::Live).then(|| Arc::new(service.view(slot)));
            let shares_now = view.as_ref().is_some_and(|view| view.shared_counts);
            // Workers start a scheduler's state with its generation.
            let generation = view.as_ref().map_or(0, |view| view.generation);
            let before = self.draft.service(slot).filter(|view| view.shared_counts);
            let shared_before = before.is_some_and(|view| view.generation == generation);
            if shares_now && (!shared_before || self.taken_back.contains(&slot)) {
                self.log_sharing(revision, slot);
            }
            self.draft.services.set(slot.index(), view);
        }
        self.taken_back.clear();
        self.draft.revision += 1;
        self.changed = false;
        self.draft.clone()
    }

    /// Whether there is anything to publish.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Revision of the last snapshot, 0 before the first.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.draft.revision
    }

    /// Destinations whose thresholds are new since the last call.
    pub fn take_threshold_changes(&mut self) -> Vec<ThresholdChange> {
        std::mem::take(&mut self.threshold_changes).into_values().collect()
    }

    /// The slot of a service.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<ServiceSlot> {
        self.draft.index.get(key)
    }

    /// All services in slot order.
    pub fn services(&self) -> impl Iterator<Item = (ServiceSlot, &ServiceSpec)> {
        let slots = (0..).map(ServiceSlot);
        slots
            .zip(&self.services)
            .filter(|(_, one)| one.tenancy == Tenancy::Live)
            .map(|(slot, one)| (slot, &one.spec))
    }

    /// The destination of a slot, also when it is in the trash.
    #[must_use]
    pub fn destination(&self, slot: DestinationSlot) -> Option<Destination> {
        let place = self.destinations.get(slot.index()).filter(|place| place.life != Life::Free)?;
        Some(Destination {
            slot,
            service: place.service,
            key: place.key,
            spec: place.spec,
            incarnation: place.incarnation,
            removed: place.life != Life::Live,
        })
    }

    /// A destination by name, unless it was removed.
    #[must_use]
    pub fn find_destination(&self, service: &ServiceKey, address: IpAddr, port: u16) -> Option<Destination> {
        let slot = self.identities.get(&(*service, address, port))?;
        self.destination(*slot).filter(|found| !found.removed)
    }

    /// All destinations in slot order, without removed ones.
    pub fn destinations(&self) -> impl Iterator<Item = Destination> {
        (0..)
            .map(DestinationSlot)
            .take(self.destinations.len())
            .filter_map(|slot| self.destination(slot).filter(|found| !found.removed))
    }

    fn live(&self, key: &ServiceKey) -> Result<ServiceSlot, EditError> {
        self.draft.index.get(key).ok_or(EditError::NoService)
    }

    fn live_destination(
        &self,
        service: &ServiceKey,
        address: IpAddr,
        port: u16,
    ) -> Result<DestinationSlot, EditError> {
        self.find_destination(service, address, port).map(|found| found.slot).ok_or(EditError::NoDestination)
    }

    /// Tells workers to add what they counted so far to the shared counts of a service's destinations.
    fn log_sharing(&mut self, revision: u64, slot: ServiceSlot) {
        let excess = (self.draft.sharing.len() + 1).saturating_sub(SHARING_LOG);
        let kept = self.draft.sharing.iter().skip(excess).copied();
        self.draft.sharing = kept.chain([(revision, slot)]).collect();
    }

    /// The revision in which an edit made now will be seen.
    fn next_revision(&self) -> u64 {
        self.draft.revision + 1
    }

    fn touch(&mut self, slot: ServiceSlot) {
        self.dirty.insert(slot);
        self.changed = true;
        if self.services[slot.index()].has_tombstones() {
            self.with_tombstones.insert(slot);
        } else {
            self.with_tombstones.remove(&slot);
        }
    }

    /// Moves a destination to the trash.
    fn discard(&mut self, slot: DestinationSlot, revision: u64) {
        self.destinations[slot.index()].life =
            Life::Trashed { removed_in: revision, unreferenced_since: None };
        if self.draft.settings.expire_nodest_conn {
            self.draft.orphaned_in = revision;
        }
        self.threshold_changes.remove(&slot);
        self.trash.insert(slot);
        self.describe(slot);
    }

    /// Tells the draft what an edit can change of a destination; how it is reached stays.
    fn describe(&mut self, slot: DestinationSlot) {
        let place = &self.destinations[slot.index()];
        let old = self.draft.destination(slot).copied().unwrap_or_default();
        let new = DestinationView {
            server: place.spec.address,
            server_port: place.spec.port,
            method: place.spec.method,
            available: place.life == Life::Live,
            quiesced: place.spec.weight == 0,
            service: place.service,
            upper_threshold: place.spec.upper,
            lower_threshold: place.spec.lower,
            ..old
        };
        if new != old {
            self.draft.set_destination(slot, new);
        }
        self.encapsulate(slot);
        self.expect_replies(slot);
    }

    /// Makes a masqueraded destination one whose packets are replies, until it is forgotten.
    fn expect_replies(&mut self, slot: DestinationSlot) {
        let place = &mut self.destinations[slot.index()];
        let masqueraded = place.spec.method == Method::Masquerade;
        let serves = masqueraded && place.life == Life::Live;
        if place.serves == serves && (place.replies || !masqueraded) {
            return;
        }
        let (key, DestinationSpec { address, port, .. }) = (place.key, place.spec);
        let servers = Arc::make_mut(&mut self.draft.servers);
        if masqueraded && !place.replies {
            place.replies = true;
            let service = tells_virtual_end(&key, port).then_some(place.service);
            servers.insert(end_of(&key, address, port), service);
        }
        if place.serves != serves {
            place.serves = serves;
            if serves {
                servers.serve(&key, address, port);
            } else {
                servers.retire(&key, address, port);
            }
        }
        self.changed = true;
    }

    /// Prepares the outer headers of a tunnel.
    fn encapsulate(&mut self, slot: DestinationSlot) {
        let place = &self.destinations[slot.index()];
        let Method::Tunnel(tunnel) = place.spec.method else { return };
        let inner = if place.key.is_v6() { Family::V6 } else { Family::V4 };
        let new =
            place.source.and_then(|source| Encapsulation::new(tunnel, source, place.spec.address, inner));
        if self.draft.encapsulation(slot) != new.as_ref() {
            self.draft.encapsulations.set(slot.index(), new.map(Arc::new));
            self.changed = true;
        }
    }

    fn take_service_slot(&mut self, spec: ServiceSpec) -> Result<ServiceSlot, EditError> {
        if self.free_services.is_empty() && self.services.len() >= self.limits.services as usize {
            self.reclaim_services();
        }
        if let Some(slot) = self.free_services.pop() {
            return Ok(slot);
        }
        match u32::try_from(self.services.len()) {
            Ok(next) if next < self.limits.services => {
                self.services.push(Service::new(spec));
                Ok(ServiceSlot(next))
            }
            _ => Err(EditError::ServicesFull { limit: self.limits.services }),
        }
    }

    /// A slot for a destination that is not in the trash.
    fn take_destination_slot(
        &mut self,
        service: ServiceSlot,
        key: ServiceKey,
        spec: DestinationSpec,
    ) -> Result<DestinationSlot, EditError> {
        let limit = self.limits.destinations;
        if self.free_destinations.is_empty() && self.destinations.len() >= limit as usize {
            self.reclaim_destination();
        }
        let new = Place {
            life: Life::Live,
            incarnation: 1,
            service,
            key,
            spec,
            source: None,
            replies: false,
            serves: false,
        };
        let slot = if let Some(slot) = self.free_destinations.pop() {
            let place = &mut self.destinations[slot.index()];
            let incarnation = place.incarnation.wrapping_add(1);
            *place = Place { incarnation, ..new };
            slot
        } else {
            let slot = match u32::try_from(self.destinations.len()) {
                Ok(next) if next < limit => DestinationSlot(next),
                _ => return Err(EditError::DestinationsFull { limit }),
            };
            self.destinations.push(new);
            slot
        };
        self.draft.set_destination(slot, DestinationView::default());
        if self.draft.encapsulation(slot).is_some() {
            self.draft.encapsulations.set(slot.index(), None);
        }
        self.identities.insert(new.identity(), slot);
        self.services[service.index()].references += 1;
        Ok(slot)
    }
}

fn threshold_change(slot: DestinationSlot, spec: &DestinationSpec) -> ThresholdChange {
    ThresholdChange { slot, upper: spec.upper, lower: spec.lower }
}

fn check_service(spec: &ServiceSpec) -> Result<(), EditError> {
    if !spec.maglev.is_possible() {
        return Err(EditError::MaglevSize);
    }
    if spec
        .mss_clamp
        .is_some_and(|most| !spec.key.may_be_tcp() || !mss::clamps(spec.key.is_v6()).contains(&most))
    {
        return Err(EditError::MssClamp);
    }
    if matches!(spec.key, ServiceKey::Mark { mark: 0, .. }) {
        return Err(EditError::MarkZero);
    }
    let Some(Persistence { timeout, mask }) = spec.persistence else { return Ok(()) };
    if timeout == 0 || i32::try_from(timeout).is_err() {
        return Err(EditError::PersistenceTimeout);
    }
    match (mask, spec.key.is_v6()) {
        (ClientMask::V4(_), false) | (ClientMask::V6(0..=128), true) => Ok(()),
        _ => Err(EditError::PersistenceMask),
    }
}

fn check_destination(service: &ServiceKey, spec: &DestinationSpec) -> Result<(), EditError> {
    if i32::try_from(spec.weight).is_err() {
        Err(EditError::WeightRange)
    } else if spec.lower > spec.upper {
        Err(EditError::ThresholdRange)
    } else if service.is_v6() != spec.address.is_ipv6() && !spec.method.crosses_families() {
        Err(EditError::Family)
    } else {
        Ok(())
    }
}
