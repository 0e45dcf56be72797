//! For tests: recorded conversations, a client that keeps what it is sent, and a model of the services that the kernel keeps.

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use super::answer::Responder;
use super::outbox::Outbox;
use super::{Options, Server};
use crate::address::{Endpoint, Server as RealServer};
use crate::control::{Backend, ControlDirectory, Operators, Peer};
use crate::desired::{
    Change, ClientMask, DestinationSpec, Family, Method, Refusal, ServiceKey, ServiceSpec, Settings,
    Timeouts, WEIGHT_MAX,
};
use crate::protocol::{
    Changed, Configuration, ConnectionEntry, ConnectionPage, DestinationList, DestinationState, Fault,
    FaultKind, Latency, Request, Response, Role, ServicePage, ServiceState, Stats, Traffic, Zeroed,
};

/// A recorded case: what was asked, and what came back.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) exchanges: Vec<Exchange>,
}

/// One datagram, and the datagrams that answered it.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) asked: Vec<u8>,
    pub(super) answered: Vec<Vec<u8>>,
}

pub(super) fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hexadecimal.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Reads a recording.
pub(super) fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        match (line.split_once(' ').unwrap(), cases.last_mut()) {
            (("#", name), _) => cases.push(Case { name: name.to_owned(), exchanges: Vec::new() }),
            ((">", asked), Some(case)) => {
                case.exchanges.push(Exchange { asked: bytes(asked), answered: Vec::new() });
            }
            (("<", answered), Some(case)) => {
                case.exchanges.last_mut().unwrap().answered.push(bytes(answered));
            }
            _ => {}
        }
    }
    cases
}

pub(super) const IPVSADM: &str = include_str!("testdata/ipvsadm.txt");
pub(super) const KEEPALIVED: &str = include_str!("testdata/keepalived.txt");
pub(super) const ODD: &str = include_str!("testdata/odd.txt");

/// Keeps what it is sent.
#[derive(Debug, Default)]
pub(super) struct Kept(pub(super) Vec<Vec<u8>>);

impl Outbox for Kept {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.0.push(datagram.to_vec());
        Ok(())
    }
}

pub(super) fn peer(role: Role) -> Peer {
    Peer { pid: 1, uid: 0, gid: 0, role }
}

/// What a backend answers to an operator's datagram.
pub(super) fn ask(backend: &dyn Backend, datagram: &[u8]) -> Vec<Vec<u8>> {
    ask_as(Role::Operator, backend, datagram)
}

pub(super) fn ask_as(role: Role, backend: &dyn Backend, datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut kept = Kept::default();
    Responder { backend, peer: peer(role) }.answer(datagram, &mut kept).unwrap();
    kept.0
}

/// Services as the kernel keeps them, whatever a data path can do with them.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Model {
    pub(super) services: Vec<ServiceState>,
    pub(super) timeouts: Timeouts,
    pub(super) connections: Vec<ConnectionEntry>,
    pub(super) totals: Traffic,
}

impl Model {
    fn find(&mut self, key: ServiceKey) -> Result<&mut ServiceState, Refusal> {
        self.services.iter_mut().find(|held| held.key == key).ok_or(Refusal::NoService(key))
    }

