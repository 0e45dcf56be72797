//! The command line of `uvsctl`. Short options are ipvsadm's.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Failure;
use crate::address::{Endpoint, Protocol, Server};
use crate::desired::{
    Change, ClientMask, DestinationAdd, DestinationDelete, DestinationEdit, DestinationSpec, Method,
    Scheduler, ServiceAdd, ServiceDelete, ServiceEdit, ServiceKey, ServiceSpec, scheduler,
};

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
    /// The set of services as a whole
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

/// Exactly one service.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct ServiceName {
    /// TCP service, such as 192.168.132.254:80 or [fd00::1]:80
    #[arg(long, short = 't', value_name = "ADDR:PORT")]
    tcp: Option<Endpoint>,
    /// UDP service
    #[arg(long, short = 'u', value_name = "ADDR:PORT")]
    udp: Option<Endpoint>,
}

/// One service or all.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ServiceChoice {
    /// Only this TCP service
    #[arg(long, short = 't', value_name = "ADDR:PORT")]
    tcp: Option<Endpoint>,
    /// Only this UDP service
    #[arg(long, short = 'u', value_name = "ADDR:PORT")]
    udp: Option<Endpoint>,
}

fn key(tcp: Option<Endpoint>, udp: Option<Endpoint>) -> Option<ServiceKey> {
    let tcp = tcp.map(|address| ServiceKey::Address { protocol: Protocol::Tcp, address });
    tcp.or_else(|| udp.map(|address| ServiceKey::Address { protocol: Protocol::Udp, address }))
}

impl ServiceName {
    fn key(&self) -> Result<ServiceKey, Failure> {
        key(self.tcp, self.udp).ok_or_else(|| Failure::Usage("name a service with --tcp or --udp".into()))
    }
}

impl ServiceChoice {
    pub(super) fn key(&self) -> Option<ServiceKey> {
        key(self.tcp, self.udp)
    }
}

/// `--service tcp/192.168.132.254:80`, TCP where nothing is said.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServiceFilter(ServiceKey);

impl ServiceFilter {
    pub(super) fn key(&self) -> Option<ServiceKey> {
        Some(self.0)
    }
}

