//! What there shall be, and how a change is prepared and committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diff::{mark_changes, service_changes};
use super::maglev::maglev;
use super::mss::mss_clamp;
use super::settings::check_settings;
use super::spec::persistence;
use super::{
    Apply, Change, Destination, DestinationAdd, DestinationDelete, DestinationEdit, DestinationSpec,
    MARK_RULES_MAX, MarkRule, Refusal, Scheduler, Service, ServiceEdit, ServiceKey, ServiceSpec, Settings,
    SettingsEdit, Timeouts,
};
use crate::address::Server;

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
    timeouts: Timeouts,
    settings: Settings,
    marks: Arc<[MarkRule]>,
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
    /// Timeouts as they shall be; `None`: as they are.
    pub timeouts: Option<Timeouts>,
    /// Settings as they shall be; `None`: as they are.
    pub settings: Option<Settings>,
    /// Mark rules as they shall be, in order; `None`: as they are.
    pub marks: Option<Arc<[MarkRule]>>,
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
        self.updates.is_empty() && self.timeouts.is_none() && self.settings.is_none() && self.marks.is_none()
    }
}

/// What a change asks for, not yet held against the bounds.
#[derive(Debug, Default)]
struct Draft {
    updates: Vec<Update>,
    timeouts: Option<Timeouts>,
    settings: Option<Settings>,
    marks: Option<Arc<[MarkRule]>>,
    notes: Vec<String>,
    dry_run: bool,
}

/// In the kernel every edit of a destination starts wrr's round afresh, one that changes nothing too.
fn starts_afresh(change: &Change, update: &Update) -> bool {
    let wrr = update.after.as_ref().is_some_and(|service| service.scheduler == Scheduler::Wrr);
    wrr && matches!(change, Change::DestinationEdit(_))
}

