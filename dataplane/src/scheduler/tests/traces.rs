//! Choices recorded on Linux 6.1.192 (ipvsadm 1.31): the scenarios with one service, replayed command by command and packet by
//! packet. Connections are tracked just far enough for their counts to be right; every packet that the kernel scheduled must be
//! given the server that the kernel gave it.

use super::director::{Director, ticks};
use crate::connection::flags::NO_OUTPUT;
use crate::connection::tcp::{self, Sender, State};
use crate::flow::protocol;
use crate::packet::{Parsed, parse, tcp as tcp_flags};
use crate::scheduler::Request;
use crate::snapshot::{SchedulerKind, ServiceKey, ServiceSpec, Settings, Timeouts, scheduler_flags};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Beginnings of the names of the scenarios that are about schedulers.
const FAMILIES: [&str; 18] = [
    "rr_",
    "wrr_",
    "lc_",
    "wlc_",
    "sed_",
    "nq_",
    "fo_",
    "ovf_",
    "dh.",
    "sh_",
    "threshold",
    "udpsched_",
    "ipv6_sh",
    "ipv6_mh",
    "lblc_",
    "lblcr_",
    "sched_change",
    "mh_",
];

#[derive(Debug, Clone, Copy)]
struct Connection {
    server: u8,
    state: State,
    flags: u32,
    ends: u64,
}

/// One scenario.
#[derive(Default)]
struct Scenario {
    director: Option<Director>,
    spec: Option<ServiceSpec>,
    now: u64,
    settings: Settings,
    present: BTreeMap<u8, ()>,
    connections: HashMap<(SocketAddr, SocketAddr), Connection>,
    /// Clients of a persistent service.
    templates: Option<HashMap<IpAddr, u8>>,
    masquerades: bool,
    choices: usize,
}

/// A server's name is the end of its address.
fn name(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    }
}

