//! Requests there and back, and what is said about those that are none.

use super::*;
use crate::desired::{Apply, Change, MarkRule, ServiceDelete, ServiceKey, Settings, Timeouts};

fn key() -> ServiceKey {
    ServiceKey::Address {
        protocol: crate::address::Protocol::Tcp,
        address: "192.168.132.254:80".parse().unwrap(),
    }
}

fn requests() -> Vec<Request> {
    let change = |change| Request::Change { change: Box::new(change), wait: true };
    let params = [
        r#"{"method":"service.add","params":{"service":{"protocol":"tcp","address":"1.2.3.4:80","scheduler":"rr","persistent":9,"netmask":24,"one_packet":true,"scheduler_flags":["flag-2"],"destination":[{"address":"1.2.3.5"}]}}}"#,
        r#"{"method":"service.edit","params":{"service":{"protocol":"udp","address":"[::1]:53"},"scheduler":"wlc"}}"#,
        r#"{"method":"service.edit","params":{"service":{"mark":3,"family":"ipv6"},"one_packet":false}}"#,
        r#"{"method":"service.add","params":{"service":{"mark":3,"scheduler":"rr","destination":[{"address":"1.2.3.5","method":{"tunnel":{"kind":"gre"}}}]}}}"#,
        r#"{"method":"service.flush","params":{}}"#,
        r#"{"method":"timeouts.set","params":{"tcp":900,"udp":0}}"#,
        r#"{"method":"settings.set","params":{"sloppy_tcp":true}}"#,
        r#"{"method":"mark.add","params":{"mark":3,"protocol":"tcp","destination":"1.2.3.0/24","destination_ports":"80-443","port":"eth0"}}"#,
        r#"{"method":"mark.delete","params":{"mark":3}}"#,
        r#"{"method":"service.delete","params":{"service":{"protocol":"udp","address":"[::1]:53"}}}"#,
        r#"{"method":"destination.add","params":{"service":{"protocol":"tcp","address":"1.2.3.4:80"},"destination":{"address":"1.2.3.5:80","weight":0}}}"#,
        r#"{"method":"destination.edit","params":{"service":{"protocol":"tcp","address":"1.2.3.4:80"},"address":"1.2.3.5","weight":7}}"#,
        r#"{"method":"destination.delete","params":{"service":{"protocol":"tcp","address":"1.2.3.4:80"},"address":"1.2.3.5"}}"#,
    ];
    let mut all: Vec<Request> =
        params.iter().map(|text| change(serde_json::from_str::<Change>(text).unwrap())).collect();
    all.extend([
        change(Change::Apply(Apply {
            expected_revision: Some(3),
            dry_run: true,
            timeouts: Some(Timeouts::default()),
            settings: Some(Settings::default()),
            marks: Some(vec![MarkRule::all(1)]),
            ..Apply::default()
        })),
        Request::CountersZero(CountersZero::default()),
        Request::CountersZero(CountersZero { service: Some(key()) }),
        change(Change::ServiceDelete(ServiceDelete { service: key() })),
        Request::Status,
        Request::Stats(StatsQuery::default()),
        Request::Stats(StatsQuery { destinations: false }),
        Request::ConfigGet,
        Request::ServiceList(ServicePageQuery { service: Some(key()), after: Some(key()), limit: Some(5) }),
        Request::DestinationList(ServiceQuery { service: key() }),
        Request::ConnectionList(ConnectionQuery {
            client: Some([10, 0, 0, 1].into()),
            ..ConnectionQuery::default()
        }),
        Request::EventsList(EventQuery { since: 7, limit: None }),
    ]);
    all
}

#[test]
fn what_a_client_writes_the_server_reads() {
    let mut seen = std::collections::BTreeSet::new();
    for request in requests() {
        let (id, read) = parse(request.to_line(42).unwrap().as_bytes());
        assert_eq!(id, 42);
        assert_eq!(read.unwrap(), request);
        seen.insert(request.method());
        let method = METHODS.iter().find(|method| method.name == request.method()).unwrap();
        assert_eq!(method.changes, request.changes());
    }
    assert_eq!(seen.len(), METHODS.len(), "a method without a test: {seen:?}");
}

