//! The command line of `uvsctl`. Short options are ipvsadm's.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::destination::DestinationCommand;
use super::service::{ServiceCommand, ServiceFilter, service_filter};
use super::tuning::{CountersCommand, MarkCommand, SettingsCommand, TimeoutsCommand};

/// Look at and change a running uvs director.
#[derive(Debug, Parser)]
#[command(
    name = "uvsctl",
    version,
    after_help = "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 no director to talk to."
)]
pub struct Arguments {
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// The director's control socket
    #[arg(
        long,
        global = true,
        env = "UVS_CONTROL",
        value_name = "PATH",
        default_value = "/run/uvs/control.sock"
    )]
    pub socket: PathBuf,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Version, workers, ports, steering, sizes, and what is not as it should be
    Status,
    /// Counters, drops with their reasons, destinations, times of changes
    Stats {
        /// Counters that are zero, too
        #[arg(long)]
        all: bool,
        /// What destinations forward a second instead of what they forwarded
        #[arg(long)]
        rate: bool,
    },
    /// Virtual services
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Destinations (real servers) of virtual services
    Destination {
        #[command(subcommand)]
        command: DestinationCommand,
    },
    /// The connection table
    Connection {
        #[command(subcommand)]
        command: ConnectionCommand,
    },
    /// Rules that give packets a mark, and with it the service of that mark
    Mark {
        #[command(subcommand)]
        command: MarkCommand,
    },
    /// Behaviour, by the kernel's sysctl names
    Settings {
        #[command(subcommand)]
        command: SettingsCommand,
    },
    /// Timeouts of connections
    Timeouts {
        #[command(subcommand)]
        command: TimeoutsCommand,
    },
    /// What services and destinations counted
    Counters {
        #[command(subcommand)]
        command: CountersCommand,
    },
    /// Services, mark rules, timeouts and settings as a whole
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Run a program of LVS's own (ipvsadm, keepalived, ldirectord) on this director
    ///
    /// It is run with libuvs_ipvs.so preloaded and finds uvsd where it looks for the kernel's IPVS, as does everything
    /// that it starts. The endpoint is ipvs.sock beside the control socket (--socket), unless UVS_IPVS_SOCKET names
    /// another; the library is looked for beside uvsctl, in ../lib/uvs and in /usr/lib/uvs, unless UVS_IPVS_LIBRARY names
    /// it.
    #[command(override_usage = "uvsctl exec [--socket PATH] -- COMMAND [ARGUMENT]...")]
    Exec {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// What happened last
    Events {
        /// Only events after this sequence number
        #[arg(long, default_value_t = 0)]
        since: u64,
        /// At most this many
        #[arg(long)]
        limit: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConnectionCommand {
    /// List connections and persistence templates
    List {
        /// Only this service's, such as 192.168.132.254:80, udp/192.168.132.254:53 or mark/3
        #[arg(long, value_name = "[PROTO/]ADDR:PORT", value_parser = service_filter)]
        service: Option<ServiceFilter>,
        /// Only this client's
        #[arg(long, value_name = "ADDR")]
        client: Option<IpAddr>,
        /// At most this many
        #[arg(long)]
        limit: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Make the services what a file says, all at once, and remove every other
    ///
    /// Timeouts, settings and mark rules become what the file says, too, where it has [timeouts], [settings] or [[mark]]s.
    Apply {
        /// TOML like uvsd's; sections about ports, workers and sizes are left to the next start
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// Refuse when the director's state is not at this revision
        #[arg(long, value_name = "REVISION")]
        expected_revision: Option<u64>,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
    /// Show everything as a file that `config apply` takes
    Show,
}
