//! The engine's outlets on DPDK: transmit buffers, rings, the mbuf pool.

use super::packet::DpdkPacket;
use super::rings::WorkerEnds;
use crate::counters::{Counter, DropReason, WorkerCounters};
use crate::engine::{Event, Redirected, Sink};
use crate::exception::PuntClass;
use crate::id::{PortId, WorkerId};
use crossbeam_queue::ArrayQueue;
use dpdk::{Burst, Mbuf, Mempool, TxQueue};
use std::sync::Arc;

/// A port's transmit queue of one worker, with what waits for it. It is emptied every turn.
#[derive(Debug)]
pub(super) struct Outlet {
    queue: TxQueue,
    waiting: Burst,
    /// Whether the NIC sends frames of several segments.
    chains: bool,
}

impl Outlet {
    pub(super) fn new(queue: TxQueue, chains: bool) -> Self {
        Self { queue, waiting: Burst::new(), chains }
    }

    /// Sends everything; what the NIC refuses is dropped.
    #[inline]
    fn flush(&mut self, counters: &WorkerCounters) {
        if self.waiting.is_empty() {
            return;
        }
        let bytes_of = |burst: &Burst| burst.iter().map(|packet| packet.packet_len() as u64).sum::<u64>();
        let (packets, bytes) = (self.waiting.len() as u64, bytes_of(&self.waiting));
        self.queue.transmit(&mut self.waiting);
        let (refused, left) = (self.waiting.len() as u64, bytes_of(&self.waiting));
        counters.add(Counter::Transmitted, packets - refused);
        counters.add(Counter::TransmittedBytes, bytes - left);
        for packet in self.waiting.drain() {
            counters.drop_one(DropReason::TxFull);
            drop(packet);
        }
    }

    /// Keeps a packet to be sent with others.
    ///
    /// # Errors
    /// The packet, when there is no place left for it, or when the NIC cannot send it in several segments.
    #[inline(always)]
    fn push(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        if packet.segments() > 1 && !self.chains {
            return Err(packet);
        }
        self.waiting.push(packet)
    }

    /// A packet that had no place gets one, or is dropped.
    #[cold]
    fn press(&mut self, packet: Mbuf, counters: &WorkerCounters) {
        if packet.segments() > 1 && !self.chains {
            drop(packet);
            return counters.drop_one(DropReason::Segments);
        }
        self.flush(counters);
        if let Err(packet) = self.push(packet) {
            drop(packet);
            counters.drop_one(DropReason::TxFull);
        }
    }
}

/// One worker's outlets.
#[derive(Debug)]
pub(super) struct DpdkSink {
    pub(super) outlets: Vec<Outlet>,
    pub(super) rings: WorkerEnds,
    pub(super) pool: Mempool,
    pub(super) events: Arc<ArrayQueue<Event>>,
    pub(super) shared: Arc<crate::engine::Shared>,
    /// Scratch for bursts from other workers.
    pub(super) redirected: Vec<Redirected<DpdkPacket>>,
    pub(super) id: WorkerId,
}

impl DpdkSink {
    #[inline(always)]
    pub(super) fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.id.index()]
    }

    /// Sends what the turn left in the transmit buffers, and tells other workers what was put on their rings.
    #[inline]
    pub(super) fn flush(&mut self) {
        let counters = &self.shared.counters[self.id.index()];
        for outlet in &mut self.outlets {
            outlet.flush(counters);
        }
        self.rings.mesh.ring();
    }

    /// Sends a burst of the kernel's frames; returns how many there were.
    pub(super) fn inject(&mut self) -> usize {
        let mut count = 0;
        while count < dpdk::BURST
            && let Ok((packet, port)) = self.rings.inject.pop()
        {
            self.counters().add(Counter::Injected, 1);
            self.transmit(port, DpdkPacket(packet));
            count += 1;
        }
        count
    }
}

impl Sink<DpdkPacket> for DpdkSink {
    #[inline(always)]
    fn transmit(&mut self, port: PortId, packet: DpdkPacket) {
        let Some(outlet) = self.outlets.get_mut(port.index()) else {
            return self.counters().drop_one(DropReason::TxFull);
        };
        if let Err(packet) = outlet.push(packet.0) {
            outlet.press(packet, &self.shared.counters[self.id.index()]);
        }
    }

    fn punt(&mut self, class: PuntClass, port: PortId, packet: DpdkPacket) -> Result<(), DpdkPacket> {
        self.rings.punt[class.index()]
            .push((packet.0, port))
            .map_err(|rtrb::PushError::Full((packet, _))| DpdkPacket(packet))
    }

    fn redirect(&mut self, to: WorkerId, redirected: Redirected<DpdkPacket>) -> Result<(), DpdkPacket> {
        self.rings.mesh.send(to, redirected)
    }

    fn allocate(&mut self) -> Option<DpdkPacket> {
        self.pool.alloc().map(DpdkPacket)
    }

    fn event(&mut self, event: Event) -> bool {
        self.events.push(event).is_ok()
    }
}
