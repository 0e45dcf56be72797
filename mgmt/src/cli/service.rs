//! Commands about virtual services, and how a command names one.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};

use super::Failure;
use crate::address::{AddressError, Endpoint, Protocol};
use crate::desired::{
    Change, ClientMask, Family, MaglevOrder, Scheduler, SchedulerFlags, ServiceAdd, ServiceDelete,
    ServiceEdit, ServiceFlush, ServiceKey, ServiceSpec, scheduler,
};

/// Exactly one service.
#[derive(Debug, Args)]
pub(super) struct ServiceName {
    #[command(flatten)]
    name: Name,
    /// The mark's IPv6 packets
    #[arg(long, short = '6', requires = "mark", conflicts_with_all = ["tcp", "udp", "sctp"])]
    ipv6: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Name {
    /// TCP service, such as 192.168.132.254:80 or [fd00::1]:80
    #[arg(long, short = 't', value_name = "ADDR:PORT")]
    tcp: Option<Endpoint>,
    /// UDP service
    #[arg(long, short = 'u', value_name = "ADDR:PORT")]
    udp: Option<Endpoint>,
    /// SCTP service
    #[arg(long, value_name = "ADDR:PORT")]
    sctp: Option<Endpoint>,
    /// Service of the packets that a mark rule gave this mark
    #[arg(long, short = 'f', value_name = "MARK")]
    mark: Option<NonZeroU32>,
}

/// One service or all.
#[derive(Debug, Args)]
pub(super) struct ServiceChoice {
    #[command(flatten)]
    name: Choice,
    /// The mark's IPv6 packets
    #[arg(long, short = '6', requires = "mark", conflicts_with_all = ["tcp", "udp", "sctp"])]
    ipv6: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct Choice {
    /// Only this TCP service
    #[arg(long, short = 't', value_name = "ADDR:PORT")]
    tcp: Option<Endpoint>,
    /// Only this UDP service
    #[arg(long, short = 'u', value_name = "ADDR:PORT")]
    udp: Option<Endpoint>,
    /// Only this SCTP service
    #[arg(long, value_name = "ADDR:PORT")]
    sctp: Option<Endpoint>,
    /// Only this mark's service
    #[arg(long, short = 'f', value_name = "MARK")]
    mark: Option<NonZeroU32>,
}

fn key(
    addresses: [(Protocol, Option<Endpoint>); 3],
    mark: Option<NonZeroU32>,
    ipv6: bool,
) -> Option<ServiceKey> {
    let family = if ipv6 { Family::Ipv6 } else { Family::Ipv4 };
    let named = addresses
        .into_iter()
        .find_map(|(protocol, address)| address.map(|address| ServiceKey::Address { protocol, address }));
    named.or_else(|| mark.map(|mark| ServiceKey::Mark { mark, family }))
}

impl ServiceName {
    pub(super) fn key(&self) -> Result<ServiceKey, Failure> {
        let Name { tcp, udp, sctp, mark } = self.name;
        key([(Protocol::Tcp, tcp), (Protocol::Udp, udp), (Protocol::Sctp, sctp)], mark, self.ipv6)
            .ok_or_else(|| Failure::Usage("name a service with --tcp, --udp, --sctp or --mark".into()))
    }
}

impl ServiceChoice {
    pub(super) fn key(&self) -> Option<ServiceKey> {
        let Choice { tcp, udp, sctp, mark } = self.name;
        key([(Protocol::Tcp, tcp), (Protocol::Udp, udp), (Protocol::Sctp, sctp)], mark, self.ipv6)
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

pub(super) fn service_filter(text: &str) -> Result<ServiceFilter, String> {
    let named = |mark: &str, family| match mark.parse() {
        Ok(mark) => Ok(ServiceFilter(ServiceKey::Mark { mark, family })),
        Err(_) => Err(format!("`{mark}` is not a mark; write mark/3, or mark6/3 for IPv6")),
    };
    let (protocol, address) = match text.split_once('/') {
        Some(("tcp", address)) => (Protocol::Tcp, address),
        Some(("udp", address)) => (Protocol::Udp, address),
        Some(("sctp", address)) => (Protocol::Sctp, address),
        Some(("mark", mark)) => return named(mark, Family::Ipv4),
        Some(("mark6", mark)) => return named(mark, Family::Ipv6),
        Some((other, _)) => {
            return Err(format!(
                "`{other}` is not a protocol; write tcp/ADDR:PORT, udp/ADDR:PORT or sctp/ADDR:PORT"
            ));
        }
        None => (Protocol::Tcp, text),
    };
    let address = address.parse().map_err(|error: AddressError| error.to_string())?;
    Ok(ServiceFilter(ServiceKey::Address { protocol, address }))
}

/// `none` is written as 0.
fn mss_clamp(text: &str) -> Result<u16, String> {
    if text == "none" {
        return Ok(0);
    }
    text.parse()
        .map_err(|_| format!("`{text}` is no number of bytes up to 65535; write one such as 1440, or none"))
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Add a virtual service
    Add {
        #[command(flatten)]
        service: ServiceName,
        /// By ipvsadm's name for it, such as rr
        #[arg(long, short = 's', default_value = "wlc", value_parser = scheduler)]
        scheduler: Scheduler,
        /// What the scheduler may look at, such as sh-port,sh-fallback
        #[arg(long, short = 'b', value_name = "FLAGS", default_value = "")]
        sched_flags: SchedulerFlags,
        #[command(flatten)]
        maglev: MaglevOptions,
        /// Schedule every datagram anew
        #[arg(long, short = 'o')]
        one_packet: bool,
        /// Seconds a client stays on its destination
        #[arg(long, short = 'p', value_name = "SECS", default_value_t = 0)]
        persistent: u32,
        /// Part of the client's address that counts: 255.255.255.0 or a prefix length
        #[arg(long, short = 'M')]
        netmask: Option<ClientMask>,
        /// Greatest TCP MSS that a SYN which passes may offer, in bytes, such as 1440; none: whatever it does
        #[arg(long, value_name = "BYTES|none", value_parser = mss_clamp)]
        mss_clamp: Option<u16>,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
    /// Change a virtual service; what is not named stays as it is
    Edit {
        #[command(flatten)]
        service: ServiceName,
        /// By ipvsadm's name for it, such as rr
        #[arg(long, short = 's', value_parser = scheduler)]
        scheduler: Option<Scheduler>,
        /// What the scheduler may look at, such as sh-port,sh-fallback; empty: nothing
        #[arg(long, short = 'b', value_name = "FLAGS")]
        sched_flags: Option<SchedulerFlags>,
        #[command(flatten)]
        maglev: MaglevOptions,
        /// Schedule every datagram anew, or no longer
        #[arg(long, short = 'o', num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        one_packet: Option<bool>,
        /// Seconds a client stays on its destination; 0 ends persistence
        #[arg(long, short = 'p', value_name = "SECS")]
        persistent: Option<u32>,
        /// Part of the client's address that counts: 255.255.255.0 or a prefix length
        #[arg(long, short = 'M')]
        netmask: Option<ClientMask>,
        /// Greatest TCP MSS that a SYN which passes may offer, in bytes, such as 1440; none: whatever it does
        #[arg(long, value_name = "BYTES|none", value_parser = mss_clamp)]
        mss_clamp: Option<u16>,
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
    /// Delete all virtual services
    Flush {
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
    /// List virtual services and their destinations
    List {
        /// What they forward a second
        #[arg(long)]
        rate: bool,
    },
}

/// Options of scheduler mh.
#[derive(Debug, Args)]
pub(super) struct MaglevOptions {
    /// Slots of mh's table, a prime number from 251 to 65537
    #[arg(long, value_name = "SLOTS")]
    mh_size: Option<u32>,
    /// How mh fills its table: kernel (as Linux) or canonical (alike on every director)
    #[arg(long, value_name = "ORDER")]
    mh_order: Option<MaglevOrder>,
}

/// What the kernel takes and ipvsadm refuses, because hardly anybody means it.
fn refuse_mistakes(key: ServiceKey, persistent: u32, one_packet: bool) -> Result<(), Failure> {
    match key {
        ServiceKey::Address { address: Endpoint { port: 0, .. }, .. } if persistent == 0 => {
            let message = format!(
                "service {key} is on port 0 (every port), which needs persistence; add --persistent 300"
            );
            Err(Failure::Usage(message))
        }
        ServiceKey::Address { protocol: Protocol::Tcp | Protocol::Sctp, .. } if one_packet => {
            let message = "--one-packet is for UDP: a connection's packets belong to one destination";
            Err(Failure::Usage(message.into()))
        }
        _ => Ok(()),
    }
}

impl ServiceCommand {
    /// The change to make, and whether to wait for it; `None`: a listing.
    pub(super) fn change(&self) -> Result<Option<(Change, bool)>, Failure> {
        Ok(Some(match self {
            Self::List { .. } => return Ok(None),
            Self::Add {
                service,
                scheduler,
                sched_flags,
                maglev,
                one_packet,
                persistent,
                netmask,
                mss_clamp,
                wait,
            } => {
                let key = service.key()?;
                refuse_mistakes(key, *persistent, *one_packet)?;
                let service = ServiceSpec {
                    scheduler_flags: *sched_flags,
                    mh_size: maglev.mh_size,
                    mh_order: maglev.mh_order,
                    one_packet: *one_packet,
                    persistent: *persistent,
                    netmask: *netmask,
                    mss_clamp: mss_clamp.unwrap_or(0),
                    ..ServiceSpec::new(key, *scheduler)
                };
                (Change::ServiceAdd(ServiceAdd { service }), *wait)
            }
            Self::Edit {
                service,
                scheduler,
                sched_flags,
                maglev,
                one_packet,
                persistent,
                netmask,
                mss_clamp,
                wait,
            } => {
                let service = service.key()?;
                // An edit without --persistent leaves what there is.
                refuse_mistakes(service, persistent.unwrap_or(1), one_packet.unwrap_or(false))?;
                let edit = ServiceEdit {
                    service,
                    scheduler: *scheduler,
                    scheduler_flags: *sched_flags,
                    mh_size: maglev.mh_size,
                    mh_order: maglev.mh_order,
                    one_packet: *one_packet,
                    persistent: *persistent,
                    netmask: *netmask,
                    mss_clamp: *mss_clamp,
                };
                if edit == ServiceEdit::of(service) {
                    return Err(Failure::Usage(
                        "nothing to change: name --scheduler, --sched-flags, --mh-size, --mh-order, --one-packet, --persistent, --netmask or --mss-clamp"
                            .into(),
                    ));
                }
                (Change::ServiceEdit(edit), *wait)
            }
            Self::Delete { service, wait } => {
                (Change::ServiceDelete(ServiceDelete { service: service.key()? }), *wait)
            }
            Self::Flush { wait } => (Change::ServiceFlush(ServiceFlush {}), *wait),
        }))
    }
}
