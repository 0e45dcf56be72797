//! Packets of random established flows.

use crate::lab::{Feed, Generator, Order, Rules, check};
use crate::traffic::{DIRECTOR_MAC, Frames, Segment, Sender, Shape};
use anyhow::Result;

/// Makes them: of clients, of servers, or of both in turn.
#[derive(Debug, Clone)]
pub(crate) struct Established {
    requests: Option<Frames>,
    replies: Option<Frames>,
    shape: Shape,
    order: Order,
}

impl Established {
    pub(crate) fn new(rules: &Rules) -> Result<Self> {
        let (shape, direction) = (&rules.shape, rules.forwarding.direction);
        let frames = |sender| Frames::short(shape, sender, Segment::Ack);
        let new = Self {
            requests: direction.has_requests().then(|| frames(Sender::Clients)),
            replies: direction.has_replies().then(|| frames(Sender::Servers(DIRECTOR_MAC))),
            shape: *shape,
            order: Order::new(shape.flows),
        };
        new.requests.iter().chain(&new.replies).try_for_each(check)?;
        Ok(new)
    }
}

impl Generator for Established {
    #[inline(always)]
    fn fill(&mut self, feed: &mut Feed) {
        for number in 0..feed.size() {
            let flow = self.order.next();
            match (&self.requests, &self.replies) {
                (Some(requests), Some(_)) if number % 2 == 0 => feed.write(requests, flow, 0),
                (_, Some(replies)) => feed.write(replies, flow, self.shape.server_of(flow)),
                (Some(requests), None) => feed.write(requests, flow, 0),
                (None, None) => {}
            }
        }
    }
}
