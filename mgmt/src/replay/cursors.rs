//! Several workers: each has its own place in the lists of rr and wrr, and its own memory of lblc's and lblcr's localities.
//!
//! With n workers a connection may go to another server than the recorded kernel's one worker chose; over a service's connections
//! every server's share of rr is within n of the kernel's, of wrr within n rounds. What follows from another choice differs, too: which
//! server's connections a removal hits, whose counts a listing shows. Nothing else may differ, whatever the number of workers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::flow::protocol::{TCP, UDP};
use dataplane::packet::{Parsed, checksum};

use crate::address::Mac;

use super::compare::{Found, Item, Mark, Whose};
use super::decode;
use super::text;
use super::trace::{Action, Emitted, Record};

/// Fields that say which server a packet goes to, and how: in quoted packets too, and the MTU of the way there.
const OF_SERVER: [&str; 16] = [
    "ip.dst",
    "ip.checksum",
    "tcp.dst",
    "tcp.checksum",
    "udp.dst",
    "udp.checksum",
    "sctp.dst",
    "sctp.checksum",
    "icmp.checksum",
    "icmp.rest",
    "quoted.ip.src",
    "quoted.ip.checksum",
    "quoted.tcp.src",
    "quoted.tcp.checksum",
    "quoted.udp.src",
    "quoted.udp.checksum",
];
/// The link of the servers.
const SERVERS: usize = 1;

/// The service that a packet is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Whether each worker schedules it by a state of its own.
    pub cursor: bool,
    /// Its destinations as the scheduler sees them; another list begins another round.
    pub list: String,
    /// Connections of a round to the destination that gets most: 1 for rr, 0 for schedulers without rounds.
    pub round: u64,
    /// Whether its clients stay with a server: then one choice is made for all of a client's connections.
    pub persistent: bool,
}

/// Where a packet went: MAC address, address and port.
type Server = (String, String, String);

#[derive(Debug, Default)]
struct Shares {
    list: String,
    round: u64,
    chosen: BTreeMap<Server, [u64; 2]>,
}

/// What rr and wrr chose so far.
#[derive(Debug, Default)]
pub struct Cursors {
    workers: u64,
    /// Connections and, of persistent services, clients that a choice was made for.
    decided: BTreeSet<String>,
    /// Connections with another server, or none on one side.
    strayed: BTreeSet<String>,
    /// Their clients' addresses.
    clients: BTreeSet<String>,
    /// Services with such connections: whoever reads their counts may choose differently, too.
    services: BTreeSet<String>,
    /// Where replies of stray connections come from, with the kernel and with us, by client.
    servers: BTreeMap<String, Vec<(Server, Server)>>,
    shares: BTreeMap<String, Shares>,
    /// A stray connection's packet came out differently, or counts went with a server, so that sums may differ.
    consequences: bool,
    beyond: Vec<String>,
}

impl Cursors {
    /// For a director of several workers; with one nothing may differ.
    #[must_use]
    pub fn new(workers: u8) -> Self {
        Self { workers: workers.into(), ..Self::default() }
    }

    /// Takes a record's outcome in, and marks what follows from the choices.
    pub fn judge(
        &mut self,
        record: &Record,
        service: Option<&Service>,
        out: &[Emitted],
        items: &mut [Found],
    ) {
        if self.workers < 2 {
            return;
        }
        match &record.action {
            Action::Packet(packet) => self.packet(record, packet, service, out, items),
            Action::Command { command, .. } => {
                self.lines(items);
                let removal = [" -d ", " -D ", " -C"].iter().any(|option| command.contains(option));
                self.consequences |= removal && !self.strayed.is_empty();
            }
            Action::Sleep | Action::Note => {}
        }
    }

