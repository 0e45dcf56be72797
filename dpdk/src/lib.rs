//! Safe layer over DPDK: the only user of `dpdk-sys`.
//!
//! ```no_run
//! use dpdk::{Burst, Eal, EalConfig, Mempool, MempoolConfig, PortConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let eal = Eal::init(&EalConfig { worker_cpus: vec![1], ..EalConfig::default() })?;
//! let pool = Mempool::new(&eal, &MempoolConfig { name: "packets".into(), ..MempoolConfig::default() })?;
//! let mut port = eal.attach("net_null0")?.start(&PortConfig::default(), &pool)?;
//! let (Some(mut rx), Some(mut tx)) = (port.rx_queue(0), port.tx_queue(0)) else { return Ok(()) };
//! let mut burst: Burst = Burst::new();
//! rx.receive(&mut burst);
//! tx.transmit(&mut burst); // what was not sent stays in `burst`
//! # Ok(())
//! # }
//! ```
//!
//! # Who keeps whom alive
//!
//! A queue keeps its port, a port its mempool, and everything the EAL: each is released when the last
//! handle is dropped, in whatever order the program drops them. The one thing without a handle on its
//! owner is the [`Mbuf`], which has to stay one pointer wide: a mempool that is dropped while mbufs are
//! outstanding is leaked, and the EAL with it, instead of freed under them.
//!
//! # Threads
//!
//! Workers are EAL lcores ([`Eal::launch`]). Other threads may allocate and free mbufs too; they have no
//! per-lcore cache and go to the mempool's ring (see [`PoolOps`]). A queue belongs to one thread at a time.
//!
//! There is no wrapper for `rte_ring`: packets between threads of this process travel as [`Mbuf`]s through
//! any Rust queue.

pub mod burst;
pub mod eal;
pub mod errno;
pub mod lcore;
pub mod log;
pub mod mbuf;
pub mod mempool;
pub mod port;
pub mod time;

pub use burst::{BURST, Burst};
pub use eal::{Eal, EalConfig, EalError, Hugepages, MemoryMode};
pub use errno::Errno;
pub use lcore::{LaunchError, LcoreHandle, LcoreId};
pub use log::LogLevel;
pub use mbuf::Mbuf;
pub use mempool::{Mempool, MempoolConfig, MempoolError, PoolOps};
pub use port::{
    Capabilities, Device, LinkState, Port, PortConfig, PortError, PortStats, RssConfig, RssFields, RssReport,
    RxQueue, TxQueue,
};
pub use time::{tsc, tsc_hz};
