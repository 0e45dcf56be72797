//! Arguments of `uvs-perf engine`.

use super::Output;
use crate::traffic::{Direction, Mode, Protocol, TunnelKind};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct EngineArguments {
    /// Forwarding method
    #[arg(long, value_enum, default_value = "dr")]
    pub(crate) mode: Mode,
    /// What carries packets with --mode tun [default: ipip]
    #[arg(long, value_enum)]
    pub(crate) tunnel: Option<TunnelKind>,
    /// Whose packets pass the director with --mode nat [default: both]
    #[arg(long, value_enum)]
    pub(crate) direction: Option<Direction>,
    /// Established flows, met in random order, up to 100000000 in 24 GiB; several numbers are several measurements
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_value = "1000,65536,1048576")]
    pub(crate) flows: Vec<u64>,
    /// Transport protocol
    #[arg(long, value_enum, default_value = "tcp")]
    pub(crate) protocol: Protocol,
    /// IPv6 instead of IPv4
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Virtual services, all on one address
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) services: u32,
    /// Destinations of each service
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) destinations: u16,
    /// What turns without packets cost instead, while every connection comes up for its timeout once
    #[arg(long)]
    pub(crate) idle: bool,
    /// Let all connections time out at the end, and say what that costs for each
    #[arg(long, conflicts_with = "idle")]
    pub(crate) expire: bool,
    /// Packets the engine gets at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = super::burst)]
    pub(crate) burst: usize,
    /// Length of all windows of one kind together
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = super::seconds)]
    pub(crate) seconds: f64,
    /// Windows of each kind
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = super::windows)]
    pub(crate) windows: usize,
    /// Where to run [default: the last CPU]
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
    #[command(flatten)]
    pub(crate) output: Output,
}