    fn packet(
        &mut self,
        record: &Record,
        packet: &Emitted,
        service: Option<&Service>,
        out: &[Emitted],
        items: &mut [Found],
    ) {
        let Some((name, client)) = flow(packet) else { return };
        let to = |all: &[Emitted]| {
            all.iter().find(|one| one.link == SERVERS).map(|one| server(&decode::frame(&one.frame)))
        };
        let chosen = [to(&record.out), to(out)];
        let replying = |all: &[Emitted]| {
            all.iter().find(|one| one.link == SERVERS).map(|one| server(&innermost(&one.frame)))
        };
        if let Some(service) = service.filter(|_| packet.link != SERVERS) {
            let decision =
                if service.persistent { format!("{} {client}", service.name) } else { name.clone() };
            if service.cursor && chosen.iter().any(Option::is_some) && self.decided.insert(decision) {
                self.count(service, &chosen);
            }
            let follows = self.services.contains(&service.name);
            match &chosen {
                [Some(kernel), Some(ours)] if kernel != ours && (service.cursor || follows) => {
                    self.services.insert(service.name.clone());
                    self.stray(&name, &client);
                    let known = self.servers.entry(client_end(&name)).or_default();
                    known.extend(replying(&record.out).zip(replying(out)));
                    known.dedup();
                }
                // Only one of the two servers takes it.
                [Some(_), None] | [None, Some(_)] if follows => self.stray(&name, &client),
                _ => {}
            }
        }
        let strayed = self.strayed.contains(&name) || self.clients.contains(&client);
        if !strayed {
            return;
        }
        for found in items.iter_mut() {
            let Item::Frame { kernel, ours, .. } = &found.item else { continue };
            if let (Some(kernel), Some(ours)) = (kernel, ours) {
                if core(kernel) != core(ours) {
                    continue;
                }
            } else {
                self.consequences = true;
            }
            found.mark = Some(Mark::Cursor);
        }
    }

    fn stray(&mut self, name: &str, client: &str) {
        self.strayed.insert(name.to_owned());
        self.clients.insert(client.to_owned());
    }

    /// A packet from a server, as the server that has the connection with us would have sent it.
    #[must_use]
    pub fn translate(&self, packet: &Emitted) -> Option<Emitted> {
        let (name, _) = flow(packet).filter(|_| packet.link == SERVERS)?;
        let fields = decode::frame(&packet.frame);
        let from = (value(&fields, "ip.src"), source_port(&fields));
        let (_, ours) = self
            .servers
            .get(&client_end(&name))?
            .iter()
            .find(|((_, ip, port), _)| (ip, port) == (&from.0, &from.1))?;
        let mut frame = packet.frame.clone();
        let replaced = replace_source(&mut frame, ours);
        replaced.then_some(Emitted { link: packet.link, frame })
    }

    fn count(&mut self, service: &Service, chosen: &[Option<Server>; 2]) {
        let shares = self.shares.entry(service.name.clone()).or_default();
        if shares.list != service.list {
            let over = std::mem::replace(
                shares,
                Shares { list: service.list.clone(), round: service.round, ..Shares::default() },
            );
            self.beyond.extend(over.beyond(&service.name, self.workers));
        }
        for (side, server) in chosen.iter().enumerate() {
            if let Some(server) = server {
                shares.chosen.entry(server.clone()).or_default()[side] += 1;
            }
        }
    }

    /// Marks lines about stray connections, and destinations' lines that differ in their figures alone.
    fn lines(&self, items: &mut [Found]) {
        if self.strayed.is_empty() {
            return;
        }
        let mut sums = [Vec::new(), Vec::new()];
        let mut destinations = Vec::new();
        for (place, found) in items.iter_mut().enumerate() {
            let Item::Line { whose, line } = &found.item else { continue };
            if let Some(connection) = text::connection(line) {
                if self.strayed.contains(&connection.name) || self.template(&connection.name) {
                    found.mark = Some(Mark::Cursor);
                }
            } else if line.starts_with("  -> ") {
                let side = usize::from(*whose == Whose::Ours);
                add(&mut sums[side], line);
                destinations.push(place);
            }
        }
        let late = items.iter().any(|found| found.mark == Some(Mark::Late));
        if self.consequences || late || sums[0] == sums[1] {
            for place in destinations {
                items[place].mark = Some(Mark::Cursor);
            }
        }
    }

    /// Whether a name is a template's of a client with stray connections.
    fn template(&self, name: &str) -> bool {
        let client = name.split(' ').nth(1).and_then(|end| end.rsplit_once(':'));
        client.is_some_and(|(ip, port)| port == "0" && self.clients.contains(ip))
    }

