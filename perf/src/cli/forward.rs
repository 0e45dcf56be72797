//! Arguments of `uvs-perf forward`.

use super::{Output, TrafficArguments};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Where packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Link {
    /// DPDK's net_pcap replays a capture file for ever, and drops what is sent.
    Pcap,
    /// virtio-user to a vhost-user back end, behind which dpdk-testpmd replays the file on a CPU of its own.
    Vhost,
    /// memif, likewise.
    Memif,
    /// Ports of NICs that a profile names, with the program that sends on others beside them.
    Pci,
}

/// How flows are spread over the workers' queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spread {
    /// Each flow comes to the worker that owns it, as by a NIC that is set up for the director.
    Owner,
    /// In turn, as by a NIC that knows nothing: workers hand packets to each other.
    Turn,
}

impl Spread {
    /// As results write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Turn => "turn",
        }
    }
}

impl Link {
    /// As results write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pcap => "pcap",
            Self::Vhost => "vhost",
            Self::Memif => "memif",
            Self::Pci => "pci",
        }
    }
}

/// The director, its ports, and what comes to them.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) traffic: TrafficArguments,
    /// Workers of the director
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) workers: u8,
    /// How flows are spread over the workers' queues
    #[arg(long, value_enum, default_value = "owner")]
    pub(crate) spread: Spread,
    /// A CPU for each worker [default: the last ones]
    #[arg(long, value_name = "CPU[,CPU…]", value_delimiter = ',')]
    pub(crate) cpus: Option<Vec<usize>>,
    /// Where packets come from
    #[arg(long, value_enum, default_value = "pcap")]
    pub(crate) link: Link,
    /// Ports, CPUs and generator of --link pci (docs/performance/profile.toml)
    #[arg(long, value_name = "FILE", required_if_eq("link", "pci"))]
    pub(crate) profile: Option<PathBuf>,
    /// The director to measure [default: the uvsd beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) uvsd: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// Length of all windows of the director together; the control run takes as long
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = super::seconds)]
    pub(crate) seconds: f64,
    /// Windows
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = super::windows)]
    pub(crate) windows: usize,
    /// Leave dpdk-testpmd out
    #[arg(long)]
    pub(crate) no_control: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
