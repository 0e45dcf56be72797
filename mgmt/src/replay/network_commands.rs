//! `ip` and `iptables` lines of traces: what they are to the replay. The one table of these mappings:
//!
//! | line | becomes |
//! | --- | --- |
//! | `ip link set [dev] DEV mtu N` | the port's MTU |
//! | `ip addr add\|del ADDRESS/N dev DEV` | own address, with its on-link route |
//! | `ip neigh add\|replace\|change\|del ADDRESS [lladdr MAC] … dev DEV` | permanent neighbour |
//! | `ip route add\|replace\|append\|del [local\|unreachable\|…] PREFIX [via A] [dev DEV] [mtu N] [src A] [metric N] [table N]` | route |
//! | `ip route get A`, `ip route show cache` | read from the routes; there are no cached exceptions |
//! | `ip rule add\|del fwmark N [to PREFIX] lookup\|table T` | where the host's stack looks first for marked packets |
//! | `iptables -t mangle -A\|-D PREROUTING … -j MARK --set-mark N` | mark rule, with `-p -s -d --sport --dport -i` |
//!
//! Devices are `c0`, `s0` (the ports' twins) and `lo`. Whatever else is refused, naming it.

use std::net::IpAddr;

use crate::address::{Prefix, family_bits};
use crate::mirror::wire::{Route, RouteKind};

use super::tables::{Device, Rule, Tables, Way, bare, hop};

/// Words of a command that are taken one after the other.
#[derive(Debug)]
pub struct Words<'a> {
    words: std::slice::Iter<'a, String>,
}

impl<'a> Words<'a> {
    /// Over a command's arguments.
    #[must_use]
    pub fn new(words: &'a [String]) -> Self {
        Self { words: words.iter() }
    }

    /// The next word.
    pub fn next_word(&mut self) -> Option<&'a str> {
        self.words.next().map(String::as_str)
    }

    /// The next word, which belongs to `option`.
    ///
    /// # Errors
    /// There is none.
    pub fn value(&mut self, option: &str) -> Result<&'a str, String> {
        self.next_word().ok_or_else(|| format!("`{option}` wants a value"))
    }

    /// The next word, which belongs to `option`, as a number or whatever else it is to be.
    ///
    /// # Errors
    /// There is none, or it is not of that kind.
    pub fn parsed<T: std::str::FromStr>(&mut self, option: &str) -> Result<T, String> {
        let word = self.value(option)?;
        word.parse().map_err(|_| format!("`{option} {word}` cannot be read"))
    }
}

/// Runs an `ip` command on the tables; what it prints.
///
/// # Errors
/// What the replay does not know, or what is wrong.
pub fn ip(tables: &mut Tables, arguments: &[String]) -> Result<String, String> {
    let mut words = Words::new(arguments);
    let mut object = words.next_word();
    while matches!(object, Some("-4" | "-6")) {
        object = words.next_word();
    }
    match (object, words.next_word()) {
        (Some("link" | "l"), Some("set")) => link(tables, words),
        (Some("address" | "addr" | "a"), Some(what @ ("add" | "del"))) => {
            address(tables, what == "add", words)
        }
        (Some("neighbour" | "neigh" | "n"), Some(what @ ("add" | "replace" | "change" | "del"))) => {
            neighbour(tables, what != "del", words)
        }
        (Some("rule"), Some(what @ ("add" | "del"))) => rule(tables, what == "add", words),
        (Some("route" | "r"), Some("get")) => route_get(tables, words),
        (Some("route" | "r"), Some("show" | "list" | "ls")) => match words.next_word() {
            Some("cache") => Ok(String::new()),
            _ => Err("of routes only the cache is shown".to_owned()),
        },
        (Some("route" | "r"), Some(what @ ("add" | "replace" | "append" | "del" | "delete"))) => {
            route(tables, !what.starts_with("del"), words)
        }
        _ => Err("not among the replay's commands".to_owned()),
    }
}

fn device(words: &mut Words<'_>, option: &str) -> Result<Device, String> {
    let name = words.value(option)?;
    Device::named(name).ok_or_else(|| format!("there is no device `{name}`; devices are c0, s0 and lo"))
}

fn port(device: Device) -> Result<u8, String> {
    match device {
        Device::Twin(port) => Ok(port),
        Device::Loopback => Err("lo is no port".to_owned()),
    }
}

fn link(tables: &mut Tables, mut words: Words<'_>) -> Result<String, String> {
    let mut name = words.value("link set")?;
    if name == "dev" {
        name = words.value("dev")?;
    }
    let device = Device::named(name).ok_or_else(|| format!("there is no device `{name}`"))?;
    while let Some(word) = words.next_word() {
        match word {
            "mtu" => {
                let mtu: u32 = words.parsed("mtu")?;
                if !(68..=u32::from(u16::MAX)).contains(&mtu) || !tables.set_mtu(port(device)?, mtu) {
                    return Err(format!("an MTU of {mtu} cannot be set"));
                }
            }
            other => return Err(format!("`{other}` of a link is not played")),
        }
    }
    Ok(String::new())
}

