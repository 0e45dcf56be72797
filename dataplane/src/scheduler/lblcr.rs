//! Locality-based least connections with replication (`ip_vs_lblcr`): as lblc, but an address has a set of destinations, of which the
//! least loaded usable one takes the connection. When that one is too busy (as in lblc), or there is none, wlc's choice joins the set;
//! when the set has not changed for `lblcr_expiration`, its most loaded member leaves it. So a popular address is served by several
//! caches, and by one again when it is popular no more.

use super::lblc::is_hot;
use super::locality::{EntryId, Member};
use super::{Loads, Localities, Own, Request, Scheduler, load, open};
use crate::snapshot::{Candidate, SchedulerKind, ServiceView};

/// lblcr.
#[derive(Debug, Clone, Copy)]
pub struct ReplicatedLocality;

impl Scheduler for ReplicatedLocality {
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
            let chosen = own.standings.least(SchedulerKind::Lblcr, service, loads)?;
            cache.insert(service, request.destination, chosen, now, loads);
            return Some(chosen);
        };
        cache.refresh(entry, service);
        let least_loaded = lightest(cache, entry, service, loads);
        if cache.is_stale(entry, now)
            && let Some(number) = heaviest(cache, entry, loads)
        {
            cache.remove(entry, number, now, loads);
        }
        if let Some((place, candidate)) = least_loaded
            && !is_hot(candidate, service, own.standings, loads)
        {
            return Some(place);
        }
        let chosen = own.standings.least(SchedulerKind::Lblcr, service, loads)?;
        cache.add(entry, service, chosen, now, loads);
        Some(chosen)
    }
}

/// The usable member with the smallest load / weight, the newest of equals.
fn lightest<'a>(
    cache: &Localities,
    entry: EntryId,
    service: &'a ServiceView,
    loads: &impl Loads,
) -> Option<(usize, &'a Candidate)> {
    let mut lightest: Option<(usize, &Candidate, u64)> = None;
    for (_, member) in cache.members(entry) {
        let place = member.place().and_then(|place| Some((place, service.candidates.get(place)?)));
        let Some((place, candidate)) = place.filter(|(_, one)| one.weight > 0 && open(one, loads)) else {
            continue;
        };
        let own = load(candidate.slot, loads);
        let lighter = lightest.is_none_or(|(_, other, loaded)| {
            u128::from(loaded) * u128::from(candidate.weight) > u128::from(own) * u128::from(other.weight)
        });
        if lighter {
            lightest = Some((place, candidate, own));
        }
    }
    lightest.map(|(place, candidate, _)| (place, candidate))
}

/// The member with the greatest load / weight, the newest of equals, removed ones included.
fn heaviest(cache: &Localities, entry: EntryId, loads: &impl Loads) -> Option<u32> {
    let mut heaviest: Option<(u32, Member, u64)> = None;
    for (number, member) in cache.members(entry).filter(|(_, member)| member.weight > 0) {
        let own = load(member.slot, loads);
        let heavier = heaviest.is_none_or(|(_, other, loaded)| {
            u128::from(loaded) * u128::from(member.weight) < u128::from(own) * u128::from(other.weight)
        });
        if heavier {
            heaviest = Some((number, member, own));
        }
    }
    heaviest.map(|(number, ..)| number)
}
