//! The management plane's core: the desired state, its way into snapshots, and what listings say. No NIC, no thread, no clock.
//!
//! ```text
//!  Change ─► prepare ─► Plan ─► compile ─► commit ─► Snapshot      Request ─► answer ─► Response
//!              desired state      network tables     to publish                 counters, tables
//! ```
//!
//! `uvsd` drives it with a mirror of the kernel's network and publishes to workers; the trace replayer drives it with plain
//! tables and a virtual clock.

mod compile;
mod connections;
mod counters;
mod network;
mod report;

pub use connections::{Served, Servers, page};
pub use network::{Network, NoPort, Port, Tables, Way};
pub(crate) use report::count;

use crate::address::Server;
use crate::desired::{Bounds, Change, Desired, Plan, ServiceKey};
use crate::mirror::Hop;
use crate::protocol::{Changed, CountersZero, Fault, FaultKind, Zeroed};
use compile::{Compiler, key_of};
use counters::Counters;
use dataplane::engine::Shared;
use dataplane::id::{DestinationSlot, ServiceSlot, Ticks};
use dataplane::snapshot::editor::{self, Cursors, Destination, EditError};
use dataplane::snapshot::{Snapshot, Timeouts};
use dataplane::worker::Connections;
use std::collections::BTreeSet;

/// How much the director is sized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Services.
    pub services: u32,
    /// Destinations of all services.
    pub destinations: u32,
}

/// What listings look at: the engines' tables at one moment.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What the engines share.
    pub shared: &'a Shared,
    /// Connection tables, by worker.
    pub tables: &'a [Connections],
    /// The engines' time.
    pub now: Ticks,
}

/// The core. One thread owns it.
#[derive(Debug)]
pub struct Management {
    desired: Desired,
    compiler: Compiler,
    network: Network,
    servers: Servers,
    counters: Counters,
}

/// Where workers' cursors stand, for the editor.
struct WorkerCursors<'a>(&'a Shared);

impl Cursors for WorkerCursors<'_> {
    fn stands_on(&self, service: ServiceSlot, position: u32) -> bool {
        self.0.cursor_on(service, position)
    }
}

impl From<EditError> for Fault {
    fn from(error: EditError) -> Self {
        Self { name: "full", errno: Some("ENOMEM"), ..Self::new(FaultKind::Refused, error.to_string()) }
    }
}

impl From<NoPort> for Fault {
    fn from(error: NoPort) -> Self {
        Self { name: "invalid", errno: Some("ENODEV"), ..Self::new(FaultKind::Refused, error.to_string()) }
    }
}

/// Destinations that a plan takes out of their services' lists, found before they are gone.
type Leaving = Vec<(DestinationSlot, ServiceSlot)>;

impl Management {
    /// No service, the kernel's timeouts and settings.
    #[must_use]
    pub fn new(limits: Limits, network: Network) -> Self {
        let Limits { services, destinations } = limits;
        let bounds = Bounds { services: services as usize, destinations: destinations as usize };
        let editor = editor::Editor::new(editor::Limits { services, destinations }, network.port_views());
        Self {
            desired: Desired::new(bounds),
            compiler: Compiler::new(editor),
            network,
            servers: Servers::default(),
            counters: Counters::default(),
        }
    }

    /// What the operator wants.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What is known of the network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The same, to change it; [`Self::follow`] then looks all ways up again.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Looks the way to every destination up again, because the network changed.
    pub fn follow(&mut self) {
        self.compiler.follow(&self.network);
    }

    /// Destinations by slot, for listings on other threads.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The next hops to keep resolved, when they are others than at the last call.
    pub fn take_hops(&mut self) -> Option<BTreeSet<Hop>> {
        self.compiler.take_hops()
    }

    /// How a destination is reached.
    #[must_use]
    pub fn way(&self, slot: DestinationSlot) -> Option<&Way> {
        self.compiler.way(slot)
    }

    /// Whether every destination can be reached, as far as there is a route.
    #[must_use]
    pub fn resolved(&self) -> bool {
        self.compiler.resolved()
    }

    /// Checks a change and says what it does, without doing it.
    ///
    /// # Errors
    ///
    /// It is refused; everything is as it was.
    pub fn prepare(&self, change: &Change) -> Result<Plan, Fault> {
        let plan = self.desired.prepare(change)?;
        if let Some(marks) = &plan.marks {
            self.network.mark_rules(marks)?;
        }
        Ok(plan)
    }

    /// Makes a prepared change, unless it is a dry run. The next [`Self::snapshot`] has it.
    ///
    /// # Errors
    ///
    /// There is no room for it; everything is as it was.
    pub fn make(&mut self, plan: Plan, shared: &Shared) -> Result<Changed, Fault> {
        let changed = !plan.is_empty();
        if changed && !plan.dry_run {
            self.compile(&plan, shared)?;
            self.desired.commit(&plan);
        }
        Ok(Changed {
            // A dry run leaves the present one.
            revision: self.desired.revision(),
            changed,
            dry_run: plan.dry_run,
            changes: plan.changes,
            notes: plan.notes,
            waited_us: None,
        })
    }

    /// Prepares and makes a change: all of it or nothing. The next [`Self::snapshot`] has it.
    ///
    /// # Errors
    ///
    /// It is refused; everything is as it was.
    pub fn change(&mut self, change: &Change, shared: &Shared) -> Result<Changed, Fault> {
        let plan = self.prepare(change)?;
        self.make(plan, shared)
    }