fn address(tables: &mut Tables, add: bool, mut words: Words<'_>) -> Result<String, String> {
    let text = words.value("addr add")?;
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, prefix.parse().ok()),
        None => (text, Some(if text.contains(':') { 128 } else { 32 })),
    };
    let (Ok(address), Some(prefix)) = (address.parse::<IpAddr>(), prefix) else {
        return Err(format!("`{text}` is no address"));
    };
    let mut on = None;
    while let Some(word) = words.next_word() {
        match word {
            "dev" => on = Some(device(&mut words, word)?),
            "nodad" => {}
            other => return Err(format!("`{other}` of an address is not played")),
        }
    }
    let on = on.ok_or("an address is of a device")?;
    if add {
        tables.add_address(on, address, prefix);
    } else if !tables.remove_address(on, address, prefix) {
        return Err(format!("{address} is not there"));
    }
    Ok(String::new())
}

fn neighbour(tables: &mut Tables, add: bool, mut words: Words<'_>) -> Result<String, String> {
    let address: IpAddr = words.parsed("neigh")?;
    let (mut on, mut mac) = (None, None);
    while let Some(word) = words.next_word() {
        match word {
            "dev" => on = Some(port(device(&mut words, word)?)?),
            "lladdr" => mac = Some(words.parsed::<crate::address::Mac>(word)?.0),
            "nud" => {
                words.value(word)?;
            }
            other => return Err(format!("`{other}` of a neighbour is not played")),
        }
    }
    let on = on.ok_or("a neighbour is on a device")?;
    match (add, mac) {
        (true, Some(mac)) => tables.add_neighbour(on, address, mac),
        (true, None) => return Err("a neighbour wants `lladdr`".to_owned()),
        (false, _) if tables.remove_neighbour(on, address) => {}
        (false, _) => return Err(format!("{address} is not there")),
    }
    Ok(String::new())
}

fn rule(tables: &mut Tables, add: bool, mut words: Words<'_>) -> Result<String, String> {
    let (mut mark, mut table, mut to) = (None, None, None);
    while let Some(word) = words.next_word() {
        match word {
            "to" => to = Some(words.parsed::<Prefix>(word)?),
            "fwmark" => mark = Some(number(words.value(word)?)?),
            "lookup" | "table" => table = Some(words.parsed(word)?),
            other => return Err(format!("`{other}` of a rule is not played")),
        }
    }
    let (Some(mark), Some(table)) = (mark, table) else {
        return Err("only rules `fwmark N lookup T` are played".to_owned());
    };
    let rule = Rule { mark, to, table };
    if add {
        tables.add_rule(rule);
    } else if !tables.remove_rule(rule) {
        return Err("the rule is not there".to_owned());
    }
    Ok(String::new())
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is no number"))
}

fn prefix_of(text: &str, other: Option<IpAddr>) -> Result<(IpAddr, u8), String> {
    if text == "default" {
        let v6 = other.is_some_and(|address| address.is_ipv6());
        let any = if v6 {
            IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
        };
        return Ok((any, 0));
    }
    if let Ok(host) = text.parse::<IpAddr>() {
        return Ok((host, family_bits(host)));
    }
    let prefix: Prefix = text.parse().map_err(|_| format!("`{text}` is no prefix"))?;
    Ok((prefix.ip, prefix.length))
}

fn route(tables: &mut Tables, add: bool, mut words: Words<'_>) -> Result<String, String> {
    let mut kind = RouteKind::Unicast;
    let (mut to, mut table, mut on, mut gateway) = (None, None, None, None);
    let (mut mtu, mut source, mut metric) = (None, None, 0);
    while let Some(word) = words.next_word() {
        match word {
            "local" => kind = RouteKind::Local,
            "unicast" | "to" => {}
            "blackhole" | "unreachable" | "prohibit" => kind = RouteKind::Refuse,
            "via" => gateway = Some(words.parsed::<IpAddr>(word)?),
            "dev" => on = Some(device(&mut words, word)?),
            "mtu" => mtu = Some(words.parsed(word)?),
            "src" => source = Some(words.parsed(word)?),
            "metric" => metric = words.parsed(word)?,
            "table" => table = Some(words.value(word)?),
            text if to.is_none() => to = Some(text),
            other => return Err(format!("`{other}` of a route is not played")),
        }
    }
    let (destination, prefix) = prefix_of(to.ok_or("a route has a destination")?, gateway)?;
    let table = match table {
        None | Some("main" | "local") => None,
        Some(name) => Some(number(name)?),
    };
    let way = on.or_else(|| gateway.and_then(|gateway| leads(tables, gateway)));
    let hops = match (kind, way) {
        (RouteKind::Refuse, _) => Vec::new(),
        (_, Some(device)) => vec![hop(device, gateway)],
        (RouteKind::Local, None) => vec![hop(Device::Loopback, None)],
        (_, None) if add => return Err("the gateway cannot be reached".to_owned()),
        (_, None) => Vec::new(),
    };
    let route = Route { hops, mtu, prefsrc: source, metric, ..bare(kind, destination, prefix) };
    if add {
        tables.add_route(table, route);
    } else if !tables.remove_route(table, &route) {
        return Err("the route is not there".to_owned());
    }
    Ok(String::new())
}

