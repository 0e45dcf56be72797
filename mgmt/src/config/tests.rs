//! Broken configurations: what is said about each, and where.

use super::*;
use crate::desired::MaglevOrder;

const GOOD: &str = r#"
[dpdk]
memory_mib = 256

[[port]]
name = "eth0"
device = "net_af_packet0,iface=nic0,qpairs=1"
kernel_interface = "nic0"
addresses = ["192.168.132.30/24"]
routes = [ { to = "0.0.0.0/0", via = "192.168.132.1" } ]
neighbours = [ { address = "192.168.132.64", mac = "02:00:00:00:84:64" } ]

[[service]]
protocol = "tcp"
address = "192.168.132.254:80"
scheduler = "rr"
persistent = 120
netmask = "255.255.255.0"
  [[service.destination]]
  address = "192.168.132.64:80"
  [[service.destination]]
  address = "192.168.132.68"
  weight = 3
"#;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("uvs-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("conf.d")).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

fn only(name: &str, text: &str) -> Result<Loaded, Findings> {
    let scratch = Scratch::new(name);
    load(&Layers { file: Some(scratch.file("uvs.toml", text)), ..Layers::default() })
}

/// Findings as `line:column message / mend`, without the file's name.
fn said(findings: &Findings) -> Vec<String> {
    let one = |finding: &Finding| match &finding.place {
        Place::File { line, column, .. } => format!("{line}:{column} {} / {}", finding.message, finding.mend),
        place => format!("{place:?} {} / {}", finding.message, finding.mend),
    };
    findings.0.iter().map(one).collect()
}

#[test]
fn a_good_file_is_read_and_the_rest_is_defaults() {
    let loaded = only("good", GOOD).unwrap_or_else(|findings| panic!("{findings}"));
    assert_eq!(loaded.warnings, Findings::default());
    let config = loaded.config;
    assert_eq!(config.dpdk.memory_mib, 256);
    assert_eq!(config.workers, Workers::default());
    assert_eq!(config.port[0].rx_descriptors, 1024);
    assert_eq!(config.service[0].destination[1].weight, 3);
    assert_eq!(config.service[0].netmask.unwrap().prefix(), Some(24));
}

#[test]
fn later_layers_win_and_lists_add_up() {
    let scratch = Scratch::new("layers");
    let file = scratch.file("uvs.toml", GOOD);
    scratch.file("conf.d/20-more.toml", "[workers]\ncount = 3\ncpus = \"1-3\"\n[dpdk]\nmemory_mib = 300\n");
    scratch.file(
        "conf.d/10-more.toml",
        "[workers]\ncount = 9\n[[service]]\nprotocol = \"udp\"\naddress = \"[fd00::1]:53\"\n",
    );
    scratch.file("conf.d/README", "not read");
    let layers = Layers {
        file: Some(file),
        directory: Some(scratch.0.join("conf.d")),
        environment: vec![
            ("UVS_DPDK__MEMORY_MIB".into(), "320".into()),
            ("UVS_CONTROL".into(), "/tmp/x.sock".into()),
            ("UVS_IPVS_SOCKET".into(), "/tmp/ipvs.sock".into()),
            ("UVS_IPVS_LIBRARY".into(), "/tmp/libuvs_ipvs.so".into()),
            ("UVS_WORKERS__IDLE".into(), "poll".into()),
            ("UVS_CONTROL__GROUP".into(), "0".into()),
            ("HOME".into(), "/root".into()),
        ],
        flags: vec![
            "workers.idle=yield".into(),
            "control.directory=/tmp/u".into(),
            "workers.cpus=[4,5,6]".into(),
        ],
    };
    let config = load(&layers).unwrap_or_else(|findings| panic!("{findings}")).config;
    assert_eq!(config.workers.count, 3);
    assert_eq!(config.workers.cpus.0, [4, 5, 6]);
    assert_eq!(config.dpdk.memory_mib, 320);
    assert_eq!(config.workers.idle, Idle::Yield);
    assert_eq!(config.control, Control { directory: "/tmp/u".into(), group: "0".into() });
    assert_eq!(config.service.len(), 2);
}

