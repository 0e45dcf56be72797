//! Engines of several workers with the rings between them, on a clock that the caller turns.

use super::sink::{MemorySink, Outcome};
use crate::connection::HashKey;
use crate::counters::{Counter, DropReason};
use crate::engine::{Engine, EngineConfig, EngineError, Shared, SharedLimits};
use crate::id::{PortId, Ticks, WorkerId};
use crate::packet::HeapPacket;
use crate::snapshot::Snapshot;
use crate::steering::Steering;
use std::sync::Arc;

/// Sizes of a [`Director`].
#[derive(Debug, Clone, Copy)]
pub struct DirectorConfig {
    /// Workers.
    pub workers: u8,
    /// How flows are spread.
    pub steering: Steering,
    /// Whether engines believe [`HeapPacket`]'s RSS hash.
    pub trusted_rss: bool,
    /// Connections of each family and worker.
    pub connections: u32,
    /// Destinations of the director.
    pub destinations: usize,
    /// Services of the director.
    pub services: usize,
    /// Templates of the director.
    pub templates: u32,
    /// Fragments of each worker.
    pub fragments: u32,
    /// Parked packets of each worker.
    pub parked: usize,
    /// Addresses that lblc and lblcr remember, of each worker.
    pub localities: u32,
}

impl Default for DirectorConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            steering: Steering::Client,
            trusted_rss: false,
            connections: 4096,
            destinations: 1024,
            services: 256,
            templates: 1024,
            fragments: 256,
            parked: 64,
            localities: 1024,
        }
    }
}

/// Several engines as one director, single-threaded and repeatable.
#[derive(Debug)]
pub struct Director {
    /// By worker.
    pub engines: Vec<Engine<HeapPacket>>,
    /// By worker.
    pub sinks: Vec<MemorySink>,
    /// What the engines share.
    pub shared: Arc<Shared>,
    /// What they read.
    pub snapshot: Snapshot,
    /// Their clock.
    pub now: Ticks,
}

impl Director {
    /// Engines at rest, reading `snapshot`.
    ///
    /// # Errors
    /// The memory is not to be had.
    pub fn new(config: DirectorConfig, snapshot: Snapshot) -> Result<Self, EngineError> {
        let workers = usize::from(config.workers);
        let limits = SharedLimits {
            workers,
            services: config.services,
            destinations: config.destinations,
            templates: config.templates,
        };
        let shared = Arc::new(Shared::new(limits, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210));
        let now = Ticks(1000);
        let engine = |id| {
            let config = EngineConfig {
                id: WorkerId(id),
                workers: config.workers,
                steering: config.steering,
                trusted_rss: vec![config.trusted_rss; snapshot.ports.len()].into_boxed_slice(),
                connections_v4: config.connections,
                connections_v6: config.connections,
                services: config.services,
                fragments: config.fragments,
                parked: config.parked,
                localities: config.localities,
                hash_key: HashKey([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]),
                seed: id.into(),
            };
            Engine::new(&config, Arc::clone(&shared), now)
        };
        Ok(Self {
            engines: (0..config.workers).map(engine).collect::<Result<_, _>>()?,
            sinks: (0..workers).map(|_| MemorySink::new(workers)).collect(),
            shared,
            snapshot,
            now,
        })
    }

    /// Gives frames to one worker's receive queue of `port`, and turns until everything is at rest.
    pub fn receive(&mut self, worker: WorkerId, port: PortId, frames: impl IntoIterator<Item = HeapPacket>) {
        let mut frames = frames.into_iter().peekable();
        while frames.peek().is_some() {
            let burst: Vec<_> = frames.by_ref().take(crate::pipeline::BURST).collect();
            let (engine, sink) = (&mut self.engines[worker.index()], &mut self.sinks[worker.index()]);
            engine.process(port, burst.into_iter(), &self.snapshot, self.now, sink);
            self.settle();
        }
        self.settle();
    }

    /// Lets `milliseconds` pass, with a turn of every worker at the end of each.
    pub fn pass(&mut self, milliseconds: u32) {
        for _ in 0..milliseconds {
            self.now = self.now.after(1);
            self.settle();
        }
    }

    /// Lets time pass in one step.
    pub fn leap(&mut self, milliseconds: u32) {
        self.now = self.now.after(milliseconds);
        self.settle();
    }

    /// Turns every worker until no redirected packet is under way.
    fn settle(&mut self) {
        loop {
            for (index, (engine, sink)) in self.engines.iter_mut().zip(&mut self.sinks).enumerate() {
                engine.turn(&self.snapshot, self.now, sink);
                sink.flush(&self.shared.counters[index]);
            }
            let under_way: Vec<_> =
                self.sinks.iter_mut().flat_map(|sink| sink.redirected.iter_mut().enumerate()).collect();
            let mut moved = false;
            let mut arrivals: Vec<Vec<_>> = self.engines.iter().map(|_| Vec::new()).collect();
            for (to, ring) in under_way {
                moved |= !ring.is_empty();
                arrivals[to].extend(ring.drain(..));
            }
            if !moved {
                return;
            }
            for (to, burst) in arrivals.into_iter().enumerate() {
                let (engine, sink) = (&mut self.engines[to], &mut self.sinks[to]);
                engine.process_redirected(burst.into_iter(), &self.snapshot, self.now, sink);
            }
        }
    }

    /// What happened since the last call, worker by worker.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        self.sinks.iter_mut().flat_map(|sink| std::mem::take(&mut sink.outcomes)).collect()
    }

    /// Sum of a counter over the workers.
    #[must_use]
    pub fn count(&self, counter: Counter) -> u64 {
        self.shared.counters.iter().map(|counters| counters.get(counter)).sum()
    }

    /// Sum of a drop counter over the workers.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.shared.counters.iter().map(|counters| counters.dropped(reason)).sum()
    }

    /// Packets unaccounted for; 0 in every worker is the law.
    #[must_use]
    pub fn imbalance(&self) -> Vec<i64> {
        self.shared.counters.iter().map(|counters| counters.imbalance()).collect()
    }
}
