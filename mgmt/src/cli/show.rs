//! What people see.

use std::io::{self, Write};

use serde::Serialize;

use super::table::{Table, bytes, duration, number};
use crate::desired::{MarkRule, ServiceSpec, Settings, Timeouts};
use crate::protocol::{
    Changed, Configuration, ConnectionEntry, Count, DestinationState, EventPage, Latency, ServiceState,
    Stats, Status, Traffic,
};

pub(super) fn status(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let Status { version, pid, uptime_ms, revision, .. } = status;
    writeln!(out, "uvsd {version}, pid {pid}, up {}, revision {revision}", duration(*uptime_ms))?;
    writeln!(
        out,
        "{} services, {} destinations, {} connections",
        number(status.services),
        number(status.destinations),
        number(status.connections)
    )?;
    let cpus: Vec<String> = status.housekeeping_cpus.iter().map(u16::to_string).collect();
    writeln!(out, "steering {}, housekeeping on CPU {}\n", status.steering, cpus.join(","))?;
    let mut workers = Table::new(&[
        "worker",
        ">cpu",
        "idle",
        ">load",
        ">connections",
        ">received",
        ">redirected",
        ">last turn",
    ]);
    for worker in &status.workers {
        workers.row(vec![
            worker.worker.to_string(),
            worker.cpu.to_string(),
            worker.idle.clone(),
            format!("{:.0} %", worker.load_percent),
            number(worker.connections),
            number(worker.received),
            number(worker.redirected),
            format!("{} ms ago", worker.age_ms),
        ]);
    }
    workers.write(out, 0)?;
    writeln!(out)?;
    let mut ports = Table::new(&["port", "name", "driver", "mac", ">mtu", "link", "device"]);
    for port in &status.ports {
        ports.row(vec![
            port.port.to_string(),
            port.name.clone(),
            port.driver.clone(),
            port.mac.to_string(),
            port.mtu.to_string(),
            port.link.clone(),
            port.device.clone(),
        ]);
    }
    ports.write(out, 0)?;
    writeln!(out)?;
    let mut sockets = Table::new(&["socket", ">clients", ">capacity"]);
    for socket in &status.sockets {
        sockets.row(vec![socket.path.clone(), number(socket.clients), number(socket.capacity)]);
    }
    sockets.write(out, 0)?;
    writeln!(out)?;
    let mut memory = Table::new(&["bounded", ">capacity", ">used", ">memory"]);
    for item in &status.memory {
        memory.row(vec![
            item.what.clone(),
            number(item.capacity),
            item.used.map_or_else(|| "-".to_owned(), number),
            bytes(item.bytes),
        ]);
    }
    memory.write(out, 0)?;
    if !status.warnings.is_empty() {
        writeln!(out)?;
    }
    status.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

fn counts(out: &mut dyn Write, title: &str, counts: &[Count], all: bool) -> io::Result<()> {
    let mut table = Table::new(&["  ", ">", ""]);
    for count in counts.iter().filter(|count| all || count.value > 0) {
        table.row(vec![count.name.clone(), number(count.value), count.meaning.clone()]);
    }
    if table.is_empty() {
        return writeln!(out, "{title}: none");
    }
    writeln!(out, "{title}:")?;
    table.write_rows(out, 2)
}

fn latency(name: &str, latency: &Latency) -> Vec<String> {
    let Latency { count, p50_us, p99_us, max_us, .. } = latency;
    [name.to_owned()].into_iter().chain([*count, *p50_us, *p99_us, *max_us].map(number)).collect()
}

/// What was forwarded, or what is forwarded a second.
const FORWARDED: [&str; 5] = [">conns", ">in packets", ">in bytes", ">out packets", ">out bytes"];
const RATES: [&str; 5] = [">conns/s", ">in packets/s", ">in bytes/s", ">out packets/s", ">out bytes/s"];

fn traffic(traffic: &Traffic, rate: bool) -> impl Iterator<Item = String> + use<> {
    let figures = if rate {
        [
            traffic.connections_per_s,
            traffic.in_packets_per_s,
            traffic.in_bytes_per_s,
            traffic.out_packets_per_s,
            traffic.out_bytes_per_s,
        ]
    } else {
        [traffic.connections, traffic.in_packets, traffic.in_bytes, traffic.out_packets, traffic.out_bytes]
    };
    figures.into_iter().map(number)
}

fn heading(names: &[&'static str], rate: bool) -> Table {
    let figures = if rate { RATES } else { FORWARDED };
    Table::new(&names.iter().copied().chain(figures).collect::<Vec<_>>())
}

pub(super) fn stats(out: &mut dyn Write, stats: &Stats, all: bool, rate: bool) -> io::Result<()> {
    counts(out, "counters", &stats.counters, all)?;
    writeln!(out)?;
    counts(out, "dropped", &stats.drops, all)?;
    writeln!(out, "\nconservation: {} packets unaccounted for (0 at rest)\n", stats.imbalance)?;
    let mut table = heading(&["service", "destination"], rate);
    for line in &stats.destinations {
        let names = [line.service.to_string(), line.destination.address.to_string()];
        table.row(names.into_iter().chain(traffic(&line.destination.traffic, rate)).collect());
    }
    let names = ["total".to_owned(), String::new()];
    table.row(names.into_iter().chain(traffic(&stats.totals, rate)).collect());
    table.write(out, 0)?;
    writeln!(out)?;
    let mut times = Table::new(&["time", ">count", ">p50 µs", ">p99 µs", ">max µs"]);
    times.row(latency("apply", &stats.apply));
    times.row(latency("grace period", &stats.grace_period));
    times.row(latency("burst", &stats.burst));
    times.write(out, 0)
}

const DESTINATION: [&str; 8] =
    ["destination", "method", ">weight", ">active", ">inactive", ">persistent", "thresholds", "next hop"];

fn destination_row(held: &DestinationState) -> Vec<String> {
    let thresholds = match (held.upper_threshold, held.lower_threshold) {
        (0, _) => "-".to_owned(),
        (upper, 0) => format!("{upper}/{}", upper - upper / 4),
        (upper, lower) => format!("{upper}/{lower}"),
    };
    vec![
        held.address.to_string(),
        held.method.to_string(),
        held.weight.to_string(),
        number(held.active),
        number(held.inactive),
        number(held.persistent),
        thresholds,
        held.next_hop.clone(),
    ]
}

pub(super) fn destinations(out: &mut dyn Write, list: &[DestinationState]) -> io::Result<()> {
    if list.is_empty() {
        return writeln!(out, "no destinations; add one with `uvsctl destination add`");
    }
    let mut table = Table::new(&DESTINATION);
    list.iter().for_each(|held| table.row(destination_row(held)));
    table.write(out, 0)
}

fn service_line(out: &mut dyn Write, service: &ServiceState) -> io::Result<()> {
    write!(out, "{} scheduler {}", service.key, service.scheduler.name())?;
    if !service.scheduler_flags.is_empty() {
        write!(out, " flags {}", service.scheduler_flags)?;
    }
    if let (Some(size), Some(order)) = (service.mh_size, service.mh_order) {
        write!(out, " size {size} order {order}")?;
    }
    if service.one_packet {
        write!(out, " one packet")?;
    }
    if service.persistent != 0 {
        write!(out, " persistent {} s", service.persistent)?;
    }
    if let Some(netmask) = service.netmask {
        write!(out, " netmask {netmask}")?;
    }
    if let Some(bytes) = service.mss_clamp {
        write!(out, " mss clamp {bytes}")?;
    }
    writeln!(out)
}

pub(super) fn services(out: &mut dyn Write, list: &[ServiceState], rate: bool) -> io::Result<()> {
    if list.is_empty() {
        return writeln!(out, "no services; add one with `uvsctl service add`");
    }
    if rate {
        let mut table = heading(&["service", "destination"], rate);
        for service in list {
            let names = [service.key.to_string(), String::new()];
            table.row(names.into_iter().chain(traffic(&service.traffic, rate)).collect());
            for held in &service.destinations {
                let names = [String::new(), held.address.to_string()];
                table.row(names.into_iter().chain(traffic(&held.traffic, rate)).collect());
            }
        }
        return table.write(out, 0);
    }
    for service in list {
        service_line(out, service)?;
        let mut table = Table::new(&DESTINATION);
        service.destinations.iter().for_each(|held| table.row(destination_row(held)));
        if table.is_empty() {
            writeln!(out, "  no destinations")?;
        } else {
            table.write(out, 2)?;
        }
    }
    Ok(())
}

pub(super) fn marks(out: &mut dyn Write, rules: &[MarkRule]) -> io::Result<()> {
    if rules.is_empty() {
        return writeln!(out, "no mark rules; add one with `uvsctl mark add`");
    }
    rules.iter().try_for_each(|rule| writeln!(out, "{rule}"))
}

/// Fields with their values, a line each.
pub(super) fn named<T: Serialize>(out: &mut dyn Write, value: &T) -> io::Result<()> {
    let fields = serde_json::to_value(value)?;
    let mut table = Table::new(&["name", ">value"]);
    for (name, value) in fields.as_object().into_iter().flatten() {
        table.row(vec![name.clone(), value.to_string()]);
    }
    table.write_rows(out, 0)
}

pub(super) fn connections(out: &mut dyn Write, list: &[ConnectionEntry], heading: bool) -> io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    // Fixed widths, so that all pages align without knowing the later ones.
    if heading {
        writeln!(
            out,
            "{:5} {:>8}  {:12} {:22} {:22} {:22} {:>10} worker",
            "proto", "expires", "state", "client", "virtual", "destination", "packets"
        )?;
    }
    list.iter().try_for_each(|entry| {
        let seconds = entry.expires_ms / 1_000;
        writeln!(
            out,
            "{:5} {:>8}  {:12} {:22} {:22} {:22} {:>10} {}",
            entry.protocol,
            format!("{:02}:{:02}", seconds / 60, seconds % 60),
            if entry.template { "TEMPLATE" } else { &entry.state },
            entry.client.to_string(),
            entry.virtual_address.to_string(),
            entry.destination.to_string(),
            number(entry.packets),
            entry.worker.map_or_else(|| "-".to_owned(), |worker| worker.to_string()),
        )
    })
}

pub(super) fn changed(out: &mut dyn Write, changed: &Changed) -> io::Result<()> {
    changed.changes.iter().try_for_each(|change| writeln!(out, "{change}"))?;
    changed.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))?;
    match (changed.changed, changed.dry_run) {
        (false, _) => write!(out, "nothing to change, revision {}", changed.revision)?,
        (true, true) => write!(out, "dry run: nothing was changed, revision {}", changed.revision)?,
        (true, false) => write!(out, "revision {}", changed.revision)?,
    }
    match changed.waited_us {
        Some(waited) => writeln!(out, ", used by all workers after {} µs", number(waited)),
        None => writeln!(out),
    }
}