    /// Services whose shares differ by more than workers explain.
    #[must_use]
    pub fn beyond(&mut self) -> Vec<String> {
        for (name, shares) in std::mem::take(&mut self.shares) {
            self.beyond.extend(shares.beyond(&name, self.workers));
        }
        std::mem::take(&mut self.beyond)
    }
}

impl Shares {
    fn beyond(&self, service: &str, workers: u64) -> Option<String> {
        let bound = workers * self.round;
        let wide = bound > 0 && self.chosen.values().any(|[kernel, ours]| kernel.abs_diff(*ours) > bound);
        wide.then(|| {
            let shares: Vec<String> = self
                .chosen
                .iter()
                .map(|((mac, _, _), [kernel, ours])| format!("{mac} {kernel} and {ours}"))
                .collect();
            format!(
                "shares of {service} differ by more than {bound}: the kernel's and ours are {}",
                shares.join(", ")
            )
        })
    }
}

/// Adds a line's figures to sums by column.
fn add(sums: &mut Vec<u64>, line: &str) {
    let figures = line.split_whitespace().skip(2).filter_map(|word| word.parse::<u64>().ok());
    for (column, figure) in figures.enumerate() {
        match sums.get_mut(column) {
            Some(sum) => *sum += figure,
            None => sums.push(figure),
        }
    }
}

/// The fields of what a tunnel carries, of other packets their own; the frame's addresses stay.
fn innermost(frame: &[u8]) -> Vec<decode::Field> {
    let mut fields = decode::frame(frame);
    for layer in ["tunnel.", "gre.", "gue."] {
        if fields.iter().any(|field| field.name.starts_with(&format!("{layer}ip."))) {
            fields.retain(|field| {
                field.name.starts_with("eth.")
                    || field.name.starts_with(layer) && !field.name.ends_with(".header")
            });
            for field in &mut fields {
                field.name = field.name.trim_start_matches(layer).to_owned();
            }
        }
    }
    fields
}

/// A packet's fields but for those that say which server it goes to, and how.
fn core(frame: &[u8]) -> Vec<decode::Field> {
    let mut fields = innermost(frame);
    // An error made here has an identification of its own.
    let error = fields.iter().any(|field| field.name.starts_with("quoted."));
    let of_server = |field: &decode::Field| {
        field.name.starts_with("eth.")
            || OF_SERVER.contains(&field.name.as_str())
            || error && field.name == "ip.id"
    };
    fields.retain(|field| !of_server(field));
    fields
}

fn value(fields: &[decode::Field], name: &str) -> String {
    fields.iter().find(|field| field.name == name).map_or_else(String::new, |field| field.value.clone())
}

fn source_port(fields: &[decode::Field]) -> String {
    let port = ["tcp.src", "udp.src", "sctp.src"]
        .iter()
        .map(|name| value(fields, name))
        .find(|port| !port.is_empty());
    port.unwrap_or_default()
}