/// The address, and the port if there is one.
fn host(text: &str) -> (IpAddr, Option<u16>) {
    match text.parse::<SocketAddr>() {
        Ok(with_port) => (with_port.ip(), Some(with_port.port())),
        Err(_) => (text.parse().unwrap(), None),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

impl Scenario {
    /// A command in the director's shell.
    fn control(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |option: &str| words.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1]);
        let number = |option: &str| value(option).map_or(0, |text| text.parse().unwrap());
        match words[1..] {
            ["ipvsadm", "-A" | "-E", ..] => {
                self.service(value("-t"), value("-u"), value("-s").unwrap(), value("-b"));
            }
            ["ipvsadm", "-a" | "-e" | "-d", ..] => {
                let (address, port) = host(value("-r").unwrap());
                let weight = value("-w").map_or(1, |text| text.parse().unwrap());
                let director = self.director.as_mut().unwrap();
                let server = name(address);
                self.masquerades |= words.contains(&"-m");
                let port = port.filter(|_| self.masquerades).unwrap_or_else(|| self.spec.unwrap().key.port());
                match words[2] {
                    "-a" => {
                        director.place(server, address, port);
                        director.add(server, weight, number("-x"), number("-y"));
                        self.present.insert(server, ());
                    }
                    "-e" => director.edit(server, weight, number("-x"), number("-y")),
                    _ => {
                        director.remove(server);
                        self.present.remove(&server);
                    }
                }
            }
            ["cat", ..] => {
                let setting = words.iter().find(|word| word.ends_with("_expiration;")).unwrap();
                let seconds = words.iter().find_map(|word| word.parse().ok()).unwrap();
                match setting.contains("lblcr") {
                    true => self.settings.lblcr_expiration = seconds,
                    false => self.settings.lblc_expiration = seconds,
                }
            }
            _ => {}
        }
        let persistent = words[1] == "ipvsadm" && matches!(words[2], "-A" | "-E");
        if persistent {
            self.templates = value("-p").map(|_| HashMap::new());
        }
    }

    fn service(&mut self, tcp: Option<&str>, udp: Option<&str>, scheduler: &str, options: Option<&str>) {
        let kind = SchedulerKind::ALL.into_iter().find(|kind| kind.name() == scheduler).unwrap();
        let flag = |option: &str| match option.split_once('-') {
            Some((_, "fallback")) => scheduler_flags::FALLBACK,
            Some((_, "port")) => scheduler_flags::PORT,
            _ => panic!("{option}"),
        };
        let flags = options.map_or(0, |options| options.split(',').map(flag).sum());
        if let Some(director) = &mut self.director {
            return director.switch(kind, flags);
        }
        let key = match tcp.or(udp).map(host) {
            Some((address, port)) => ServiceKey::Address { protocol: 6, address, port: port.unwrap() },
            None => ServiceKey::Mark { mark: 7, v6: false },
        };
        let spec = ServiceSpec { flags, ..ServiceSpec::new(key, kind) };
        self.spec = Some(spec);
        let mut director = Director::with(spec, 1, self.now);
        director.configure(self.settings);
        self.director = Some(director);
    }

    fn close(&mut self, key: &(SocketAddr, SocketAddr)) {
        let gone = self.connections.remove(key).unwrap();
        self.director.as_mut().unwrap().closed(0, gone.server, tcp::activity(gone.state));
    }

    /// Closes what has timed out.
    fn expire(&mut self, now: u64) {
        let mut due: Vec<_> = self.connections.iter().filter(|(_, one)| one.ends <= now).collect();
        due.sort_by_key(|(_, one)| one.ends);
        for key in due.into_iter().map(|(key, _)| *key).collect::<Vec<_>>() {
            self.close(&key);
        }
    }

    /// A packet from a client; `sent_to` is the server that the kernel sent it to.
    fn packet(&mut self, frame: &[u8], now: u64, sent_to: Option<u8>, line: &str) {
        let Parsed::Flow(headers) = parse(frame, frame.len(), 1) else { panic!("{line}") };
        let flow = headers.key(frame);
        let (source, destination) = match headers.family {
            crate::packet::Family::V4 => {
                let tuple = headers.tuple_v4(frame);
                (
                    SocketAddr::from((tuple.source, tuple.source_port)),
                    SocketAddr::from((tuple.destination, tuple.destination_port)),
                )
            }
            crate::packet::Family::V6 => {
                let tuple = headers.tuple_v6(frame);
                (
                    SocketAddr::from((tuple.source, tuple.source_port)),
                    SocketAddr::from((tuple.destination, tuple.destination_port)),
                )
            }
        };
        assert_eq!(flow.destination(), destination.ip());
        let key = (source, destination);
        let syn = headers.protocol == protocol::TCP && headers.tcp_flags & tcp_flags::SYN != 0;
        let dying = |one: &Connection| syn && matches!(one.state, State::TimeWait | State::Close);
        if self.connections.get(&key).is_some_and(dying) && self.templates.is_none() {
            self.close(&key);
        }
        if !self.connections.contains_key(&key) {
            if headers.protocol == protocol::TCP && !syn {
                return;
            }
            let request = Request {
                client: source.ip(),
                client_port: source.port(),
                destination: destination.ip(),
                now: ticks(now),
            };
            let Some(server) = self.schedule(&request, sent_to, line) else { return };
            let state = tcp::initial(headers.protocol);
            let flags = if self.masquerades { 0 } else { NO_OUTPUT };
            self.connections.insert(key, Connection { server, state, flags, ends: 0 });
            self.director.as_mut().unwrap().opened(0, server, tcp::activity(state));
        }
        let connection = self.connections.get_mut(&key).unwrap();
        if !self.present.contains_key(&connection.server) {
            return;
        }
        let before = tcp::activity(connection.state);
        if headers.protocol == protocol::TCP {
            let next =
                tcp::next(connection.state, connection.flags, Sender::Client, headers.tcp_flags, false);
            (connection.state, connection.flags) = next;
        }
        connection.ends = now + u64::from(tcp::timeout(connection.state, &Timeouts::default()));
        let after = tcp::activity(connection.state);
        if before != after {
            self.director.as_mut().unwrap().changed(0, connection.server, after);
        }
    }

    fn schedule(&mut self, request: &Request, sent_to: Option<u8>, line: &str) -> Option<u8> {
        let known = self.templates.as_ref().and_then(|templates| templates.get(&request.client));
        if known.is_some() {
            return known.copied();
        }
        let choice = self.director.as_mut().unwrap().choose(0, request);
        assert_eq!(choice, sent_to, "{line}");
        self.choices += 1;
        if let (Some(server), Some(templates)) = (choice, &mut self.templates) {
            templates.insert(request.client, server);
        }
        choice
    }

    fn replay(file: &str, records: &str) -> usize {
        let mut scenario = Self::default();
        for record in records.lines() {
            let record: Value = serde_json::from_str(record).unwrap();
            let text = |field: &str| record[field].as_str().unwrap();
            let now = format!("{:.0}", record["t"].as_f64().unwrap() * 1000.0).parse().unwrap();
            scenario.now = now;
            scenario.expire(now);
            if let Some(director) = &mut scenario.director {
                director.leap(now);
                director.housekeep();
            }
            match text("op") {
                "ctl" if record["rc"] == 0 => scenario.control(text("line")),
                "pkt" if text("if") == "c" => {
                    let sent: Vec<&str> = record["out"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .filter_map(|out| out["rs"].as_str())
                        .collect();
                    let server = sent.first().map(|server| name(host(server).0));
                    scenario.packet(&bytes(text("in")), now, server, &format!("{file}, {}", record["i"]));
                }
                _ => {}
            }
        }
        scenario.choices
    }
}

/// Replays the scenarios of a directory; how many choices each had.
fn replay_all(directory: &Path) -> usize {
    let mut choices = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if FAMILIES.iter().any(|family| file.starts_with(family)) && file.ends_with(".jsonl") {
            let records = std::fs::read_to_string(&path).unwrap();
            // The others are played all the same: what differs in all of them tells more.
            let played = std::panic::catch_unwind(|| Scenario::replay(&file, &records));
            choices.insert(file, played.ok());
        }
    }
    let differ: Vec<_> = choices.iter().filter(|(_, count)| count.is_none_or(|count| count == 0)).collect();
    assert!(differ.is_empty(), "{differ:?}");
    let sum: usize = choices.values().flatten().sum();
    println!("{sum} choices in {} scenarios", choices.len());
    sum
}

#[test]
fn every_recorded_choice_is_made_again() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mgmt/traces");
    assert!(replay_all(&directory) >= 6861);
    // Recordings of one's own, of the same families.
    if let Some(directory) = std::env::var_os("UVS_TRACES") {
        replay_all(Path::new(&directory));
    }
}
