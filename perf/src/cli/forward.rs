//! Arguments of `uvs-perf forward`.

use super::Output;
use crate::traffic::{Direction, FrameLength, Mode, Protocol, TunnelKind};
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
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ForwardArguments {
    /// Forwarding method
    #[arg(long, value_enum, default_value = "dr")]
    pub(crate) mode: Mode,
    /// What carries packets with --mode tun [default: ipip]
    #[arg(long, value_enum)]
    pub(crate) tunnel: Option<TunnelKind>,
    /// Whose packets pass the director with --mode nat [default: both]
    #[arg(long, value_enum)]
    pub(crate) direction: Option<Direction>,
    /// Flows, each with its own client address and port; several numbers are several measurements
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_value = "1024")]
    pub(crate) flows: Vec<u64>,
    /// Virtual services, all on one address
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) services: u32,
    /// Destinations of each service
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) destinations: u16,
    /// Length of a frame in bytes, 60 to 1500, or imix (of twelve seven of 64, four of 590, one of 1514)
    #[arg(long, value_name = "BYTES|imix", default_value = "64", value_parser = FrameLength::parse)]
    pub(crate) frame: FrameLength,
    /// Transport protocol; TCP flows are picked up as established ones (sloppy_tcp)
    #[arg(long, value_enum, default_value = "udp")]
    pub(crate) protocol: Protocol,
    /// IPv6 instead of IPv4
    #[arg(long)]
    pub(crate) ipv6: bool,
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
    /// Length of all windows of the director together; the control run takes as long
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = super::seconds)]
    pub(crate) seconds: f64,
    /// Windows
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = super::windows)]
    pub(crate) windows: usize,
    /// Leave dpdk-testpmd out
    #[arg(long)]
    pub(crate) no_control: bool,
    /// The director to measure [default: the uvsd beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) uvsd: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}
