//! `uvsctl`: every command is one or a few calls on the control socket.
//!
//! Exit codes: 0 done, 1 refused, 2 wrong usage, 3 no director to talk to.

mod args;
mod destination;
mod exec;
mod service;
mod show;
mod table;
mod tuning;

pub use args::Arguments;
pub use exec::{ExecError, library};

use std::io::{self, Write};

use clap::Parser;
use serde::Serialize;

use crate::client::{Client, ClientError};
use crate::config;
use crate::desired::{Apply, Change};
use crate::protocol::{
    ConnectionPage, ConnectionQuery, CountersZero, EventQuery, PAGE_MAX, ServicePage, ServicePageQuery,
};
use args::{Command, ConfigCommand, ConnectionCommand};
use destination::DestinationCommand;
use service::ServiceCommand;
use tuning::CountersCommand;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Talking to the director failed, or it refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file for `config apply` is wrong.
    #[error("{0}")]
    File(config::Findings),
    /// A command could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A command line that clap cannot judge.
    #[error("{0}")]
    Usage(String),
    /// Standard output is gone.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// An answer cannot be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Failure {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Client(ClientError::Connect { .. }) => 3,
            Self::Exec(error) => error.exit_code(),
            _ => 1,
        }
    }
}

/// Runs `uvsctl` with the process's arguments and returns its exit code.
pub fn main() -> u8 {
    let arguments = Arguments::parse();
    let stdout = io::stdout();
    let mut out = io::BufWriter::new(stdout.lock());
    let done = run(&arguments, &mut out).and_then(|()| Ok(out.flush()?));
    match done {
        Ok(()) => 0,
        // `uvsctl … | head` is no error of ours.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(failure) => {
            let prefix = if matches!(failure, Failure::File(_)) { "" } else { "uvsctl: " };
            let _nowhere_to_complain = writeln!(io::stderr(), "{prefix}{}", failure.to_string().trim_end());
            failure.exit_code()
        }
    }
}

/// Runs one command, writing what it has to say to `out`.
///
/// # Errors
///
/// See [`Failure`].
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    let mut session = Session { arguments, out };
    match &arguments.command {
        Command::Status => {
            let status = session.connect()?.status()?;
            session.show(&status, |out| show::status(out, &status))
        }
        Command::Stats { all, rate } => {
            let stats = session.connect()?.stats()?;
            session.show(&stats, |out| show::stats(out, &stats, *all, *rate))
        }
        Command::Service { command } => session.service(command),
        Command::Destination { command } => session.destination(command),
        Command::Connection { command: ConnectionCommand::List { service, client, limit } } => {
            let query = ConnectionQuery {
                service: service.as_ref().and_then(service::ServiceFilter::key),
                client: *client,
                ..ConnectionQuery::default()
            };
            session.connections(&query, *limit)
        }
        Command::Config { command } => session.config(command),
        Command::Mark { command } => match command.change() {
            Some((change, wait)) => session.change(change, wait),
            None => {
                let marks = session.connect()?.configuration()?.marks;
                session.show(&marks, |out| show::marks(out, &marks))
            }
        },
        Command::Settings { command } => match command.change()? {
            Some((change, wait)) => session.change(change, wait),
            None => {
                let settings = session.connect()?.configuration()?.settings;
                session.show(&settings, |out| show::named(out, &settings))
            }
        },
        Command::Timeouts { command } => match command.change()? {
            Some((change, wait)) => session.change(change, wait),
            None => {
                let timeouts = session.connect()?.configuration()?.timeouts;
                session.show(&timeouts, |out| show::named(out, &timeouts))
            }
        },
        Command::Counters { command: CountersCommand::Zero { service } } => {
            let zeroed = session.connect()?.zero(CountersZero { service: service.key() })?;
            session.show(&zeroed, |out| writeln!(out, "{} services count from 0 now", zeroed.services))
        }
        Command::Exec { command } => Err(exec::exec(&arguments.socket, command)),
        Command::Events { since, limit } => {
            let query = EventQuery { since: *since, limit: limit.map(|limit| limit.clamp(1, PAGE_MAX)) };
            let page = session.connect()?.events(query)?;
            session.show(&page, |out| show::events(out, &page))
        }
    }
}

