//! The bounded rings between threads: every one has one producer and one consumer, and nobody waits at either end.

use crate::engine::Mesh;
use crate::exception::PuntClass;
use crate::id::PortId;
use dpdk::Mbuf;
use rtrb::{Consumer, Producer, RingBuffer};

/// Frames a punt ring holds, by class.
const PUNT: [usize; PuntClass::ALL.len()] = [512, 1024, 512];
/// Frames an inject ring holds.
const INJECT: usize = 1024;

/// A frame with the port it came in by, or is to leave by.
pub(super) type Framed = (Mbuf, PortId);

/// A worker's ends of its rings.
#[derive(Debug)]
pub(super) struct WorkerEnds {
    pub(super) punt: [Producer<Framed>; PuntClass::ALL.len()],
    pub(super) inject: Consumer<Framed>,
    pub(super) mesh: Mesh<Packet>,
}

/// What redirect rings carry.
pub(super) type Packet = super::packet::DpdkPacket;

/// The exception thread's ends of one worker's rings.
#[derive(Debug)]
pub(super) struct ExceptionEnds {
    pub(super) punt: [Consumer<Framed>; PuntClass::ALL.len()],
    pub(super) inject: Producer<Framed>,
}

/// Makes all rings of `workers` workers.
pub(super) fn make(workers: u8) -> (Vec<WorkerEnds>, Vec<ExceptionEnds>) {
    let mut worker_ends = Vec::with_capacity(workers.into());
    let mut exception_ends = Vec::with_capacity(workers.into());
    for mesh in Mesh::make(workers) {
        let [(control, control_end), (local, local_end), (stray, stray_end)] = PUNT.map(RingBuffer::new);
        let (inject, inject_end) = RingBuffer::new(INJECT);
        worker_ends.push(WorkerEnds { punt: [control, local, stray], inject: inject_end, mesh });
        exception_ends.push(ExceptionEnds { punt: [control_end, local_end, stray_end], inject });
    }
    (worker_ends, exception_ends)
}

/// Packets that all rings together can hold: so many more buffers the pool needs.
pub(super) fn capacity(workers: usize) -> usize {
    let punt: usize = PUNT.iter().sum();
    workers * (punt + INJECT) + Mesh::<Packet>::capacity(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_its_ends() {
        let (workers, exceptions) = make(4);
        assert_eq!((workers.len(), exceptions.len()), (4, 4));
        assert_eq!(capacity(1), 512 + 1024 + 512 + 1024);
    }
}
