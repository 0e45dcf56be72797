//! A sink that keeps what it is given.

use crate::counters::{Counter, WorkerCounters};
use crate::engine::{Event, Redirected, Sink};
use crate::exception::PuntClass;
use crate::id::{PortId, WorkerId};
use crate::packet::HeapPacket;
use std::collections::VecDeque;

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Sent out of a port.
    Transmitted(PortId, Vec<u8>),
    /// Handed to the kernel's stack.
    Punted(PuntClass, PortId, Vec<u8>),
}

/// Keeps outcomes, events and redirected packets; refuses beyond its bounds.
#[derive(Debug)]
pub struct MemorySink {
    /// In order.
    pub outcomes: Vec<Outcome>,
    /// In order.
    pub events: Vec<Event>,
    /// By receiving worker.
    pub redirected: Vec<VecDeque<Redirected<HeapPacket>>>,
    /// Places of each punt class.
    pub punt_room: [usize; PuntClass::ALL.len()],
    /// Places of each redirect ring.
    pub redirect_room: usize,
    /// Buffers for generated frames that are left.
    pub buffers: usize,
    transmitted: u64,
    transmitted_bytes: u64,
}

impl MemorySink {
    /// A sink of one worker among `workers`.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            outcomes: Vec::new(),
            events: Vec::new(),
            redirected: std::iter::repeat_with(VecDeque::new).take(workers).collect(),
            punt_room: [usize::MAX; PuntClass::ALL.len()],
            redirect_room: usize::MAX,
            buffers: usize::MAX,
            transmitted: 0,
            transmitted_bytes: 0,
        }
    }

    /// Counts what was transmitted since the last call, as a worker does at the end of its turn.
    pub fn flush(&mut self, counters: &WorkerCounters) {
        counters.add(Counter::Transmitted, std::mem::take(&mut self.transmitted));
        counters.add(Counter::TransmittedBytes, std::mem::take(&mut self.transmitted_bytes));
    }
}

impl Sink<HeapPacket> for MemorySink {
    fn transmit(&mut self, port: PortId, packet: HeapPacket) {
        let frame = packet.to_vec();
        self.transmitted += 1;
        self.transmitted_bytes += frame.len() as u64;
        self.outcomes.push(Outcome::Transmitted(port, frame));
    }

    fn punt(&mut self, class: PuntClass, port: PortId, packet: HeapPacket) -> Result<(), HeapPacket> {
        let room = &mut self.punt_room[class.index()];
        if *room == 0 {
            return Err(packet);
        }
        *room -= 1;
        self.outcomes.push(Outcome::Punted(class, port, packet.to_vec()));
        Ok(())
    }

    fn redirect(&mut self, to: WorkerId, redirected: Redirected<HeapPacket>) -> Result<(), HeapPacket> {
        match self.redirected.get_mut(to.index()) {
            Some(ring) if ring.len() < self.redirect_room => {
                ring.push_back(redirected);
                Ok(())
            }
            _ => Err(redirected.packet),
        }
    }

    fn allocate(&mut self) -> Option<HeapPacket> {
        self.buffers = self.buffers.checked_sub(1)?;
        Some(HeapPacket::fresh())
    }

    fn event(&mut self, event: Event) -> bool {
        self.events.push(event);
        true
    }
}
