//! Bursts of frames in small buffers, made and given back.

use super::timing::Turns;
use super::{BURST, Dealt, PORT};
use crate::traffic::Frames;
use anyhow::{Result, bail};
use dataplane::bench::{LeanPacket, Roundabout};
use dataplane::engine::Sink;
use dataplane::id::Ticks;
use dataplane::packet::Packet;
use std::hint::black_box;

/// The next burst, and the buffers it is made in.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(super) burst: Vec<LeanPacket>,
    pub(super) roundabout: Roundabout,
    size: usize,
}

impl Feed {
    /// Of bursts of this size.
    pub(crate) fn new(size: usize) -> Self {
        Self { burst: Vec::with_capacity(BURST), roundabout: Roundabout::new(), size }
    }

    /// Packets of a full burst.
    #[inline(always)]
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// Packets in the next burst so far.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.burst.len()
    }

    /// Adds a flow's frame to the next burst.
    #[inline(always)]
    pub(crate) fn write(&mut self, frames: &Frames, flow: u64, server: u16) {
        let mut packet = self.roundabout.take();
        let length = frames.write(flow, server, packet.reset());
        packet.cut(length);
        self.burst.push(packet);
    }

    /// Adds a client's frame with what the NIC hashed of it.
    #[inline(always)]
    pub(super) fn write_hashed(&mut self, frames: &Frames, dealt: Dealt) {
        let mut packet = self.roundabout.take();
        let length = frames.write(dealt.flow.into(), 0, packet.reset());
        packet.cut(length);
        packet.set_rss_hash(Some(dealt.hash));
        self.burst.push(packet);
    }
}

/// Refuses frames that do not fit the small buffers.
pub(crate) fn check(frames: &Frames) -> Result<()> {
    let length = frames.longest();
    if length > LeanPacket::ROOM {
        bail!("a frame of {length} bytes is longer than {}", LeanPacket::ROOM);
    }
    Ok(())
}

/// Something that knows what packets come next.
pub(crate) trait Generator {
    /// Adds a burst's packets to `feed`.
    fn fill(&mut self, feed: &mut Feed);
}

/// The preparation alone: frames are written and given back.
#[derive(Debug)]
pub(crate) struct Preparation<G> {
    generator: G,
    feed: Feed,
}

impl<G: Generator> Preparation<G> {
    pub(crate) fn new(generator: G, burst: usize) -> Self {
        Self { generator, feed: Feed::new(burst) }
    }
}

impl<G: Generator> Turns for Preparation<G> {
    #[inline]
    fn turn(&mut self, _now: Ticks) {
        let Self { generator, feed } = self;
        generator.fill(feed);
        for packet in feed.burst.drain(..) {
            black_box(packet.data());
            feed.roundabout.transmit(PORT, packet);
        }
    }
}
