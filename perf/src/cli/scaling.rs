//! Arguments of `uvs-perf scaling`.

use super::Output;
use crate::traffic::{Mode, Protocol, TunnelKind};
use clap::{Args, ValueEnum};
use dataplane::snapshot::SchedulerKind;

#[derive(Debug, Args)]
pub(crate) struct ScalingArguments {
    /// Workers, each with its shard; several numbers are several measurements
    #[arg(
        long,
        value_name = "N[,N…]",
        value_delimiter = ',',
        default_value = "1,2,4,8,16,32,64",
        value_parser = clap::value_parser!(u8).range(1..)
    )]
    pub(crate) workers: Vec<u8>,
    /// Established flows of all workers together, the same whatever their number; 0 leaves this series out
    #[arg(long, value_name = "N", default_value_t = 1_048_576)]
    pub(crate) flows: u64,
    /// Established flows for each worker; 0 leaves this series out
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub(crate) flows_per_worker: u64,
    /// What decides on a flow's worker: the client's end, or the request's whole 4-tuple
    #[arg(long, value_enum, default_value = "client")]
    pub(crate) steering: SteeringArgument,
    /// Forwarding method, of clients' packets
    #[arg(long, value_enum, default_value = "dr")]
    pub(crate) mode: Mode,
    /// What carries packets with --mode tun [default: ipip]
    #[arg(long, value_enum)]
    pub(crate) tunnel: Option<TunnelKind>,
    /// Transport protocol
    #[arg(long, value_enum, default_value = "udp")]
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
    /// Every service's scheduler
    #[arg(long, value_name = "NAME", default_value = "rr", value_parser = super::scheduler)]
    pub(crate) scheduler: SchedulerKind,
    /// Also run as many workers at the same time as there are CPUs, each in a thread of its own
    #[arg(long)]
    pub(crate) together: bool,
    /// Also count the cache lines that workers take from each other (needs valgrind; a minute for each number of workers)
    #[arg(long)]
    pub(crate) lines: bool,
    /// Packets a worker gets at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = super::burst)]
    pub(crate) burst: usize,
    /// Length of all windows of one measurement together
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = super::seconds)]
    pub(crate) seconds: f64,
    /// Windows of each worker
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = super::windows)]
    pub(crate) windows: usize,
    /// Where all of them run in turn [default: the last CPU]
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How flows are spread over workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SteeringArgument {
    /// By the client's address and port.
    Client,
    /// By the request's whole 4-tuple.
    Flow,
}

/// What `--lines` starts under valgrind.
#[derive(Debug, Args)]
pub(crate) struct TracedArguments {
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..))]
    pub(crate) workers: u8,
    #[arg(long, value_enum)]
    pub(crate) steering: SteeringArgument,
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    #[arg(long, value_enum)]
    pub(crate) protocol: Protocol,
    #[arg(long, value_parser = super::scheduler)]
    pub(crate) scheduler: SchedulerKind,
    #[arg(long)]
    pub(crate) destinations: u16,
    #[arg(long, value_parser = super::burst)]
    pub(crate) burst: usize,
    #[arg(long, value_parser = super::windows)]
    pub(crate) rounds: usize,
}
