//! The capture files of a run.

use super::plan::Plan;
use crate::cli::Spread;
use crate::engine::tuple;
use crate::lab::Rules;
use crate::pcap::Writer;
use crate::traffic::{Frames, Mode, Segment, Sender};
use anyhow::{Context, Result, bail};
use dataplane::bench::{Director, DirectorConfig, Outcome};
use dataplane::id::{PortId, WorkerId};
use dataplane::packet::HeapPacket;
use dataplane::steering::{Owners, Steering};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Flows whose servers are asked for together.
const TOGETHER: u64 = 1024;

/// Writes them, for each worker the flows that come to its queues. Where servers' packets have a port of their own, they are in its
/// files, else behind the client's packet of the same flow.
pub(super) fn write(plan: &Plan, files: &[Vec<PathBuf>]) -> Result<()> {
    let (rules, own_port) = (&plan.rules, plan.servers_have_a_port());
    let [clients_mac, servers_mac] = plan.macs();
    let overhead = rules.forwarding.overhead(rules.shape.ipv6);
    let frames = |sender| Frames::new(&rules.shape, sender, Segment::Ack, overhead);
    let requests = frames(Sender::Clients).addressed_to(clients_mac);
    let direction = rules.forwarding.direction;
    let replies = direction.has_replies().then(|| frames(Sender::Servers(servers_mac)));
    let servers = if direction.has_replies() { servers(rules)? } else { Vec::new() };
    let server = |flow: u64| {
        let index = usize::try_from(flow).ok();
        index.and_then(|index| servers.get(index)).copied().unwrap_or_default()
    };
    let ports: Vec<&Vec<PathBuf>> = files.iter().collect();
    let first = ports.first().context("a run without files")?;
    let queue = queues(rules, plan.spread, first.len())?;
    for (worker, file) in first.iter().enumerate() {
        let flows = || (0..rules.shape.flows).filter(|flow| queue(*flow) == worker);
        if flows().next().is_none() {
            bail!(
                "{} flows leave a worker of {} without any: give more --flows",
                rules.shape.flows,
                first.len()
            );
        }
        let mut writer = Writer::create(file)?;
        for flow in flows() {
            writer.add(&requests, flow, 0)?;
            if let (Some(replies), false) = (&replies, own_port) {
                writer.add(replies, flow, server(flow))?;
            }
        }
        writer.end()?;
        if let (Some(replies), Some(port)) = (&replies, ports.get(1)) {
            let mut writer = Writer::create(&port[worker])?;
            for flow in flows() {
                writer.add(replies, flow, server(flow))?;
            }
            writer.end()?;
        }
    }
    Ok(())
}

/// By which worker's queue a flow comes.
pub(crate) fn queues(rules: &Rules, spread: Spread, workers: usize) -> Result<impl Fn(u64) -> usize + use<>> {
    let shape = rules.shape;
    // Without a NIC that hashes the director spreads clients.
    let owners = Owners::new(Steering::Client, u8::try_from(workers)?);
    Ok(move |flow: u64| match spread {
        _ if workers == 1 => 0,
        Spread::Owner if shape.ipv6 => owners.owner(&tuple::<Ipv6Addr>(&shape, flow)).index(),
        Spread::Owner => owners.owner(&tuple::<Ipv4Addr>(&shape, flow)).index(),
        Spread::Turn => usize::try_from(flow % workers as u64).unwrap_or(0),
    })
}

/// The server of every flow: a director in memory is asked, which by these rules gives a flow the same server as any other.
pub(crate) fn servers(rules: &Rules) -> Result<Vec<u16>> {
    debug_assert_eq!(rules.forwarding.mode, Mode::Nat);
    let shape = &rules.shape;
    let config = DirectorConfig {
        connections: 2 * u32::try_from(shape.flows)?,
        destinations: rules.destinations() as usize,
        services: shape.services as usize,
        ..DirectorConfig::default()
    };
    let mut director = Director::new(config, rules.snapshot()?)?;
    let frames = Frames::new(shape, Sender::Clients, Segment::Syn, 0);
    let mut frame = vec![0; frames.longest()];
    let last_word = if shape.ipv6 { 52 } else { 32 };
    let mut servers = Vec::new();
    for start in (0..shape.flows).step_by(usize::try_from(TOGETHER)?) {
        let burst: Vec<HeapPacket> = (start..shape.flows.min(start + TOGETHER))
            .map(|flow| {
                let length = frames.write(flow, 0, &mut frame);
                HeapPacket::new(&frame[..length])
            })
            .collect();
        let asked = burst.len();
        director.receive(WorkerId(0), PortId(0), burst);
        let sent = director.take_outcomes();
        if sent.len() != asked {
            bail!("of {asked} flows {} were given a server", sent.len());
        }
        for outcome in sent {
            let Outcome::Transmitted(_, frame) = outcome else { bail!("a flow was given no server") };
            let word = frame.get(last_word..last_word + 2).context("a frame without a server")?;
            servers.push(u16::from_be_bytes([word[0], word[1]]).wrapping_sub(1));
        }
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::TemporaryDirectory;
    use crate::cli::Link;
    use crate::forward::plan::tests::plan;
    use crate::traffic::{Direction, Forwarding, FrameLength, Protocol, Shape};

    fn rules(ipv6: bool, protocol: Protocol) -> Rules {
        let frame = FrameLength::Fixed(80);
        let shape = Shape { protocol, ipv6, services: 3, destinations: 7, frame, flows: 3000 };
        Rules::hashed(&shape, Forwarding::new(Mode::Nat, None, Some(Direction::Both)).unwrap())
    }

    #[test]
    fn servers_are_spread_and_always_the_same() {
        for (ipv6, protocol) in [(false, Protocol::Udp), (true, Protocol::Tcp)] {
            let rules = rules(ipv6, protocol);
            let servers = servers(&rules).unwrap();
            let mut seen = [0; 7];
            servers.iter().for_each(|server| seen[usize::from(*server)] += 1);
            assert!(seen.iter().all(|count| *count > 300), "{seen:?}");
            assert_eq!(servers, super::servers(&rules).unwrap());
        }
    }

    #[test]
    fn every_flow_is_in_one_file_of_each_port() {
        let directory = TemporaryDirectory::new().unwrap();
        let rules = rules(false, Protocol::Udp);
        let file = |port, worker| directory.join(&format!("{port}-{worker}"));
        let two_ports: Vec<Vec<PathBuf>> =
            (0..2).map(|port| (0..2).map(|worker| file(port, worker)).collect()).collect();
        let records = |path: &PathBuf| (std::fs::metadata(path).unwrap().len() - 24) / 96;
        let plan = |link| Plan { rules, link, spread: Spread::Turn, ..plan(2, false) };
        write(&plan(Link::Pcap), &two_ports).unwrap();
        assert_eq!(two_ports.concat().iter().map(records).collect::<Vec<_>>(), [1500; 4]);
        write(&plan(Link::Vhost), &two_ports[..1]).unwrap();
        assert_eq!(two_ports[0].iter().map(records).collect::<Vec<_>>(), [3000; 2]);
    }
    #[test]
    fn flows_come_to_their_owners() {
        for ipv6 in [false, true] {
            let rules = rules(ipv6, Protocol::Udp);
            let queue = queues(&rules, Spread::Owner, 2).unwrap();
            let first = (0..3000).filter(|flow| queue(*flow) == 0).count();
            assert!((1300..=1700).contains(&first), "{first}");
            assert!((0..3000).all(|flow| queues(&rules, Spread::Owner, 1).unwrap()(flow) == 0));
        }
    }
}
