//! The services there shall be, and how a change is prepared and committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diff::service_changes;
use super::spec::persistence;
use super::{
    Apply, Change, Destination, DestinationAdd, DestinationDelete, DestinationEdit, Refusal, Service,
    ServiceEdit, ServiceKey, ServiceSpec,
};
use crate::address::{Endpoint, Netmask, Server};

/// How much the director was sized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// `limits.services`.
    pub services: usize,
    /// `limits.destinations`, over all services.
    pub destinations: usize,
}

/// What the operator wants. Written by the publisher thread alone.
#[derive(Debug)]
pub struct Desired {
    services: BTreeMap<ServiceKey, Arc<Service>>,
    destinations: usize,
    revision: u64,
    bounds: Bounds,
}

/// One service before and after a change; `None`: not there.
#[derive(Debug, Clone)]
pub struct Update {
    /// Its name.
    pub key: ServiceKey,
    /// As it is.
    pub before: Option<Arc<Service>>,
    /// As it shall be.
    pub after: Option<Arc<Service>>,
}

/// A checked change that has not happened yet.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Revision once committed; the present one when nothing changes.
    pub revision: u64,
    /// Every service touched, each once.
    pub updates: Vec<Update>,
    /// The same as small changes, which made one after the other lead to the same state.
    pub changes: Vec<Change>,
    /// What the operator should know, in sentences.
    pub notes: Vec<String>,
    /// Asked to change nothing.
    pub dry_run: bool,
}

impl Plan {
    /// Nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }
}

impl Desired {
    /// No services, revision 0.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { services: BTreeMap::new(), destinations: 0, revision: 0, bounds }
    }

    /// Number of the last committed change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All services by protocol, address and port.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Services whose name is greater than `after` (`None`: all), in order.
    pub fn services_after(&self, after: Option<ServiceKey>) -> impl Iterator<Item = &Arc<Service>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        self.services.range((start, Unbounded)).map(|(_, service)| service)
    }

    /// One service.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoService`].
    pub fn service(&self, key: ServiceKey) -> Result<&Arc<Service>, Refusal> {
        self.services.get(&key).ok_or(Refusal::NoService(key))
    }

    /// How many services and destinations there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.services.len(), self.destinations)
    }

    /// Every service as an operator would write it.
    #[must_use]
    pub fn to_specs(&self) -> Vec<ServiceSpec> {
        self.services().map(|service| service.to_spec()).collect()
    }

    /// Checks a change and says what it does, without doing it.
    ///
    /// # Errors
    ///
    /// The kernel's reasons (see [`Refusal`]); the state is as it was.
    pub fn prepare(&self, change: &Change) -> Result<Plan, Refusal> {
        let (updates, notes, dry_run) = match change {
            Change::ServiceAdd(add) => self.service_add(&add.service)?,
            Change::ServiceEdit(edit) => self.service_edit(edit)?,
            Change::ServiceDelete(delete) => {
                let before = Some(Arc::clone(self.service(delete.service)?));
                (vec![Update { key: delete.service, before, after: None }], Vec::new(), false)
            }
            Change::DestinationAdd(add) => self.destination_add(add)?,
            Change::DestinationEdit(edit) => self.destination_edit(edit)?,
            Change::DestinationDelete(delete) => self.destination_delete(delete)?,
            Change::Apply(apply) => self.apply(apply)?,
        };
        let mut updates = updates;
        updates.retain(|update| update.before != update.after);
        self.check_bounds(&updates)?;
        let changes =
            updates.iter().flat_map(|u| service_changes(u.before.as_deref(), u.after.as_deref())).collect();
        let revision = self.revision + u64::from(!updates.is_empty());
        Ok(Plan { revision, updates, changes, notes, dry_run })
    }

    /// Makes a prepared change.
    ///
    /// The plan must come from this state at its present revision; the publisher thread prepares and commits without
    /// anything in between.
    pub fn commit(&mut self, plan: &Plan) {
        debug_assert!(plan.revision <= self.revision + 1, "a plan of another revision");
        let count =
            |service: &Option<Arc<Service>>| service.as_ref().map_or(0, |service| service.destinations.len());
        for update in &plan.updates {
            self.destinations = self.destinations + count(&update.after) - count(&update.before);
            match &update.after {
                Some(service) => self.services.insert(update.key, Arc::clone(service)),
                None => self.services.remove(&update.key),
            };
        }
        self.revision = plan.revision;
    }

    fn check_bounds(&self, updates: &[Update]) -> Result<(), Refusal> {
        let (mut services, mut destinations) = self.counts();
        let (before_services, before_destinations) = (services, destinations);
        for update in updates {
            if let Some(service) = &update.after {
                services += 1;
                destinations += service.destinations.len();
            }
        }
        for update in updates {
            if let Some(service) = &update.before {
                services -= 1;
                destinations -= service.destinations.len();
            }
        }
        let Bounds { services: services_max, destinations: destinations_max } = self.bounds;
        if services > services_max && services > before_services {
            return Err(Refusal::ServicesFull { wanted: services, limit: services_max });
        }
        if destinations > destinations_max && destinations > before_destinations {
            return Err(Refusal::DestinationsFull { wanted: destinations, limit: destinations_max });
        }
        Ok(())
    }

    fn service_add(&self, spec: &ServiceSpec) -> Result<Steps, Refusal> {
        let key = spec.key();
        if self.services.contains_key(&key) {
            return Err(Refusal::ServiceExists(key));
        }
        let mut notes = Vec::new();
        let service = build(spec, &mut notes)?;
        Ok((vec![Update { key, before: None, after: Some(Arc::new(service)) }], notes, false))
    }

    fn service_edit(&self, edit: &ServiceEdit) -> Result<Steps, Refusal> {
        let before = self.service(edit.service)?;
        let mut after = Service::clone(before);
        if let Some(scheduler) = edit.scheduler {
            after.scheduler = scheduler;
        }
        let timeout_s =
            edit.persistent.unwrap_or_else(|| before.persistence.map_or(0, |held| held.timeout_s));
        let kept = before.persistence.filter(|_| timeout_s != 0).map(|held| Netmask(held.prefix));
        after.persistence = persistence(edit.service, timeout_s, edit.netmask.or(kept))?;
        if edit.service.address.port == 0 && after.persistence.is_none() {
            return Err(Refusal::ZeroPort(edit.service));
        }
        Ok(one(before, after))
    }

    fn destination_add(&self, add: &DestinationAdd) -> Result<Steps, Refusal> {
        let before = self.service(add.service)?;
        let mut after = Service::clone(before);
        let mut notes = Vec::new();
        push(&mut after, &add.destination, &mut notes)?;
        let (updates, _, dry_run) = one(before, after);
        Ok((updates, notes, dry_run))
    }

    fn destination_edit(&self, edit: &DestinationEdit) -> Result<Steps, Refusal> {
        let before = self.service(edit.service)?;
        let mut after = Service::clone(before);
        let destination = find(&mut after, edit.address)?;
        destination.weight = edit.weight.unwrap_or(destination.weight);
        destination.method = edit.method.unwrap_or(destination.method);
        destination.upper_threshold = edit.upper_threshold.unwrap_or(destination.upper_threshold);
        destination.lower_threshold = edit.lower_threshold.unwrap_or(destination.lower_threshold);
        destination.check()?;
        Ok(one(before, after))
    }

    fn destination_delete(&self, delete: &DestinationDelete) -> Result<Steps, Refusal> {
        let before = self.service(delete.service)?;
        let mut after = Service::clone(before);
        let position = after
            .position(delete.address)
            .ok_or(Refusal::NoDestination { service: delete.service, server: delete.address })?;
        after.destinations.remove(position);
        Ok(one(before, after))
    }

    fn apply(&self, apply: &Apply) -> Result<Steps, Refusal> {
        if let Some(expected) = apply.expected_revision.filter(|expected| *expected != self.revision) {
            return Err(Refusal::Revision { expected, actual: self.revision });
        }
        let mut notes = Vec::new();
        let mut target = BTreeMap::new();
        for (index, spec) in apply.services.iter().enumerate() {
            let within =
                |refusal| Refusal::InSet { path: format!("services[{index}]"), refusal: Box::new(refusal) };
            let service = build(spec, &mut notes).map_err(within)?;
            if target.insert(spec.key(), service).is_some() {
                return Err(within(Refusal::ServiceExists(spec.key())));
            }
        }
        let gone = self.services.iter().filter(|(key, _)| !target.contains_key(key));
        let mut updates: Vec<Update> = gone
            .map(|(key, service)| Update { key: *key, before: Some(Arc::clone(service)), after: None })
            .collect();
        updates.extend(target.into_iter().map(|(key, service)| Update {
            key,
            before: self.services.get(&key).cloned(),
            after: Some(Arc::new(service)),
        }));
        Ok((updates, notes, apply.dry_run))
    }
}

