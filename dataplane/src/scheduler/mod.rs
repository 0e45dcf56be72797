//! Schedulers: which destination takes a new connection. One file each behind one small trait.
//!
//! With one worker every choice equals Linux IPVS's. The kernel keeps a pointer into a linked list; here a worker keeps a
//! [`Cursor`] that names a place of an immutable list, and a destination that is removed stays in the list, marked, while a
//! cursor stands on it: what follows it is what follows the predecessor that the kernel's pointer would have moved to.
//!
//! A choice allocates nothing and waits for nobody. dh, sh and mh look into a table ([`ServiceView::table`]) that the editor
//! fills when the list changes; the counting schedulers walk the list once, or run a race where it is long ([`Standings`]).

mod cursor;
mod dh;
mod fo;
mod hash;
mod lblc;
mod lblcr;
mod lc;
mod loads;
mod locality;
mod mh;
mod nq;
mod ovf;
mod random;
mod rr;
mod sed;
mod sh;
mod standings;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod twos;
mod wlc;
mod wrr;

pub use cursor::Cursor;
pub use dh::DestinationHashing;
pub use fo::FailOver;
pub use lblc::LocalityLeastConnections;
pub use lblcr::ReplicatedLocality;
pub use lc::LeastConnections;
pub use loads::Loads;
pub use locality::Localities;
pub use mh::MaglevHashing;
pub use nq::NeverQueue;
pub use ovf::Overflow;
pub use random::Random;
pub use rr::RoundRobin;
pub use sed::ShortestExpectedDelay;
pub use sh::SourceHashing;
pub use standings::Standings;
pub(crate) use table::{Share, table};
pub use twos::TwoChoices;
pub use wlc::WeightedLeastConnections;
pub use wrr::WeightedRoundRobin;
pub(crate) use wrr::{greatest_common_divisor, wrr_adjust};

use crate::id::{DestinationSlot, Ticks};
use crate::snapshot::{Candidate, SchedulerKind, ServiceView, scheduler_flags};
use loads::Idle;
use standings::Burden;
use std::net::IpAddr;

/// The packet that opens a connection, as schedulers see it.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Its sender.
    pub client: IpAddr,
    /// The sender's port; 0 where the protocol has none.
    pub client_port: u16,
    /// Its receiver; under a mark service any address.
    pub destination: IpAddr,
    /// When it came.
    pub now: Ticks,
}

impl Request {
    /// What sh and mh hash: the client's address, with the flag for ports its port added to it.
    #[inline]
    fn client_key(&self, flags: u8) -> u32 {
        let port = if flags & scheduler_flags::PORT != 0 { self.client_port } else { 0 };
        hash::fold(self.client).wrapping_add(port.into())
    }
}

/// What a worker's schedulers remember from one choice to the next; no other thread touches it.
#[derive(Debug)]
pub struct Own<'a> {
    /// Where it stands in the service's list.
    pub cursor: &'a mut Cursor,
    /// twos draws from it.
    pub random: &'a mut Random,
    /// The destinations of addresses, for lblc and lblcr.
    pub localities: &'a mut Localities,
    /// Who is preferred among many.
    pub standings: &'a mut Standings,
}

/// A scheduling algorithm.
pub trait Scheduler {
    /// Index into `service.candidates` of the destination for a new connection, `None` when none is usable.
    fn choose(
        service: &ServiceView,
        request: &Request,
        own: &mut Own<'_>,
        loads: &impl Loads,
    ) -> Option<usize>;
}

/// Asks the service's scheduler for the destination of a new connection: an index into `service.candidates`, `None` when no
/// destination is usable. Removed destinations and those of weight 0 are never chosen, overloaded ones only by lblc.
#[inline]
pub fn choose(
    service: &ServiceView,
    request: &Request,
    own: &mut Own<'_>,
    loads: &impl Loads,
) -> Option<usize> {
    match service.scheduler {
        SchedulerKind::Rr => RoundRobin::choose(service, request, own, loads),
        SchedulerKind::Wrr => WeightedRoundRobin::choose(service, request, own, loads),
        SchedulerKind::Lc => LeastConnections::choose(service, request, own, loads),
        SchedulerKind::Wlc => WeightedLeastConnections::choose(service, request, own, loads),
        SchedulerKind::Lblc => LocalityLeastConnections::choose(service, request, own, loads),
        SchedulerKind::Lblcr => ReplicatedLocality::choose(service, request, own, loads),
        SchedulerKind::Dh => DestinationHashing::choose(service, request, own, loads),
        SchedulerKind::Sh => SourceHashing::choose(service, request, own, loads),
        SchedulerKind::Mh => MaglevHashing::choose(service, request, own, loads),
        SchedulerKind::Sed => ShortestExpectedDelay::choose(service, request, own, loads),
        SchedulerKind::Nq => NeverQueue::choose(service, request, own, loads),
        SchedulerKind::Fo => FailOver::choose(service, request, own, loads),
        SchedulerKind::Ovf => Overflow::choose(service, request, own, loads),
        SchedulerKind::Twos => TwoChoices::choose(service, request, own, loads),
    }
}

/// Whether a new connection may go to `candidate`.
#[inline(always)]
fn usable(candidate: &Candidate, loads: &impl Loads) -> bool {
    candidate.weight > 0 && open(candidate, loads)
}

/// Whether `candidate` is in the list and below its threshold, whatever its weight.
#[inline(always)]
fn open(candidate: &Candidate, loads: &impl Loads) -> bool {
    !candidate.removed && open_at(candidate.slot, candidate.upper_threshold, loads)
}

/// Whether a destination is below its threshold.
#[inline(always)]
fn open_at(slot: DestinationSlot, upper_threshold: u32, loads: &impl Loads) -> bool {
    upper_threshold == 0 || !loads.overloaded(slot)
}

/// The kernel's measure of a destination's connections: an active one weighs as much as 256 inactive ones.
#[inline(always)]
fn load(slot: DestinationSlot, loads: &impl Loads) -> u64 {
    u64::from(loads.active(slot)) * 256 + u64::from(loads.inactive(slot))
}

/// The usable destination with the smallest burden, the first of equals.
#[inline(always)]
fn walk(
    service: &ServiceView,
    loads: &impl Loads,
    burden: impl Fn(&Candidate) -> Option<Burden>,
) -> Option<usize> {
    let mut least: Option<(usize, Burden)> = None;
    for (index, candidate) in service.candidates.iter().enumerate() {
        if !usable(candidate, loads) {
            continue;
        }
        if let Some(own) = burden(candidate)
            && least.is_none_or(|(_, least)| own.is_less(least))
        {
            least = Some((index, own));
        }
    }
    least.map(|(index, _)| index)
}
