//! The small changes that lead from one service to another.

use super::{
    Change, ClientMask, Destination, DestinationAdd, DestinationDelete, DestinationEdit, MaglevOrder,
    MarkRule, Scheduler, Service, ServiceAdd, ServiceDelete, ServiceEdit,
};
use crate::address::Server;

fn named(destination: &Destination) -> Server {
    Server { ip: destination.server.ip, port: Some(destination.server.port) }
}

/// Changes that make `before` into `after`, in the order to make them.
pub(super) fn service_changes(before: Option<&Service>, after: Option<&Service>) -> Vec<Change> {
    match (before, after) {
        (None, None) => Vec::new(),
        (Some(before), None) => vec![Change::ServiceDelete(ServiceDelete { service: before.key })],
        (None, Some(after)) => vec![Change::ServiceAdd(ServiceAdd { service: after.to_spec() })],
        (Some(before), Some(after)) => {
            let mut changes: Vec<Change> = service_edit(before, after).into_iter().collect();
            changes.extend(destination_changes(before, after));
            changes
        }
    }
}

fn service_edit(before: &Service, after: &Service) -> Option<Change> {
    fn other<T: PartialEq + Copy>(before: T, after: T) -> Option<T> {
        (before != after).then_some(after)
    }
    let timeout = |service: &Service| service.persistence.map_or(0, |held| held.timeout_s);
    // A service that becomes persistent gets the whole address as its mask unless another is named.
    let mask = |service: &Service| {
        service.persistence.map_or_else(|| ClientMask::whole(service.key.family()), |held| held.mask)
    };
    let edit = ServiceEdit {
        service: after.key,
        scheduler: other(before.scheduler, after.scheduler),
        persistent: other(timeout(before), timeout(after)),
        netmask: other(mask(before), mask(after)).filter(|_| after.persistence.is_some()),
        one_packet: other(before.one_packet, after.one_packet),
        scheduler_flags: other(before.scheduler_flags, after.scheduler_flags),
        // Another scheduler than mh has none; one that becomes mh begins with the kernel's.
        mh_size: other(before.maglev.size, after.maglev.size).filter(|_| after.scheduler == Scheduler::Mh),
        mh_order: other(MaglevOrder::of(before.maglev), MaglevOrder::of(after.maglev))
            .filter(|_| after.scheduler == Scheduler::Mh),
        mss_clamp: other(before.mss_clamp.unwrap_or(0), after.mss_clamp.unwrap_or(0)),
    };
    (edit != ServiceEdit::of(after.key)).then_some(Change::ServiceEdit(edit))
}

/// A rule is added at the end, so what stays is the longest head of the wanted list that is in the same order now.
pub(super) fn mark_changes(before: &[MarkRule], after: &[MarkRule]) -> Vec<Change> {
    let mut kept = 0;
    let mut changes = Vec::new();
    for rule in before {
        if after.get(kept) == Some(rule) {
            kept += 1;
        } else {
            changes.push(Change::MarkRuleDelete(rule.clone()));
        }
    }
    changes.extend(after.iter().skip(kept).cloned().map(Change::MarkRuleAdd));
    changes
}

/// An addition goes to the head of the list, so what stays is the longest tail of the wanted list that is in the same
/// order now; the rest is deleted where it is there, and added in order.
fn destination_changes(before: &Service, after: &Service) -> Vec<Change> {
    let service = after.key;
    let mut kept = Vec::new();
    let mut held = before.destinations.iter().rev();
    let mut wanted = after.destinations.iter().rev().peekable();
    while let Some(next) = wanted.peek() {
        let Some(found) = held.find(|destination| destination.server == next.server) else { break };
        kept.push((*found, **next));
        wanted.next();
    }
    let gone = before
        .destinations
        .iter()
        .filter(|destination| !kept.iter().any(|(held, _)| held.server == destination.server));
    let mut changes: Vec<Change> = gone
        .map(|destination| {
            Change::DestinationDelete(DestinationDelete { service, address: named(destination) })
        })
        .collect();
    changes.extend(kept.iter().filter(|(held, next)| held != next).map(|(held, next)| {
        Change::DestinationEdit(DestinationEdit {
            service,
            address: named(next),
            weight: (held.weight != next.weight).then_some(next.weight),
            method: (held.method != next.method).then_some(next.method),
            upper_threshold: (held.upper_threshold != next.upper_threshold).then_some(next.upper_threshold),
            lower_threshold: (held.lower_threshold != next.lower_threshold).then_some(next.lower_threshold),
        })
    }));
    changes.extend(wanted.map(|destination| {
        Change::DestinationAdd(DestinationAdd { service, destination: destination.to_spec() })
    }));
    changes
}
