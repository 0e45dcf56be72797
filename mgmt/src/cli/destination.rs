//! Commands about destinations.

use clap::{Args, Subcommand, ValueEnum};

use super::Failure;
use super::service::{ServiceChoice, ServiceName};
use crate::address::Server;
use crate::desired::{
    Change, DestinationAdd, DestinationDelete, DestinationEdit, DestinationSpec, Method, ServiceKey, Tunnel,
    TunnelChecksum, TunnelKind,
};

/// How packets get there.
#[derive(Debug, Args)]
pub(super) struct MethodChoice {
    #[command(flatten)]
    method: MethodName,
    /// What carries the packets of a tunnel
    #[arg(long, value_name = "KIND", requires = "tunnel", conflicts_with_all = ["direct", "masquerade"])]
    tun_type: Option<Kind>,
    /// UDP port of a GUE tunnel
    #[arg(long, value_name = "PORT", requires = "tunnel", conflicts_with_all = ["direct", "masquerade"])]
    tun_port: Option<u16>,
    /// Checksum of a GUE or GRE tunnel
    #[arg(long, value_name = "CHECKSUM", requires = "tunnel", conflicts_with_all = ["direct", "masquerade"])]
    tun_checksum: Option<Checksum>,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct MethodName {
    /// Direct routing (VS/DR)
    #[arg(long, short = 'g')]
    direct: bool,
    /// Network address translation (VS/NAT)
    #[arg(long, short = 'm')]
    masquerade: bool,
    /// A tunnel (VS/TUN)
    #[arg(long, short = 'i')]
    tunnel: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Ipip,
    Gue,
    Gre,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Checksum {
    None,
    Plain,
    Remote,
}

impl MethodChoice {
    /// The method that was named.
    fn method(&self) -> Option<Method> {
        let MethodName { direct, masquerade, tunnel } = self.method;
        let kind = match self.tun_type {
            None | Some(Kind::Ipip) => TunnelKind::Ipip,
            Some(Kind::Gue) => TunnelKind::Gue,
            Some(Kind::Gre) => TunnelKind::Gre,
        };
        let checksum = match self.tun_checksum {
            None | Some(Checksum::None) => TunnelChecksum::None,
            Some(Checksum::Plain) => TunnelChecksum::Plain,
            Some(Checksum::Remote) => TunnelChecksum::Remote,
        };
        let port = self.tun_port.unwrap_or(0);
        let tunnel = tunnel.then_some(Method::Tunnel(Tunnel { kind, port, checksum }));
        tunnel
            .or_else(|| masquerade.then_some(Method::Masquerade))
            .or_else(|| direct.then_some(Method::Direct))
    }
}

/// A destination that is not masqueraded is listed with the service's port, whatever was named, as with ipvsadm.
fn listed(service: ServiceKey, server: Server, method: Method) -> Server {
    match method {
        Method::Direct | Method::Tunnel(_) if !service.is_mark() => Server { port: None, ..server },
        _ => server,
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum DestinationCommand {
    /// Add a destination to a virtual service
    Add {
        #[command(flatten)]
        service: ServiceName,
        /// The real server; only masquerading delivers to a port of its own
        #[arg(long, short = 'r', value_name = "RIP[:PORT]")]
        server: Server,
        #[command(flatten)]
        method: MethodChoice,
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
        #[command(flatten)]
        method: MethodChoice,
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
            Self::Add { service, server, method, weight, upper_threshold, lower_threshold, wait } => {
                let service = service.key()?;
                let method = method.method().unwrap_or_default();
                let destination = DestinationSpec {
                    address: listed(service, *server, method),
                    weight: *weight,
                    method,
                    upper_threshold: *upper_threshold,
                    lower_threshold: *lower_threshold,
                };
                (Change::DestinationAdd(DestinationAdd { service, destination }), *wait)
            }
            Self::Edit { service, server, method, weight, upper_threshold, lower_threshold, wait } => {
                let edit = DestinationEdit {
                    service: service.key()?,
                    address: *server,
                    weight: *weight,
                    method: method.method(),
                    upper_threshold: *upper_threshold,
                    lower_threshold: *lower_threshold,
                };
                if edit == DestinationEdit::of(edit.service, edit.address) {
                    let message =
                        "nothing to change: name --weight, a method, --upper-threshold or --lower-threshold";
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