#[test]
fn everything_wrong_is_said_at_once_with_its_place() {
    let text = r#"[dpdk]
memory_mb = 256
hugepages = "maybe"

[[port]]
name = "a-name-that-is-too-long"
device = "net_af_packet0,iface=nic0"
kernel_interface = "nic0"
addresses = ["192.168.132.30", "10.0.0.1/40"]

[[port]]
name = "eth1"

[[port]]
name = "nic0"
device = "0000:3b:00.0"
mtu = 20

[wrokers]
count = 1

[[service]]
protocol = "sctp"
address = "192.168.132.254:80"

[[service]]
protocol = "tcp"
address = "192.168.132.254:80"
scheduler = "random"
  [[service.destination]]
  address = "192.168.132.64:8080"
  weight = 2147483648
  [[service.destination]]
  address = "192.168.132.65"
  upper_threshold = 5
  lower_threshold = 6
  [[service.destination]]
  address = "192.168.132.66"
  weight = -1

[[service]]
protocol = "tcp"
address = "192.168.132.254:80"

[[service]]
protocol = "udp"
address = "192.168.132.254:0"
"#;
    let findings = only("wrong", text).unwrap_err();
    let said = said(&findings);
    let expected = [
        "2:1 unknown field `memory_mb`",
        "did you mean `memory_mib`?",
        "3:13 unknown variant `maybe`",
        "6:8 `a-name-that-is-too-long` has 23 characters; Linux takes 15",
        "9:14 `192.168.132.30` has no prefix length; write 192.168.132.30/24",
        "9:32 `40` is not a prefix length",
        "11:1 missing field `device`",
        "15:8 `nic0` is also port[0].kernel_interface",
        "17:7 20 is not in the range 576 to 9600",
        "19:2 unknown field `wrokers`",
        "did you mean `workers`?",
        "29:13 unknown variant `random`",
        "32:12 weight 2147483648 is too great",
        "36:21 lower threshold 6 is above upper threshold 5",
        "39:12 invalid value: integer `-1`",
        "43:11 service tcp 192.168.132.254:80 is also service[1]",
        "47:11 service udp 192.168.132.254:0 is on port 0 (every port) without persistence",
        "add persistent = 300",
    ];
    for part in expected {
        assert!(said.iter().any(|line| line.contains(part)), "{part}\nnot in\n{}", said.join("\n"));
    }
    assert!(findings.to_string().contains("uvs.toml:2:1: unknown field"), "{findings}");
    assert!(findings.to_string().contains("    2 | memory_mb = 256\n      | ^^^^^^^^^\n"), "{findings}");
}