struct Session<'a> {
    arguments: &'a Arguments,
    out: &'a mut dyn Write,
}

impl Session<'_> {
    fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.arguments.socket)?)
    }

    fn show<T: Serialize>(
        &mut self,
        value: &T,
        human: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        if self.arguments.json {
            serde_json::to_writer_pretty(&mut *self.out, value)?;
            writeln!(self.out)?;
        } else {
            human(self.out)?;
        }
        Ok(())
    }

    fn change(&mut self, change: Change, wait: bool) -> Result<(), Failure> {
        let made = self.connect()?.change(change, wait)?;
        self.show(&made, |out| show::changed(out, &made))
    }

    fn service(&mut self, command: &ServiceCommand) -> Result<(), Failure> {
        match command.change()? {
            Some((change, wait)) => self.change(change, wait),
            None => {
                let rate = matches!(command, ServiceCommand::List { rate: true });
                let page = self.all_services()?;
                self.show(&page, |out| show::services(out, &page.services, rate))
            }
        }
    }

    fn destination(&mut self, command: &DestinationCommand) -> Result<(), Failure> {
        match command {
            DestinationCommand::List { service } => match service.key() {
                Some(key) => {
                    let list = self.connect()?.destinations(key)?;
                    self.show(&list, |out| show::destinations(out, &list.destinations))
                }
                None => {
                    let page = self.all_services()?;
                    self.show(&page, |out| show::services(out, &page.services, false))
                }
            },
            other => {
                let (change, wait) = other.change()?;
                self.change(change, wait)
            }
        }
    }

    fn all_services(&mut self) -> Result<ServicePage, Failure> {
        let mut client = self.connect()?;
        let mut all = client.services(ServicePageQuery::default())?;
        while let Some(after) = all.next.take() {
            let page =
                client.services(ServicePageQuery { after: Some(after), ..ServicePageQuery::default() })?;
            all.services.extend(page.services);
            all.next = page.next;
        }
        Ok(all)
    }

    /// Page by page, so that a table of millions neither waits for its last entry nor is held in memory.
    fn connections(&mut self, query: &ConnectionQuery, limit: Option<u64>) -> Result<(), Failure> {
        let mut client = self.connect()?;
        let mut left = limit.unwrap_or(u64::MAX);
        let mut cursor = None;
        let mut first = true;
        if self.arguments.json {
            write!(self.out, "[")?;
        }
        while left > 0 {
            let page_limit = u32::try_from(left.min(u64::from(PAGE_MAX))).unwrap_or(PAGE_MAX);
            let page = ConnectionQuery { cursor: cursor.take(), limit: Some(page_limit), ..query.clone() };
            let ConnectionPage { connections, next } = client.connections(page)?;
            left = left.saturating_sub(u64::try_from(connections.len()).unwrap_or(u64::MAX));
            if self.arguments.json {
                for entry in &connections {
                    write!(self.out, "{}", if first { "\n  " } else { ",\n  " })?;
                    serde_json::to_writer(&mut *self.out, entry)?;
                    first = false;
                }
            } else {
                show::connections(self.out, &connections, first)?;
                first = first && connections.is_empty();
            }
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        if self.arguments.json {
            writeln!(self.out, "\n]")?;
        } else if first {
            writeln!(self.out, "no connections")?;
        }
        Ok(())
    }

    fn config(&mut self, command: &ConfigCommand) -> Result<(), Failure> {
        match command {
            ConfigCommand::Apply { file, dry_run, expected_revision, wait } => {
                let wanted = config::wanted_of(file).map_err(Failure::File)?;
                let apply = Apply { expected_revision: *expected_revision, dry_run: *dry_run, ..wanted };
                self.change(Change::Apply(apply), *wait)
            }
            ConfigCommand::Show => {
                let configuration = self.connect()?.configuration()?;
                self.show(&configuration, |out| show::configuration(out, &configuration))
            }
        }
    }
}

#[cfg(test)]
mod tests;