/// The client's address and port in a connection's name.
fn client_end(name: &str) -> String {
    name.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Makes another server the source of an unfragmented packet of TCP or UDP, with right checksums; `false` when it is none.
fn replace_source(frame: &mut [u8], (mac, ip, port): &Server) -> bool {
    let (Ok(mac), Ok(ip), Ok(port)) = (mac.parse::<Mac>(), ip.parse::<IpAddr>(), port.parse::<u16>()) else {
        return false;
    };
    let Parsed::Flow(headers) = dataplane::packet::parse(frame, frame.len(), 1) else { return false };
    let network = usize::from(headers.network);
    let (at, octets) = match ip {
        IpAddr::V4(ip) => (network + 12, ip.octets().to_vec()),
        IpAddr::V6(ip) => (network + 8, ip.octets().to_vec()),
    };
    let transport = usize::from(headers.transport);
    let checksum_at = transport + if headers.protocol == TCP { 16 } else { 6 };
    if frame.len() < checksum_at + 2 || !matches!(headers.protocol, TCP | UDP) {
        return false;
    }
    let words = |frame: &[u8]| {
        let source = frame[at..at + octets.len()].iter().chain(&frame[transport..transport + 2]);
        let bytes: Vec<u8> = source.copied().collect();
        bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>()
    };
    let before = words(frame);
    frame[6..12].copy_from_slice(&mac.0);
    frame[at..at + octets.len()].copy_from_slice(&octets);
    frame[transport..transport + 2].copy_from_slice(&port.to_be_bytes());
    if ip.is_ipv4() {
        checksum::fill_header(&mut frame[network..transport]);
    }
    let old = u16::from_be_bytes([frame[checksum_at], frame[checksum_at + 1]]);
    if old != 0 || headers.protocol == TCP {
        let changed = before.iter().zip(words(frame));
        let new = changed.fold(old, |sum, (old, new)| checksum::update_16(sum, *old, new));
        frame[checksum_at..checksum_at + 2].copy_from_slice(&new.to_be_bytes());
    }
    true
}

fn server(fields: &[decode::Field]) -> Server {
    let port = ["tcp.dst", "udp.dst", "sctp.dst"]
        .iter()
        .map(|name| value(fields, name))
        .find(|port| !port.is_empty());
    (value(fields, "eth.dst"), value(fields, "ip.dst"), port.unwrap_or_default())
}

/// A connection's name as listings have it, and its client's address; of an ICMP error those of the packet that it quotes.
fn flow(packet: &Emitted) -> Option<(String, String)> {
    let fields = decode::frame(&packet.frame);
    let quoted = fields.iter().any(|field| field.name == "quoted.ip.src");
    let at = |name: &str| value(&fields, &if quoted { format!("quoted.{name}") } else { name.to_owned() });
    let known = ["TCP", "UDP", "SCTP"];
    let protocol = known
        .into_iter()
        .find(|name| !at(&format!("{}.src", name.to_lowercase())).is_empty())
        .unwrap_or("IP");
    let transport = protocol.to_lowercase();
    let end = |side: &str| {
        let (ip, port) = (at(&format!("ip.{side}")), at(&format!("{transport}.{side}")));
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    // From the servers' side, and quoted from the clients', the client is where the packet goes.
    let to_client = (packet.link == SERVERS) != quoted;
    let (client, other) = if to_client { ("dst", "src") } else { ("src", "dst") };
    let address = at(&format!("ip.{client}"));
    let shown = if address.contains(':') { format!("[{address}]") } else { address.clone() };
    (!address.is_empty()).then(|| (format!("{protocol} {} {}", end(client), end(other)), shown))
}

#[cfg(test)]
mod tests {
    use super::{Cursors, Service};
    use crate::replay::compare::{Found, Item, Mark, Whose, frames};
    use crate::replay::trace::{Action, Emitted, Record};
    use dataplane::bench::Frame;

    fn sent(port: u16, server: u8) -> Emitted {
        let mut frame =
            Frame::new(format!("10.1.0.5:{port}").parse().unwrap(), "10.0.0.100:80".parse().unwrap());
        frame.destination_mac = [2, 0, 0, 0, 0x0a, server];
        Emitted { link: 1, frame: frame.tcp(2) }
    }

    fn judge(cursors: &mut Cursors, port: u16, kernel: u8, ours: Option<u8>) -> Vec<Found> {
        let packet = Emitted { link: 0, ..sent(port, 1) };
        let record = Record {
            number: 0,
            at_ms: 0,
            line: String::new(),
            action: Action::Packet(packet),
            out: vec![sent(port, kernel)],
        };
        let out: Vec<_> = ours.map(|server| sent(port, server)).into_iter().collect();
        let mut items: Vec<_> = frames(&record, &out, &|_| false).into_iter().map(Found::from).collect();
        let service = Service {
            name: "tcp".to_owned(),
            cursor: true,
            list: "2 3".to_owned(),
            round: 1,
            persistent: false,
        };
        cursors.judge(&record, Some(&service), &out, &mut items);
        items
    }

    fn marked(items: &[Found]) -> bool {
        items.iter().all(|found| found.mark == Some(Mark::Cursor))
    }

    #[test]
    fn another_server_and_what_follows_are_marked() {
        let mut cursors = Cursors::new(2);
        assert!(judge(&mut cursors, 1, 2, Some(2)).is_empty());
        let other = judge(&mut cursors, 2, 3, Some(2));
        assert!(other.len() == 1 && marked(&other));
        assert!(marked(&judge(&mut cursors, 2, 3, None)), "its server is gone");
        let line = |whose, line: &str| Found::from(Item::Line { whose, line: line.to_owned() });
        let connection = |port: u16, server: u8| {
            format!("TCP 00:59  SYN_RECV    10.1.0.5:{port}     10.0.0.100:80      192.168.10.{server}:80")
        };
        let mut lines = vec![
            line(Whose::Kernel, &connection(2, 3)),
            line(Whose::Ours, &connection(2, 2)),
            line(Whose::Kernel, "  -> 192.168.10.2:80              Route   1      1          0         "),
            line(Whose::Ours, "  -> 192.168.10.2:80              Route   1      2          0         "),
            line(Whose::Kernel, &connection(1, 2)),
            line(Whose::Kernel, "TCP  10.0.0.100:80 rr"),
        ];
        let command = Action::Command { command: String::new(), rc: 0, text: String::new() };
        let record = Record { number: 0, at_ms: 0, line: String::new(), action: command, out: Vec::new() };
        cursors.judge(&record, None, &[], &mut lines);
        let marks: Vec<_> = lines.iter().map(|found| found.mark.is_some()).collect();
        assert_eq!(marks, [true, true, true, true, false, false]);
        assert!(cursors.beyond().is_empty());
    }

    #[test]
    fn replies_come_from_the_server_that_has_the_connection() {
        let mut cursors = Cursors::new(2);
        let to = |server: u8| {
            let ends = ("10.1.0.5:9".parse().unwrap(), format!("192.168.10.{server}:8080").parse().unwrap());
            let mut frame = Frame::new(ends.0, ends.1);
            frame.destination_mac = [2, 0, 0, 0, 0x0a, server];
            Emitted { link: 1, frame: frame.tcp(2) }
        };
        let packet = Emitted { link: 0, ..sent(9, 1) };
        let action = Action::Packet(packet);
        let record = Record { number: 0, at_ms: 0, line: String::new(), action, out: vec![to(2)] };
        let service = Service {
            name: "tcp".to_owned(),
            cursor: true,
            list: String::new(),
            round: 1,
            persistent: false,
        };
        cursors.judge(&record, Some(&service), &[to(3)], &mut []);
        let reply = |server: u8| {
            let ends = (format!("192.168.10.{server}:8080").parse().unwrap(), "10.1.0.5:9".parse().unwrap());
            let mut frame = Frame::new(ends.0, ends.1);
            frame.source_mac = [2, 0, 0, 0, 0x0a, server];
            Emitted { link: 1, frame: frame.tcp(18) }
        };
        assert_eq!(cursors.translate(&reply(2)), Some(reply(3)));
        assert_eq!(cursors.translate(&reply(4)), None);
    }

    #[test]
    fn shares_beyond_the_workers_and_single_workers_are_not_excused() {
        let mut cursors = Cursors::new(2);
        (0..6).for_each(|port| drop(judge(&mut cursors, port, 2 + u8::try_from(port % 2).unwrap(), Some(2))));
        let beyond = cursors.beyond();
        assert!(beyond[0].contains("more than 2") && beyond[0].contains("3 and 6"), "{beyond:?}");
        let mut alone = Cursors::new(1);
        assert!(!marked(&judge(&mut alone, 1, 2, Some(3))));
        let mut cursors = Cursors::new(2);
        let service = None;
        let packet = Emitted { link: 0, ..sent(1, 1) };
        let record = Record {
            number: 0,
            at_ms: 0,
            line: String::new(),
            action: Action::Packet(packet),
            out: vec![sent(1, 2)],
        };
        let mut items: Vec<_> =
            frames(&record, &[sent(1, 3)], &|_| false).into_iter().map(Found::from).collect();
        cursors.judge(&record, service, &[sent(1, 3)], &mut items);
        assert!(!marked(&items), "no cursor of that service's scheduler");
    }
}
