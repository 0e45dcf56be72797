//! Arguments of `uvs-perf connections`.

use super::Output;
use crate::traffic::{Mode, Protocol, TunnelKind};
use clap::Args;
use dataplane::snapshot::SchedulerKind;

#[derive(Debug, Args)]
pub(crate) struct ConnectionsArguments {
    /// Forwarding method; with nat servers' packets are part of a connection's life
    #[arg(long, value_enum, default_value = "dr")]
    pub(crate) mode: Mode,
    /// What carries packets with --mode tun [default: ipip]
    #[arg(long, value_enum)]
    pub(crate) tunnel: Option<TunnelKind>,
    /// Connections there are at a time; several numbers are several measurements
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_value = "1000000")]
    pub(crate) population: Vec<u64>,
    /// Transport protocol; a UDP connection is one datagram and its expiry
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
    /// Scheduler of every service, by ipvsadm's name
    #[arg(long, value_name = "NAME", default_value = "rr", value_parser = super::scheduler)]
    pub(crate) scheduler: SchedulerKind,
    /// New flows into a table that is full instead: the population is its size
    #[arg(long)]
    pub(crate) full: bool,
    /// With --full: the table is full of half-open connections, whose places the new flows take
    #[arg(long, requires = "full")]
    pub(crate) half_open: bool,
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