/// The device that leads to a gateway.
fn leads(tables: &Tables, gateway: IpAddr) -> Option<Device> {
    match tables.way(gateway, 0) {
        Way::On(exit) => Some(Device::Twin(exit.port.0)),
        _ => None,
    }
}

fn route_get(tables: &Tables, mut words: Words<'_>) -> Result<String, String> {
    let destination: IpAddr = words.parsed("route get")?;
    let choice = tables.view().next_hop(destination);
    let Some(choice) = choice else { return Err(format!("no route leads to {destination}")) };
    let via = if choice.on_link { String::new() } else { format!(" via {}", choice.via) };
    let name = super::tables::NAMES.get(choice.port.index()).copied().unwrap_or("?");
    let source = tables.source_for(destination).map(|own| format!(" src {own}")).unwrap_or_default();
    Ok(format!("{destination}{via} dev {name}{source} uid 0 \n    cache \n"))
}

#[cfg(test)]
mod tests {
    use super::ip;
    use crate::replay::tables::{Tables, Way};
    use proptest::prelude::*;

    fn run(tables: &mut Tables, line: &str) -> Result<String, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        ip(tables, &words)
    }

    fn to(tables: &Tables, address: &str, mark: u32) -> Way {
        tables.way(address.parse().unwrap(), mark)
    }

    #[test]
    fn lines_of_the_recorded_traces() {
        let mut tables = Tables::new();
        for line in [
            "link set s0 mtu 1400",
            "rule add fwmark 5 lookup 100",
            "route add local default dev lo table 100",
            "route add local 10.200.0.0/16 dev lo",
            "addr add 192.0.2.1/24 dev s0",
            "neigh replace 192.0.2.7 lladdr 02:00:00:00:00:07 nud permanent dev s0",
            "route add 198.51.100.0/24 via 192.0.2.7",
            "-6 route add default via 2001:db8::fe dev c0",
        ] {
            assert_eq!(run(&mut tables, line), Ok(String::new()), "{line}");
        }
        assert_eq!(to(&tables, "172.16.9.9", 5), Way::Here);
        assert_eq!(to(&tables, "10.200.1.1", 0), Way::Here);
        assert!(matches!(to(&tables, "198.51.100.9", 0), Way::On(exit) if exit.destination_mac[5] == 7));
        assert_eq!(
            run(&mut tables, "route get 172.16.5.4"),
            Ok("172.16.5.4 via 192.168.10.254 dev s0 src 192.168.10.1 uid 0 \n    cache \n".to_owned())
        );
        assert_eq!(run(&mut tables, "route show cache"), Ok(String::new()));
        assert_eq!(run(&mut tables, "rule add fwmark 6 to 172.16.0.0/16 lookup 100"), Ok(String::new()));
        assert_eq!(to(&tables, "172.16.9.9", 6), Way::Here);
        assert_eq!(run(&mut tables, "route del default"), Ok(String::new()));
        assert_eq!(to(&tables, "10.1.0.5", 0), Way::Nowhere);
        assert_eq!(run(&mut tables, "route add default via 10.0.0.254"), Ok(String::new()));
        assert_eq!(run(&mut tables, "route del 198.51.100.0/24 via 192.0.2.7"), Ok(String::new()));
        assert!(matches!(to(&tables, "198.51.100.9", 0), Way::On(exit) if exit.port.0 == 0));
    }

    #[test]
    fn what_is_not_known_is_named() {
        let mut tables = Tables::new();
        for (line, what) in [
            ("link set eth9 mtu 1400", "`eth9`"),
            ("link set s0 mtu many", "`mtu many`"),
            ("link set s0 mtu 1", "MTU of 1"),
            ("link set s0 down", "`down`"),
            ("route add 10.9.0.0/16 nexthop via 1.1.1.1", "`nexthop`"),
            ("route add 10.9.0.0/99 dev s0", "`10.9.0.0/99`"),
            ("rule add from 10.0.0.0/8 lookup 9", "`from`"),
            ("xfrm state", "commands"),
            ("", "commands"),
        ] {
            let why = run(&mut tables, line).unwrap_err();
            assert!(why.contains(what), "{line}: {why}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_taken_or_refused(words in prop::collection::vec("(route|add|del|local|via|dev|s0|lo|mtu|10\\.0\\.0\\.1/24|neigh|rule|fwmark|table|0x5|[a-z0-9./:]{0,12})", 0..10)) {
            let _ = ip(&mut Tables::new(), &words);
        }
    }
}