    fn compile(&mut self, plan: &Plan, shared: &Shared) -> Result<(), Fault> {
        let marks = plan.marks.as_ref().map(|marks| self.network.mark_rules(marks)).transpose()?;
        let leaving = self.leaving(plan);
        self.compiler.apply(plan, &self.network)?;
        for (slot, service) in leaving {
            self.counters.removed(slot, service, &shared.destinations);
        }
        self.welcome(plan, shared);
        let editor = self.compiler.editor();
        if let Some(marks) = marks {
            editor.set_marks(marks);
        }
        if let Some(timeouts) = plan.timeouts {
            let milliseconds = |seconds: u32| seconds.saturating_mul(1000);
            editor.set_timeouts(Timeouts {
                tcp: milliseconds(timeouts.tcp),
                tcp_fin: milliseconds(timeouts.tcp_fin),
                udp: milliseconds(timeouts.udp),
            });
        }
        if let Some(settings) = plan.settings {
            editor.set_settings(settings);
        }
        Ok(())
    }

    fn find(&self, service: ServiceKey, server: Server) -> Option<Destination> {
        let port = server.port.unwrap_or_else(|| service.port());
        self.compiler.lookup().find_destination(&key_of(service), server.ip, port)
    }

    fn leaving(&self, plan: &Plan) -> Leaving {
        let mut leaving = Leaving::new();
        let mut leave = |found: Option<Destination>| {
            leaving.extend(found.map(|found| (found.slot, found.service)));
        };
        for change in &plan.changes {
            match change {
                Change::DestinationDelete(delete) => leave(self.find(delete.service, delete.address)),
                Change::ServiceDelete(delete) => {
                    let held = self.desired.service(delete.service).ok();
                    for destination in held.into_iter().flat_map(|service| &service.destinations) {
                        leave(self.find(delete.service, destination.to_spec().address));
                    }
                }
                _ => {}
            }
        }
        leaving
    }

    /// Gives new services and destinations their counters, and listings their names.
    fn welcome(&mut self, plan: &Plan, shared: &Shared) {
        for change in &plan.changes {
            match change {
                Change::DestinationAdd(add) => {
                    self.welcome_one(add.service, add.destination.address, shared);
                }
                Change::ServiceAdd(add) => {
                    let key = add.service.key;
                    if let Some(slot) = self.compiler.lookup().service(&key_of(key)) {
                        self.counters.service_added(slot);
                    }
                    for destination in &add.service.destination {
                        self.welcome_one(key, destination.address, shared);
                    }
                }
                _ => {}
            }
        }
    }

    fn welcome_one(&mut self, service: ServiceKey, server: Server, shared: &Shared) {
        let Some(found) = self.find(service, server) else { return };
        let mark = match service {
            ServiceKey::Mark { mark, .. } => Some(mark.get()),
            ServiceKey::Address { .. } => None,
        };
        let server = crate::address::Endpoint { ip: found.spec.address, port: found.spec.port };
        self.servers.insert(found.slot, Served { server, mark });
        self.counters.added(&found, &shared.destinations);
    }

    /// Whether a [`Self::snapshot`] now would differ from the last one.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.compiler.lookup().changed()
    }

    /// The next snapshot to publish. Once it is, call [`Self::published`].
    pub fn snapshot(&mut self) -> Snapshot {
        self.compiler.publish()
    }

    /// The workers may use the last snapshot from now on: new thresholds are held against the connections there are.
    pub fn published(&mut self, shared: &Shared) {
        for change in self.compiler.editor().take_threshold_changes() {
            change.apply(&shared.destinations);
        }
    }

    /// Forgets what nobody needs any more; to be called every second or so. `now_ms` are milliseconds of a monotonic clock,
    /// `passed` is the revision of the last snapshot that every worker has passed a quiescent point in.
    pub fn housekeep(&mut self, now_ms: u64, shared: &Shared, passed: u64) {
        let cursors = WorkerCursors(shared);
        let done = self.compiler.editor().housekeep(now_ms, &shared.destinations, &cursors, passed);
        for slot in done.destinations {
            self.servers.remove(slot);
        }
    }

    /// Looks at the rates when it is time; to be called every second or so with the same clock as [`Self::housekeep`].
    pub fn tick_rates(&mut self, now_ms: u64, shared: &Shared) {
        self.counters.tick(now_ms, self.compiler.lookup(), &shared.destinations);
    }

    /// Lets one service, or everything, count from 0.
    ///
    /// # Errors
    ///
    /// There is no such service.
    pub fn zero(&mut self, zero: CountersZero, shared: &Shared) -> Result<Zeroed, Fault> {
        let table = &shared.destinations;
        let Some(key) = zero.service else {
            self.counters.zero_all(self.compiler.lookup(), table);
            return Ok(Zeroed { services: self.desired.counts().0 as u64 });
        };
        let service = self.desired.service(key)?;
        let found = service.destinations.iter().filter_map(|held| self.find(key, held.to_spec().address));
        let slots: Vec<_> = found.map(|found| found.slot).collect();
        if let Some(slot) = self.compiler.lookup().service(&key_of(key)) {
            self.counters.zero_service(slot, slots.into_iter(), table);
        }
        Ok(Zeroed { services: 1 })
    }
}

#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod tests;
