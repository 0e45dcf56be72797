//! What clients ask and what the kernel answered, byte for byte.

use super::testing::{Case, IPVSADM, KEEPALIVED, Modelled, ODD, ask, ask_as, cases};
use crate::desired::ServiceKey;
use crate::protocol::{Role, Traffic};

/// Messages of datagrams, the port numbers that the kernel alone knows made 0.
fn messages(datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for datagram in datagrams {
        let mut rest = &datagram[..];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            let mut message = rest[..length].to_vec();
            message[12..16].fill(0);
            messages.push(message);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
        assert!(rest.is_empty(), "{datagram:02x?}");
    }
    messages
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

fn is_success(message: &[u8]) -> bool {
    kind(message) == 2 && message[16..20] == [0; 4]
}

/// What the recording's packets left behind.
fn count(model: &Modelled, in_bytes_per_s: u64) {
    let traffic =
        Traffic { connections: 1, in_packets: 2, in_bytes: 80, in_bytes_per_s, ..Traffic::default() };
    model.with(|model| {
        let service = model.services.iter_mut().find(|service| service.destinations.len() > 1).unwrap();
        service.traffic = traffic;
        let chosen =
            service.destinations.iter_mut().find(|one| one.address.ip.to_string() == "192.168.10.2").unwrap();
        (chosen.active, chosen.persistent, chosen.traffic) = (1, 0, traffic);
    });
}

/// Plays a case and says whether anything was answered otherwise than by the kernel.
fn differs(case: &Case, model: &Modelled) -> bool {
    let mut differs = false;
    for exchange in &case.exchanges {
        let answered = ask(model, &exchange.asked);
        let (mut ours, mut kernels) = (messages(&answered), messages(&exchange.answered));
        // The client that closes its socket first never read the last of these.
        if ours.len() == kernels.len() + 1 && is_success(ours.last().unwrap()) {
            ours.pop();
        }
        // Services come in the order of a hash that differs from boot to boot.
        if exchange.asked.get(16) == Some(&4) {
            let end = |all: &[Vec<u8>]| all.iter().filter(|one| kind(one) == 0x20).count();
            let (our_end, kernels_end) = (end(&ours), end(&kernels));
            ours[..our_end].sort();
            kernels[..kernels_end].sort();
        }
        if ours != kernels {
            differs = true;
            println!("{}:\n{ours:02x?}\nnot\n{kernels:02x?}", case.name);
        }
    }
    differs
}

#[test]
fn ipvsadm_reads_what_the_kernel_would_have_sent() {
    let model = Modelled::default();
    let mut played = 0;
    for case in cases(IPVSADM) {
        match case.name.as_str() {
            "ipvsadm -Ln" => count(&model, 10),
            "ipvsadm -Ln --rate" => count(&model, 7),
            // The director has no sync daemons.
            name if name.contains("daemon") => continue,
            _ => {}
        }
        assert!(!differs(&case, &model), "{}", case.name);
        played += 1;
    }
    assert_eq!(played, 26);
    assert!(model.with(|model| model.services.is_empty()));
}

#[test]
fn keepalived_gets_all_it_asks_for() {
    let model = Modelled::default();
    for case in cases(KEEPALIVED) {
        for exchange in &case.exchanges {
            let answered = messages(&ask(&model, &exchange.asked));
            assert!(is_success(answered.last().unwrap()), "{:02x?}", exchange.asked);
        }
    }
    let left: Vec<ServiceKey> =
        model.with(|model| model.services.iter().map(|service| service.key).collect());
    assert_eq!(left, []);
}

/// Where the director answers otherwise than the kernel, and why.
const OTHERWISE: [(&str, &[&str]); 8] = [
    ("the controller tells of families and nothing else", &["nlctrl self"]),
    (
        "protocols that are never forwarded are refused",
        &["new svc proto 0", "new svc proto 300", "new svc icmp"],
    ),
    ("a service has a scheduler", &["new svc none sched"]),
    ("persistence of no time is none", &["new svc persistent to 0"]),
    (
        "timeout and mask are those of persistence, and forgotten without it; unknown flags are",
        &["new svc to without flag", "flags 4 bytes", "new v6 nm 64", "new svc all flags"],
    ),
    ("timeouts do not wrap", &["new svc to huge"]),
    (
        "methods that forward nothing, and tunnels without a tunnel, are refused or forgotten",
        &[
            "new dest fwd 1",
            "new dest fwd 4",
            "new dest fwd 5",
            "new dest fwd 6",
            "new dest fwd 7",
            "tun type 9",
            "tun attrs on DR",
            "tun gue",
        ],
    ),
    (
        "there are no sync daemons",
        &["daemon syncid 300", "del daemon master", "daemon lo", "dump daemon", "daemon full"],
    ),
];

#[test]
fn odd_requests_are_answered_as_by_the_kernel() {
    let model = Modelled::default();
    let made = [
        "6800000020000500a8009265fe01409d010100005400018006000100020000000600020006000000140003000a000064000000000000000000000000060004000050000007000600727200000c00070000000000ffffffff080008000000000008000900ffffffff",
        "c800000020000500a80092651902409d050100005400018006000100020000000600020006000000140003000a000064000000000000000000000000060004000050000005000600000000000c00070000000000ffffffff080008000000000008000900ffffffff6000028006000b000200000014000100c0a80a0200000000000000000000000006000200005000000800030003000000080004000100000005000d000000000006000e000000000006000f000000000008000500000000000800060000000000",
        "4c00000020000500a90092658502409d01010000380001800600010002000000080005000900000007000600736800000c00070000000000ffffffff080008000000000008000900ffffffff",
    ];
    for request in made {
        assert!(is_success(&ask(&model, &super::testing::bytes(request))[0]));
    }
    for case in cases(ODD).iter().filter(|case| !case.exchanges.is_empty()) {
        let expected = OTHERWISE.iter().any(|(_, names)| names.contains(&case.name.as_str()));
        assert_eq!(differs(case, &model), expected, "{}", case.name);
    }
}

#[test]
fn a_viewer_looks_and_changes_nothing() {
    let model = Modelled::default();
    for case in cases(IPVSADM).iter().chain(&cases(ODD)) {
        for exchange in &case.exchanges {
            let before = model.with(|model| model.clone());
            let changes = match exchange.asked[..] {
                [_, _, _, _, 0x20, 0, _, _, _, _, _, _, _, _, _, _, command, _, _, _, ..] => {
                    super::operation::find(command).is_some_and(|operation| operation.changes)
                }
                _ => false,
            };
            let answered = ask_as(Role::Viewer, &model, &exchange.asked);
            if changes {
                assert_eq!(answered[0][16..20], (-1_i32).to_ne_bytes(), "{}", case.name);
            }
            assert_eq!(model.with(|model| model.clone()), before);
        }
    }
}
