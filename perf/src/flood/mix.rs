//! Packets of established flows, and SYNs between them.

use crate::cli::FloodArguments;
use crate::lab::{BURST, Feed, Generator, Order, Rules, check};
use crate::traffic::{Frames, Segment, Sender};
use anyhow::Result;
use dataplane::id::Ticks;

/// A flood's size and its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flood {
    pub(super) syns: u64,
    milliseconds: u64,
    start: Ticks,
}

impl Flood {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few billion")]
    pub(super) fn new(arguments: &FloodArguments, start: Ticks) -> Self {
        let syns = (f64::from(arguments.table) * arguments.times).max(1.0) as u64;
        Self { syns, milliseconds: u64::from(arguments.duration) * 1000, start }
    }

    /// The director's clock after so many SYNs.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "at most some minutes")]
    pub(super) const fn at(&self, sent: u64) -> Ticks {
        self.start.after((sent * self.milliseconds / self.syns) as u32)
    }
}

/// Makes them.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    established_frames: Frames,
    syns: Frames,
    order: Order,
    weight: u16,
    turn: u16,
    next: u64,
    /// SYNs of the flood so far.
    pub(super) sent: u64,
    /// Packets of established flows so far.
    pub(super) established: u64,
}

impl Mix {
    /// With `weight` SYNs for each packet of an established flow. The flood's clients come after those of the flows.
    pub(super) fn new(rules: &Rules, weight: u16) -> Result<Self> {
        let frames = |segment| Frames::short(&rules.shape, Sender::Clients, segment);
        let mix = Self {
            established_frames: frames(Segment::Ack),
            syns: frames(Segment::Syn),
            order: Order::new(rules.shape.flows),
            weight,
            turn: 0,
            next: rules.shape.flows,
            sent: 0,
            established: 0,
        };
        check(&mix.syns)?;
        Ok(mix)
    }

    /// SYNs of a burst, rounded down.
    pub(super) fn syns_per_burst(&self) -> u64 {
        BURST as u64 * u64::from(self.weight) / (u64::from(self.weight) + 1)
    }

    /// The first client that has not come yet.
    pub(super) const fn next_client(&self) -> u64 {
        self.next
    }

    /// Clients before this one do not come.
    pub(super) fn skip(&mut self, client: u64) {
        self.next = self.next.max(client);
    }
}

impl Generator for Mix {
    #[inline(always)]
    fn fill(&mut self, feed: &mut Feed) {
        for _ in 0..feed.size() {
            if self.turn == self.weight {
                self.turn = 0;
                self.established += 1;
                feed.write(&self.established_frames, self.order.next(), 0);
            } else {
                self.turn += 1;
                self.sent += 1;
                feed.write(&self.syns, self.next, 0);
                self.next += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Forwarding, FrameLength, Mode, Protocol, Shape};

    #[test]
    fn shares_are_as_the_weight_says() {
        let frame = FrameLength::Fixed(64);
        let shape =
            Shape { protocol: Protocol::Tcp, ipv6: false, services: 1, destinations: 1, frame, flows: 100 };
        let rules = Rules::new(&shape, Forwarding::new(Mode::Dr, None, None).unwrap());
        let mut mix = Mix::new(&rules, 3).unwrap();
        let mut feed = Feed::new(BURST);
        mix.fill(&mut feed);
        assert_eq!((feed.len(), mix.sent, mix.established, mix.next_client()), (32, 24, 8, 124));
        assert_eq!(mix.syns_per_burst(), 24);
    }

    #[test]
    fn the_clock_follows_the_flood() {
        let flood = Flood { syns: 1_000_000, milliseconds: 60_000, start: Ticks(500) };
        assert_eq!([0, 500_000, 1_000_000].map(|sent| flood.at(sent).0), [500, 30_500, 60_500]);
    }
}
