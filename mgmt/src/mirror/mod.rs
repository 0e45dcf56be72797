//! The kernel's view of the network, followed by rtnetlink.
//!
//! Operators and routing daemons set addresses, routes and neighbours on the ports' twins with ordinary tools; one
//! thread follows all of it and publishes settled [`NetworkView`]s, and asks the kernel to resolve and keep the next
//! hops that the director needs ([`Mirror::want`]). [`apply`] writes what the configuration names.

pub mod apply;
pub mod lpm;
pub mod message;
pub mod resolver;
pub mod routes;
mod run;
pub mod settle;
mod shared;
pub mod socket;
pub mod state;
pub mod view;
pub mod wire;
mod wire_route;

pub use resolver::Hop;
pub use shared::MirrorStats;
pub use socket::NetlinkError;
pub use state::MirrorPort;
pub use view::{AddressView, LinkView, NeighbourView, NetworkView, NextHopChoice};

use dataplane::id::PortId;
use shared::Shared;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What the mirror tells, from its own thread; the receiver must not block.
#[derive(Debug, Clone)]
pub enum MirrorEvent {
    /// A new view; [`Mirror::view`] returns it too.
    View(Arc<NetworkView>),
    /// An operator changed the hardware address or the MTU of a twin. The port does not follow by itself.
    TwinChanged {
        /// The port.
        port: PortId,
        /// Hardware address now.
        mac: [u8; 6],
        /// MTU in bytes now.
        mtu: u32,
    },
    /// The twin was deleted and made anew: its addresses, routes and static neighbours are gone, and those of the
    /// configuration are to be applied again.
    TwinReplaced {
        /// The port.
        port: PortId,
    },
}

/// Who is told.
pub type Notify = dyn FnMut(MirrorEvent) + Send;

/// How the mirror works.
#[derive(Debug, Clone)]
pub struct MirrorOptions {
    /// Ports and the names of their twins.
    pub ports: Vec<MirrorPort>,
    /// A batch of changes is complete when nothing came for this long …
    pub settle_quiet: Duration,
    /// … and is cut after this long.
    pub settle_limit: Duration,
    /// An address that goes is shown for this much longer: re-labelling one takes it away and brings it back.
    pub withdraw_after: Duration,
    /// Bytes of notifications that may wait in the kernel.
    pub receive_buffer: usize,
}

impl MirrorOptions {
    /// The usual figures for `ports`.
    #[must_use]
    pub const fn new(ports: Vec<MirrorPort>) -> Self {
        Self {
            ports,
            settle_quiet: Duration::from_millis(1),
            settle_limit: Duration::from_millis(20),
            withdraw_after: Duration::from_millis(50),
            receive_buffer: 8 << 20,
        }
    }
}

/// Why the mirror did not start.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The kernel's tables could not be read.
    #[error("cannot read the kernel's addresses and routes: {0}")]
    Netlink(#[from] NetlinkError),
    /// The thread could not be made.
    #[error("cannot start the mirror's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running mirror; stopped when dropped.
#[derive(Debug)]
pub struct Mirror {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Reads the kernel's tables, so that [`Self::view`] is complete on return, and starts following them in a thread
    /// named `uvs-mirror` that inherits the caller's CPUs and signal mask. `notify` is told of everything after that,
    /// from the thread.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub fn spawn(options: &MirrorOptions, mut notify: Box<Notify>) -> Result<Self, MirrorError> {
        let shared = Arc::new(Shared::new()?);
        let worker = run::Worker::new(options, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("uvs-mirror".to_owned()).spawn(move || {
            // Without it every wait for a settled batch is 50 µs longer.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            worker.run(&mut *notify);
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The latest view.
    #[must_use]
    pub fn view(&self) -> Arc<NetworkView> {
        self.shared.view()
    }

    /// Replaces the set of next hops that the kernel is to resolve and keep. Returns at once.
    pub fn want(&self, wanted: BTreeSet<Hop>) {
        self.shared.want(wanted);
    }

    /// Has one address resolved, for packets that wait for it; the answer comes with a view. Returns at once; `false`
    /// when too many addresses wait already.
    pub fn resolve_once(&self, port: PortId, address: IpAddr) -> bool {
        self.shared.resolve_once((port, address))
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> MirrorStats {
        self.shared.stats()
    }

    /// Stops the thread and waits for it.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod kernel_tests;
