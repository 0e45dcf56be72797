//! The tools as Debian has them, against a stand-in for uvsd: what they print and how they end.
#![allow(missing_docs, clippy::unwrap_used, clippy::tests_outside_test_module)]

mod common;

use std::process::{Command, Output};

use common::StandIn;

/// True where `program` is installed; a test of it says so and passes otherwise.
fn installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    if !found.status.success() {
        eprintln!("{program} is not installed: not tested");
    }
    found.status.success()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output, standard error, exit code.
fn outcome(output: &Output) -> (String, String, Option<i32>) {
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

const LISTING: &str = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.1:80 rr
";

#[test]
fn ipvsadm_lists_what_the_director_has() {
    if installed("ipvsadm") {
        let director = StandIn::new();
        let (out, err, code) = outcome(&director.run("ipvsadm", &["-Ln"]));
        assert_eq!((out.as_str(), err.as_str(), code), (LISTING, "", Some(0)));
        let (out, ..) = outcome(&director.run("ipvsadm", &["-Sn"]));
        assert_eq!(out, "-A -t 192.0.2.1:80 -s rr\n");
    }
}

#[test]
fn ipvsadm_changes_and_reports_refusals() {
    if installed("ipvsadm") {
        let director = StandIn::new();
        let (out, err, code) = outcome(&director.run("ipvsadm", &["-C"]));
        assert_eq!((out.as_str(), err.as_str(), code), ("", "", Some(0)));
        assert!(director.commands().contains(&17), "FLUSH came: {:?}", director.commands());
        let (out, err, code) = outcome(&director.run("ipvsadm", &["-A", "-t", "192.0.2.1:80"]));
        assert_eq!((out.as_str(), err.as_str(), code), ("", "Service already exists\n", Some(255)));
    }
}

#[test]
fn ipvsadm_reads_the_connections_from_the_director() {
    if installed("ipvsadm") {
        let (out, _, code) = outcome(&StandIn::new().run("ipvsadm", &["-Lnc"]));
        assert_eq!((out.starts_with("IPVS connection entries\n"), code), (true, Some(0)), "{out}");
    }
}

#[test]
fn without_a_director_ipvsadm_says_that_there_is_no_ipvs() {
    if installed("ipvsadm") {
        let (out, err, code) = outcome(&StandIn::absent().run("ipvsadm", &["-Ln"]));
        assert!(err.starts_with("Can't initialize ipvs: Protocol not available"), "{err}");
        assert_eq!((out.as_str(), code), ("", Some(2)));
    }
}

#[test]
fn a_path_too_long_for_a_socket_is_no_director() {
    if installed("ipvsadm") {
        let output = Command::new("ipvsadm")
            .arg("-Ln")
            .env("LD_PRELOAD", common::library())
            .env("UVS_IPVS_SOCKET", "/x".repeat(60))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
}

#[test]
fn files_of_ipvs_are_the_directors() {
    let director = StandIn::new();
    for name in ["ip_vs", "ip_vs_conn", "ip_vs_conn_sync", "ip_vs_stats", "ip_vs_stats_percpu"] {
        for directory in ["/proc/net", "/proc/self/net", "/proc/thread-self/net"] {
            let (out, err, code) = outcome(&director.run("cat", &[&format!("{directory}/{name}")]));
            assert_eq!((out, err.as_str(), code), (format!("text of {name}\n"), "", Some(0)));
        }
    }
    let (out, err, _) = outcome(&director.run("cat", &["/proc/net/ip_vs_app"]));
    assert_eq!((out.as_str(), err.contains("No such file")), ("", true), "{err}");
}

#[test]
fn children_of_children_see_them_too_also_by_a_relative_path() {
    let director = StandIn::new();
    let (out, err, _) =
        outcome(&director.run("sh", &["-c", "cd /proc/net && sh -c 'cat <ip_vs; cat ./ip_vs_conn'"]));
    assert_eq!((out.as_str(), err.as_str()), ("text of ip_vs\ntext of ip_vs_conn\n", ""));
}

#[test]
fn without_a_director_there_are_no_such_files() {
    let (out, err, code) = outcome(&StandIn::absent().run("cat", &["/proc/net/ip_vs"]));
    assert_eq!((out.as_str(), code), ("", Some(1)));
    assert!(err.contains("No such file or directory"), "{err}");
}

#[test]
fn the_files_are_there_where_the_director_is() {
    let tests = [
        "[ -e /proc/net/ip_vs ]",
        "[ -f /proc/net/ip_vs_stats ]",
        "[ -r /proc/self/net/ip_vs_conn ]",
        "[ ! -w /proc/net/ip_vs_nothing ]",
        "stat /proc/net/ip_vs",
        "ls -l /proc/net/ip_vs",
        "cd /proc/net && [ -e ip_vs ]",
        "[ -d /proc/net ] && [ -e /proc/net/dev ]",
    ];
    for shell in ["sh", "bash"].into_iter().filter(|shell| installed(shell)) {
        let (director, absent) = (StandIn::new(), StandIn::absent());
        for test in tests {
            let (_, err, code) = outcome(&director.run(shell, &["-c", test]));
            assert_eq!(code, Some(0), "{shell}: {test}: {err}");
            let (.., code) = outcome(&absent.run(shell, &["-c", test]));
            let without = test.contains("nothing") || test.contains("/dev ]");
            assert_eq!(code == Some(0), without, "{shell}: {test}");
        }
    }
}

#[test]
fn other_files_are_what_they_are() {
    let director = StandIn::new();
    let (out, ..) = outcome(&director.run("cat", &["/proc/self/net/protocols"]));
    assert!(out.starts_with("protocol"), "{out}");
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let (out, ..) = outcome(&director.run("cat", &[here]));
    assert_eq!(out, std::fs::read_to_string(here).unwrap());
}

#[test]
fn the_kernels_module_is_not_loaded() {
    if installed("modprobe") {
        let director = StandIn::absent();
        let (out, err, code) = outcome(&director.run("modprobe", &["-v", "--", "ip_vs"]));
        assert_eq!((out.as_str(), err.as_str(), code), ("", "", Some(0)));
        let (.., code) = outcome(&director.run("modprobe", &["uvs_no_such_module"]));
        assert_eq!(code, Some(1));
    }
}

#[test]
fn route_sockets_are_left_alone() {
    if installed("ip") {
        let (out, err, code) = outcome(&StandIn::absent().run("ip", &["-o", "link", "show", "lo"]));
        assert!(out.contains("LOOPBACK"), "{out}{err}");
        assert_eq!(code, Some(0));
    }
}
