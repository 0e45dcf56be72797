//! Packets whose next hop has no MAC yet wait here: few, and for a second at most.

use super::forward::How;
use crate::id::{DestinationSlot, PortId, Ticks};
use crate::packet::Headers;
use std::collections::VecDeque;
use std::net::IpAddr;

/// How long a packet waits.
const PATIENCE: u32 = Ticks::SECOND;

/// What a packet waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The next hop to its destination; then it is changed and sent.
    Destination { slot: DestinationSlot, how: How },
    /// The MAC of the client, or of the router to it; everything else is done.
    Neighbour { port: PortId, address: IpAddr },
}

impl Awaited {
    /// Whether the same MAC is asked for.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Destination { slot, .. }, Self::Destination { slot: other, .. }) => slot == other,
            (one, other) => one == other,
        }
    }
}

/// A packet that is forwarded once its next hop is known.
#[derive(Debug)]
pub(super) struct Parked<P> {
    pub(super) packet: P,
    pub(super) port: PortId,
    pub(super) headers: Headers,
    pub(super) awaited: Awaited,
    pub(super) deadline: Ticks,
}

/// A bounded queue of parked packets, the oldest first.
#[derive(Debug)]
pub(crate) struct Parking<P> {
    places: VecDeque<Parked<P>>,
    capacity: usize,
}

impl<P> Parking<P> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { places: VecDeque::with_capacity(capacity), capacity }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether a packet waits for the same already.
    pub(super) fn waits_for(&self, awaited: &Awaited) -> bool {
        self.places.iter().any(|parked| parked.awaited.same(awaited))
    }

    /// Parks a packet until [`PATIENCE`] after `now`; gives it back when there is no place.
    pub(super) fn park(&mut self, mut parked: Parked<P>, now: Ticks) -> Result<(), P> {
        if self.places.len() >= self.capacity {
            return Err(parked.packet);
        }
        parked.deadline = now.after(PATIENCE);
        self.places.push_back(parked);
        Ok(())
    }

    /// Takes out, in order of arrival, what `leaves` says is to leave.
    pub(super) fn take(&mut self, mut leaves: impl FnMut(&Parked<P>) -> bool) -> Option<Parked<P>> {
        let place = self.places.iter().position(&mut leaves)?;
        self.places.remove(place)
    }

    /// Empties the place.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = P> {
        self.places.drain(..).map(|parked| parked.packet)
    }
}
