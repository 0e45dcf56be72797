//! Answers a datagram: each request in it is carried out by the director and told of as the kernel tells.

use std::io;

use rustix::io::Errno;

use super::attribute::{Attribute, Rule, Table};
use super::daemon;
use super::destination;
use super::message::{Ipvs, Request};
use super::number::{self, carried, command, info};
use super::operation;
use super::outbox::{Dump, Outbox, Unanswered};
use super::service;
use super::{controller, errno, file};
use crate::control::{Backend, Peer};
use crate::desired::{
    Change, DestinationAdd, DestinationDelete, ServiceAdd, ServiceDelete, ServiceFlush, ServiceKey,
    TimeoutsSet,
};
use crate::protocol::{
    Configuration, CountersZero, DestinationState, Fault, Request as Asked, Response, Role, ServicePageQuery,
    ServiceQuery, ServiceState,
};

/// What a command's attributes must look like.
const RULES: [Rule; 7] =
    [Rule::Any, Rule::Nested, Rule::Nested, Rule::Nested, Rule::Number(4), Rule::Number(4), Rule::Number(4)];

type Carries<'a> = Table<'a, 7>;

/// How a request was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// Its client may want to hear of success.
    Done,
    /// It has heard: a dump ends with a message of its own.
    Ended,
}

/// A client's side of the director.
pub(super) struct Responder<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) peer: Peer,
}

