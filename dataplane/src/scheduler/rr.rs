//! Round robin: the next usable destination after the last chosen one, weights ignored (`ip_vs_rr`).

use super::{Cursor, Idle, Loads, Own, Request, Scheduler, usable};
use crate::snapshot::ServiceView;

/// rr.
#[derive(Debug, Clone, Copy)]
pub struct RoundRobin;

impl Scheduler for RoundRobin {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, own: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        let cursor = &mut *own.cursor;
        if cursor.generation != service.generation {
            *cursor = Cursor::start(cursor.worker);
            cursor.generation = service.generation;
            cursor.list_version = service.list_version;
            for _ in 0..cursor.worker.0 {
                step(service, cursor, &Idle);
            }
        } else if cursor.list_version != service.list_version {
            find_again(service, cursor);
        }
        step(service, cursor, loads)
    }
}

/// The list is another one: looks where the last chosen candidate is now.
#[cold]
fn find_again(service: &ServiceView, cursor: &mut Cursor) {
    let position = cursor.position;
    cursor.stand_before_all();
    if let Some(index) = service.candidates.iter().position(|candidate| candidate.position == position) {
        cursor.stand_on(service, index);
    }
    cursor.list_version = service.list_version;
}

#[inline(always)]
fn step(service: &ServiceView, cursor: &mut Cursor, loads: &impl Loads) -> Option<usize> {
    let first = cursor.standing().map_or(0, |index| index + 1).min(service.candidates.len());
    let (before, after) = service.candidates.split_at(first);
    let usable = |candidate: &_| usable(candidate, loads);
    let index = match after.iter().position(usable) {
        Some(distance) => first + distance,
        None => before.iter().position(usable)?,
    };
    cursor.stand_on(service, index);
    Some(index)
}
