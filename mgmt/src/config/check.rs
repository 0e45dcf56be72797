//! What types cannot say: names that clash, ranges, sizes that do not fit, services that contradict themselves.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use super::finding::Severity;
use super::{Config, Port, help};
use crate::desired::{
    Destination, MARK_RULES_MAX, MarkRule, Refusal, Service, ServiceKey, ServiceSpec, TIMEOUT_MAX_S,
    out_of_range,
};
use dataplane::snapshot::Maglev;

/// Linux's `IFNAMSIZ` without the terminating zero.
const INTERFACE_NAME_MAX: usize = 15;
/// Linux's `sun_path` without the terminating zero.
const SOCKET_PATH_MAX: usize = 107;
const WORKERS_MAX: u16 = 64;
const PORTS_MAX: usize = 32;
/// A packet buffer with its header and headroom.
const PACKET_BYTES: u64 = 2_048 + 128 + 128;

/// Something wrong at a path such as `port[0].name`; an empty mend means the key's usual help.
pub(super) struct Problem {
    pub(super) severity: Severity,
    pub(super) path: String,
    pub(super) message: String,
    pub(super) mend: String,
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn error(&mut self, path: impl Into<String>, message: impl Into<String>, mend: impl Into<String>) {
        let severity = Severity::Error;
        self.0.push(Problem { severity, path: path.into(), message: message.into(), mend: mend.into() });
    }

    fn warning(&mut self, path: impl Into<String>, message: impl Into<String>, mend: impl Into<String>) {
        let severity = Severity::Warning;
        self.0.push(Problem { severity, path: path.into(), message: message.into(), mend: mend.into() });
    }

    fn range<T: PartialOrd + Display + Copy>(&mut self, path: &str, value: T, low: T, high: T) {
        if value < low || value > high {
            self.error(path, format!("{value} is not in the range {low} to {high}"), "");
        }
    }
}

/// Everything wrong with a well-typed configuration. `ports_written` counts the `[[port]]`s in the files, also those that
/// were refused already.
pub(super) fn check(config: &Config, ports_written: usize) -> Vec<Problem> {
    let mut problems = Problems::default();
    dpdk(config, &mut problems);
    workers(config, &mut problems);
    limits(config, &mut problems);
    control(config, &mut problems);
    if ports_written == 0 {
        let help = help::key("port").unwrap_or_default();
        problems.error("port", "there is no port to forward on", format!("add {help}"));
    }
    if config.port.len() > PORTS_MAX {
        let message = format!("{} ports are more than {PORTS_MAX}", config.port.len());
        problems.error(format!("port[{PORTS_MAX}]"), message, "remove some");
    }
    ports(&config.port, &mut problems);
    for (index, rule) in config.mark.iter().enumerate() {
        if let Some(port) = &rule.port
            && config.port.iter().all(|held| held.name != *port)
        {
            let mend = "write the name of a [[port]], or leave the port away";
            problems.error(format!("mark[{index}].port"), format!("there is no port `{port}`"), mend);
        }
    }
    wanted(config, &mut problems);
    problems.0
}

/// Everything wrong with what a configuration makes the desired state.
pub(super) fn check_wanted(config: &Config) -> Vec<Problem> {
    let mut problems = Problems::default();
    wanted(config, &mut problems);
    problems.0
}

fn wanted(config: &Config, problems: &mut Problems) {
    for (name, seconds) in config.timeouts.named() {
        problems.range(&format!("timeouts.{name}"), seconds, 1, TIMEOUT_MAX_S);
    }
    for wrong in out_of_range(&config.settings) {
        problems.error(format!("settings.{}", wrong.name), wrong.to_string(), "");
    }
    marks(&config.mark, problems);
    services(config, problems);
}

fn marks(rules: &[MarkRule], problems: &mut Problems) {
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("mark[{index}]");
        if let Err(refusal) = rule.check() {
            problems.error(&path, refusal.to_string(), "");
        }
        if rules.iter().take(index).any(|earlier| earlier == rule) {
            problems.error(path, format!("mark rule `{rule}` is written twice"), "write it once");
        }
    }
    if rules.len() > MARK_RULES_MAX {
        let refusal = Refusal::MarkRulesFull(rules.len());
        problems.error(format!("mark[{MARK_RULES_MAX}]"), refusal.to_string(), "");
    }
}

