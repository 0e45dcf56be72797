//! Locality-based least connections (`ip_vs_lblc`; Zhang, "Linux Virtual Server for Scalable Network Services", OLS 2000): packets to
//! one address go to the destination that the last ones went to, so that a cache in it stays warm, unless that one is gone or quiesced,
//! or has more active connections than its weight while another one has not half of its own. Then, and for a new address, wlc chooses,
//! and the choice is remembered ([`Localities`](super::Localities)). For transparent proxies behind a mark.
//!
//! A remembered destination takes connections above its threshold too: the kernel does not look.

use super::{Loads, Own, Request, Scheduler, Standings};
use crate::snapshot::{Candidate, SchedulerKind, ServiceView};

/// lblc.
#[derive(Debug, Clone, Copy)]
pub struct LocalityLeastConnections;

impl Scheduler for LocalityLeastConnections {
    #[inline]
    fn choose(
        service: &ServiceView,
        request: &Request,
        own: &mut Own<'_>,
        loads: &impl Loads,
    ) -> Option<usize> {
        let (cache, now) = (&mut *own.localities, request.now);
        let entry = cache.find(service, request.destination, now, loads);
        let Some(entry) = entry else {
            let chosen = own.standings.least(SchedulerKind::Lblc, service, loads)?;
            cache.insert(service, request.destination, chosen, now, loads);
            return Some(chosen);
        };
        cache.refresh(entry, service);
        let remembered = cache.members(entry).next();
        let place = remembered.and_then(|(_, member)| member.place());
        if let Some(candidate) = place.and_then(|place| service.candidates.get(place))
            && candidate.weight > 0
            && !is_hot(candidate, service, own.standings, loads)
        {
            return place;
        }
        let chosen = own.standings.least(SchedulerKind::Lblc, service, loads)?;
        if place != Some(chosen) {
            if let Some((number, _)) = remembered {
                cache.remove(entry, number, now, loads);
            }
            cache.add(entry, service, chosen, now, loads);
        }
        Some(chosen)
    }
}

/// Whether a destination has more active connections than its weight while another one has less than half of its own.
#[inline]
pub(super) fn is_hot(
    candidate: &Candidate,
    service: &ServiceView,
    standings: &mut Standings,
    loads: &impl Loads,
) -> bool {
    loads.active(candidate.slot) > candidate.weight && standings.has_idle(service, loads)
}
