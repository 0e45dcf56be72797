//! The control socket's way to the publisher thread: one bounded queue, one answer for each request.

use super::listing::Listing;
use crate::control::{Backend, Peer};
use crate::mirror::MirrorEvent;
use crate::protocol::{ConnectionQuery, Fault, FaultKind, Request, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Requests that wait for the publisher; more are refused.
const QUEUE: usize = 64;
/// How long a client's thread waits for its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the publisher thread is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Answer this.
    Call {
        /// What is asked.
        request: Request,
        /// By whom.
        peer: Peer,
        /// Where the answer goes.
        answer: SyncSender<Result<Response, Fault>>,
    },
    /// The mirror has news.
    Network(MirrorEvent),
    /// Read the configuration again.
    Reload,
    /// End.
    Stop,
}

/// Makes the queue to the publisher.
pub(super) fn channel() -> (SyncSender<Message>, Receiver<Message>) {
    sync_channel(QUEUE)
}

/// Hands requests to the publisher; answers listings of connections itself, so that a long one holds nobody up.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) queue: SyncSender<Message>,
    pub(super) revision: Arc<AtomicU64>,
    pub(super) listing: Listing,
}

impl Requests {
    fn ask(&self, request: Request, peer: Peer) -> Result<Response, Fault> {
        let (answer, answered) = sync_channel(1);
        let busy = |text: &str| Fault::new(FaultKind::Busy, text);
        match self.queue.try_send(Message::Call { request, peer, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(busy("too many requests wait already; try again")),
            Err(TrySendError::Disconnected(_)) => {
                return Err(Fault::new(FaultKind::Stopping, "the director is going down"));
            }
        }
        answered.recv_timeout(PATIENCE).map_err(|_| busy("the director did not answer in time"))?
    }

    fn connections(&self, query: &ConnectionQuery) -> Result<Response, Fault> {
        self.listing.page(query).map(Response::Connections)
    }
}

impl Backend for Requests {
    fn call(&self, request: Request, peer: Peer) -> Result<Response, Fault> {
        match request {
            Request::ConnectionList(query) => self.connections(&query),
            request => self.ask(request, peer),
        }
    }

    fn revision(&self) -> u64 {
        self.revision.load(Relaxed)
    }
}