fn dpdk(config: &Config, problems: &mut Problems) {
    let dpdk = &config.dpdk;
    if dpdk.file_prefix.is_empty() || dpdk.file_prefix.contains('/') || dpdk.file_prefix.len() > 64 {
        problems.error(
            "dpdk.file_prefix",
            format!("`{}` cannot be part of a file's name", dpdk.file_prefix),
            "",
        );
    }
    problems.range("dpdk.memory_mib", dpdk.memory_mib, 64, 1 << 20);
    let ours = [
        "-l",
        "--lcores",
        "-c",
        "-m",
        "--file-prefix",
        "--main-lcore",
        "--socket-mem",
        "--in-memory",
        "--no-huge",
    ];
    for (index, argument) in dpdk.extra_args.iter().enumerate() {
        let name = argument.split(['=', ' ']).next().unwrap_or_default();
        if ours.contains(&name)
            || name.starts_with("-l") && name[2..].starts_with(|c: char| c.is_ascii_digit())
        {
            problems.error(
                format!("dpdk.extra_args[{index}]"),
                format!("uvsd sets `{name}` itself"),
                "use workers.cpus, dpdk.memory_mib, dpdk.hugepages or dpdk.file_prefix",
            );
        }
    }
    let needed = memory_needed(config);
    let given = u64::from(dpdk.memory_mib) << 20;
    if needed > given {
        let mib = needed.div_ceil(1 << 20);
        problems.error(
            "dpdk.memory_mib",
            format!("{} MiB are too few: the packet buffers of the ports' descriptors and of limits.fragments take about {mib} MiB", dpdk.memory_mib),
            format!("write memory_mib = {}, or fewer descriptors", (mib + mib / 8).next_multiple_of(64)),
        );
    }
}

/// Bytes of EAL memory, a little too few rather than too many: the start-up counts exactly. Connections, templates and
/// services are in ordinary memory.
fn memory_needed(config: &Config) -> u64 {
    let limits = &config.limits;
    let descriptors: u64 =
        config.port.iter().map(|port| u64::from(port.rx_descriptors) + u64::from(port.tx_descriptors)).sum();
    let held = u64::from(limits.fragments) + u64::from(limits.parked);
    (descriptors + held) * u64::from(config.workers.count) * PACKET_BYTES
}

fn workers(config: &Config, problems: &mut Problems) {
    let workers = &config.workers;
    problems.range("workers.count", workers.count, 1, WORKERS_MAX);
    let cpus = &workers.cpus.0;
    if !cpus.is_empty() && cpus.len() != usize::from(workers.count) {
        let message = format!("{} CPUs for {} workers", cpus.len(), workers.count);
        problems.error("workers.cpus", message, "name one CPU for each worker, or none to let uvsd choose");
    }
    if let Some(twice) = cpus.iter().enumerate().find(|(index, cpu)| cpus[..*index].contains(cpu)) {
        problems.error(
            "workers.cpus",
            format!("CPU {} is named twice", twice.1),
            "give each worker a CPU of its own",
        );
    }
    if let Some(shared) = workers.housekeeping_cpus.0.iter().find(|cpu| cpus.contains(cpu)) {
        problems.warning(
            "workers.housekeeping_cpus",
            format!("CPU {shared} also runs a worker, which the other threads will disturb"),
            "name CPUs without a worker",
        );
    }
}

fn limits(config: &Config, problems: &mut Problems) {
    let limits = &config.limits;
    let ranges = [
        ("connections", limits.connections, 1_024, 1 << 30),
        ("connections_ipv6", limits.connections_ipv6, 0, 1 << 30),
        ("templates", limits.templates, 0, 1 << 30),
        ("services", limits.services, 1, 1 << 20),
        ("destinations", limits.destinations, 1, 1 << 24),
        ("fragments", limits.fragments, 64, 1 << 20),
        ("parked", limits.parked, 1, 4_096),
        ("localities", limits.localities, 64, 1 << 24),
        ("clients", limits.clients, 1, 256),
    ];
    for (name, value, low, high) in ranges {
        problems.range(&format!("limits.{name}"), value, low, high);
    }
    if limits.connections < u32::from(config.workers.count) * 1_024 {
        problems.error(
            "limits.connections",
            format!(
                "{} connections are fewer than 1024 for each of {} workers",
                limits.connections, config.workers.count
            ),
            "",
        );
    }
}

fn control(config: &Config, problems: &mut Problems) {
    let directory = &config.control.directory;
    if !directory.is_absolute() {
        problems.error("control.directory", format!("`{}` is not an absolute path", directory.display()), "");
    }
    let length = directory.join("control.sock").as_os_str().len();
    if length > SOCKET_PATH_MAX {
        let message = format!("the socket's path would have {length} bytes; Linux takes {SOCKET_PATH_MAX}");
        problems.error("control.directory", message, "choose a shorter directory");
    }
    if config.control.group.is_empty() {
        problems.error("control.group", "the group has no name", "");
    }
}

