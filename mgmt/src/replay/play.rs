//! One trace, played from its first record to its last.

use std::path::Path;
use std::sync::Arc;

use crate::control::{ControlDirectory, Operators};
use crate::ipvs;

use super::captures::Captures;
use super::compare::{self, Context, Found, Item, Mark, Said};
use super::cursors::Cursors;
use super::rules::Rules;
use super::sandbox::{Sandbox, SandboxError};
use super::stand_in;
use super::text::Remaining;
use super::trace::{Action, Record, Seconds, Trace};
use super::world::{SharedWorld, World};
use super::{faults, refused, resets};

/// Settings that the kernel does not have.
const UNKNOWN_SETTINGS: [&str; 1] = ["evict_half_open"];

/// Settings of the kernel that are no director's, with the values of the recorded one.
const OTHER_SETTINGS: [(&str, &str); 13] = [
    ("backup_only", "0"),
    ("conntrack", "0"),
    ("ignore_tunneled", "0"),
    ("run_estimation", "1"),
    ("snat_reroute", "1"),
    ("sync_persist_mode", "0"),
    ("sync_ports", "1"),
    ("sync_qlen_max", "0"),
    ("sync_refresh_period", "0"),
    ("sync_retries", "0"),
    ("sync_sock_size", "0"),
    ("sync_threshold", "3 50"),
    ("sync_version", "1"),
];
/// After the last record, for what it causes: a command takes some 20 ms, a packet 8.
const SETTLE_MS: u32 = 40;

/// Why a trace could not be played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The commands' namespaces.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The director could not be made.
    #[error("{0}")]
    World(String),
    /// The IPVS endpoint or the stand-ins could not listen.
    #[error("cannot listen: {0}")]
    Listen(String),
    /// `ipvsadm` does not talk to the replay.
    #[error("ipvsadm does not reach the replay's director: {0}")]
    Unreached(String),
}

/// A record that differs.
#[derive(Debug, Clone)]
pub struct Differing {
    /// The record.
    pub record: Record,
    /// What differs.
    pub items: Vec<Found>,
}

impl Differing {
    /// Whether rules explain all of it.
    #[must_use]
    pub fn explained(&self) -> bool {
        self.items.iter().all(|found| found.rule.is_some())
    }
}

/// What a trace showed.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// Records but notes.
    pub events: usize,
    /// Records that differ, in order.
    pub differing: Vec<Differing>,
}

/// What plays traces.
pub struct Player {
    sandbox: Sandbox,
    world: SharedWorld,
    /// Served as long as this lives.
    _endpoint: ipvs::Server,
    settings: Vec<(String, String)>,
    cursors: Cursors,
    random: Random,
    workers: u8,
}

