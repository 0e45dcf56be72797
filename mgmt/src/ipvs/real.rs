//! For tests: a director without a NIC, and the model of what it accepted.

use std::sync::{Mutex, MutexGuard, PoisonError};

use dataplane::engine::{Shared, SharedLimits};
use dataplane::id::Ticks;

use super::testing::Model;
use crate::control::{Backend, Peer};
use crate::management::{Limits, Management, Network, Port, Tables, View};
use crate::protocol::{Fault, Request, Response};

/// The management core, and a model of the changes it accepted.
pub(super) struct Director {
    pub(super) management: Management,
    shared: Shared,
    pub(super) model: Model,
    pub(super) accepted: u64,
}

pub(super) struct Real(Mutex<Director>);

impl Real {
    pub(super) fn new(limits: Limits) -> Self {
        let tables = Tables {
            addresses: vec!["192.168.10.1/24".parse().unwrap()],
            routes: Vec::new(),
            neighbours: Vec::new(),
        };
        let port = Port { name: "eth0".into(), mac: [2; 6], mtu: 1500, tables: Some(tables) };
        let Limits { services, destinations } = limits;
        let (services, destinations) = (services as usize, destinations as usize);
        Self(Mutex::new(Director {
            management: Management::new(limits, Network::new(vec![port])),
            shared: Shared::new(SharedLimits { workers: 1, services, destinations, templates: 16 }, 1),
            model: Model::default(),
            accepted: 0,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Director> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Real {
    fn call(&self, request: Request, _: Peer) -> Result<Response, Fault> {
        let director = &mut *self.lock();
        match request {
            Request::Change { change, .. } => {
                let changed = director.management.change(&change, &director.shared)?;
                director
                    .model
                    .change(&change)
                    .unwrap_or_else(|refusal| panic!("{change:?} is made, but {refusal}"));
                director.accepted += 1;
                let snapshot = director.management.snapshot();
                director.management.published(&director.shared);
                director.management.housekeep(director.accepted * 100, &director.shared, snapshot.revision);
                Ok(Response::Changed(changed))
            }
            Request::CountersZero(zero) => {
                director.management.zero(zero, &director.shared).map(Response::Zeroed)
            }
            request => {
                let view = View { shared: &director.shared, tables: &[], now: Ticks(0) };
                director.management.answer(&request, &view)
            }
        }
    }

    fn revision(&self) -> u64 {
        self.lock().management.desired().revision()
    }
}
