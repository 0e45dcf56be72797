//! Arguments of `uvs-perf flood`.

use super::Output;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct FloodArguments {
    /// Connections the table has room for
    #[arg(long, value_name = "N", default_value_t = 1_048_576)]
    pub(crate) table: u32,
    /// Established flows beside the flood
    #[arg(long, value_name = "N", default_value_t = 262_144)]
    pub(crate) flows: u64,
    /// SYNs of the flood, in sizes of the table
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = super::factor)]
    pub(crate) times: f64,
    /// Seconds of the director's clock that the flood takes
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=800))]
    pub(crate) duration: u32,
    /// Packets of the flood for each packet of an established flow
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) weight: u16,
    /// IPv6 instead of IPv4
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Destinations of the service
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) destinations: u16,
    /// The setting evict_half_open: in a full table a new client takes the place of a half-open connection
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) evict_half_open: bool,
    /// The kernel's setting drop_entry: 0 never, 1 while connections are short, 3 always
    #[arg(long, value_name = "MODE", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) drop_entry: u8,
    /// The kernel's setting drop_packet
    #[arg(long, value_name = "MODE", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) drop_packet: u8,
    /// The kernel's setting secure_tcp
    #[arg(long, value_name = "MODE", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) secure_tcp: u8,
    /// Where to run [default: the last CPU]
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
    #[command(flatten)]
    pub(crate) output: Output,
}