/// Why the kernel would refuse an interface's name (`dev_valid_name`).
fn interface_name(name: &str) -> Option<String> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name == "." || name == ".." {
        Some(format!("`{name}` is not an interface's name"))
    } else if name.len() > INTERFACE_NAME_MAX {
        Some(format!("`{name}` has {} characters; Linux takes {INTERFACE_NAME_MAX}", name.len()))
    } else if name.contains(bad) {
        Some(format!("`{name}` has a character that no interface's name can have"))
    } else {
        None
    }
}

fn ports(ports: &[Port], problems: &mut Problems) {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut devices: BTreeMap<&str, String> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, String> = BTreeMap::new();
    for (index, port) in ports.iter().enumerate() {
        let at = |key: &str| format!("port[{index}].{key}");
        for (key, name) in [("name", Some(&port.name)), ("kernel_interface", port.kernel_interface.as_ref())]
        {
            let Some(name) = name else { continue };
            if let Some(message) = interface_name(name) {
                problems.error(at(key), message, "");
            } else if let Some(first) = names.insert(name, at(key)) {
                let mend = "two interfaces of one kernel need two names; rename the NIC's own with `ip link set … name nic0`";
                problems.error(at(key), format!("`{name}` is also {first}"), mend);
            }
        }
        device(port, &at("device"), problems);
        if let Some(first) = devices.insert(&port.device, at("device")) {
            problems.error(
                at("device"),
                format!("the device of {first} again"),
                "a device belongs to one port",
            );
        }
        problems.range(&at("rx_descriptors"), port.rx_descriptors, 64, 32_768);
        problems.range(&at("tx_descriptors"), port.tx_descriptors, 64, 32_768);
        if let Some(mtu) = port.mtu {
            problems.range(&at("mtu"), mtu, 576, 9_600);
        }
        for (key, list) in [("addresses", &port.addresses), ("virtual_addresses", &port.virtual_addresses)] {
            for (item, prefix) in list.iter().enumerate() {
                let path = format!("{}[{item}]", at(key));
                if prefix.ip.is_unspecified() || prefix.ip.is_multicast() {
                    problems.error(&path, format!("{} is not the address of a host", prefix.ip), "");
                }
                if let Some(first) = addresses.insert(prefix.ip, path.clone()) {
                    problems.error(path, format!("{} is also {first}", prefix.ip), "write it once");
                }
            }
        }
        routes(port, index, problems);
    }
}

fn device(port: &Port, path: &str, problems: &mut Problems) {
    let device = &port.device;
    if device.is_empty() || device.contains(char::is_whitespace) {
        problems.error(path, format!("`{device}` is neither a PCI address nor a vdev"), "");
        return;
    }
    let vdev = device.split(',').next().unwrap_or_default();
    let pci =
        vdev.split([':', '.']).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit()))
            && vdev.contains(':')
            && vdev.contains('.');
    if !pci && !vdev.starts_with("net_") && !vdev.starts_with("eth_") {
        problems.error(path, format!("`{vdev}` is neither a PCI address nor a vdev of DPDK"), "");
    }
    let interface = device.split(',').find_map(|argument| argument.strip_prefix("iface="));
    let on_kernel_interface = vdev.starts_with("net_af_packet") || vdev.starts_with("net_af_xdp");
    match interface {
        Some(interface) if interface == port.name => problems.error(
            path,
            format!("the twin cannot be named `{interface}` like the NIC's own interface"),
            format!("rename the NIC's with `ip link set {interface} name nic0` and write iface=nic0"),
        ),
        Some(interface) if on_kernel_interface && port.twin && port.kernel_interface.is_none() => problems
            .warning(
                path,
                format!("the kernel also answers on `{interface}`: clients will get its resets"),
                format!("add kernel_interface = \"{interface}\""),
            ),
        _ => {}
    }
}

