//! What a NIC in software does with the frames of a run.

use crate::cli::Link;
use crate::forward::files;
use crate::forward::plan::Plan;
use crate::traffic::{Frames, Segment, Sender};
use anyhow::Result;
use dataplane::packet::HeapPacket;
use dataplane::steering::Steering;
use dataplane::steering::nic::{Fields, SoftwareNic};

/// Predictions for every worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prediction {
    pub(super) workers: Vec<Share>,
}

/// A worker's part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    /// Flows it owns, and so connections in its shard.
    pub(super) owned: u64,
    /// Of all packets those that come to its queues; `None` where each queue has a file of its own, replayed at its worker's speed.
    pub(super) received_percent: Option<f64>,
    /// Of those the packets that another worker owns.
    pub(super) redirected_percent: f64,
}

/// Counts of a worker's.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    owned: u64,
    received: u64,
    redirected: u64,
}

impl Prediction {
    /// Of a run's frames, by a director that steers like this.
    pub(super) fn of(plan: &Plan, steering: Steering) -> Result<Self> {
        let (rules, workers) = (&plan.rules, plan.cpus.len());
        let direction = rules.forwarding.direction;
        let fields = match steering {
            Steering::Client => Fields::Source,
            Steering::Flow => Fields::Flow,
        };
        let nic = SoftwareNic::for_workers(u8::try_from(workers)?, fields);
        let overhead = rules.forwarding.overhead(rules.shape.ipv6);
        let frames = |sender| Frames::new(&rules.shape, sender, Segment::Ack, overhead);
        let requests = frames(Sender::Clients);
        let replies = direction.has_replies().then(|| frames(Sender::Servers([0; 6])));
        let servers = if direction.has_replies() { files::servers(rules)? } else { Vec::new() };
        let from_file = files::queues(rules, plan.spread, workers)?;
        let mut frame = vec![0; requests.longest()];
        let mut queue = |frames: &Frames, flow, server| {
            let length = frames.write(flow, server, &mut frame);
            nic.receive(&mut HeapPacket::new(&frame[..length])).index()
        };
        let mut tallies = vec![Tally::default(); workers];
        for flow in 0..rules.shape.flows {
            // A request's hash is over the fields that choose the owner.
            let owner = queue(&requests, flow, 0);
            tallies[owner].owned += 1;
            let server = usize::try_from(flow).ok().and_then(|flow| servers.get(flow)).copied();
            let reply = replies.as_ref().map(|frames| queue(frames, flow, server.unwrap_or_default()));
            for hashed in [Some(owner).filter(|_| direction.has_requests()), reply].into_iter().flatten() {
                let queue = if plan.link == Link::Pci { hashed } else { from_file(flow) };
                tallies[queue].received += 1;
                tallies[queue].redirected += u64::from(queue != owner);
            }
        }
        let all: u64 = tallies.iter().map(|tally| tally.received).sum();
        let share = |tally: &Tally| Share {
            owned: tally.owned,
            received_percent: (plan.link == Link::Pci).then(|| super::percent(tally.received, all)),
            redirected_percent: super::percent(tally.redirected, tally.received),
        };
        Ok(Self { workers: tallies.iter().map(share).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Spread;
    use crate::forward::plan::tests::{nat, plan};
    use crate::traffic::Protocol;

    fn shares(plan: &Plan, steering: Steering) -> Vec<Share> {
        let prediction = Prediction::of(plan, steering).unwrap();
        assert_eq!(prediction.workers.iter().map(|share| share.owned).sum::<u64>(), plan.rules.shape.flows);
        prediction.workers
    }

    #[test]
    fn a_nic_that_hashes_as_asked_redirects_nothing() {
        let nic = Plan { link: Link::Pci, ..plan(2, false) };
        for share in shares(&nic, Steering::Client) {
            assert!(share.redirected_percent.abs() < 1e-9);
            assert!((share.received_percent.unwrap() - 50.0).abs() < 10.0);
        }
    }

    #[test]
    fn files_by_owner_redirect_nothing_and_files_in_turn_about_half() {
        for share in shares(&plan(2, false), Steering::Client) {
            assert_eq!((share.received_percent, share.redirected_percent), (None, 0.0));
        }
        let turn = Plan { spread: Spread::Turn, ..plan(2, false) };
        let redirected: f64 =
            shares(&turn, Steering::Client).iter().map(|share| share.redirected_percent).sum();
        assert!((60.0..140.0).contains(&redirected), "{redirected}");
    }

    #[test]
    fn servers_packets_are_hashed_by_the_servers_end() {
        let two = Plan { cpus: vec![0, 1], ..nat(Protocol::Udp) };
        let nic = Plan { link: Link::Pci, ..two };
        let redirected: f64 =
            shares(&nic, Steering::Client).iter().map(|share| share.redirected_percent).sum();
        assert!(redirected > 20.0, "the client's end alone would have to be the destination: {redirected}");
        let whole: f64 = shares(&nic, Steering::Flow).iter().map(|share| share.redirected_percent).sum();
        assert!(whole > 20.0, "the virtual end and the server's are not the same: {whole}");
    }
}
