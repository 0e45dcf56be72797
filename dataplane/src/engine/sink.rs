//! Where the engine hands packets to, and where it gets new ones from.

use crate::exception::PuntClass;
use crate::id::{DestinationSlot, PortId, WorkerId};
use crate::pipeline::Learned;
use std::net::IpAddr;

/// Why a packet crosses from one worker to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// The receiver owns the flow's shard.
    ToOwner,
    /// A fragment; the receiver is its datagram's home.
    FragmentToHome,
    /// A reply whose owner is not known: the receiver looks for its connection, and if there is none asks `left` more workers.
    Ask {
        /// Workers that were not asked yet.
        left: u8,
        /// The ports of a fragment.
        learned: Option<Learned>,
    },
    /// A fragment whose ports its home has learnt; the receiver owns the flow's shard.
    FragmentToOwner(Learned),
}

/// A packet on its way between workers.
#[derive(Debug)]
pub struct Redirected<P> {
    /// The frame as it was received.
    pub packet: P,
    /// The port it came in by.
    pub port: PortId,
    /// What the receiver is to do with it.
    pub redirect: Redirect,
}

/// What a worker tells the management thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A packet waits for the MAC of this destination's next hop.
    Unresolved(DestinationSlot),
    /// A packet waits for the MAC of a client, or of the router to it, on this port.
    UnresolvedNeighbour(PortId, IpAddr),
}

/// The engine's outlets. Everything refused comes back, so that the engine can count it.
pub trait Sink<P> {
    /// Queues a frame for transmission. The sink counts it as transmitted or dropped(tx_full) when the NIC has answered.
    fn transmit(&mut self, port: PortId, packet: P);

    /// Puts a frame on a punt ring.
    ///
    /// # Errors
    /// The packet, when the ring is full.
    fn punt(&mut self, class: PuntClass, port: PortId, packet: P) -> Result<(), P>;

    /// Puts a packet on the ring to another worker.
    ///
    /// # Errors
    /// The packet, when the ring is full.
    fn redirect(&mut self, to: WorkerId, redirected: Redirected<P>) -> Result<(), P>;

    /// An empty buffer for a frame that is made here.
    fn allocate(&mut self) -> Option<P>;

    /// Tells the management thread; `false` when it has no place for more.
    fn event(&mut self, event: Event) -> bool;
}