#[test]
fn every_fault_says_what_is_wrong_and_where() {
    let cases: &[(&str, FaultKind, &str, Option<usize>)] = &[
        ("", FaultKind::Parse, "EOF", Some(0)),
        ("{\"jsonrpc\":", FaultKind::Parse, "EOF", Some(11)),
        ("hello", FaultKind::Parse, "expected value", Some(1)),
        ("[]", FaultKind::InvalidRequest, "batches", None),
        (" [{}]", FaultKind::InvalidRequest, "batches", None),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"status","extra":1}"#,
            FaultKind::InvalidRequest,
            "unknown field `extra`",
            Some(49),
        ),
        (r#"{"jsonrpc":"2.0","method":"status"}"#, FaultKind::InvalidRequest, "needs an id", None),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"status"}"#, FaultKind::InvalidRequest, "needs an id", None),
        (r#"{"jsonrpc":"1.0","id":1,"method":"status"}"#, FaultKind::InvalidRequest, "must be \"2.0\"", None),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"reboot"}"#,
            FaultKind::UnknownMethod,
            "there are status, stats",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"status","params":[1]}"#,
            FaultKind::InvalidParameters,
            "named parameters",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"x":1}}"#,
            FaultKind::InvalidParameters,
            "unknown field `x`",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"service.delete","params":{}}"#,
            FaultKind::InvalidParameters,
            "missing field `service`",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"config.apply","params":{"services":[],"force":1}}"#,
            FaultKind::InvalidParameters,
            "unknown field `force`",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"config.apply","params":{"services":[],"wait":1}}"#,
            FaultKind::InvalidParameters,
            "`wait` must be",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"service.flush","params":{"all":true}}"#,
            FaultKind::InvalidParameters,
            "unknown field `all`",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"counters.zero","params":{"service":{"mark":0}}}"#,
            FaultKind::InvalidParameters,
            "nonzero",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"counters.zero","params":{"wait":true}}"#,
            FaultKind::InvalidParameters,
            "unknown field `wait`",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"timeouts.set","params":{"tcp":-1}}"#,
            FaultKind::InvalidParameters,
            "-1",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"timeouts.set","params":{"tcp_est":1}}"#,
            FaultKind::InvalidParameters,
            "unknown field `tcp_est`",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"settings.set","params":{"sloppy":true}}"#,
            FaultKind::InvalidParameters,
            "there is no such setting; there are",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"mark.add","params":{"mark":1,"source":"10.0.0.0"}}"#,
            FaultKind::InvalidParameters,
            "write 10.0.0.0/24",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"connection.list","params":{"limit":1001}}"#,
            FaultKind::InvalidParameters,
            "1 to 1000",
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"service.add","params":{"service":{"protocol":"tcp","address":"1.2.3.4"}}}"#,
            FaultKind::InvalidParameters,
            "write 1.2.3.4:80",
            None,
        ),
    ];
    for (line, kind, part, column) in cases {
        let (_, fault) = parse(line.as_bytes());
        let fault = fault.unwrap_err();
        assert_eq!((fault.kind, fault.column), (*kind, *column), "{line}: {fault}");
        assert!(fault.message.contains(part), "{line}: {fault}");
    }
}

#[test]
fn the_page_names_every_method_and_every_failure() {
    let page = include_str!("../../../docs/control-protocol.md");
    for method in METHODS {
        assert!(page.contains(&format!("`{}`", method.name)), "method {}", method.name);
    }
    for kind in FaultKind::ALL {
        assert!(page.contains(&format!("| {} | `{}` |", kind.code(), kind.name())), "{kind:?}");
    }
    for name in [
        "exists",
        "no_service",
        "no_destination",
        "no_scheduler",
        "no_mark_rule",
        "not_supported",
        "out_of_range",
        "invalid",
        "full",
        "revision",
    ] {
        assert!(page.contains(&format!("`{name}`")), "refusal {name}");
    }
}

proptest::proptest! {
    #[test]
    fn no_line_panics(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _answer = parse(&line);
    }
}