/// What is left to chance.
#[derive(Debug, Clone, Copy, Default)]
struct Random {
    /// Which packets are dropped: of several workers each counts its own.
    packets: bool,
    /// Which connections are listed.
    lines: bool,
}

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Player").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Player {
    /// Has frames written to capture files.
    pub fn capture(&self, captures: Captures) {
        self.world.lock().capture(captures);
    }

    /// Ends the capture files, if there are any.
    ///
    /// # Errors
    /// They could not be written.
    pub fn end_capture(&self) -> std::io::Result<()> {
        self.world.lock().end_capture()
    }

    /// Furnishes this process's namespaces and starts a director in them.
    ///
    /// # Errors
    /// What could not be made.
    pub fn new(program: &Path, library: &Path, workers: u8) -> Result<Self, PlayError> {
        let sandbox = Sandbox::furnish(program, library)?;
        let world = SharedWorld::new(World::new(workers).map_err(PlayError::World)?);
        let listen = |error: &dyn std::fmt::Display| PlayError::Listen(error.to_string());
        let directory =
            ControlDirectory::claim(&sandbox.control(), "root").map_err(|error| listen(&error))?;
        let options = ipvs::Options::new(Operators::group(directory.gid()), 16);
        let endpoint = ipvs::Server::start(Arc::new(directory), options, Arc::new(world.clone()))
            .map_err(|error| listen(&error))?;
        let asked = world.clone();
        let play = move |command: &stand_in::Asked| asked.lock().stand_in(command);
        stand_in::serve(sandbox.stand_in_socket(), Arc::new(play)).map_err(|error| listen(&error))?;
        let mut player = Self {
            sandbox,
            world,
            _endpoint: endpoint,
            settings: Vec::new(),
            cursors: Cursors::new(workers),
            random: Random::default(),
            workers,
        };
        player.settings = player.all_settings();
        player
            .sandbox
            .write_settings(player.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        player.reach()?;
        Ok(player)
    }

    /// Nothing may go to the machine's own IPVS.
    fn reach(&self) -> Result<(), PlayError> {
        let ran = self.sandbox.run("ipvsadm -L --timeout")?;
        if ran.rc == 0 { Ok(()) } else { Err(PlayError::Unreached(ran.text.trim().to_owned())) }
    }

    fn all_settings(&self) -> Vec<(String, String)> {
        let mut own = self.world.lock().settings();
        own.retain(|(name, _)| !UNKNOWN_SETTINGS.contains(&name.as_str()));
        let others = OTHER_SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut all: Vec<_> = own.into_iter().chain(others).collect();
        all.sort();
        all
    }

    /// Plays a trace; `progress` is told of every record.
    ///
    /// # Errors
    /// A command could not be run.
    pub fn play(
        &mut self,
        trace: &Trace,
        rules: &Rules,
        mut progress: impl FnMut(usize),
    ) -> Result<Played, PlayError> {
        let (mut events, mut found) = (0, Vec::new());
        for (place, record) in trace.records.iter().enumerate() {
            progress(place);
            if record.action == Action::Note {
                continue;
            }
            events += 1;
            let until = trace.records.get(place + 1).map_or_else(|| end_of(record), |next| next.at_ms);
            let items = self.record(record, until)?;
            if !items.is_empty() {
                found.push((place, items));
            }
        }
        let beyond: Vec<Found> =
            self.cursors.beyond().into_iter().map(|what| Item::Shares { what }.into()).collect();
        if !beyond.is_empty() {
            found.push((trace.records.len() - 1, beyond));
        }
        resets::mark(&trace.records, &mut found);
        refused::mark(&trace.records, &mut found);
        faults::mark(&trace.records, &mut found);
        let differing = found.into_iter().map(|(place, mut items)| {
            let record = trace.records[place].clone();
            for one in &mut items {
                one.rule = rules.explaining(&record, one).map(|rule| rule.name.clone());
            }
            Differing { record, items }
        });
        Ok(Played { events, differing: differing.collect() })
    }

    /// Plays a record until the next one's time; what differs.
    fn record(&mut self, record: &Record, until: u32) -> Result<Vec<Found>, PlayError> {
        self.world.lock().advance(record.at_ms);
        let (mut found, mut service) = (Vec::new(), None);
        match &record.action {
            Action::Note | Action::Sleep => {}
            Action::Packet(packet) => {
                let mut world = self.world.lock();
                service = world.service_of(packet);
                world.receive(self.cursors.translate(packet).as_ref().unwrap_or(packet));
            }
            Action::Command { command, .. } => found = self.command(record, command, until)?,
        }
        let mut world = self.world.lock();
        world.advance(until);
        let out = world.take_emitted();
        let unplayed = world.take_unplayed().into_iter().map(|what| Item::Unplayed { what });
        let own = |address| world.is_own(address);
        let frames = compare::frames(record, &out, &own).into_iter().map(|item| {
            let remade = matches!(&item, Item::Frame { kernel: None, ours: Some(frame), .. } if world.is_remade(frame));
            let mark = if remade { Some(Mark::Remade) } else { self.random.packets.then_some(Mark::Random) };
            Found { mark, ..Found::from(item) }
        });
        let mut all: Vec<Found> = unplayed.map(Found::from).chain(frames).chain(found).collect();
        self.cursors.judge(record, service.as_ref(), &out, &mut all);
        Ok(all)
    }

    /// Runs a command; what differs in its exit status and text.
    fn command(&mut self, record: &Record, command: &str, until: u32) -> Result<Vec<Found>, PlayError> {
        let remaining = {
            let mut world = self.world.lock();
            world.look();
            world.remaining(until - record.at_ms)
        };
        // Not locked meanwhile: the command asks by the sockets.
        let said = self.sandbox.run(command)?;
        self.heed_settings()?;
        let found = self.judge(record, &said, &remaining);
        if found.is_empty() || !only_shows(command) {
            return Ok(found);
        }
        // The recorded command ran at some moment until the next record: it may as well have been the last one.
        {
            let mut world = self.world.lock();
            world.advance(until);
            world.look();
        }
        let said = self.sandbox.run(command)?;
        let later = self.judge(record, &said, &remaining);
        Ok(if later.len() < found.len() { later } else { found })
    }

    fn judge(&self, record: &Record, said: &Said, remaining: &Remaining) -> Vec<Found> {
        let world = self.world.lock();
        let context = Context { remaining, late: world.late(), random: self.random.lines };
        compare::said(record, said, &context)
    }

    /// Makes what a command wrote into the settings' files the director's settings.
    fn heed_settings(&mut self) -> Result<(), PlayError> {
        let written = self.sandbox.read_settings()?;
        if written == self.settings {
            return Ok(());
        }
        let mut world = self.world.lock();
        for (name, value) in written.iter().filter(|one| !self.settings.contains(one)) {
            if let Err(why) = world.set(name, value) {
                world.unplayed(format!("{name} = {value}: {why}"));
            }
        }
        drop(world);
        self.settings = written;
        let on = |wanted: &str| self.settings.iter().any(|(name, value)| name == wanted && value != "0");
        let packets = self.workers > 1 && on("drop_packet");
        // What was left to chance stays listed.
        self.random = Random { packets, lines: self.random.lines || packets || on("drop_entry") };
        Ok(())
    }
}

/// Whether a command changes nothing, so that it may run twice.
fn only_shows(command: &str) -> bool {
    let listing = ["ipvsadm -L", "ipvsadm -l", "ipvsadm -S", "cat ", "grep ", "tail ", "echo "];
    let of_listings = |part: &str| {
        let part = part.trim();
        let traced = part.strip_prefix("strace ").and_then(|rest| Some(&rest[rest.find("ipvsadm ")?..]));
        let part = traced.unwrap_or(part);
        part.is_empty() || listing.iter().any(|known| part.starts_with(known)) && !part.contains('>')
    };
    command.split([';', '|']).all(of_listings)
}

/// When the last record ends.
fn end_of(record: &Record) -> u32 {
    let seconds = record.line.strip_prefix("sleep ").and_then(|text| text.trim().parse::<u32>().ok());
    let slept = seconds.filter(|_| record.action == Action::Sleep).unwrap_or(0);
    record.at_ms.saturating_add(slept.saturating_mul(1000)).saturating_add(SETTLE_MS)
}

/// Where a record is in its trace, for people.
#[must_use]
pub fn place(record: &Record) -> String {
    format!("event {} at {} s: {}", record.number, Seconds(record.at_ms), record.line)
}