impl Responder<'_> {
    /// Answers all requests of a datagram.
    ///
    /// # Errors
    ///
    /// The client is gone or does not read.
    pub(super) fn answer(&self, datagram: &[u8], outbox: &mut dyn Outbox) -> io::Result<()> {
        for request in Request::all(datagram) {
            let verdict = match self.carry_out(&request, outbox) {
                Ok(Answered::Done) if request.wants_acknowledgement() => request.verdict(None),
                Ok(_) => continue,
                Err(Unanswered::Refused(errno)) => request.verdict(Some(errno)),
                Err(Unanswered::Gone(error)) => return Err(error),
            };
            outbox.send(&verdict)?;
        }
        Ok(())
    }

    fn carry_out(&self, request: &Request<'_>, outbox: &mut dyn Outbox) -> Result<Answered, Unanswered> {
        if !request.is_request() || request.family < number::FIRST_FAMILY {
            return Ok(Answered::Done);
        }
        match request.family {
            number::CONTROLLER => controller(request, outbox),
            number::IPVS => self.ipvs(request, outbox),
            number::FILE => {
                let mut dump = Dump::new(request, outbox);
                let outcome = file::write(self, request.payload(), &mut dump);
                if let Err(Unanswered::Refused(Errno::NOENT)) = outcome {
                    return outcome.map(|()| Answered::Ended);
                }
                dump.end(outcome)?;
                Ok(Answered::Ended)
            }
            _ => Err(Errno::NOENT.into()),
        }
    }

    fn ipvs(&self, request: &Request<'_>, outbox: &mut dyn Outbox) -> Result<Answered, Unanswered> {
        let (command, attributes) = request.generic()?;
        let operation = operation::find(command).ok_or(Errno::OPNOTSUPP)?;
        if operation.changes && self.peer.role != Role::Operator {
            return Err(Errno::PERM.into());
        }
        match (request.is_dump(), operation) {
            (true, operation) if operation.dump => {
                self.dump(request, command, attributes, outbox)?;
                Ok(Answered::Ended)
            }
            (false, operation) if operation.single => {
                let carries = Table::read(attributes, &RULES)?;
                if operation.changes {
                    self.change(command, &carries)?;
                } else {
                    outbox.send(&request.reply(self.look(command, &carries)?))?;
                }
                Ok(Answered::Done)
            }
            _ => Err(Errno::OPNOTSUPP.into()),
        }
    }

    fn change(&self, command: u8, carries: &Carries<'_>) -> Result<(), Errno> {
        match command {
            command::FLUSH => self.make(Change::ServiceFlush(ServiceFlush {})),
            command::SET_CONFIG => self.set_timeouts(carries),
            command::NEW_DAEMON => daemon::start(carries),
            command::DEL_DAEMON => daemon::stop(carries),
            command::ZERO if carries.bytes(carried::SERVICE).is_none() => self.zero(None),
            _ => self.change_service(command, carries),
        }
    }

    /// The commands about one service. What is wrong is told in the kernel's order: a malformed service, one that is not there
    /// (or is), and only then what is wrong with the rest.
    fn change_service(&self, command: u8, carries: &Carries<'_>) -> Result<(), Errno> {
        let (key, table) = service::read(carries)?;
        match command {
            command::NEW_SERVICE => {
                let wanted = service::Wanted::read(&table)?;
                let spec = key.and_then(|key| wanted.spec(key));
                let spec = spec.or_else(|errno| match self.present(key)? {
                    Some(_) => Err(Errno::EXIST),
                    None => Err(errno),
                })?;
                self.make(Change::ServiceAdd(ServiceAdd { service: spec }))
            }
            command::SET_SERVICE => {
                let wanted = service::Wanted::read(&table)?;
                let key = key.map_err(|_| Errno::SRCH)?;
                let present = if wanted.is_partial() {
                    service::flags(&self.service(key)?.ok_or(Errno::SRCH)?)
                } else {
                    0
                };
                let edit = wanted.edit(key, present).or_else(|errno| self.unless_missing(key, errno))?;
                self.make(Change::ServiceEdit(edit))
            }
            command::DEL_SERVICE => {
                let service = key.map_err(|_| Errno::SRCH)?;
                self.make(Change::ServiceDelete(ServiceDelete { service }))
            }
            command::ZERO => self.zero(Some(key.map_err(|_| Errno::SRCH)?)),
            _ => {
                let key = key.map_err(|_| Errno::SRCH)?;
                let change = destination_change(command, key, carries);
                self.make(change.or_else(|errno| self.unless_missing(key, errno))?)
            }
        }
    }

    /// `errno`, unless the service is not there, which counts for more.
    fn unless_missing<T>(&self, key: ServiceKey, errno: Errno) -> Result<T, Errno> {
        self.destinations(key)?;
        Err(errno)
    }

    fn set_timeouts(&self, carries: &Carries<'_>) -> Result<(), Errno> {
        let seconds = |kind| carries.u32(kind).filter(|seconds| *seconds != 0);
        let set = TimeoutsSet {
            tcp: seconds(carried::TIMEOUT_TCP),
            tcp_fin: seconds(carried::TIMEOUT_TCP_FIN),
            udp: seconds(carried::TIMEOUT_UDP),
        };
        if [set.tcp, set.tcp_fin, set.udp].into_iter().flatten().any(|seconds| seconds > number::TIMEOUT_MAX)
        {
            return Err(Errno::INVAL);
        }
        self.make(Change::TimeoutsSet(set))
    }

    fn zero(&self, service: Option<ServiceKey>) -> Result<(), Errno> {
        self.ask(Asked::CountersZero(CountersZero { service })).map(drop)
    }

    fn look(&self, command: u8, carries: &Carries<'_>) -> Result<Ipvs, Errno> {
        match command {
            command::GET_SERVICE => {
                let (key, _) = service::read(carries)?;
                let service = self.present(key)?.ok_or(Errno::SRCH)?;
                Ok(listed_service(&service))
            }
            command::GET_CONFIG => {
                let Response::Configuration(Configuration { timeouts, .. }) = self.ask(Asked::ConfigGet)?
                else {
                    return Err(Errno::IO);
                };
                Ok(Ipvs {
                    command: command::SET_CONFIG,
                    attributes: vec![
                        Attribute::u32(carried::TIMEOUT_TCP, timeouts.tcp),
                        Attribute::u32(carried::TIMEOUT_TCP_FIN, timeouts.tcp_fin),
                        Attribute::u32(carried::TIMEOUT_UDP, timeouts.udp),
                    ],
                })
            }
            _ => {
                let [major, minor, patch] = number::IPVS_VERSION;
                let version = u32::from_be_bytes([0, major, minor, patch]);
                Ok(Ipvs {
                    command: command::SET_INFO,
                    attributes: vec![
                        Attribute::u32(info::VERSION, version),
                        Attribute::u32(info::CONNECTION_TABLE, number::CONNECTION_TABLE),
                    ],
                })
            }
        }
    }

    fn dump(
        &self,
        request: &Request<'_>,
        command: u8,
        attributes: &[u8],
        outbox: &mut dyn Outbox,
    ) -> Result<(), Unanswered> {
        let mut dump = Dump::new(request, outbox);
        let outcome = match command {
            command::GET_SERVICE => self.each_service(&mut |service| Ok(dump.item(listed_service(service))?)),
            command::GET_DEST => self.dump_destinations(attributes, &mut dump),
            // The sync daemons: there are none.
            _ => Ok(()),
        };
        dump.end(outcome)
    }

    /// Of a service that is not there, or not named, the kernel lists nothing.
    fn dump_destinations(&self, attributes: &[u8], dump: &mut Dump<'_>) -> Result<(), Unanswered> {
        let read = Table::read(attributes, &RULES).and_then(|carries: Carries<'_>| service::read(&carries));
        let Ok((Ok(key), _)) = read else { return Ok(()) };
        let destinations = match self.destinations(key) {
            Err(Errno::SRCH) => return Ok(()),
            listed => listed?,
        };
        for destination in &destinations {
            let attributes = vec![destination::described(destination)];
            dump.item(Ipvs { command: command::NEW_DEST, attributes })?;
        }
        Ok(())
    }

    /// All services in the director's order, a page at a time.
    pub(super) fn each_service(
        &self,
        visit: &mut dyn FnMut(&ServiceState) -> Result<(), Unanswered>,
    ) -> Result<(), Unanswered> {
        let mut query = ServicePageQuery::default();
        loop {
            let Response::Services(page) = self.ask(Asked::ServiceList(query))? else {
                return Err(Errno::IO.into());
            };
            page.services.iter().try_for_each(&mut *visit)?;
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn present(&self, key: service::Key) -> Result<Option<ServiceState>, Errno> {
        key.map_or(Ok(None), |key| self.service(key))
    }

    fn service(&self, key: ServiceKey) -> Result<Option<ServiceState>, Errno> {
        let query = ServicePageQuery { service: Some(key), ..ServicePageQuery::default() };
        match self.ask(Asked::ServiceList(query))? {
            Response::Services(page) => Ok(page.services.into_iter().next()),
            _ => Err(Errno::IO),
        }
    }

    fn destinations(&self, service: ServiceKey) -> Result<Vec<DestinationState>, Errno> {
        match self.ask(Asked::DestinationList(ServiceQuery { service }))? {
            Response::Destinations(list) => Ok(list.destinations),
            _ => Err(Errno::IO),
        }
    }

    fn make(&self, change: Change) -> Result<(), Errno> {
        self.ask(Asked::Change { change: Box::new(change), wait: false }).map(drop)
    }

    /// Hands a request to the director.
    pub(super) fn ask(&self, request: Asked) -> Result<Response, Errno> {
        self.backend.call(request, self.peer).map_err(|fault: Fault| errno::of(&fault))
    }
}

fn listed_service(service: &ServiceState) -> Ipvs {
    Ipvs { command: command::NEW_SERVICE, attributes: vec![service::described(service)] }
}

fn destination_change(command: u8, service: ServiceKey, carries: &Carries<'_>) -> Result<Change, Errno> {
    let table = destination::read(carries)?;
    let wanted = match command {
        command::DEL_DEST => None,
        _ => Some(destination::Wanted::read(&table)?),
    };
    let server = destination::server(&table, service.family())?;
    Ok(match (command, wanted) {
        (command::NEW_DEST, Some(wanted)) => {
            Change::DestinationAdd(DestinationAdd { service, destination: wanted.spec(server)? })
        }
        (_, Some(wanted)) => Change::DestinationEdit(wanted.edit(service, server)?),
        (_, None) => {
            Change::DestinationDelete(DestinationDelete { service, address: destination::named(server) })
        }
    })
}

fn controller(request: &Request<'_>, outbox: &mut dyn Outbox) -> Result<Answered, Unanswered> {
    let (command, attributes) = request.generic()?;
    if command != controller::GET_FAMILY {
        return Err(Errno::OPNOTSUPP.into());
    }
    if request.is_dump() {
        let mut dump = Dump::new(request, outbox);
        let outcome = controller::families().try_for_each(|family| dump.item(family));
        dump.end(outcome.map_err(Unanswered::from))?;
        return Ok(Answered::Ended);
    }
    outbox.send(&request.reply(controller::family(attributes)?))?;
    Ok(Answered::Done)
}
