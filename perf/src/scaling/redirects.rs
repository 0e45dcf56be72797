//! How many packets come to the queue of another worker than the one that owns their flow, by steering and by what the NIC hashes.

use crate::lab::{PORT, Rules};
use crate::results::Quantities;
use crate::traffic::{DIRECTOR_MAC, Direction, Forwarding, Frames, Mode, Protocol, Segment, Sender, Shape};
use anyhow::{Context, Result};
use dataplane::bench::{Director, DirectorConfig, Outcome};
use dataplane::counters::Counter;
use dataplane::packet::HeapPacket;
use dataplane::steering::Steering;
use dataplane::steering::nic::{Fields, SoftwareNic};

/// Flows that are sent.
const FLOWS: u64 = 1024;

/// Redirected packets over all received ones: `redirected_STEERING_steering_FIELDS_nic`, of clients' packets and of masqueraded
/// servers' answers.
pub(super) fn measure(rules: &Rules, workers: u8) -> Result<Quantities> {
    let shape = Shape { flows: FLOWS, protocol: Protocol::Udp, ..rules.shape };
    let forwarding = Forwarding::new(Mode::Nat, None, Some(Direction::Both))?;
    let rules = Rules::new(&shape, forwarding);
    let mut quantities = Quantities::new();
    for (steering, name) in [(Steering::Client, "client"), (Steering::Flow, "flow")] {
        for (fields, nic) in [(Fields::Source, "source"), (Fields::Flow, "flow"), (Fields::None, "no")] {
            let [requests, replies] = rates(&rules, workers, steering, fields)?;
            quantities.insert(format!("redirected_{name}_steering_{nic}_hash"), requests);
            quantities.insert(format!("redirected_replies_{name}_steering_{nic}_hash"), replies);
        }
    }
    // A port that only servers' packets come by may hash the other end.
    let [_, replies] = rates(&rules, workers, Steering::Client, Fields::Destination)?;
    quantities.insert("redirected_replies_client_steering_destination_hash".to_owned(), replies);
    Ok(quantities)
}

/// Of requests and of their answers, by a port that hashes `fields`.
fn rates(rules: &Rules, workers: u8, steering: Steering, fields: Fields) -> Result<[f64; 2]> {
    let trusted_rss =
        matches!((steering, fields), (Steering::Client, Fields::Source) | (Steering::Flow, Fields::Flow));
    let config = DirectorConfig {
        workers,
        steering,
        trusted_rss,
        connections: u32::try_from(FLOWS)?,
        destinations: rules.destinations() as usize,
        services: rules.shape.services as usize,
        ..DirectorConfig::default()
    };
    let mut director = Director::new(config, rules.snapshot()?).context("no memory for the connections")?;
    let nic = SoftwareNic::for_workers(workers, fields);
    let frames = Frames::short(&rules.shape, Sender::Clients, Segment::Ack);
    let mut frame = vec![0; frames.longest()];
    let requests = (0..rules.shape.flows).map(|flow| {
        let length = frames.write(flow, 0, &mut frame);
        frame[..length].to_vec()
    });
    let requests = requests.collect();
    let sent = send(&mut director, &nic, requests);
    let there = redirected(&director);
    // What a server answers: the ends are exchanged, which leaves the sums as they are.
    let replies = sent.into_iter().map(|frame| answer(&frame, rules.shape.ipv6)).collect();
    send(&mut director, &nic, replies);
    let back = redirected(&director);
    let rate = |[out, received]: [u64; 2]| out as f64 / received.max(1) as f64;
    Ok([rate(there), rate([back[0] - there[0], back[1] - there[1]])])
}

/// Packets redirected, and packets received.
fn redirected(director: &Director) -> [u64; 2] {
    [Counter::RedirectedOut, Counter::Received].map(|counter| director.count(counter))
}

/// Sends frames by way of the NIC; those that came out.
fn send(director: &mut Director, nic: &SoftwareNic, frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut queues: Vec<Vec<HeapPacket>> = vec![Vec::new(); director.engines.len()];
    for frame in frames {
        let mut packet = HeapPacket::with_room(&frame, frame.len());
        queues[nic.receive(&mut packet).index()].push(packet);
    }
    for (worker, queue) in (0..).zip(queues) {
        director.receive(dataplane::id::WorkerId(worker), PORT, queue);
    }
    let frames = director.take_outcomes().into_iter().filter_map(|outcome| match outcome {
        Outcome::Transmitted(_, frame) => Some(frame),
        Outcome::Punted(..) => None,
    });
    frames.collect()
}

fn answer(frame: &[u8], ipv6: bool) -> Vec<u8> {
    let (first, second, ports) = if ipv6 { (22..38, 38..54, 54) } else { (26..30, 30..34, 34) };
    let mut answer = frame.to_vec();
    answer[..6].copy_from_slice(&DIRECTOR_MAC);
    answer[first.clone()].copy_from_slice(&frame[second.clone()]);
    answer[second].copy_from_slice(&frame[first]);
    answer[ports..ports + 2].copy_from_slice(&frame[ports + 2..ports + 4]);
    answer[ports + 2..ports + 4].copy_from_slice(&frame[ports..ports + 2]);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::FrameLength;

    #[test]
    fn a_nic_that_hashes_as_the_steering_wants_redirects_nothing() {
        for ipv6 in [false, true] {
            let frame = FrameLength::Fixed(80);
            let shape =
                Shape { protocol: Protocol::Udp, ipv6, services: 1, destinations: 3, frame, flows: 1 };
            let rules = Rules::new(&shape, Forwarding::new(Mode::Dr, None, None).unwrap());
            let quantities = measure(&rules, 4).unwrap();
            for name in ["redirected_client_steering_source_hash", "redirected_flow_steering_flow_hash"] {
                assert_eq!(quantities[name], 0.0, "{name}");
            }
            // Of 4 workers; Toeplitz is linear, so that few services' answers are not spread evenly over the others.
            for name in ["redirected_client_steering_no_hash", "redirected_replies_flow_steering_no_hash"] {
                assert!((quantities[name] - 0.75).abs() < 0.06, "{name}: {quantities:?}");
            }
            assert!(quantities["redirected_replies_flow_steering_flow_hash"] > 0.5, "{quantities:?}");
            assert_eq!(quantities["redirected_replies_client_steering_destination_hash"], 0.0);
        }
    }
}
