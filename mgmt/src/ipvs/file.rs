//! The texts of `/proc/net/ip_vs*` as the kernel writes them, for programs that read those instead of asking.

use std::fmt::Write as _;
use std::net::IpAddr;

use dataplane::connection::flags;
use rustix::io::Errno;

use super::answer::Responder;
use super::message::DATAGRAM;
use super::number::{CONNECTION_TABLE, IPVS_VERSION, TICKS_PER_SECOND};
use super::outbox::{Dump, Unanswered};
use super::service::netmask;
use crate::address::{Endpoint, Protocol};
use crate::desired::{Method, ServiceKey};
use crate::protocol::{
    ConnectionEntry, ConnectionQuery, DestinationState, EntryProtocol, Request, Response, ServiceState,
    StatsQuery, Traffic,
};

/// Text of one message: with its header it fills a datagram.
const PIECE: usize = DATAGRAM - 16;

/// Collects lines into pieces.
struct Pieces<'a, 'b> {
    dump: &'a mut Dump<'b>,
    text: String,
}

impl Pieces<'_, '_> {
    fn line(&mut self, line: &str) -> Result<(), Unanswered> {
        if self.text.len() + line.len() + 1 > PIECE {
            self.flush()?;
        }
        self.text.push_str(line);
        self.text.push('\n');
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Unanswered> {
        if !self.text.is_empty() {
            self.dump.piece(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }
}

/// Writes the file that `name` names.
///
/// # Errors
///
/// `ENOENT`: there is no such file, and nothing was written. Others end the text where it is.
pub(super) fn write(director: &Responder<'_>, name: &[u8], dump: &mut Dump<'_>) -> Result<(), Unanswered> {
    let name = name.split(|byte| *byte == 0).next().unwrap_or(name);
    let mut pieces = Pieces { dump, text: String::new() };
    match name {
        b"ip_vs" => services(director, &mut pieces)?,
        b"ip_vs_conn" => connections(director, &mut pieces, false)?,
        b"ip_vs_conn_sync" => connections(director, &mut pieces, true)?,
        b"ip_vs_stats" => totals(&stats(director)?).iter().try_for_each(|line| pieces.line(line))?,
        b"ip_vs_stats_percpu" => {
            totals_by_cpu(&stats(director)?).iter().try_for_each(|line| pieces.line(line))?;
        }
        b"ip_vs_app" => helpers(director, &mut pieces)?,
        _ => return Err(Errno::NOENT.into()),
    }
    pieces.flush()
}

/// An address without a port: IPv4 as a number, IPv6 with all its digits.
fn hexadecimal(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{:08X}", u32::from(ip)),
        IpAddr::V6(ip) => ip.segments().map(|segment| format!("{segment:04x}")).join(":"),
    }
}

fn with_port(Endpoint { ip, port }: Endpoint) -> String {
    match ip {
        IpAddr::V4(_) => format!("{}:{port:04X}", hexadecimal(ip)),
        IpAddr::V6(_) => format!("[{}]:{port:04X}", hexadecimal(ip)),
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn services(director: &Responder<'_>, pieces: &mut Pieces<'_, '_>) -> Result<(), Unanswered> {
    let [major, minor, patch] = IPVS_VERSION;
    pieces.line(&format!("IP Virtual Server version {major}.{minor}.{patch} (size={CONNECTION_TABLE})"))?;
    pieces.line("Prot LocalAddress:Port Scheduler Flags")?;
    pieces.line("  -> RemoteAddress:Port Forward Weight ActiveConn InActConn")?;
    director.each_service(&mut |service| {
        pieces.line(&service_line(service))?;
        service.destinations.iter().try_for_each(|destination| pieces.line(&destination_line(destination)))
    })
}

/// The spaces are the kernel's, which ends some lines in several.
fn service_line(service: &ServiceState) -> String {
    let scheduler = service.scheduler.name();
    let one_packet = if service.one_packet { "ops " } else { "" };
    let mut line = match service.key {
        ServiceKey::Address { protocol, address } => {
            let (protocol, address_text) = (protocol_name(protocol), with_port(address));
            match address.ip {
                IpAddr::V4(_) => format!("{protocol}  {address_text} {scheduler} {one_packet} "),
                IpAddr::V6(_) => format!("{protocol}  {address_text} {scheduler} "),
            }
        }
        ServiceKey::Mark { mark, .. } => format!("FWM  {mark:08X} {scheduler} {one_packet}"),
    };
    if service.persistent != 0 {
        let ticks = u64::from(service.persistent) * u64::from(TICKS_PER_SECOND);
        let mask = u32::from_be_bytes(netmask(service));
        let _cannot_fail = write!(line, "persistent {ticks} {mask:08X}");
    }
    line
}

fn destination_line(destination: &DestinationState) -> String {
    let method = match destination.method {
        Method::Direct => "Route",
        Method::Masquerade => "Masq",
        Method::Tunnel(_) => "Tunnel",
    };
    format!(
        "  -> {}      {method:<7} {:<6} {:<10} {:<10}",
        with_port(destination.address),
        destination.weight,
        destination.active,
        destination.inactive
    )
}

fn connections(
    director: &Responder<'_>,
    pieces: &mut Pieces<'_, '_>,
    origin: bool,
) -> Result<(), Unanswered> {
    let rest = if origin { "Origin Expires" } else { "Expires PEName PEData" };
    pieces.line(&format!("Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       {rest}"))?;
    each_connection(director, |entry| pieces.line(&connection_line(entry, origin)))
}

fn each_connection(
    director: &Responder<'_>,
    mut each: impl FnMut(&ConnectionEntry) -> Result<(), Unanswered>,
) -> Result<(), Unanswered> {
    let mut query = ConnectionQuery::default();
    loop {
        let Response::Connections(page) = director.ask(Request::ConnectionList(query))? else {
            return Err(Errno::IO.into());
        };
        page.connections.iter().try_for_each(&mut each)?;
        match page.next {
            Some(cursor) => query = ConnectionQuery { cursor: Some(cursor), ..ConnectionQuery::default() },
            None => return Ok(()),
        }
    }
}

/// The protocols whose data connections are followed, of which there is FTP, with the connections that need it.
fn helpers(director: &Responder<'_>, pieces: &mut Pieces<'_, '_>) -> Result<(), Unanswered> {
    const FTP: u16 = 21;
    let mut users = 0_u64;
    each_connection(director, |entry| {
        let control = entry.protocol == EntryProtocol::Tcp && entry.virtual_address.port == FTP;
        users += u64::from(control && !entry.template && entry.flags & flags::METHOD == flags::MASQUERADE);
        Ok(())
    })?;
    pieces.line("prot port    usecnt name")?;
    pieces.line(&format!("TCP  {FTP:<7} {users:<6} {:<17}", "ftp"))
}

fn connection_line(entry: &ConnectionEntry, origin: bool) -> String {
    let protocol = match entry.protocol {
        EntryProtocol::Tcp => "TCP",
        EntryProtocol::Udp => "UDP",
        EntryProtocol::Sctp => "SCTP",
        EntryProtocol::Ip => "IP",
    };
    let mut line = format!("{protocol:<3}");
    for Endpoint { ip, port } in [entry.client, entry.virtual_address, entry.destination] {
        let _cannot_fail = write!(line, " {} {port:04X}", hexadecimal(ip));
    }
    let seconds = entry.expires_ms / 1000;
    let origin = if origin { "LOCAL  " } else { "" };
    let _cannot_fail = write!(line, " {:<11} {origin}{seconds:>7}", entry.state);
    line
}

fn stats(director: &Responder<'_>) -> Result<Traffic, Unanswered> {
    match director.ask(Request::Stats(StatsQuery { destinations: false }))? {
        Response::Stats(stats) => Ok(stats.totals),
        _ => Err(Errno::IO.into()),
    }
}

/// Connections, packets and bytes, each in and out.
fn row(connections: u64, packets: [u64; 2], bytes: [u64; 2]) -> String {
    let ([in_packets, out_packets], [in_bytes, out_bytes]) = (packets, bytes);
    format!("{connections:>8X} {in_packets:>8X} {out_packets:>8X} {in_bytes:>16X} {out_bytes:>16X}")
}

fn counted(traffic: &Traffic) -> String {
    let packets = [traffic.in_packets, traffic.out_packets];
    row(traffic.connections, packets, [traffic.in_bytes, traffic.out_bytes])
}

fn rates(traffic: &Traffic) -> String {
    let packets = [traffic.in_packets_per_s, traffic.out_packets_per_s];
    row(traffic.connections_per_s, packets, [traffic.in_bytes_per_s, traffic.out_bytes_per_s])
}

fn totals(traffic: &Traffic) -> [String; 6] {
    [
        "   Total Incoming Outgoing         Incoming         Outgoing".into(),
        "   Conns  Packets  Packets            Bytes            Bytes".into(),
        counted(traffic),
        String::new(),
        " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s".into(),
        rates(traffic),
    ]
}

/// Services count for all workers together, which stand here as one CPU.
fn totals_by_cpu(traffic: &Traffic) -> [String; 7] {
    [
        "       Total Incoming Outgoing         Incoming         Outgoing".into(),
        "CPU    Conns  Packets  Packets            Bytes            Bytes".into(),
        format!("  0 {}", counted(traffic)),
        format!("  ~ {}", counted(traffic)),
        String::new(),
        "     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s".into(),
        format!("    {}", rates(traffic)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(protocol: EntryProtocol, state: &str) -> ConnectionEntry {
        ConnectionEntry {
            protocol,
            client: "10.1.0.7:0".parse().unwrap(),
            virtual_address: "0.0.0.1:0".parse().unwrap(),
            destination: "192.168.10.2:0".parse().unwrap(),
            state: state.into(),
            expires_ms: 119_400,
            packets: 0,
            worker: None,
            template: true,
            flags: 0,
            mark: Some(1),
        }
    }

    #[test]
    fn a_template_of_a_mark_is_of_no_protocol() {
        assert_eq!(
            connection_line(&entry(EntryProtocol::Ip, "NONE"), false),
            "IP  0A010007 0000 00000001 0000 C0A80A02 0000 NONE            119"
        );
        assert_eq!(
            connection_line(&entry(EntryProtocol::Udp, "UDP"), true),
            "UDP 0A010007 0000 00000001 0000 C0A80A02 0000 UDP         LOCAL      119"
        );
    }

    #[test]
    fn counters_are_hexadecimal_and_may_outgrow_their_columns() {
        let traffic = Traffic {
            connections: 0x1_2345_6789,
            in_packets: 9,
            in_bytes: 0x17a,
            in_bytes_per_s: 0x23,
            ..Traffic::default()
        };
        let [_, _, counted, _, _, rates] = totals(&traffic);
        assert_eq!(counted, "123456789        9        0              17A                0");
        assert_eq!(rates, "       0        0        0               23                0");
    }
}
