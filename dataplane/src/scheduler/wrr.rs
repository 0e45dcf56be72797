//! Weighted round robin (`ip_vs_wrr`): passes over the list with a falling *current weight*; each pass takes, in order, the
//! destinations that weigh at least that much. From the greatest weight it falls by the greatest common divisor of all weights
//! down to 1 and starts again.
//!
//! The kernel lowers the current weight one step at a time; here it is lowered at once to what the heaviest usable destination
//! weighs, so that a choice costs three walks of the list at most, whatever the weights.

use super::{Cursor, Idle, Loads, Own, Request, Scheduler, open};
use crate::snapshot::{ServiceView, WrrEdit};

/// wrr.
#[derive(Debug, Clone, Copy)]
pub struct WeightedRoundRobin;

impl Scheduler for WeightedRoundRobin {
    #[inline]
    fn choose(service: &ServiceView, _: &Request, own: &mut Own<'_>, loads: &impl Loads) -> Option<usize> {
        let cursor = &mut *own.cursor;
        if cursor.generation != service.generation || cursor.list_version != service.list_version {
            catch_up(service, cursor);
        }
        step(service, cursor, loads)
    }
}

/// What every addition, removal and edit of a destination does to wrr's current weight (`ip_vs_wrr_dest_changed`).
pub(crate) fn wrr_adjust(current_weight: u32, edit: &WrrEdit) -> u32 {
    if current_weight > edit.maximum || current_weight == 0 {
        edit.maximum
    } else if edit.divisor > 1 {
        current_weight / edit.divisor * edit.divisor + 1
    } else {
        current_weight
    }
}

/// The greatest common divisor; with 0 the other number.
pub(crate) const fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Makes good the edits since the cursor was last used. Each of them moves it before the first candidate.
#[cold]
fn catch_up(service: &ServiceView, cursor: &mut Cursor) {
    if cursor.generation == service.generation {
        // Versions may wrap, so "newer" is a distance; an edit older than the log is lost, which only shifts the current weight.
        let gap = service.list_version.wrapping_sub(cursor.list_version);
        for edit in &service.wrr_edits {
            if service.list_version.wrapping_sub(edit.version) < gap {
                cursor.current_weight = wrr_adjust(cursor.current_weight, edit);
            }
        }
    } else {
        cursor.current_weight = service.wrr_start;
    }
    cursor.generation = service.generation;
    cursor.list_version = service.list_version;
    cursor.stand_before_all();
    for _ in 0..cursor.worker.0 {
        step(service, cursor, &Idle);
    }
}

#[inline(always)]
fn step(service: &ServiceView, cursor: &mut Cursor, loads: &impl Loads) -> Option<usize> {
    let &WrrEdit { maximum, divisor, .. } = service.wrr_edits.last()?;
    if maximum == 0 {
        return None;
    }
    let from = |first: usize, weight: u32| {
        let rest = service.candidates.get(first..)?;
        let takes = |candidate: &&_| weight <= weight_of(candidate) && open(candidate, loads);
        rest.iter().position(|candidate| takes(&candidate)).map(|distance| first + distance)
    };
    let standing = cursor.standing();
    let mut found = from(standing.map_or(0, |index| index + 1), cursor.current_weight.max(1));
    if found.is_none() {
        let heaviest =
            service.candidates.iter().filter(|candidate| open(candidate, loads)).map(weight_of).max();
        let Some(heaviest @ 1..) = heaviest else {
            give_up(cursor, maximum, divisor);
            return None;
        };
        let next = if cursor.current_weight > divisor { cursor.current_weight - divisor } else { maximum };
        let steps = next.saturating_sub(heaviest).div_ceil(divisor);
        cursor.current_weight = next.saturating_sub(steps.saturating_mul(divisor)).max(1);
        found = from(0, cursor.current_weight);
    }
    if let Some(index) = found {
        cursor.stand_on(service, index);
    }
    found
}

/// Where the kernel's search ends when every destination is overloaded: before the list with the greatest weight, unless it
/// began in the middle of the list's last pass (weight 1); then it goes once round and ends in the next last pass where it
/// began.
#[cold]
fn give_up(cursor: &mut Cursor, maximum: u32, divisor: u32) {
    if cursor.standing().is_some() && cursor.current_weight <= divisor {
        cursor.current_weight = (maximum - 1) % divisor + 1;
    } else {
        cursor.stand_before_all();
        cursor.current_weight = maximum;
    }
}

#[inline(always)]
fn weight_of(candidate: &crate::snapshot::Candidate) -> u32 {
    candidate.weight
}
