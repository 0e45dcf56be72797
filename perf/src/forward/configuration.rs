//! The director's configuration for a run.

use super::devices::Devices;
use super::plan::Plan;
use crate::traffic::{Protocol, Shape};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The whole file. TCP flows are picked up in the middle, since captures hold no handshakes.
pub(crate) fn text(plan: &Plan, devices: &Devices, control: &Path) -> String {
    let shape = &plan.rules.shape;
    let cpus: Vec<String> = plan.cpus.iter().map(usize::to_string).collect();
    // With a worker on every CPU the director insists on workers that rest when there is nothing to do: here there always is.
    let (housekeeping, idle) = if plan.cpus.contains(&plan.housekeeping_cpu()) {
        (String::new(), "sleep")
    } else {
        (format!("housekeeping_cpus = [{}]\n", plan.housekeeping_cpu()), "poll")
    };
    let (ipv4, ipv6) = match shape.ipv6 {
        false => (plan.connections(), 1024),
        true => (1024.max(1024 * plan.cpus.len() as u64), plan.connections()),
    };
    let mut text = format!(
        "[dpdk]\nfile_prefix = \"uvs-perf-{pid}\"\nmemory_mib = {memory}\nhugepages = \"{hugepages}\"\n\
         extra_args = {extra:?}\n\n\
         [workers]\ncount = {count}\ncpus = [{cpus}]\n{housekeeping}idle = \"{idle}\"\n\n\
         [limits]\nconnections = {ipv4}\nconnections_ipv6 = {ipv6}\ntemplates = 1024\n\
         services = {services}\ndestinations = {destinations}\n\n\
         [control]\ndirectory = \"{control}\"\n\n[settings]\nsloppy_tcp = {sloppy}\n",
        pid = std::process::id(),
        memory = plan.memory_mib(),
        hugepages = if plan.hugepages { "required" } else { "never" },
        extra = devices.eal,
        count = plan.cpus.len(),
        cpus = cpus.join(", "),
        services = shape.services,
        destinations = plan.rules.destinations(),
        control = control.display(),
        sloppy = shape.protocol == Protocol::Tcp,
    );
    ports(&mut text, plan, devices);
    if plan.configures_services {
        services(&mut text, plan);
    }
    text
}

/// One port for everybody, or one for clients and one for servers.
fn ports(text: &mut String, plan: &Plan, devices: &Devices) {
    let shape = &plan.rules.shape;
    let (clients, clients_prefix) = shape.clients_network();
    let (director, prefix) = shape.director();
    let last = devices.ports.len().saturating_sub(1);
    for (number, device) in devices.ports.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n[[port]]\nname = \"perf{number}\"\ndevice = \"{device}\"\ntwin = false\n\
             rx_descriptors = {descriptors}\ntx_descriptors = {descriptors}\n",
            descriptors = devices.descriptors.map_or_else(|| plan.descriptors(), u64::from),
        );
        if number == last {
            let _ = writeln!(text, "addresses = [\"{director}/{prefix}\"]");
        } else {
            let _ = writeln!(text, "addresses = [\"{}\"]", single(neighbour_of(director)));
        }
        if number == 0 {
            let _ = writeln!(text, "routes = [{{ to = \"{clients}/{clients_prefix}\" }}]");
        }
        if number == last {
            neighbours(text, shape);
        }
    }
}

/// The director's address on a port of clients alone: the one before.
fn neighbour_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() - 1).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() - 1).into()),
    }
}

fn single(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv6() { 128 } else { 32 })
}

fn neighbours(text: &mut String, shape: &Shape) {
    text.push_str("neighbours = [\n");
    for index in 0..shape.destinations {
        let (address, mac) = shape.server(index);
        let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "  {{ address = \"{address}\", mac = \"{}\" }},", mac.join(":"));
    }
    text.push_str("]\n");
}

fn services(text: &mut String, plan: &Plan) {
    let rules = &plan.rules;
    let shape = &rules.shape;
    for service in 0..shape.services {
        let address = shape.service(service);
        let _ = write!(
            text,
            "\n[[service]]\nprotocol = \"{}\"\naddress = \"{address}\"\nscheduler = \"{}\"\n{}",
            shape.protocol.name(),
            rules.scheduler.name(),
            if rules.is_hashed() {
                format!(
                    "scheduler_flags = [\"mh-port\"]\nmh_size = {}\nmh_order = \"canonical\"\n",
                    rules.maglev.size
                )
            } else {
                String::new()
            }
        );
        for index in 0..shape.destinations {
            let server = SocketAddr::new(shape.server(index).0, address.port());
            let _ = write!(
                text,
                "  [[service.destination]]\n  address = \"{server}\"\n  method = {}\n",
                rules.forwarding.configured()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::plan::tests::{nat, plan};

    fn of(plan: &Plan) -> String {
        text(plan, &plan.devices(Path::new("/tmp/x")), Path::new("/tmp/x/control"))
    }

    #[test]
    fn a_configuration_names_what_the_run_needs() {
        let text = of(&plan(1, false));
        for expected in [
            "device = \"net_pcap0,rx_pcap=/tmp/x/requests-0.pcap,infinite_rx=1\"",
            "cpus = [1]\nhousekeeping_cpus = [0]\nidle = \"poll\"",
            "hugepages = \"never\"\nextra_args = []",
            "directory = \"/tmp/x/control\"",
            "sloppy_tcp = false",
            "{ address = \"198.18.0.2\", mac = \"02:00:00:01:00:02\" },",
            "address = \"198.18.255.254:1024\"\nscheduler = \"rr\"\n  [[service.destination]]\n  address = \
             \"198.18.0.1:1024\"\n  method = \"direct\"",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let full = of(&plan(2, true));
        assert!(!full.contains("housekeeping") && full.contains("idle = \"sleep\""), "{full}");
    }

    #[test]
    fn masqueraded_servers_have_a_port_of_their_own() {
        let text = of(&nat(Protocol::Tcp));
        for expected in [
            "addresses = [\"198.18.255.252/32\"]\nroutes = [{ to = \"198.19.0.0/16\" }]\n\n[[port]]",
            "device = \"net_pcap1,rx_pcap=/tmp/x/replies-0.pcap,infinite_rx=1\"",
            "addresses = [\"198.18.255.253/16\"]\nneighbours",
            "scheduler = \"mh\"\nscheduler_flags = [\"mh-port\"]\nmh_size = 4093\nmh_order = \"canonical\"",
            "method = \"masquerade\"",
            "sloppy_tcp = true",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