fn service_filter(text: &str) -> Result<ServiceFilter, String> {
    let (protocol, address) = match text.split_once('/') {
        Some(("tcp", address)) => (Protocol::Tcp, address),
        Some(("udp", address)) => (Protocol::Udp, address),
        Some((other, _)) => {
            return Err(format!("`{other}` is not a protocol; write tcp/ADDR:PORT or udp/ADDR:PORT"));
        }
        None => (Protocol::Tcp, text),
    };
    let address = address.parse().map_err(|error: crate::address::AddressError| error.to_string())?;
    Ok(ServiceFilter(ServiceKey::Address { protocol, address }))
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Add a virtual service
    Add {
        #[command(flatten)]
        service: ServiceName,
        /// rr, wrr, lc or wlc
        #[arg(long, short = 's', default_value = "wlc", value_parser = scheduler)]
        scheduler: Scheduler,
        /// Seconds a client stays on its destination
        #[arg(long, short = 'p', value_name = "SECS", default_value_t = 0)]
        persistent: u32,
        /// Part of the client's address that counts: 255.255.255.0 or a prefix length
        #[arg(long, short = 'M')]
        netmask: Option<ClientMask>,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
    /// Change a virtual service; what is not named stays as it is
    Edit {
        #[command(flatten)]
        service: ServiceName,
        /// rr, wrr, lc or wlc
        #[arg(long, short = 's', value_parser = scheduler)]
        scheduler: Option<Scheduler>,
        /// Seconds a client stays on its destination; 0 ends persistence
        #[arg(long, short = 'p', value_name = "SECS")]
        persistent: Option<u32>,
        /// Part of the client's address that counts: 255.255.255.0 or a prefix length
        #[arg(long, short = 'M')]
        netmask: Option<ClientMask>,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
    /// Delete a virtual service with its destinations
    Delete {
        #[command(flatten)]
        service: ServiceName,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
    /// List virtual services and their destinations
    List,
}

impl ServiceCommand {
    /// The change to make, and whether to wait for it; `None`: a listing.
    pub(super) fn change(&self) -> Result<Option<(Change, bool)>, Failure> {
        Ok(Some(match self {
            Self::List => return Ok(None),
            Self::Add { service, scheduler, persistent, netmask, wait } => {
                let service = ServiceSpec {
                    persistent: *persistent,
                    netmask: *netmask,
                    ..ServiceSpec::new(service.key()?, *scheduler)
                };
                (Change::ServiceAdd(ServiceAdd { service }), *wait)
            }
            Self::Edit { service, scheduler, persistent, netmask, wait } => {
                if scheduler.is_none() && persistent.is_none() && netmask.is_none() {
                    return Err(Failure::Usage(
                        "nothing to change: name --scheduler, --persistent or --netmask".into(),
                    ));
                }
                let service = service.key()?;
                let edit = ServiceEdit {
                    scheduler: *scheduler,
                    persistent: *persistent,
                    netmask: *netmask,
                    ..ServiceEdit::of(service)
                };
                (Change::ServiceEdit(edit), *wait)
            }
            Self::Delete { service, wait } => {
                (Change::ServiceDelete(ServiceDelete { service: service.key()? }), *wait)
            }
        }))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum DestinationCommand {
    /// Add a destination to a virtual service
    Add {
        #[command(flatten)]
        service: ServiceName,
        /// The real server
        #[arg(long, short = 'r', value_name = "RIP[:PORT]")]
        server: Server,
        /// Direct routing (VS/DR), the only method of this version
        #[arg(long, short = 'g')]
        direct: bool,
        /// 0 takes no new connections
        #[arg(long, short = 'w', default_value_t = 1)]
        weight: u32,
        /// Connections at which no more are taken; 0: no limit
        #[arg(long, short = 'x', default_value_t = 0)]
        upper_threshold: u32,
        /// Connections below which more are taken again; 0: three quarters of the upper threshold
        #[arg(long, short = 'y', default_value_t = 0)]
        lower_threshold: u32,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
    /// Change a destination; what is not named stays as it is
    Edit {
        #[command(flatten)]
        service: ServiceName,
        /// The real server
        #[arg(long, short = 'r', value_name = "RIP[:PORT]")]
        server: Server,
        /// Direct routing (VS/DR)
        #[arg(long, short = 'g')]
        direct: bool,
        /// 0 takes no new connections
        #[arg(long, short = 'w')]
        weight: Option<u32>,
        /// Connections at which no more are taken; 0: no limit
        #[arg(long, short = 'x')]
        upper_threshold: Option<u32>,
        /// Connections below which more are taken again
        #[arg(long, short = 'y')]
        lower_threshold: Option<u32>,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
    /// Delete a destination; packets of its connections are dropped
    Delete {
        #[command(flatten)]
        service: ServiceName,
        /// The real server
        #[arg(long, short = 'r', value_name = "RIP[:PORT]")]
        server: Server,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
    /// List destinations, the newest first
    List {
        #[command(flatten)]
        service: ServiceChoice,
    },
}

impl DestinationCommand {
    /// The change to make, and whether to wait for it.
    pub(super) fn change(&self) -> Result<(Change, bool), Failure> {
        Ok(match self {
            Self::List { .. } => return Err(Failure::Usage("a listing changes nothing".into())),
            Self::Add { service, server, direct: _, weight, upper_threshold, lower_threshold, wait } => {
                let destination = DestinationSpec {
                    address: *server,
                    weight: *weight,
                    method: Method::Direct,
                    upper_threshold: *upper_threshold,
                    lower_threshold: *lower_threshold,
                };
                (Change::DestinationAdd(DestinationAdd { service: service.key()?, destination }), *wait)
            }
            Self::Edit { service, server, direct, weight, upper_threshold, lower_threshold, wait } => {
                let edit = DestinationEdit {
                    service: service.key()?,
                    address: *server,
                    weight: *weight,
                    method: direct.then_some(Method::Direct),
                    upper_threshold: *upper_threshold,
                    lower_threshold: *lower_threshold,
                };
                if edit.weight.is_none()
                    && edit.method.is_none()
                    && edit.upper_threshold.is_none()
                    && edit.lower_threshold.is_none()
                {
                    let message = "nothing to change: name --weight, --upper-threshold or --lower-threshold";
                    return Err(Failure::Usage(message.into()));
                }
                (Change::DestinationEdit(edit), *wait)
            }
            Self::Delete { service, server, wait } => {
                let delete = DestinationDelete { service: service.key()?, address: *server };
                (Change::DestinationDelete(delete), *wait)
            }
        })
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ConnectionCommand {
    /// List connections and persistence templates
    List {
        /// Only this service's, such as 192.168.132.254:80 or udp/192.168.132.254:53
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
    Apply {
        /// TOML with [[service]]s; other sections are left to the next start
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
    /// Show the services as a file that `config apply` takes
    Show,
}