/// What `config apply` takes, in a configuration file's words.
pub(super) fn configuration(out: &mut dyn Write, configuration: &Configuration) -> io::Result<()> {
    #[derive(Serialize)]
    struct File<'a> {
        timeouts: Timeouts,
        settings: Settings,
        mark: &'a [MarkRule],
        service: &'a [ServiceSpec],
    }
    let Configuration { revision, services, timeouts, settings, marks } = configuration;
    let file = File { timeouts: *timeouts, settings: *settings, mark: marks, service: services };
    let text = toml::to_string(&file).map_err(io::Error::other)?;
    write!(out, "# revision {revision}\n{text}")
}

pub(super) fn events(out: &mut dyn Write, page: &EventPage) -> io::Result<()> {
    if page.lost > 0 {
        writeln!(out, "{} older events are forgotten", page.lost)?;
    }
    let mut table = Table::new(&[">event", "time (UTC)", "kind", ">revision", "what"]);
    for event in &page.events {
        table.row(vec![
            event.sequence.to_string(),
            utc(event.time_ms),
            event.kind.clone(),
            event.revision.to_string(),
            event.text.clone(),
        ]);
    }
    if table.is_empty() { writeln!(out, "no events") } else { table.write(out, 0) }
}

/// `2026-11-25 12:45:00.123`, by Howard Hinnant's days-from-civil turned round (public domain algorithm).
fn utc(milliseconds: u64) -> String {
    let (days, of_day) = (milliseconds / 86_400_000, milliseconds % 86_400_000);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{:02}.{:03}",
        of_day / 1_000 % 60,
        of_day % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00.000");
        assert_eq!(utc(1_795_610_700_123), "2026-11-25 12:45:00.123");
    }
}
