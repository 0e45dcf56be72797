//! Arguments that say which packets there are.

use crate::traffic::{Direction, FrameLength, Mode, Protocol, TunnelKind};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct TrafficArguments {
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
}