impl Desired {
    /// No services, the kernel's timeouts and settings, revision 0.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            services: BTreeMap::new(),
            destinations: 0,
            timeouts: Timeouts::default(),
            settings: Settings::default(),
            marks: Arc::default(),
            revision: 0,
            bounds,
        }
    }

    /// Timeouts of connections.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// The director's behaviour.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Mark rules in order.
    #[must_use]
    pub fn marks(&self) -> &Arc<[MarkRule]> {
        &self.marks
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
        let mut draft = match change {
            Change::ServiceAdd(add) => self.service_add(&add.service)?,
            Change::ServiceEdit(edit) => self.service_edit(edit)?,
            Change::ServiceDelete(delete) => Draft::one(Update {
                key: delete.service,
                before: Some(Arc::clone(self.service(delete.service)?)),
                after: None,
            }),
            Change::ServiceFlush(_) => self.replace_services(BTreeMap::new()),
            Change::DestinationAdd(add) => self.destination_add(add)?,
            Change::DestinationEdit(edit) => self.destination_edit(edit)?,
            Change::DestinationDelete(delete) => self.destination_delete(delete)?,
            Change::TimeoutsSet(set) => {
                Draft { timeouts: Some(self.timeouts.edited(set)), ..Draft::default() }
            }
            Change::SettingsSet(edit) => {
                Draft { settings: Some(edit.apply(self.settings)), ..Draft::default() }
            }
            Change::MarkRuleAdd(rule) => self.mark_add(rule)?,
            Change::MarkRuleDelete(rule) => self.mark_delete(rule)?,
            Change::Apply(apply) => self.apply(apply)?,
        };
        draft.updates.retain(|update| update.before != update.after || starts_afresh(change, update));
        self.check_bounds(&draft.updates)?;
        let timeouts = draft.timeouts.filter(|timeouts| *timeouts != self.timeouts);
        timeouts.map_or(Ok(()), |timeouts| timeouts.check())?;
        let settings = draft.settings.filter(|settings| *settings != self.settings);
        settings.map_or(Ok(()), |settings| check_settings(&settings))?;
        let marks = draft.marks.filter(|marks| *marks != self.marks);
        let mut plan = Plan {
            revision: self.revision,
            updates: draft.updates,
            timeouts,
            settings,
            marks,
            changes: Vec::new(),
            notes: draft.notes,
            dry_run: draft.dry_run,
        };
        plan.changes = self.small_changes(&plan);
        if plan.updates.iter().any(|update| starts_afresh(change, update)) && plan.changes.is_empty() {
            plan.changes.push(change.clone());
        }
        plan.revision += u64::from(!plan.is_empty());
        Ok(plan)
    }

    fn small_changes(&self, plan: &Plan) -> Vec<Change> {
        let timeouts = plan.timeouts.map(|after| Change::TimeoutsSet(self.timeouts.edit_to(after)));
        let settings =
            plan.settings.map(|after| Change::SettingsSet(SettingsEdit::between(&self.settings, &after)));
        let marks = plan.marks.as_ref().map(|after| mark_changes(&self.marks, after));
        let services =
            plan.updates.iter().flat_map(|u| service_changes(u.before.as_deref(), u.after.as_deref()));
        timeouts.into_iter().chain(settings).chain(marks.into_iter().flatten()).chain(services).collect()
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
        self.timeouts = plan.timeouts.unwrap_or(self.timeouts);
        self.settings = plan.settings.unwrap_or(self.settings);
        if let Some(marks) = &plan.marks {
            self.marks = Arc::clone(marks);
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

    fn service_add(&self, spec: &ServiceSpec) -> Result<Draft, Refusal> {
        let key = spec.key;
        if self.services.contains_key(&key) {
            return Err(Refusal::ServiceExists(key));
        }
        let mut notes = Vec::new();
        let service = build(spec, &mut notes)?;
        let draft = Draft::one(Update { key, before: None, after: Some(Arc::new(service)) });
        Ok(Draft { notes, ..draft })
    }

    fn service_edit(&self, edit: &ServiceEdit) -> Result<Draft, Refusal> {
        let before = self.service(edit.service)?;
        let mut after = Service::clone(before);
        if let Some(scheduler) = edit.scheduler {
            after.scheduler = scheduler;
        }
        let timeout_s =
            edit.persistent.unwrap_or_else(|| before.persistence.map_or(0, |held| held.timeout_s));
        let kept = before.persistence.filter(|_| timeout_s != 0).map(|held| held.mask);
        after.persistence = persistence(edit.service, timeout_s, edit.netmask.or(kept))?;
        after.one_packet = edit.one_packet.unwrap_or(before.one_packet);
        after.scheduler_flags = edit.scheduler_flags.unwrap_or(before.scheduler_flags);
        after.maglev = maglev(after.scheduler, before.maglev, edit.mh_size, edit.mh_order)?;
        after.mss_clamp =
            edit.mss_clamp.map_or(Ok(before.mss_clamp), |bytes| mss_clamp(edit.service, bytes))?;
        Ok(Draft::edit(before, after))
    }

    fn destination_add(&self, add: &DestinationAdd) -> Result<Draft, Refusal> {
        let before = self.service(add.service)?;
        let mut after = Service::clone(before);
        let mut notes = Vec::new();
        push(&mut after, &add.destination, &mut notes)?;
        Ok(Draft { notes, ..Draft::edit(before, after) })
    }

    fn destination_edit(&self, edit: &DestinationEdit) -> Result<Draft, Refusal> {
        let before = self.service(edit.service)?;
        let mut after = Service::clone(before);
        let destination = find(&mut after, edit.address)?;
        destination.weight = edit.weight.unwrap_or(destination.weight);
        destination.method = edit.method.unwrap_or(destination.method);
        destination.upper_threshold = edit.upper_threshold.unwrap_or(destination.upper_threshold);
        destination.lower_threshold = edit.lower_threshold.unwrap_or(destination.lower_threshold);
        destination.check(edit.service)?;
        Ok(Draft::edit(before, after))
    }

    fn destination_delete(&self, delete: &DestinationDelete) -> Result<Draft, Refusal> {
        let before = self.service(delete.service)?;
        let mut after = Service::clone(before);
        let position = after
            .position(delete.address)
            .ok_or(Refusal::NoDestination { service: delete.service, server: delete.address })?;
        after.destinations.remove(position);
        Ok(Draft::edit(before, after))
    }

    fn apply(&self, apply: &Apply) -> Result<Draft, Refusal> {
        if let Some(expected) = apply.expected_revision.filter(|expected| *expected != self.revision) {
            return Err(Refusal::Revision { expected, actual: self.revision });
        }
        let mut notes = Vec::new();
        let mut target = BTreeMap::new();
        for (index, spec) in apply.services.iter().enumerate() {
            let within =
                |refusal| Refusal::InSet { path: format!("services[{index}]"), refusal: Box::new(refusal) };
            let service = build(spec, &mut notes).map_err(within)?;
            if target.insert(spec.key, service).is_some() {
                return Err(within(Refusal::ServiceExists(spec.key)));
            }
        }
        if let Some(marks) = &apply.marks {
            check_marks(marks)?;
        }
        Ok(Draft {
            timeouts: apply.timeouts,
            settings: apply.settings,
            marks: apply.marks.as_ref().map(|marks| marks.iter().cloned().collect()),
            notes,
            dry_run: apply.dry_run,
            ..self.replace_services(target)
        })
    }

    /// These services and no others.
    fn replace_services(&self, target: BTreeMap<ServiceKey, Service>) -> Draft {
        let gone = self.services.iter().filter(|(key, _)| !target.contains_key(key));
        let mut updates: Vec<Update> = gone
            .map(|(key, service)| Update { key: *key, before: Some(Arc::clone(service)), after: None })
            .collect();
        updates.extend(target.into_iter().map(|(key, service)| Update {
            key,
            before: self.services.get(&key).cloned(),
            after: Some(Arc::new(service)),
        }));
        Draft { updates, ..Draft::default() }
    }

    fn mark_add(&self, rule: &MarkRule) -> Result<Draft, Refusal> {
        let marks: Vec<_> = self.marks.iter().chain([rule]).cloned().collect();
        check_marks(&marks)?;
        Ok(Draft { marks: Some(marks.into()), ..Draft::default() })
    }

    fn mark_delete(&self, rule: &MarkRule) -> Result<Draft, Refusal> {
        if !self.marks.contains(rule) {
            return Err(Refusal::NoMarkRule(rule.clone()));
        }
        let marks = self.marks.iter().filter(|held| *held != rule).cloned().collect();
        Ok(Draft { marks: Some(marks), ..Draft::default() })
    }
}

/// Each rule once, each a possible one, and not too many of them.
fn check_marks(marks: &[MarkRule]) -> Result<(), Refusal> {
    if marks.len() > MARK_RULES_MAX {
        return Err(Refusal::MarkRulesFull(marks.len()));
    }
    for (index, rule) in marks.iter().enumerate() {
        rule.check()?;
        if marks.iter().take(index).any(|earlier| earlier == rule) {
            return Err(Refusal::MarkRuleExists(rule.clone()));
        }
    }
    Ok(())
}

impl Draft {
    fn one(update: Update) -> Self {
        Self { updates: vec![update], ..Self::default() }
    }

    fn edit(before: &Arc<Service>, after: Service) -> Self {
        let key = after.key;
        Self::one(Update { key, before: Some(Arc::clone(before)), after: Some(Arc::new(after)) })
    }
}

fn find(service: &mut Service, server: Server) -> Result<&mut Destination, Refusal> {
    let missing = Refusal::NoDestination { service: service.key, server };
    let position = service.position(server).ok_or(missing)?;
    service.destinations.get_mut(position).ok_or(Refusal::NoDestination { service: service.key, server })
}

/// Adds a destination at the head of the list, where the kernel adds them.
fn push(service: &mut Service, spec: &DestinationSpec, notes: &mut Vec<String>) -> Result<(), Refusal> {
    let destination = Destination::new(service, spec)?;
    if service.destinations.iter().any(|held| held.server == destination.server) {
        return Err(Refusal::DestinationExists { service: service.key, server: destination.server });
    }
    notes.extend(destination.port_without_effect(service.key));
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