fn routes(port: &Port, index: usize, problems: &mut Problems) {
    for (item, route) in port.routes.iter().enumerate() {
        let path = format!("port[{index}].routes[{item}]");
        let Some(via) = route.via else { continue };
        if via.is_ipv4() != route.to.ip.is_ipv4() {
            problems.error(path, format!("gateway {via} is not of the family of {}", route.to), "");
        } else if via.is_unspecified() || via.is_multicast() {
            problems.error(path, format!("{via} is not the address of a gateway"), "");
        }
    }
    for (item, neighbour) in port.neighbours.iter().enumerate() {
        let path = format!("port[{index}].neighbours[{item}]");
        if port.neighbours[..item].iter().any(|other| other.address == neighbour.address) {
            problems.error(&path, format!("neighbour {} is named twice", neighbour.address), "write it once");
        }
        if neighbour.mac.0[0] & 1 == 1 || neighbour.mac.0 == [0; 6] {
            problems.error(path, format!("{} is not the MAC address of a host", neighbour.mac), "");
        }
    }
}

fn services(config: &Config, problems: &mut Problems) {
    let mut seen = BTreeMap::new();
    let mut destinations = 0;
    for (index, spec) in config.service.iter().enumerate() {
        let path = format!("service[{index}]");
        if let Some(first) = seen.insert(spec.key, index) {
            let message = format!("service {} is also service[{first}]", spec.key);
            problems.error(named(spec.key, &path), message, "write it once, with all its destinations");
        }
        destinations += spec.destination.len();
        service(spec, &path, problems);
    }
    let limits = &config.limits;
    for (key, wanted, limit) in [
        ("services", config.service.len(), limits.services),
        ("destinations", destinations, limits.destinations),
    ] {
        if u64::try_from(wanted).unwrap_or(u64::MAX) > u64::from(limit) {
            let message = format!("the configuration has {wanted} {key}, the limit is {limit}");
            problems.error(format!("limits.{key}"), message, format!("write {key} = {wanted} or more"));
        }
    }
}

/// Where a service's name is written.
fn named(key: ServiceKey, path: &str) -> String {
    format!("{path}.{}", if key.is_mark() { "mark" } else { "address" })
}

fn service(spec: &ServiceSpec, path: &str, problems: &mut Problems) {
    let mut held = match Service::without_destinations(spec) {
        Ok(service) => service,
        Err(refusal) => {
            refused(&refusal, path, problems);
            // Its destinations are judged all the same, against the service it would be.
            Service {
                key: spec.key,
                scheduler: spec.scheduler,
                scheduler_flags: spec.scheduler_flags,
                maglev: Maglev::KERNEL,
                one_packet: spec.one_packet,
                persistence: None,
                mss_clamp: None,
                destinations: Vec::new(),
            }
        }
    };
    if !spec.key.is_mark() && spec.key.port() == 0 && spec.persistent == 0 {
        problems.warning(
            named(spec.key, path),
            format!("service {} is on port 0 (every port) without persistence: a client's connections go to different destinations", spec.key),
            "add persistent = 300",
        );
    }
    for (index, destination) in spec.destination.iter().enumerate() {
        let path = format!("{path}.destination[{index}]");
        match Destination::new(&held, destination) {
            Ok(new) if held.destinations.iter().any(|other| other.server == new.server) => {
                let refusal = Refusal::DestinationExists { service: held.key, server: new.server };
                refused(&refusal, &path, problems);
            }
            Ok(new) => {
                if let Some(message) = new.port_without_effect(held.key) {
                    let mend = format!("write {}", new.server.ip);
                    problems.warning(format!("{path}.address"), message, mend);
                }
                held.destinations.push(new);
            }
            Err(refusal) => refused(&refusal, &path, problems),
        }
    }
}

/// The refusal at the key that is to blame.
fn refused(refusal: &Refusal, path: &str, problems: &mut Problems) {
    let key = match refusal {
        Refusal::Weight(_) => "weight",
        Refusal::Thresholds { .. } => "lower_threshold",
        Refusal::NetmaskAlone(_) | Refusal::NetmaskFamily { .. } => "netmask",
        Refusal::Persistent(_) => "persistent",
        Refusal::MaglevAlone(_) => "scheduler",
        Refusal::MaglevSize(_) => "mh_size",
        Refusal::MssAlone(_) | Refusal::MssClamp(..) => "mss_clamp",
        Refusal::TunnelPort | Refusal::TunnelChecksum(_) => "method",
        _ => "address",
    };
    // The sentence says the mend; a second one would only repeat it.
    let (message, mend) = match refusal {
        Refusal::DestinationExists { .. } => (
            format!("{refusal}").split(';').next().unwrap_or_default().to_owned(),
            "write it once".to_owned(),
        ),
        Refusal::NetmaskAlone(_) => (
            "a netmask without persistence has no effect".to_owned(),
            "add persistent = 300 or remove the netmask".to_owned(),
        ),
        other => (other.to_string(), String::new()),
    };
    problems.error(format!("{path}.{key}"), message, mend);
}
