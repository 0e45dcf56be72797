//! Command lines: what they mean, and which are refused before anybody is asked.

use clap::{CommandFactory, Parser};

use super::*;
use crate::protocol::{Latency, SocketStatus, Status, WorkerStatus};

fn change(line: &str) -> Change {
    let arguments =
        Arguments::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
    match arguments.command {
        Command::Service { command } => command.change().unwrap().unwrap().0,
        Command::Destination { command } => command.change().unwrap().0,
        Command::Mark { command } => command.change().unwrap().0,
        Command::Settings { command } => command.change().unwrap().unwrap().0,
        Command::Timeouts { command } => command.change().unwrap().unwrap().0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn long_and_short_options_mean_the_same() {
    let pairs = [
        (
            "uvsctl service add --tcp 192.168.132.254:80 --scheduler rr --persistent 120 --netmask 255.255.255.0",
            "uvsctl service add -t 192.168.132.254:80 -s rr -p 120 -M 255.255.255.0",
            "+ service tcp 192.168.132.254:80 scheduler rr persistent 120 s netmask 255.255.255.0",
        ),
        (
            "uvsctl destination add --tcp 192.168.132.254:80 --server 192.168.132.64:80 --direct",
            "uvsctl destination add -t 192.168.132.254:80 -r 192.168.132.64:80 -g",
            "+ tcp 192.168.132.254:80 -> 192.168.132.64 direct weight 1",
        ),
        (
            "uvsctl destination edit --udp [fd00::1]:53 --server fd00::64 --weight 0 --upper-threshold 9",
            "uvsctl destination edit -u [fd00::1]:53 -r fd00::64 -w 0 -x 9",
            "~ udp [fd00::1]:53 -> fd00::64 weight 0 upper threshold 9",
        ),
        (
            "uvsctl service add --mark 3 --ipv6 --scheduler rr --one-packet --sched-flags sh-port,sh-fallback",
            "uvsctl service add -f 3 -6 -s rr -o -b flag-1,flag-2",
            "+ service mark 3 ipv6 scheduler rr flags flag-1,flag-2 one packet",
        ),
        (
            "uvsctl service add --tcp 1.2.3.4:80 --scheduler mh --sched-flags mh-port --mh-size 65537 --mh-order canonical",
            "uvsctl service add -t 1.2.3.4:80 -s mh -b flag-2 --mh-order canonical --mh-size 65537",
            "+ service tcp 1.2.3.4:80 scheduler mh flags flag-2 size 65537 order canonical",
        ),
        (
            "uvsctl service edit --udp 1.2.3.4:53 --one-packet=false --sched-flags=",
            "uvsctl service edit -u 1.2.3.4:53 -o=false -b= ",
            "~ service udp 1.2.3.4:53 one packet false flags ",
        ),
        (
            "uvsctl destination add --tcp 1.2.3.4:80 --server 1.2.3.5:8080 --masquerade",
            "uvsctl destination add -t 1.2.3.4:80 -r 1.2.3.5:8080 -m",
            "+ tcp 1.2.3.4:80 -> 1.2.3.5:8080 masquerade weight 1",
        ),
        (
            "uvsctl destination add --tcp 1.2.3.4:80 --server 1.2.3.5:8080 --tunnel --tun-type gue --tun-port 5555",
            "uvsctl destination add -t 1.2.3.4:80 -r 1.2.3.5 -i --tun-type gue --tun-port 5555",
            "+ tcp 1.2.3.4:80 -> 1.2.3.5 tunnel gue port 5555 weight 1",
        ),
        (
            "uvsctl destination add --mark 7 --server 1.2.3.5:8080",
            "uvsctl destination add -f 7 -r 1.2.3.5:8080 -g",
            "+ mark 7 -> 1.2.3.5:8080 direct weight 1",
        ),
        (
            "uvsctl service add --tcp 1.2.3.4:80 --mss-clamp 1440",
            "uvsctl service add -t 1.2.3.4:80 --mss-clamp=1440 --wait",
            "+ service tcp 1.2.3.4:80 scheduler wlc mss clamp 1440",
        ),
        (
            "uvsctl service add --tcp 1.2.3.4:80 --mss-clamp none",
            "uvsctl service add -t 1.2.3.4:80",
            "+ service tcp 1.2.3.4:80 scheduler wlc",
        ),
        (
            "uvsctl service edit --tcp 1.2.3.4:80 --mss-clamp none",
            "uvsctl service edit -t 1.2.3.4:80 --mss-clamp 0",
            "~ service tcp 1.2.3.4:80 mss clamp none",
        ),
        ("uvsctl service flush", "uvsctl service flush --wait", "- all services"),
        (
            "uvsctl mark add --mark 7 --protocol tcp --source 10.0.0.0/8 --destination-ports 80-443 --port eth0",
            "uvsctl mark add -f 7 --protocol tcp --source 10.0.0.0/8 --destination-ports 80-443 --port eth0 --wait",
            "+ mark rule tcp from 10.0.0.0/8 to port 80-443 in by eth0 mark 7",
        ),
        ("uvsctl mark delete --mark 7", "uvsctl mark delete -f 7", "- mark rule mark 7"),
        (
            "uvsctl settings set expire_nodest_conn=1 conn_reuse_mode=0",
            "uvsctl settings set expire_nodest_conn=true conn_reuse_mode=0",
            "~ settings conn_reuse_mode=0 expire_nodest_conn=true",
        ),
        (
            "uvsctl timeouts set --tcp 900 --udp 0",
            "uvsctl timeouts set --udp=0 --tcp=900",
            "~ timeouts tcp 900 udp 0",
        ),
        (
            "uvsctl service delete --udp 1.2.3.4:53",
            "uvsctl service delete -u 1.2.3.4:53 --wait",
            "- service udp 1.2.3.4:53",
        ),
        (
            "uvsctl service delete --sctp 1.2.3.4:53",
            "uvsctl service delete --sctp=1.2.3.4:53",
            "- service sctp 1.2.3.4:53",
        ),
    ];
    for (long, short, meaning) in pairs {
        assert_eq!(change(long), change(short));
        assert_eq!(change(long).to_string(), meaning);
    }
}

#[test]
fn wrong_command_lines_are_refused_with_the_mend() {
    for (line, part) in [
        ("uvsctl", "Usage"),
        ("uvsctl service add --scheduler rr", "--tcp"),
        ("uvsctl service add --tcp 1.2.3.4:80 --udp 1.2.3.4:80", "cannot be used with"),
        ("uvsctl service add --tcp 1.2.3.4", "write 1.2.3.4:80"),
        ("uvsctl service add --tcp 1.2.3.4:80 --scheduler mhh", "this director has rr, wrr, lc, wlc"),
        ("uvsctl service edit --tcp 1.2.3.4:80 --mh-order sorted", "write kernel or canonical"),
        ("uvsctl service edit --tcp 1.2.3.4:80 --mss-clamp 70000", "write one such as 1440, or none"),
        ("uvsctl service edit --tcp 1.2.3.4:80 --mss-clamp off", "write one such as 1440, or none"),
        ("uvsctl service add --mark 0", "zero"),
        ("uvsctl service add --tcp 1.2.3.4:80 --ipv6", "cannot be used with"),
        ("uvsctl service add --tcp 1.2.3.4:80 --sched-flags sh", "write flag-1"),
        ("uvsctl service add --tcp 1.2.3.4:80 -p 9 -M 300", "prefix length"),
        ("uvsctl destination add -t 1.2.3.4:80 -r 1.2.3.5 -g -m", "cannot be used with"),
        ("uvsctl destination add -t 1.2.3.4:80 -r 1.2.3.5 --tun-type gue", "--tunnel"),
        (
            "uvsctl destination add -t 1.2.3.4:80 -r 1.2.3.5 -i --tun-type vxlan",
            "possible values: ipip, gue, gre",
        ),
        ("uvsctl mark add", "--mark"),
        ("uvsctl mark add -f 1 --destination-ports 80", "--protocol"),
        ("uvsctl mark add -f 1 --protocol icmp", "write tcp, udp or sctp"),
        ("uvsctl mark add -f 1 --source 10.0.0.0", "write 10.0.0.0/24"),
        ("uvsctl settings set", "NAME=VALUE"),
        ("uvsctl timeouts set --tcp=-1", "-1"),
        ("uvsctl counters zero --tcp 1.2.3.4:80 --mark 1", "cannot be used with"),
        ("uvsctl connection list --service mark/0", "write mark/3"),
        ("uvsctl destination add --tcp 1.2.3.4:80 --direct", "--server"),
        ("uvsctl destination add --tcp 1.2.3.4:80 --server 1.2.3.5 --weight=-1", "-1"),
        ("uvsctl connection list --service icmp/1.2.3.4:80", "udp/ADDR:PORT or sctp/ADDR:PORT"),
        ("uvsctl statsu", "stats"),
    ] {
        let error = Arguments::try_parse_from(line.split_whitespace()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(part), "{line}: {error}");
    }
    for (line, part) in [
        ("uvsctl service edit -t 1.2.3.4:80", "nothing to change"),
        ("uvsctl destination edit -t 1.2.3.4:80 -r 1.2.3.5", "nothing to change"),
        ("uvsctl timeouts set", "nothing to change"),
        ("uvsctl settings set expire_nodest_conn", "write NAME=VALUE"),
        ("uvsctl settings set expire_nodest=1", "no such setting; there are"),
        ("uvsctl settings set conn_reuse_mode=9", "0 to 3"),
        ("uvsctl service add -t 1.2.3.4:0", "add --persistent 300"),
        ("uvsctl service edit -t 1.2.3.4:0 -p 0", "add --persistent 300"),
        ("uvsctl service add -t 1.2.3.4:80 -o", "is for UDP"),
    ] {
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let failure = run(&arguments, &mut Vec::new()).unwrap_err();
        assert_eq!(failure.exit_code(), 2, "{line}: {failure}");
        assert!(failure.to_string().contains(part), "{line}: {failure}");
    }
}

#[test]
fn a_missing_director_is_exit_code_3() {
    let line = ["uvsctl", "--socket", "/nonexistent/control.sock", "status"];
    let failure = run(&Arguments::try_parse_from(line).unwrap(), &mut Vec::new()).unwrap_err();
    assert_eq!(failure.exit_code(), 3);
    assert!(failure.to_string().contains("is uvsd running?"), "{failure}");
}

#[test]
fn a_command_to_run_keeps_its_own_options() {
    for line in ["uvsctl exec -- ipvsadm -L -n --json", "uvsctl exec ipvsadm -L -n --json"] {
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        assert!(!arguments.json, "{line}");
        let Command::Exec { command } = arguments.command else { panic!("{line}") };
        assert_eq!(command, ["ipvsadm", "-L", "-n", "--json"]);
    }
    assert_eq!(Arguments::try_parse_from(["uvsctl", "exec", "--"]).unwrap_err().exit_code(), 2);
}

#[test]
fn status_and_stats_are_readable() {
    let status = Status {
        version: "0.1.0".into(),
        pid: 7,
        uptime_ms: 61_000,
        revision: 3,
        services: 1,
        destinations: 2,
        connections: 1_234,
        steering: "client".into(),
        workers: vec![WorkerStatus {
            worker: 0,
            cpu: 1,
            idle: "sleep".into(),
            load_percent: 12.4,
            connections: 1_234,
            received: 56_789,
            redirected: 12,
            age_ms: 0,
        }],
        ports: Vec::new(),
        sockets: vec![SocketStatus { path: "/run/uvs/ipvs.sock".into(), clients: 2, capacity: 64 }],
        housekeeping_cpus: vec![0],
        memory: Vec::new(),
        warnings: vec!["w".into()],
    };
    let mut out = Vec::new();
    show::status(&mut out, &status).unwrap();
    let text = String::from_utf8(out).unwrap();
    for part in [
        "uvsd 0.1.0, pid 7, up 1m 1s, revision 3",
        "1,234 connections",
        "0         1  sleep  12 %        1,234    56,789          12",
        "/run/uvs/ipvs.sock",
        "warning: w",
    ] {
        assert!(text.contains(part), "{part}\nnot in\n{text}");
    }
    let count = |name: &str, value| crate::protocol::Count {
        name: name.into(),
        value,
        meaning: format!("Means {name}."),
    };
    let stats = crate::protocol::Stats {
        counters: vec![count("received", 1_000), count("zero", 0)],
        drops: vec![count("no_route", 0)],
        totals: crate::protocol::Traffic::default(),
        imbalance: 0,
        destinations: Vec::new(),
        apply: Latency { count: 1, p50_us: 2, p99_us: 3, max_us: 1_004, buckets: Vec::new() },
        grace_period: Latency::default(),
        burst: Latency::default(),
    };
    let mut out = Vec::new();
    show::stats(&mut out, &stats, false, false).unwrap();
    let text = String::from_utf8(out).unwrap();
    for part in
        ["received  1,000  Means received.", "dropped: none", "apply             1       2       3   1,004"]
    {
        assert!(text.contains(part), "{part}\nnot in\n{text}");
    }
    assert!(!text.contains("zero"), "{text}");
}
