//! The exception thread's side of the rings, on DPDK.

use super::clock::Clock;
use super::rings::ExceptionEnds;
use super::run::Heartbeats;
use crate::exception::{ExceptionPath, InjectError, PuntClass};
use crate::id::PortId;
use dpdk::Mempool;
use std::sync::Arc;

/// Moves frames between the workers' rings and whoever owns the TAPs.
#[derive(Debug)]
pub struct DpdkExceptionPath {
    pub(super) workers: Vec<ExceptionEnds>,
    pub(super) pool: Mempool,
    pub(super) heartbeats: Arc<Heartbeats>,
    pub(super) clock: Clock,
    /// A chained frame is copied together here.
    pub(super) scratch: Box<[u8]>,
    /// Longest frame that fits a buffer.
    pub(super) limit: usize,
    /// The worker whose rings are looked at first.
    pub(super) first: usize,
}

impl ExceptionPath for DpdkExceptionPath {
    fn drain(&mut self, class: PuntClass, max: usize, frame: &mut dyn FnMut(PortId, &[u8])) -> usize {
        let mut taken = 0;
        // Another worker first each time: a flood on one must not use up what the others' frames need.
        self.first = (self.first + 1) % self.workers.len();
        let (later, sooner) = self.workers.split_at_mut(self.first);
        for worker in sooner.iter_mut().chain(later) {
            while taken < max
                && let Ok((packet, port)) = worker.punt[class.index()].pop()
            {
                taken += 1;
                if packet.segments() == 1 {
                    frame(port, packet.data());
                } else if let Some(length) = packet.copy_to(&mut self.scratch) {
                    frame(port, &self.scratch[..length]);
                }
            }
        }
        taken
    }

    fn inject(&mut self, port: PortId, frame: &[u8]) -> Result<(), InjectError> {
        if frame.len() > self.limit {
            return Err(InjectError::TooLong { limit: self.limit });
        }
        let worker = port.index() % self.workers.len();
        let ring = &mut self.workers[worker].inject;
        if ring.is_full() {
            return Err(InjectError::Full);
        }
        let mut packet = self.pool.alloc().ok_or(InjectError::Full)?;
        if !packet.set_data(frame) {
            return Err(InjectError::TooLong { limit: self.limit });
        }
        ring.push((packet, port)).map_err(|_| InjectError::Full)
    }

    fn slowest_worker_age_ms(&self) -> u64 {
        self.heartbeats.slowest_age(self.clock.now()).into()
    }
}
