//! The lives of connections that come one after the other, on a clock that runs as fast as packets do.

use crate::lab::{Feed, Generator, Lab, Rules, Turns, check};
use crate::traffic::{DIRECTOR_MAC, Frames, Mode, Protocol, Segment, Sender, Shape};
use anyhow::Result;
use dataplane::id::Ticks;

/// From a TCP connection's first packet to its last, in milliseconds.
const ESTABLISHED: u64 = 10_000;
/// How long the kernel keeps one that has ended, and a UDP connection without packets.
const ENDED: u64 = 120_000;
const UDP: u64 = 300_000;
/// What the timing wheel rounds up in the mean: connections are looked at in steps of 128 ms.
const ROUNDED: u64 = 128;
/// Connections that are opened between two packets of a handshake: some bursts, so that the first was dealt with.
const ROUND_TRIP: u64 = 64;

/// A packet in the life of a connection.
#[derive(Debug, Clone)]
struct Step {
    frames: Frames,
    /// Connections that are opened between a connection's first packet and this one.
    lag: u64,
}

/// Makes the packets of connections that come one after the other: of every one a packet for each step of its life, in turn.
#[derive(Debug, Clone)]
pub(super) struct Cycle {
    steps: Vec<Step>,
    shape: Shape,
    /// The step of the next packet.
    step: usize,
    /// Connections opened.
    opened: u64,
    population: u64,
    lifetime: u64,
}

impl Cycle {
    /// So that `population` connections are there at a time.
    pub(super) fn new(rules: &Rules, population: u64) -> Result<Self> {
        let shape = &rules.shape;
        let lifetime = match shape.protocol {
            Protocol::Tcp => ESTABLISHED + ENDED + ROUNDED,
            Protocol::Udp => UDP + ROUNDED,
        };
        let last = (population * ESTABLISHED / lifetime).max(5 * ROUND_TRIP);
        let client = |segment, lag| (Sender::Clients, segment, lag);
        let server = |segment, lag| (Sender::Servers(DIRECTOR_MAC), segment, lag);
        let steps = match (shape.protocol, rules.forwarding.mode) {
            (Protocol::Udp, _) => vec![client(Segment::Ack, 0)],
            (Protocol::Tcp, Mode::Nat) => vec![
                client(Segment::Syn, 0),
                server(Segment::SynAck, ROUND_TRIP),
                client(Segment::Ack, 2 * ROUND_TRIP),
                client(Segment::Fin, last - 2 * ROUND_TRIP),
                server(Segment::Fin, last - ROUND_TRIP),
                client(Segment::Ack, last),
            ],
            // Servers answer past the director.
            (Protocol::Tcp, Mode::Dr | Mode::Tun) => vec![
                client(Segment::Syn, 0),
                client(Segment::Ack, ROUND_TRIP),
                client(Segment::Fin, last - ROUND_TRIP),
                client(Segment::Ack, last),
            ],
        };
        let step = |(sender, segment, lag)| Step { frames: Frames::short(shape, sender, segment), lag };
        let steps: Vec<Step> = steps.into_iter().map(step).collect();
        steps.iter().try_for_each(|step| check(&step.frames))?;
        Ok(Self { steps, shape: *shape, step: 0, opened: 0, population, lifetime })
    }

    /// Packets of one connection.
    pub(super) fn packets(&self) -> usize {
        self.steps.len()
    }

    /// Connections opened so far.
    pub(super) const fn opened(&self) -> u64 {
        self.opened
    }

    /// The director's clock: it goes on by the share of a life that a new connection is of the population.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap")]
    fn now(&self) -> Ticks {
        Ticks((self.opened * self.lifetime / self.population) as u32)
    }
}

impl Generator for Cycle {
    #[inline(always)]
    fn fill(&mut self, feed: &mut Feed) {
        while feed.len() < feed.size() {
            let step = &self.steps[self.step];
            // The first connections have nobody before them.
            if let Some(flow) = self.opened.checked_sub(step.lag) {
                feed.write(&step.frames, flow, self.shape.server_of(flow));
            }
            self.step += 1;
            if self.step == self.steps.len() {
                self.step = 0;
                self.opened += 1;
            }
        }
    }
}

/// An engine that lives through them.
#[derive(Debug)]
pub(super) struct Lives<'a> {
    pub(super) lab: &'a mut Lab,
    pub(super) cycle: Cycle,
}

impl Turns for Lives<'_> {
    /// The clock that is handed in does not count here.
    #[inline]
    fn turn(&mut self, _now: Ticks) {
        self.cycle.fill(&mut self.lab.feed);
        self.lab.process(self.cycle.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::BURST;
    use crate::traffic::{Forwarding, FrameLength};
    use dataplane::counters::Counter;
    use std::collections::BTreeMap;

    #[test]
    fn the_population_is_steady_and_every_packet_is_forwarded() {
        for (mode, protocol, ipv6) in [
            (Mode::Dr, Protocol::Tcp, false),
            (Mode::Nat, Protocol::Tcp, false),
            (Mode::Nat, Protocol::Tcp, true),
            (Mode::Tun, Protocol::Tcp, false),
            (Mode::Dr, Protocol::Udp, true),
        ] {
            let frame = FrameLength::Fixed(80);
            let shape = Shape { protocol, ipv6, services: 3, destinations: 4, frame, flows: 1 };
            let rules = Rules::new(&shape, Forwarding::new(mode, None, None).unwrap());
            let population = 6000;
            let cycle = Cycle::new(&rules, population).unwrap();
            let mut lab = Lab::new(&rules, 6700, BURST, Ticks(0)).unwrap();
            let mut lives = Lives { lab: &mut lab, cycle };
            while lives.cycle.opened() < 3 * population {
                lives.turn(Ticks(0));
            }
            let (opened, packets) = (lives.cycle.opened(), lives.cycle.packets() as u64);
            let open = lab.count(Counter::ConnectionsOpened) - lab.count(Counter::ConnectionsClosed);
            assert!((5900..=6100).contains(&open), "{mode:?} {protocol:?}: {open}");
            assert!(lab.count(Counter::ConnectionsOpened).abs_diff(opened) <= 1);
            assert_eq!(lab.books().misses, lab.count(Counter::ConnectionsOpened), "{mode:?}");
            assert!(lab.books().transmitted > opened * packets * 9 / 10);
            assert_eq!((lab.drops(), lab.books().imbalance), (BTreeMap::new(), 0));
        }
    }
}
