//! The NIC in front of the workers: which flows come to whose queue.

use crate::lab::{BURST, Dealt, Order, Rules, check};
use crate::traffic::{Frames, Segment, Sender};
use anyhow::{Context, Result};
use dataplane::packet::{HeapPacket, Packet};
use dataplane::steering::nic::{Fields, SoftwareNic};
use dataplane::steering::{Indirection, Steering};
use std::sync::Arc;

/// The fields that a NIC hashes of clients' packets where it can do what the steering asks for.
pub(super) const fn fields(steering: Steering) -> Fields {
    match steering {
        Steering::Client => Fields::Source,
        Steering::Flow => Fields::Flow,
    }
}

/// What the NIC hashes of each flow's packets: Toeplitz with the director's key over `fields`.
pub(super) fn hashes(rules: &Rules, fields: Fields, flows: u64) -> Result<Vec<u32>> {
    let frames = Frames::short(&rules.shape, Sender::Clients, Segment::Ack);
    check(&frames)?;
    let nic = SoftwareNic::for_workers(1, fields);
    let mut frame = vec![0; frames.longest()];
    let mut packet = HeapPacket::with_room(&frame, frame.len());
    let hash = |flow| {
        let length = frames.write(flow, 0, &mut frame);
        packet.data_mut()[..length].copy_from_slice(&frame[..length]);
        nic.receive(&mut packet);
        packet.rss_hash().context("the NIC hashes no flow's packets")
    };
    (0..flows).map(hash).collect()
}

/// Flows by worker, as the indirection table deals them out, each worker's in random order.
pub(super) fn deal(hashes: &[u32], workers: u8) -> Vec<Arc<[Dealt]>> {
    let indirection = Indirection::even(workers);
    let mut queues: Vec<Vec<Dealt>> = vec![Vec::new(); workers.into()];
    for (flow, hash) in (0..).zip(hashes) {
        queues[indirection.worker(*hash).index()].push(Dealt { flow, hash: *hash });
    }
    let mut order = Order::new(1 << 32);
    for queue in &mut queues {
        for last in (1..queue.len()).rev() {
            queue.swap(last, order.next_index() % (last + 1));
        }
    }
    queues.into_iter().map(Arc::from).collect()
}

/// A worker's part of the flows beside the mean: of the one with the fewest, and of the one with the most.
pub(super) fn balance(queues: &[Arc<[Dealt]>]) -> [f64; 2] {
    let mean = queues.iter().map(|queue| queue.len()).sum::<usize>() as f64 / queues.len() as f64;
    let parts = queues.iter().map(|queue| queue.len() as f64 / mean);
    parts.fold([f64::INFINITY, 0.0], |[least, most], part| [least.min(part), most.max(part)])
}

/// Flows enough that every worker gets some.
pub(super) const fn least_flows(workers: u8) -> u64 {
    workers as u64 * BURST as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Forwarding, FrameLength, Mode, Protocol, Shape};
    use std::collections::BTreeSet;

    #[test]
    fn every_flow_is_dealt_once_and_to_its_slot_of_the_table() {
        for (steering, ipv6) in [(Steering::Client, false), (Steering::Flow, true)] {
            let shape = Shape {
                protocol: Protocol::Udp,
                ipv6,
                services: 3,
                destinations: 2,
                frame: FrameLength::Fixed(80),
                flows: 5000,
            };
            let rules = Rules::new(&shape, Forwarding::new(Mode::Dr, None, None).unwrap());
            let hashes = hashes(&rules, fields(steering), 5000).unwrap();
            for workers in [1, 3, 64] {
                let queues = deal(&hashes, workers);
                let flows: BTreeSet<u32> =
                    queues.iter().flat_map(|queue| queue.iter().map(|one| one.flow)).collect();
                assert_eq!((flows.len(), queues.len()), (5000, usize::from(workers)));
                let slots = Indirection::even(workers);
                for (worker, queue) in queues.iter().enumerate() {
                    assert!(queue.iter().all(|one| slots.worker(one.hash).index() == worker));
                }
                let [least, most] = balance(&queues);
                assert!(
                    least > 0.4 && most < 1.8 && least <= 1.0 && most >= 1.0,
                    "{workers}: {least} {most}"
                );
            }
        }
    }
}
