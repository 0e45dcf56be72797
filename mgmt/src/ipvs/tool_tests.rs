//! The real ipvsadm, led here by the preloaded library: what it prints and how it ends, against recordings of the kernel's.
//!
//! Needs ipvsadm and the library (`cargo build -p uvs_ipvs`); where one is missing the tests say so and pass.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::real::Real;
use super::testing::{Modelled, Served};
use crate::control::Backend;
use crate::management::Limits;
use crate::protocol::{ConnectionEntry, EntryProtocol, Traffic};

/// One command of the recording.
struct Step {
    command: String,
    printed: String,
    code: i32,
}

/// What comes after one another in the recording.
enum Entry {
    /// A director without services.
    Start,
    Packets,
    Step(Step),
}

fn recording() -> Vec<Entry> {
    let mut entries = Vec::new();
    for line in include_str!("testdata/cli.txt").lines() {
        let (mark, rest) = line.split_at(1);
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match (mark, entries.last_mut()) {
            ("#", _) => entries.push(Entry::Start),
            ("!", _) => entries.push(Entry::Packets),
            ("$", _) => {
                entries.push(Entry::Step(Step { command: rest.to_owned(), printed: String::new(), code: 0 }));
            }
            ("|", Some(Entry::Step(step))) => step.printed.extend([rest, "\n"]),
            ("=", Some(Entry::Step(step))) => step.code = rest.parse().unwrap(),
            _ => {}
        }
    }
    entries
}

/// Where cargo puts the library, beside the directory of this test.
fn library() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let library = test.parent()?.parent()?.join("libuvs_ipvs.so");
    let tool = Command::new("ipvsadm").arg("-v").output().is_ok();
    if !tool || !library.exists() {
        eprintln!("ipvsadm or {} is missing: not tested", library.display());
        return None;
    }
    Some(library)
}

fn traffic(connections: u64, in_packets: u64, in_bytes: u64, rates: (u64, u64)) -> Traffic {
    let (in_packets_per_s, in_bytes_per_s) = rates;
    Traffic { connections, in_packets, in_bytes, in_packets_per_s, in_bytes_per_s, ..Traffic::default() }
}

fn connection(protocol: EntryProtocol, ends: [&str; 3], state: &str, expires_s: u64) -> ConnectionEntry {
    let [client, virtual_address, destination] = ends.map(|end| end.parse().unwrap());
    ConnectionEntry {
        protocol,
        client,
        virtual_address,
        destination,
        state: state.into(),
        expires_ms: expires_s * 1000 + 999,
        packets: 1,
        worker: None,
        template: state == "ASSURED",
        flags: 0,
        mark: None,
    }
}

/// What the recording's packets had done.
fn packets(model: &Modelled) {
    model.with(|model| {
        for service in &mut model.services {
            let listed = service.key.to_string();
            let (total, each) = match listed.as_str() {
                "tcp 10.0.0.100:80" => (traffic(3, 6, 240, (1, 30)), traffic(1, 2, 80, (0, 10))),
                "tcp 10.0.0.101:443" => (traffic(1, 1, 40, (0, 5)), traffic(1, 1, 40, (0, 5))),
                "udp 10.0.0.100:53" => (traffic(1, 1, 38, (0, 5)), traffic(1, 1, 38, (0, 5))),
                "tcp [2001:db8::100]:80" => (traffic(1, 1, 60, (0, 7)), traffic(1, 1, 60, (0, 7))),
                _ => continue,
            };
            service.traffic = total;
            for destination in &mut service.destinations {
                destination.traffic = each;
                destination.active = u64::from(listed.starts_with("tcp"));
                destination.persistent = u64::from(service.persistent != 0);
            }
        }
        let virtual_address = "10.0.0.100:80";
        for (client, server) in [
            ("10.1.0.5", "172.16.5.4:80"),
            ("10.1.0.6", "192.168.10.3:8080"),
            ("10.1.0.7", "192.168.10.2:80"),
        ] {
            let established = [&format!("{client}:1024"), virtual_address, server];
            model.connections.push(connection(EntryProtocol::Tcp, established, "ESTABLISHED", 896));
            let template = [&format!("{client}:0"), virtual_address, server];
            model.connections.push(connection(EntryProtocol::Tcp, template, "ASSURED", 296));
        }
        let v4 = ["10.1.0.5:1024", "10.0.0.101:443", "192.168.10.7:443"];
        let v6 = ["[2001:db8:1::5]:1024", "[2001:db8::100]:80", "[fd00:10::2]:80"];
        model.connections.extend([v4, v6].map(|ends| connection(EntryProtocol::Tcp, ends, "SYN_RECV", 56)));
        model.totals = Traffic { connections_per_s: 1, ..traffic(6, 9, 0x17a, (1, 0x23)) };
    });
}

/// The kernel's order of services and of connections is a hash's.
fn is_unordered(command: &str) -> bool {
    command.contains("nosort") || command.contains("-Lnc") || command.starts_with("cat")
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// The kernel has a module of persistence by SIP's call, the director has not.
fn without_engines(step: &Step) -> (String, i32) {
    if step.command.contains("--pe sip") {
        return ("Scheduler or persistence engine not found\n".into(), 255);
    }
    let kept = |line: &&str| !line.contains("10.0.0.104:87") && !line.contains("10.0.0.104:5060");
    let kept: String = step.printed.lines().filter(kept).flat_map(|line| [line, "\n"]).collect();
    (kept, step.code)
}

const DIRECTOR: &str = "tool-director";

/// Plays the recording against a director that `start` makes and `count` lets forward packets, as far as it can.
fn play(
    name: &str,
    library: &Path,
    start: impl Fn() -> Arc<dyn Backend>,
    mut count: impl FnMut() -> bool,
) -> usize {
    let mut served = Served::new(name, start());
    let mut run = 0;
    for entry in recording() {
        let step = match entry {
            Entry::Start => {
                drop(served);
                served = Served::new(name, start());
                continue;
            }
            Entry::Packets if count() => continue,
            Entry::Packets => break,
            Entry::Step(step) => step,
        };
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1 </dev/null; {}", step.command)])
            .env("LD_PRELOAD", library)
            .env("UVS_IPVS_SOCKET", served.path())
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let (expected, code) = without_engines(&step);
        assert_eq!(output.status.code(), Some(code), "{}: {printed}", step.command);
        if is_unordered(&step.command) {
            assert_eq!(sorted(&printed), sorted(&expected), "{}", step.command);
        } else {
            assert_eq!(printed, expected, "{}", step.command);
        }
        run += 1;
    }
    run
}

#[test]
fn ipvsadm_prints_what_it_prints_on_the_kernel() {
    let Some(library) = library() else { return };
    let model: Mutex<Arc<Modelled>> = Mutex::default();
    let start = || {
        let fresh = Arc::new(Modelled::default());
        *model.lock().unwrap() = Arc::clone(&fresh);
        fresh as Arc<dyn Backend>
    };
    let run = play("tool-model", &library, start, || {
        packets(&model.lock().unwrap());
        true
    });
    assert_eq!(run, 216);
}

#[test]
fn the_director_takes_what_the_kernel_takes() {
    let Some(library) = library() else { return };
    let limits = Limits { services: 64, destinations: 64 };
    let run = play(DIRECTOR, &library, || Arc::new(Real::new(limits)), || false);
    assert_eq!(run, 187);
}
