//! What to write instead, key by key.

/// Every key with what it takes. Lists are written without their index.
const KEYS: &[(&str, &str)] = &[
    ("dpdk.file_prefix", "a name without slashes, such as \"uvs\""),
    ("dpdk.memory_mib", "MiB of memory for DPDK, such as 512"),
    ("dpdk.hugepages", "\"auto\", \"required\" or \"never\""),
    ("dpdk.extra_args", "a list of EAL arguments, such as [\"--log-level=pmd:info\"]"),
    ("port.name", "the twin's interface name of at most 15 characters, such as \"eth0\""),
    (
        "port.device",
        "a PCI address such as \"0000:3b:00.0\", or a vdev such as \"net_af_packet0,iface=nic0\"",
    ),
    ("port.kernel_interface", "the NIC's own interface name, such as \"nic0\""),
    ("port.twin", "true or false"),
    ("port.rx_descriptors", "64 to 32768, such as 1024"),
    ("port.tx_descriptors", "64 to 32768, such as 1024"),
    ("port.mtu", "576 to 9600, such as 1500"),
    ("port.addresses", "a list such as [\"192.168.132.30/24\"]"),
    ("port.virtual_addresses", "a list such as [\"192.168.132.254/32\"]"),
    ("port.routes", "a list such as [ { to = \"0.0.0.0/0\", via = \"192.168.132.1\" } ]"),
    ("port.neighbours", "a list such as [ { address = \"192.168.132.64\", mac = \"02:00:00:00:84:64\" } ]"),
    ("port", "[[port]] with at least name = \"eth0\" and device = \"0000:3b:00.0\""),
    ("workers.count", "1 to 64, such as 2"),
    ("workers.cpus", "a CPU for each worker, such as [2, 3] or \"2-3\""),
    ("workers.idle", "\"poll\", \"yield\" or \"sleep\""),
    ("workers.steering", "\"auto\", \"client\" or \"flow\""),
    ("workers.housekeeping_cpus", "CPUs for all other threads, such as [0]"),
    ("limits.connections", "IPv4 connections, such as 262144"),
    ("limits.connections_ipv6", "IPv6 connections, such as 65536"),
    ("limits.templates", "persistence templates, such as 65536"),
    ("limits.services", "virtual services, such as 16384"),
    ("limits.destinations", "destinations of all services, such as 65536"),
    ("limits.fragments", "fragmented packets of each worker, such as 4096"),
    ("limits.parked", "parked packets of each worker, such as 64"),
    ("limits.localities", "addresses lblc and lblcr remember in each worker, such as 65536"),
    ("limits.clients", "clients of the control socket, such as 16"),
    ("control.directory", "an absolute path, such as \"/run/uvs\""),
    ("control.group", "a group's name, such as \"root\""),
    ("timeouts.tcp", "seconds, such as 900"),
    ("timeouts.tcp_fin", "seconds, such as 120"),
    ("timeouts.udp", "seconds, such as 300"),
    ("settings.am_droprate", "one packet of how many is dropped with drop_packet = 3, such as 10"),
    ("settings.amemthresh", "free connections of a worker below which defences begin, such as 1024"),
    ("settings.cache_bypass", "true or false"),
    ("settings.conn_reuse_mode", "0 to 3, 1 as in the kernel"),
    ("settings.drop_entry", "0 never, 1 when connections run short, 3 always"),
    ("settings.drop_packet", "0 never, 1 when connections run short, 3 always"),
    ("settings.evict_half_open", "true or false"),
    ("settings.expire_nodest_conn", "true or false"),
    ("settings.expire_quiescent_template", "true or false"),
    ("settings.lblc_expiration", "seconds, such as 86400"),
    ("settings.lblcr_expiration", "seconds, such as 86400"),
    ("settings.nat_icmp_send", "true or false"),
    ("settings.pmtu_disc", "true or false"),
    ("settings.schedule_icmp", "true or false"),
    ("settings.secure_tcp", "0 never, 1 when connections run short, 3 always"),
    ("settings.sloppy_sctp", "true or false"),
    ("settings.sloppy_tcp", "true or false"),
    ("mark.mark", "the mark, such as 3; 0 takes a mark away"),
    ("mark.protocol", "\"tcp\" or \"udp\""),
    ("mark.source", "where packets come from, such as \"10.0.0.0/8\""),
    ("mark.destination", "where packets go to, such as \"192.168.132.254/32\""),
    ("mark.source_ports", "ports of clients, such as \"1024-65535\""),
    ("mark.destination_ports", "virtual ports, such as \"80\" or \"8000-8999\""),
    ("mark.port", "the name of a [[port]] that packets come in by, such as \"eth0\""),
    ("mark", "[[mark]] with at least mark = 3"),
    ("service.protocol", "\"tcp\" or \"udp\""),
    ("service.mark", "the mark of the packets it serves, such as 3, instead of protocol and address"),
    ("service.family", "\"ipv4\" or \"ipv6\", beside mark"),
    ("service.one_packet", "true or false"),
    ("service.scheduler_flags", "a list such as [\"sh-port\", \"sh-fallback\"]"),
    ("service.address", "an address and port, such as \"192.168.132.254:80\" or \"[fd00::1]:80\""),
    ("service.scheduler", "\"wlc\", \"rr\", \"mh\" or another of ipvsadm's names"),
    ("service.mh_size", "a prime number from 251 to 65537, such as 4093"),
    ("service.mh_order", "\"canonical\" or \"kernel\""),
    ("service.persistent", "seconds a client stays on its server, such as 120; 0: no persistence"),
    ("service.netmask", "\"255.255.255.0\" or a prefix length such as 24"),
    (
        "service.mss_clamp",
        "bytes of TCP data in a segment, 536 to 65495 (IPv6: 1220 to 65475), such as 1440; 0: none",
    ),
    ("service.destination.address", "the real server, such as \"192.168.132.64:80\""),
    ("service.destination.weight", "0 to 2147483647; 0 takes no new connections"),
    (
        "service.destination.method",
        "\"direct\", \"masquerade\", \"tunnel\" or { tunnel = { kind = \"gue\", port = 5555 } }",
    ),
    ("service.destination.upper_threshold", "connections at which no more are taken; 0: no limit"),
    ("service.destination.lower_threshold", "connections below which more are taken again"),
    ("service.destination", "[[service.destination]] with at least address = \"192.168.132.64:80\""),
    ("service", "[[service]] with at least protocol = \"tcp\" and address = \"192.168.132.254:80\""),
];