#[test]
fn one_fault_each() {
    let port = "[[port]]\nname = \"eth0\"\ndevice = \"net_null0\"\n";
    let cases = [
        ("", "there is no port to forward on"),
        ("[dpdk\n", "1:6"),
        ("a = = 1", "1:5"),
        ("[workers]\ncount = 0\n", "2:9 0 is not in the range 1 to 64"),
        ("[workers]\ncount = 2\ncpus = [1]\n", "3:8 1 CPUs for 2 workers"),
        ("[workers]\ncount = 2\ncpus = [1, 1]\n", "3:8 CPU 1 is named twice"),
        ("[workers]\ncpus = [\"x\"]\n", "2:9 invalid type"),
        ("[workers]\nidle = \"nap\"\n", "2:8 unknown variant `nap`"),
        ("[limits]\nfragments = 1000000\n", "512 MiB are too few"),
        ("[limits]\nclients = 0\n", "2:11 0 is not in the range"),
        ("[limits]\nservices = 0\n", "2:12 0 is not in the range"),
        ("[control]\ndirectory = \"run\"\n", "2:13 `run` is not an absolute path"),
        ("[timeouts]\ntcp = 0\n", "2:7 0 is not in the range"),
        ("[settings]\nsloppy = true\n", "2:1 unknown field `sloppy`"),
        ("[settings]\nconn_reuse_mode = 4\n", "2:19 4 is not in the range 0 to 3"),
        ("[[mark]]\n", "1:1 missing field `mark`"),
        ("[[mark]]\nmark = 1\nport = \"eth9\"\n", "3:8 there is no port `eth9`"),
        ("[[mark]]\nmark = 1\ndestination_ports = \"80\"\n", "1:1 a mark rule with ports needs a protocol"),
        ("[[mark]]\nmark = 1\n[[mark]]\nmark = 1\n", "3:1 mark rule `mark 1` is written twice"),
        ("[[mark]]\nmark = 1\nsource = \"10.0.0.0\"\n", "3:10 `10.0.0.0` has no prefix length"),
        ("[[service]]\nscheduler = \"rr\"\n", "1:1 a service needs `protocol` and `address`, or a `mark`"),
        ("[[service]]\nmark = 0\n", "2:8 invalid value: integer `0`"),
        ("[[service]]\nmark = 1\nprotocol = \"tcp\"\n", "1:1 a service has either"),
        ("[[service]]\nmark = 1\nfamily = \"ipx\"\n", "3:10 unknown variant `ipx`"),
        ("[[service]]\nmark = 1\n[[service]]\nmark = 1\n", "4:8 service mark 1 is also service[0]"),
        ("[[service]]\nmark = 1\npersistent = 9\nnetmask = 64\n", "4:11 netmask /64 does not fit"),
        ("[[service]]\nmark = 1\nscheduler_flags = [\"sh\"]\n", "3:19 `sh` is not a scheduler's flag"),
        (
            "[[service]]\nmark = 1\n[[service.destination]]\naddress = \"10.0.0.1\"\nmethod = { tunnel = { kind = \"gue\" } }\n",
            "5:10 a GUE tunnel needs its destination's UDP port",
        ),
        ("[dpdk]\nextra_args = [\"-l\", \"0\"]\n", "2:15 uvsd sets `-l` itself"),
        ("[dpdk]\nmemory_mib = \"many\"\n", "write MiB of memory for DPDK, such as 512"),
        ("workers = 3\n", "1:11 invalid type: integer `3`"),
    ];
    let mut wrong = Vec::new();
    for (index, (text, part)) in cases.into_iter().enumerate() {
        let text = if text.contains("a = =")
            || text.is_empty()
            || text == "[dpdk\n"
            || text.starts_with("workers")
        {
            text.to_owned()
        } else {
            format!("{text}{port}")
        };
        let findings = only(&format!("one{index}"), &text).unwrap_err();
        let said = said(&findings).join("\n");
        if !said.contains(part) {
            wrong.push(format!("{part}\nnot in\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn bad_variables_and_flags_are_named() {
    let scratch = Scratch::new("overrides");
    let layers = Layers {
        file: Some(scratch.file("uvs.toml", GOOD)),
        environment: vec![
            ("UVS_WORKERS__CUONT".into(), "2".into()),
            ("UVS_DPDK__MEMORY_MIB".into(), "lots".into()),
            ("UVS_WORKERS__COUNT".into(), "99".into()),
        ],
        flags: vec![
            "workers".into(),
            "workers.idle=nap".into(),
            "port.name=x".into(),
            "a b=1".into(),
            "workers.cpus=0-".into(),
        ],
        ..Layers::default()
    };
    let findings = load(&layers).unwrap_err();
    let text = findings.to_string();
    for part in [
        "UVS_WORKERS__CUONT: unknown field `cuont`",
        "did you mean `count`?",
        "UVS_DPDK__MEMORY_MIB: invalid type: string \"lots\"",
        "UVS_WORKERS__COUNT: 99 is not in the range 1 to 64",
        "--set workers: has no value",
        "--set workers.idle=nap: ",
        "--set port.name=x: [[port]] is a list",
        "--set a b=1: `a b` is not a key",
        "--set workers.cpus=0-: `0-` is not a list of CPUs",
    ] {
        assert!(text.contains(part), "{part}\nnot in\n{text}");
    }
}

#[test]
fn missing_and_unreadable_files_are_said_plainly() {
    let layers = Layers { file: Some("/nonexistent/uvs.toml".into()), ..Layers::default() };
    let text = load(&layers).unwrap_err().to_string();
    assert!(text.contains("/nonexistent/uvs.toml: cannot be read"), "{text}");
    assert!(!text.contains("no port"), "what the file may say is not known: {text}");
    let scratch = Scratch::new("bytes");
    let path = scratch.0.join("uvs.toml");
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(load(&Layers { file: Some(path), ..Layers::default() }).is_err());
}

#[test]
fn a_warning_does_not_forbid_the_start() {
    let text = GOOD.replace("kernel_interface = \"nic0\"\n", "").replace("132.64:80", "132.64:8080");
    let loaded = only("warning", &text).unwrap_or_else(|findings| panic!("{findings}"));
    let said = said(&loaded.warnings).join("\n");
    assert!(said.contains("add kernel_interface = \"nic0\""), "{said}");
    assert!(said.contains("port 8080 has no effect"), "{said}");
    assert_eq!(loaded.warnings.errors(), 0);
}

proptest::proptest! {
    #[test]
    fn no_mutation_of_a_good_file_panics(at in 0_usize..700, with in ".{0,3}", remove in 0_usize..8) {
        let mut text: Vec<char> = GOOD.chars().collect();
        let at = at.min(text.len());
        let end = (at + remove).min(text.len());
        text.splice(at..end, with.chars());
        let text: String = text.into_iter().collect();
        let source = source::Source::parse("f", &text);
        let _problems = check::check(&source.config, source.ports_written);
    }
}

#[test]
fn a_file_to_apply_leaves_alone_what_it_does_not_speak_of() {
    let scratch = Scratch::new("wanted");
    let only = "[[service]]\nmark = 3\n  [[service.destination]]\n  address = \"10.0.0.1\"\n  method = { tunnel = { kind = \"gre\" } }\n";
    let wanted = wanted_of(&scratch.file("tunnel.toml", only)).unwrap();
    assert_eq!(wanted.services[0].destination[0].method.to_string(), "tunnel gre");
    let wanted = wanted_of(&scratch.file("a.toml", "[[service]]\nmark = 3\nfamily = \"ipv6\"\n")).unwrap();
    assert_eq!((wanted.timeouts, wanted.settings, &wanted.marks), (None, None, &None));
    assert_eq!(wanted.services[0].key.to_string(), "mark 3 ipv6");

    let text = "mark = []\n[timeouts]\nudp = 7\n[settings]\nsloppy_tcp = true\n";
    let wanted = wanted_of(&scratch.file("b.toml", text)).unwrap();
    assert_eq!(wanted.timeouts, Some(Timeouts { udp: 7, ..Timeouts::default() }));
    assert!(wanted.settings.unwrap().sloppy_tcp);
    assert_eq!(wanted.marks, Some(Vec::new()));
    assert_eq!(wanted.services, []);

    let text = "[[mark]]\nmark = 1\nport = \"eth7\"\n";
    let wanted = wanted_of(&scratch.file("c.toml", text)).unwrap();
    assert_eq!(wanted.marks.unwrap().len(), 1, "the director knows its ports");
}

#[test]
fn a_file_means_the_canonical_order_of_mh_unless_it_says_otherwise() {
    let service = |port: u8, rest: &str| {
        format!("[[service]]\nprotocol = \"tcp\"\naddress = \"192.168.132.254:{port}\"\n{rest}\n")
    };
    let text = [
        service(1, "scheduler = \"mh\"\nmh_size = 65537"),
        service(2, "scheduler = \"mh\"\nmh_order = \"kernel\""),
        service(3, "scheduler = \"sh\""),
    ];
    let read =
        only("mh", &format!("{GOOD}{}", text.concat())).unwrap_or_else(|findings| panic!("{findings}"));
    let services = &read.config.service[1..];
    let orders: Vec<_> = services.iter().map(|service| (service.mh_size, service.mh_order)).collect();
    assert_eq!(
        orders,
        [(Some(65_537), Some(MaglevOrder::Canonical)), (None, Some(MaglevOrder::Kernel)), (None, None)]
    );
    for (rest, mend) in [
        ("scheduler = \"mh\"\nmh_size = 4096", "not a prime"),
        ("scheduler = \"sh\"\nmh_order = \"kernel\"", "options of scheduler mh"),
        ("scheduler = \"mh\"\nmh_order = \"sorted\"", "canonical"),
    ] {
        let findings = only("bad-mh", &format!("{GOOD}{}", service(1, rest))).unwrap_err();
        assert!(findings.to_string().contains(mend), "{findings}");
    }
}

#[test]
fn an_mss_clamp_is_read_and_a_wrong_one_is_shown_where_it_stands() {
    let service = |protocol: &str, rest: &str| {
        format!("[[service]]\nprotocol = \"{protocol}\"\naddress = \"192.168.132.254:90\"\n{rest}\n")
    };
    let read = only("mss", &format!("{GOOD}{}", service("tcp", "mss_clamp = 1440"))).unwrap();
    assert_eq!(read.config.service[1].mss_clamp, 1440);
    for (protocol, rest, mend) in [
        ("tcp", "mss_clamp = 535", "536 to 65495 bytes; write what the path's MTU leaves"),
        ("tcp", "mss_clamp = 70000", "write bytes of TCP data"),
        ("tcp", "mss_clamp = \"none\"", "write bytes of TCP data"),
        ("udp", "mss_clamp = 1440", "leave it away"),
        ("tcp", "mss_clmp = 1440", "did you mean `mss_clamp`?"),
    ] {
        let findings =
            only("bad-mss", &format!("{GOOD}{}", service(protocol, rest))).unwrap_err().to_string();
        assert!(findings.contains(mend), "{findings}");
        let line = GOOD.lines().count() + 4;
        assert!(findings.contains(&format!(":{line}:1")), "{line}: {findings}");
    }
}
