//! From desired state and network to snapshots: every edit goes through the one [`Editor`].

use super::network::{Network, Way};
use crate::desired::{self, Change, Destination, Family, Plan, Service, ServiceKey, Update};
use crate::mirror::Hop;
use dataplane::id::DestinationSlot;
use dataplane::snapshot::editor::{DestinationSpec, EditError, Editor, ServiceSpec};
use dataplane::snapshot::{
    self, ClientMask, Method, Persistence, Snapshot, Tunnel, TunnelChecksum, TunnelKind,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The editor, with the way to each destination.
#[derive(Debug)]
pub(super) struct Compiler {
    editor: Editor,
    ways: HashMap<DestinationSlot, Way>,
    /// Destinations by the hop whose MAC they need.
    hops: BTreeMap<Hop, usize>,
    hops_changed: bool,
    /// Whether routes were ever needed: what direct routing sends needs none.
    routed: bool,
    /// Routers that the snapshot's routes lead to.
    routers: BTreeSet<Hop>,
}

pub(super) fn key_of(key: ServiceKey) -> snapshot::ServiceKey {
    match key {
        ServiceKey::Address { protocol, address } => snapshot::ServiceKey::Address {
            protocol: protocol.number(),
            address: address.ip,
            port: address.port,
        },
        ServiceKey::Mark { mark, family } => {
            snapshot::ServiceKey::Mark { mark: mark.get(), v6: family == Family::Ipv6 }
        }
    }
}

fn service_spec(service: &Service) -> ServiceSpec {
    let mask = |mask| match mask {
        desired::ClientMask::Ipv4(mask) => ClientMask::V4(mask.into()),
        desired::ClientMask::Prefix(prefix) => ClientMask::V6(prefix),
    };
    ServiceSpec {
        key: key_of(service.key),
        scheduler: service.scheduler,
        flags: service.scheduler_flags.bits(),
        persistence: service
            .persistence
            .map(|held| Persistence { timeout: held.timeout_s.saturating_mul(1000), mask: mask(held.mask) }),
        one_packet: service.one_packet,
        mss_clamp: service.mss_clamp,
        maglev: service.maglev,
    }
}

fn method(method: desired::Method) -> Method {
    use desired::{TunnelChecksum as Checksum, TunnelKind as Kind};
    match method {
        desired::Method::Direct => Method::Direct,
        desired::Method::Masquerade => Method::Masquerade,
        desired::Method::Tunnel(tunnel) => Method::Tunnel(Tunnel {
            kind: match tunnel.kind {
                Kind::Ipip => TunnelKind::Ipip,
                Kind::Gue => TunnelKind::Gue,
                Kind::Gre => TunnelKind::Gre,
            },
            checksum: match tunnel.checksum {
                Checksum::None => TunnelChecksum::None,
                Checksum::Plain => TunnelChecksum::Plain,
                Checksum::Remote => TunnelChecksum::Remote,
            },
            port: tunnel.port,
        }),
    }
}

fn destination_spec(destination: &Destination) -> DestinationSpec {
    DestinationSpec {
        address: destination.server.ip,
        port: destination.server.port,
        method: method(destination.method),
        weight: destination.weight,
        upper: destination.upper_threshold,
        lower: destination.lower_threshold,
    }
}

/// Replies of masqueraded servers, and errors about tunnels, find their way back by routes; whether what a mark rule marks is the
/// director's own address, they say too.
fn needs_routes(update: &Update) -> bool {
    if matches!(update.key, ServiceKey::Mark { .. }) {
        return update.after.is_some();
    }
    let after = update.after.iter().flat_map(|service| &service.destinations);
    after.into_iter().any(|destination| destination.method != desired::Method::Direct)
}

impl Compiler {
    pub(super) fn new(editor: Editor) -> Self {
        Self {
            editor,
            ways: HashMap::new(),
            hops: BTreeMap::new(),
            hops_changed: false,
            routed: false,
            routers: BTreeSet::new(),
        }
    }

    pub(super) fn editor(&mut self) -> &mut Editor {
        &mut self.editor
    }

    pub(super) fn lookup(&self) -> &Editor {
        &self.editor
    }

    /// How a destination is reached, once it has been published.
    pub(super) fn way(&self, slot: DestinationSlot) -> Option<&Way> {
        self.ways.get(&slot)
    }

    /// Makes a checked plan's edits of services: all of them or none.
    pub(super) fn apply(&mut self, plan: &Plan, network: &Network) -> Result<(), EditError> {
        // A single edit that is refused has changed nothing, and a single service takes itself back; a series is tried on
        // a copy, which at 10,000 services costs more than all of a small change.
        let spare = (plan.changes.len() > 1).then(|| self.editor.clone());
        let mut changes: HashMap<ServiceKey, Vec<&Change>> = HashMap::new();
        for change in &plan.changes {
            if let Some(service) = change.service() {
                changes.entry(service).or_default().push(change);
            }
        }
        let made = plan.updates.iter().try_for_each(|update| {
            let own = changes.get(&update.key).map_or(&[][..], Vec::as_slice);
            self.update(update, own, network)
        });
        if made.is_err()
            && let Some(spare) = spare
        {
            self.editor = spare;
            self.ways.clear();
            self.hops.clear();
            self.hops_changed = true;
            self.follow(network);
        }
        if made.is_ok() && !self.routed && plan.updates.iter().any(needs_routes) {
            self.routed = true;
            self.route(network);
        }
        made
    }

    fn route(&mut self, network: &Network) {
        let (routes, routers) = network.routes();
        self.editor.set_routes(Arc::new(routes));
        self.hops_changed |= self.routers != routers;
        self.routers = routers;
    }

    fn update(&mut self, update: &Update, changes: &[&Change], network: &Network) -> Result<(), EditError> {
        match (&update.before, &update.after) {
            (None, Some(after)) => {
                self.editor.add_service(service_spec(after))?;
                // The newest is at the head of the list: added last.
                let mut oldest_first = after.destinations.iter().rev();
                let added =
                    oldest_first.try_for_each(|destination| self.add(update.key, destination, network));
                if added.is_err() {
                    self.remove(update.key, after)?;
                }
                added
            }
            (Some(before), None) => self.remove(update.key, before),
            (Some(before), Some(after)) => {
                let spec = service_spec(after);
                if spec != service_spec(before) {
                    self.editor.edit_service(spec)?;
                }
                changes.iter().try_for_each(|change| self.change(change, after, network))
            }
            (None, None) => Ok(()),
        }
    }

    /// Removes a service with those of its destinations that are there.
    fn remove(&mut self, key: ServiceKey, service: &Service) -> Result<(), EditError> {
        let key = key_of(key);
        for destination in &service.destinations {
            let server = destination.server;
            if let Some(found) = self.editor.find_destination(&key, server.ip, server.port) {
                self.forget(found.slot);
            }
        }
        self.editor.remove_service(&key)
    }

    fn change(&mut self, change: &Change, after: &Service, network: &Network) -> Result<(), EditError> {
        let key = key_of(after.key);
        let found = |server| after.position(server).and_then(|place| after.destinations.get(place));
        match change {
            Change::DestinationAdd(add) => match found(add.destination.address) {
                Some(destination) => self.add(after.key, destination, network),
                None => Ok(()),
            },
            Change::DestinationEdit(edit) => match found(edit.address) {
                Some(destination) => {
                    self.editor.edit_destination(&key, destination_spec(destination)).map(|_| ())
                }
                None => Ok(()),
            },
            Change::DestinationDelete(delete) => {
                let port = delete.address.port.unwrap_or_else(|| after.key.port());
                let slot = self.editor.remove_destination(&key, delete.address.ip, port)?;
                self.forget(slot);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn add(
        &mut self,
        service: ServiceKey,
        destination: &Destination,
        network: &Network,
    ) -> Result<(), EditError> {
        let slot = self.editor.add_destination(&key_of(service), destination_spec(destination))?;
        self.lead(slot, network.way(destination.server.ip));
        Ok(())
    }

    /// Tells the editor how a destination is reached.
    fn lead(&mut self, slot: DestinationSlot, way: Way) {
        self.editor.set_next_hop(slot, way.next_hop, way.port, way.mtu);
        self.editor.set_source(slot, way.source);
        let before = self.ways.insert(slot, way).and_then(|way| way.hop);
        if before != way.hop {
            self.count(before, way.hop);
        }
    }

    fn forget(&mut self, slot: DestinationSlot) {
        let hop = self.ways.remove(&slot).and_then(|way| way.hop);
        self.count(hop, None);
    }

    fn count(&mut self, less: Option<Hop>, more: Option<Hop>) {
        if let Some(hop) = more {
            let count = self.hops.entry(hop).or_insert(0);
            *count += 1;
            self.hops_changed |= *count == 1;
        }
        if let Some(hop) = less
            && let Some(count) = self.hops.get_mut(&hop)
        {
            *count -= 1;
            if *count == 0 {
                self.hops.remove(&hop);
                self.hops_changed = true;
            }
        }
    }

    /// Looks the way to every destination up again, because the network changed.
    pub(super) fn follow(&mut self, network: &Network) {
        self.editor.set_ports(network.port_views());
        let destinations: Vec<_> = self
            .editor
            .destinations()
            .map(|destination| (destination.slot, destination.spec.address))
            .collect();
        for (slot, address) in destinations {
            self.lead(slot, network.way(address));
        }
        if self.routed {
            self.route(network);
        }
    }

    /// The hops to keep resolved, when they are others than before.
    pub(super) fn take_hops(&mut self) -> Option<BTreeSet<Hop>> {
        std::mem::take(&mut self.hops_changed)
            .then(|| self.hops.keys().chain(&self.routers).copied().collect())
    }

    /// Whether every destination can be reached, as far as there is a route.
    pub(super) fn resolved(&self) -> bool {
        self.ways.values().all(|way| way.next_hop != snapshot::NextHop::Unresolved)
    }

    pub(super) fn publish(&mut self) -> Snapshot {
        self.editor.publish()
    }
}

#[cfg(test)]
mod tests;