/// A path without the indices of its lists: `service[3].destination[0].weight` is `service.destination.weight`.
fn without_indices(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|c| {
            inside = (inside || *c == '[') && *c != ']';
            !inside && *c != ']'
        })
        .collect()
}

/// What a key takes.
pub(super) fn key(path: &str) -> Option<&'static str> {
    let wanted = without_indices(path);
    KEYS.iter().find(|(known, _)| *known == wanted).map(|(_, help)| *help)
}

/// What to do about a syntax or type error at `path`.
pub(super) fn mend(path: &str, message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut names = rest.split('`').skip(1).step_by(2);
        let unknown = names.next().unwrap_or_default();
        return match names.min_by_key(|known| distance(known, unknown)) {
            Some(near) if distance(near, unknown) <= 1 + near.len() / 3 => format!("did you mean `{near}`?"),
            _ => "remove it".to_owned(),
        };
    }
    key(path).map(|help| format!("write {help}")).unwrap_or_default()
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut last = i + 1;
        for (cell, r) in row.iter_mut().skip(1).zip(right.chars()) {
            let next = (diagonal + usize::from(l != r)).min(last + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = next;
            last = next;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_levenshteins() {
        for (left, right, steps) in
            [("", "", 0), ("cuont", "count", 2), ("kitten", "sitting", 3), ("a", "", 1), ("", "ab", 2)]
        {
            assert_eq!(distance(left, right), steps, "{left} {right}");
        }
    }

    #[test]
    fn every_key_of_the_configuration_has_its_help() {
        let config = toml::Table::try_from(super::super::Config::default()).unwrap();
        for (section, keys) in &config {
            for name in keys.as_table().into_iter().flat_map(toml::Table::keys) {
                assert!(key(&format!("{section}.{name}")).is_some(), "{section}.{name}");
            }
        }
        assert!(key("service[3].destination[10].weight").is_some());
    }
}