    /// Makes a change, or none of it.
    pub(super) fn change(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::ServiceAdd(add) => {
                let spec = &add.service;
                if self.find(spec.key).is_ok() {
                    return Err(Refusal::ServiceExists(spec.key));
                }
                self.services.push(service_state(spec));
                self.services.sort_by_key(|service| service.key);
            }
            Change::ServiceEdit(edit) => {
                let service = self.find(edit.service)?;
                service.scheduler = edit.scheduler.unwrap_or(service.scheduler);
                service.scheduler_flags = edit.scheduler_flags.unwrap_or(service.scheduler_flags);
                service.one_packet = edit.one_packet.unwrap_or(service.one_packet);
                service.persistent = edit.persistent.unwrap_or(service.persistent);
                service.netmask =
                    held_mask(edit.service, service.persistent, edit.netmask.or(service.netmask));
            }
            Change::ServiceDelete(delete) => {
                self.find(delete.service)?;
                self.services.retain(|held| held.key != delete.service);
            }
            Change::ServiceFlush(_) => self.services.clear(),
            Change::DestinationAdd(add) => {
                let service = self.find(add.service)?;
                let new = destination_state(&add.destination)?;
                let mixed = Family::of(new.address.ip) != add.service.family();
                if mixed && !matches!(new.method, Method::Tunnel(_)) {
                    return Err(Refusal::FamilyMismatch { service: add.service, server: new.address.ip });
                }
                if service.destinations.iter().any(|held| held.address == new.address) {
                    return Err(Refusal::DestinationExists { service: add.service, server: new.address });
                }
                service.destinations.insert(0, new);
            }
            Change::DestinationEdit(edit) => {
                let spec = DestinationSpec {
                    address: edit.address,
                    weight: edit.weight.unwrap(),
                    method: edit.method.unwrap(),
                    upper_threshold: edit.upper_threshold.unwrap(),
                    lower_threshold: edit.lower_threshold.unwrap(),
                };
                let service = self.find(edit.service)?;
                let new = destination_state(&spec)?;
                let missing = Refusal::NoDestination { service: edit.service, server: edit.address };
                let held = service
                    .destinations
                    .iter_mut()
                    .find(|held| held.address == new.address)
                    .ok_or(missing)?;
                *held = DestinationState {
                    active: held.active,
                    persistent: held.persistent,
                    traffic: held.traffic,
                    ..new
                };
            }
            Change::DestinationDelete(delete) => {
                let service = self.find(delete.service)?;
                let wanted = listed(delete.address);
                let position = service.destinations.iter().position(|held| held.address == wanted);
                let missing = Refusal::NoDestination { service: delete.service, server: delete.address };
                service.destinations.remove(position.ok_or(missing)?);
            }
            Change::TimeoutsSet(set) => {
                let Timeouts { tcp, tcp_fin, udp } = &mut self.timeouts;
                for (held, new) in [(tcp, set.tcp), (tcp_fin, set.tcp_fin), (udp, set.udp)] {
                    *held = new.unwrap_or(*held);
                }
            }
            other => panic!("the endpoint makes no {other}"),
        }
        Ok(())
    }
}

fn held_mask(key: ServiceKey, persistent: u32, mask: Option<ClientMask>) -> Option<ClientMask> {
    let family = key.family();
    let mask = mask.and_then(|mask| mask.held(family)).filter(|mask| *mask != ClientMask::whole(family));
    mask.filter(|_| persistent != 0)
}

fn service_state(spec: &ServiceSpec) -> ServiceState {
    ServiceState {
        key: spec.key,
        scheduler: spec.scheduler,
        scheduler_flags: spec.scheduler_flags,
        // The wire has no words for mh's table, which is the kernel's, nor for what is our own.
        mh_size: None,
        mh_order: None,
        one_packet: spec.one_packet,
        persistent: spec.persistent,
        netmask: held_mask(spec.key, spec.persistent, spec.netmask),
        mss_clamp: None,
        traffic: Traffic::default(),
        destinations: Vec::new(),
    }
}

fn listed(server: RealServer) -> Endpoint {
    Endpoint { ip: server.ip, port: server.port.unwrap() }
}