/// Updates, notes, dry run.
type Steps = (Vec<Update>, Vec<String>, bool);

fn one(before: &Arc<Service>, after: Service) -> Steps {
    let update = Update { key: after.key, before: Some(Arc::clone(before)), after: Some(Arc::new(after)) };
    (vec![update], Vec::new(), false)
}

fn find(service: &mut Service, server: Server) -> Result<&mut Destination, Refusal> {
    let missing = Refusal::NoDestination { service: service.key, server };
    let position = service.position(server).ok_or(missing)?;
    service.destinations.get_mut(position).ok_or(Refusal::NoDestination { service: service.key, server })
}

/// Adds a destination at the head of the list, where the kernel adds them.
fn push(
    service: &mut Service,
    spec: &super::DestinationSpec,
    notes: &mut Vec<String>,
) -> Result<(), Refusal> {
    let destination = Destination::new(service, spec)?;
    let Endpoint { ip, port } = destination.server;
    if service.destinations.iter().any(|held| held.server == destination.server) {
        return Err(Refusal::DestinationExists { service: service.key, server: destination.server });
    }
    if let Some(written) = spec.address.port.filter(|written| *written != port) {
        notes.push(format!(
            "{ip}: port {written} is ignored, direct routing delivers to the service's port {port}"
        ));
    }
    service.destinations.insert(0, destination);
    Ok(())
}

fn build(spec: &ServiceSpec, notes: &mut Vec<String>) -> Result<Service, Refusal> {
    let mut service = Service::without_destinations(spec)?;
    for (index, destination) in spec.destination.iter().enumerate() {
        push(&mut service, destination, notes).map_err(|refusal| Refusal::InSet {
            path: format!("destination[{index}]"),
            refusal: Box::new(refusal),
        })?;
    }
    Ok(service)
}