fn destination_state(spec: &DestinationSpec) -> Result<DestinationState, Refusal> {
    let address = listed(spec.address);
    if let Method::Tunnel(tunnel) = spec.method {
        tunnel.check()?;
    }
    if spec.weight > WEIGHT_MAX {
        return Err(Refusal::Weight(spec.weight));
    }
    if spec.lower_threshold > spec.upper_threshold {
        return Err(Refusal::Thresholds { lower: spec.lower_threshold, upper: spec.upper_threshold });
    }
    let of_no_host = match address.ip {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if address.ip.is_unspecified() || address.ip.is_multicast() || of_no_host {
        return Err(Refusal::UnusableAddress(address.ip));
    }
    Ok(DestinationState {
        address,
        method: spec.method,
        weight: spec.weight,
        upper_threshold: spec.upper_threshold,
        lower_threshold: spec.lower_threshold,
        overloaded: false,
        active: 0,
        inactive: 0,
        persistent: 0,
        traffic: Traffic::default(),
        next_hop: String::new(),
    })
}

/// A director that is nothing but the model.
#[derive(Debug, Default)]
pub(super) struct Modelled(Mutex<Model>);

impl Modelled {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Model) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Backend for Modelled {
    fn call(&self, request: Request, _: Peer) -> Result<Response, Fault> {
        self.with(|model| answer(model, request, |model, change| Ok(model.change(change)?)))
    }

    fn revision(&self) -> u64 {
        0
    }
}

/// Answers from a model; `change` makes changes.
pub(super) fn answer(
    model: &mut Model,
    request: Request,
    change: impl FnOnce(&mut Model, &Change) -> Result<(), Fault>,
) -> Result<Response, Fault> {
    Ok(match request {
        Request::Change { change: wanted, .. } => {
            change(model, &wanted)?;
            Response::Changed(Changed {
                revision: 0,
                changed: true,
                dry_run: false,
                changes: Vec::new(),
                notes: Vec::new(),
                waited_us: None,
            })
        }
        Request::ServiceList(query) => {
            let wanted = |service: &&ServiceState| {
                query.service.is_none_or(|key| service.key == key)
                    && query.after.is_none_or(|after| service.key > after)
            };
            // Pages of two, so that there are several.
            let mut found = model.services.iter().filter(wanted).cloned();
            let services: Vec<_> = found.by_ref().take(2).collect();
            let next = found.next().and_then(|_| services.last().map(|service| service.key));
            Response::Services(ServicePage { revision: 0, services, next })
        }
        Request::DestinationList(query) => {
            let service = query.service;
            let destinations = model.find(service)?.destinations.clone();
            Response::Destinations(DestinationList { service, destinations })
        }
        Request::ConfigGet => Response::Configuration(Configuration {
            revision: 0,
            services: Vec::new(),
            timeouts: model.timeouts,
            settings: Settings::default(),
            marks: Vec::new(),
        }),
        Request::CountersZero(zero) => {
            if let Some(key) = zero.service {
                model.find(key)?;
            }
            Response::Zeroed(Zeroed { services: 0 })
        }
        Request::ConnectionList(query) => {
            let from = query.cursor.map_or(0, |cursor| cursor.parse().unwrap());
            let connections: Vec<_> = model.connections.iter().skip(from).take(3).cloned().collect();
            let next = (from + 3 < model.connections.len()).then(|| (from + 3).to_string());
            Response::Connections(ConnectionPage { connections, next })
        }
        Request::Stats(_) => Response::Stats(Box::new(Stats {
            counters: Vec::new(),
            drops: Vec::new(),
            totals: model.totals,
            imbalance: 0,
            destinations: Vec::new(),
            apply: Latency::default(),
            grace_period: Latency::default(),
            burst: Latency::default(),
        })),
        other => return Err(Fault::new(FaultKind::Internal, format!("no model of {}", other.method()))),
    })
}

/// A server in a directory of its own, both gone with it.
#[derive(Debug)]
pub(super) struct Served {
    directory: PathBuf,
    pub(super) server: Server,
}

impl Served {
    /// Serves `backend` to everybody, eight at a time.
    pub(super) fn new(name: &str, backend: Arc<dyn Backend>) -> Self {
        Self::sparing(name, backend, Duration::from_secs(60))
    }

    /// The same, where a client that was silent for `spared_after` gives way.
    pub(super) fn sparing(name: &str, backend: Arc<dyn Backend>, spared_after: Duration) -> Self {
        let directory = std::env::temp_dir().join(format!("uvs-ipvs-{}-{name}", std::process::id()));
        let group = rustix::process::getegid().as_raw();
        let claimed = ControlDirectory::claim(&directory, &group.to_string()).unwrap();
        let options = Options { spared_after, ..Options::new(Operators::group(group), 8) };
        let server = Server::start(Arc::new(claimed), options, backend).unwrap();
        Self { directory, server }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("ipvs.sock")
    }

    /// A client with a time limit on what it reads.
    pub(super) fn client(&self) -> UnixStream {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(self.path()).unwrap()).unwrap();
        let stream = UnixStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.stop();
        let _may_hold_a_lock = std::fs::remove_dir_all(&self.directory);
    }
}
