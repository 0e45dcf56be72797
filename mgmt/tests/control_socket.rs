//! The control socket as a client meets it: greeting, roles, bounds, garbage, and its end.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::tests_outside_test_module
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mgmt::client::{Client, ClientError};
use mgmt::control::{Backend, ControlDirectory, Operators, Options, Peer, Server};
use mgmt::desired::{
    Apply, Bounds, Change, Desired, DestinationAdd, DestinationSpec, ServiceAdd, ServiceKey, ServiceSpec,
};
use mgmt::protocol::{
    Changed, Configuration, CountersZero, EventPage, Fault, FaultKind, Request, Response, Role,
};
use serde_json::{Value, json};

/// A director without a dataplane.
struct Fake(Mutex<Desired>);

impl Backend for Fake {
    fn call(&self, request: Request, _: Peer) -> Result<Response, Fault> {
        let mut desired = self.0.lock().unwrap();
        match request {
            Request::Change { change, .. } => {
                let plan = desired.prepare(&change)?;
                if !plan.dry_run {
                    desired.commit(&plan);
                }
                Ok(Response::Changed(Changed {
                    revision: desired.revision(),
                    changed: !plan.is_empty(),
                    dry_run: plan.dry_run,
                    changes: plan.changes,
                    notes: plan.notes,
                    waited_us: None,
                }))
            }
            Request::ConfigGet => Ok(Response::Configuration(Configuration {
                revision: desired.revision(),
                services: desired.to_specs(),
                timeouts: desired.timeouts(),
                settings: desired.settings(),
                marks: desired.marks().to_vec(),
            })),
            Request::EventsList(query) => {
                Ok(Response::Events(EventPage { events: Vec::new(), next: query.since, lost: 0 }))
            }
            _ => Err(Fault::new(FaultKind::Internal, "not in this test")),
        }
    }

    fn revision(&self) -> u64 {
        self.0.lock().unwrap().revision()
    }
}

struct Lab {
    path: PathBuf,
    server: Option<Server>,
}

impl Lab {
    fn new(change: impl FnOnce(&mut Options)) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("uvs-control-{}-{number}", std::process::id()));
        let group = rustix::process::getegid().as_raw();
        let directory = Arc::new(ControlDirectory::claim(&path, &group.to_string()).unwrap());
        let mut options = Options::new(Operators::group(group), 16);
        change(&mut options);
        let bounds = Bounds { services: 20_000, destinations: 100_000 };
        let backend = Arc::new(Fake(Mutex::new(Desired::new(bounds))));
        let server = Server::start(directory, options, backend).unwrap();
        Self { path, server: Some(server) }
    }

    fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    /// A raw connection whose greeting is read already.
    fn raw(&self) -> (UnixStream, BufReader<UnixStream>) {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let greeting = next(&mut reader).unwrap();
        assert_eq!(greeting["method"], "hello", "{greeting}");
        (stream, reader)
    }

    fn connected(&self) -> u64 {
        self.server.as_ref().unwrap().occupancy().status().clients
    }

    fn wait_for_clients(&self, count: u64) {
        let until = Instant::now() + Duration::from_secs(5);
        while self.connected() != count {
            assert!(Instant::now() < until, "{:?}", self.connected());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn answers(&self) {
        assert_eq!(self.client().configuration().unwrap().revision, 0);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.server.take());
        let _gone = std::fs::remove_dir_all(&self.path);
    }
}

fn next(reader: &mut BufReader<UnixStream>) -> Option<Value> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))),
    }
}

fn ask(pair: &mut (UnixStream, BufReader<UnixStream>), line: &[u8]) -> Option<Value> {
    pair.0.write_all(line).and_then(|()| pair.0.write_all(b"\n")).ok();
    next(&mut pair.1)
}

fn service(last: u8) -> ServiceSpec {
    serde_json::from_value(
        json!({"protocol": "tcp", "address": format!("192.168.132.{last}:80"), "scheduler": "rr"}),
    )
    .unwrap()
}

fn key(last: u8) -> ServiceKey {
    service(last).key
}

#[test]
fn the_server_speaks_first_and_a_whole_conversation_works() {
    let lab = Lab::new(|_| {});
    let mut client = lab.client();
    assert_eq!(client.hello().role, Role::Operator);
    assert_eq!(client.hello().version, env!("CARGO_PKG_VERSION"));
    let add = Change::ServiceAdd(ServiceAdd { service: service(254) });
    assert_eq!(client.change(add.clone(), true).unwrap().revision, 1);
    let destination: DestinationSpec =
        serde_json::from_value(json!({"address": "192.168.132.64:8080"})).unwrap();
    let made = client
        .change(Change::DestinationAdd(DestinationAdd { service: key(254), destination }), false)
        .unwrap();
    assert!(made.notes[0].contains("port 8080 has no effect"), "{made:?}");
    match client.change(add, false).unwrap_err() {
        ClientError::Refused { name, errno, message, .. } => {
            assert_eq!((name.as_str(), errno.as_deref()), ("exists", Some("EEXIST")));
            assert!(message.contains("uvsctl service edit"), "{message}");
        }
        error => panic!("{error}"),
    }
    let held = client.configuration().unwrap();
    let again =
        Change::Apply(Apply { services: held.services, expected_revision: Some(2), ..Apply::default() });
    let same = client.change(again, false).unwrap();
    assert_eq!((same.revision, same.changed), (2, false));
    assert_eq!(lab.client().hello().revision, 2);
}

/// The first lines that an operator types, by the program itself, with what a script sees of them.
#[test]
fn uvsctl_says_by_its_exit_code_what_came_of_it() {
    let lab = Lab::new(|_| {});
    let uvsctl = |line: &str| {
        let arguments = line.split_whitespace();
        let ran = std::process::Command::new(env!("CARGO_BIN_EXE_uvsctl"))
            .args(arguments)
            .env("UVS_CONTROL", lab.socket())
            .output()
            .unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.code().unwrap(), String::from_utf8(said).unwrap())
    };
    for line in [
        "service add --tcp 192.168.132.254:80 --scheduler rr --persistent 120",
        "destination add --tcp 192.168.132.254:80 --server 192.168.132.64:80 --direct",
        "destination add --tcp 192.168.132.254:80 --server 192.168.132.68:80 --direct",
        "config show",
    ] {
        let (code, said) = uvsctl(line);
        assert_eq!(code, 0, "{line}: {said}");
    }
    let (code, said) = uvsctl("--json config show");
    let held: Value = serde_json::from_str(&said).unwrap();
    let service = &held["services"][0];
    assert_eq!((code, &service["scheduler"], &service["persistent"]), (0, &json!("rr"), &json!(120)));
    assert_eq!(service["destination"].as_array().unwrap().len(), 2, "{said}");

    let (refused, said) = uvsctl("service add --tcp 192.168.132.254:80 --scheduler rr");
    assert!(refused == 1 && said.contains("exists") && said.contains("service edit"), "{refused}: {said}");
    let (usage, said) = uvsctl("service add --tcp 192.168.132.254:81 --scheduler best");
    assert!(usage == 2 && said.contains("this director has rr"), "{usage}: {said}");
    let (nobody, said) = uvsctl("--socket /nonexistent/control.sock status");
    assert!(nobody == 3 && said.contains("is uvsd running?"), "{nobody}: {said}");
}

#[test]
fn marks_timeouts_settings_and_flush_are_changes_like_others() {
    let lab = Lab::new(|_| {});
    let mut client = lab.client();
    let change = |text: &str| -> Change { serde_json::from_str(text).unwrap() };
    let texts = [
        r#"{"method":"service.add","params":{"service":{"mark":3,"one_packet":true,"scheduler_flags":["sh-port"]}}}"#,
        r#"{"method":"mark.add","params":{"mark":3,"protocol":"udp","destination":"192.0.2.0/24","destination_ports":"53"}}"#,
        r#"{"method":"timeouts.set","params":{"udp":30,"tcp":0}}"#,
        r#"{"method":"settings.set","params":{"expire_nodest_conn":1}}"#,
    ];
    for (revision, text) in (1..).zip(texts) {
        let made = client.change(change(text), false).unwrap();
        assert_eq!((made.revision, made.changes.len()), (revision, 1), "{text}");
    }
    let held = client.configuration().unwrap();
    assert_eq!((held.timeouts.tcp, held.timeouts.udp), (900, 30));
    assert!(held.settings.expire_nodest_conn);
    assert_eq!((held.marks.len(), held.services[0].key.to_string().as_str()), (1, "mark 3"));
    let flush = client.change(change(r#"{"method":"service.flush","params":{}}"#), false).unwrap();
    assert_eq!(flush.changes.len(), 1);
    let all = Apply {
        services: held.services,
        timeouts: Some(held.timeouts),
        settings: Some(held.settings),
        marks: Some(held.marks),
        ..Apply::default()
    };
    let again = client.change(Change::Apply(all), false).unwrap();
    assert_eq!(again.changes.len(), 1, "what config.get says, config.apply takes: {again:?}");
}

#[test]
fn a_viewer_may_look_but_not_change() {
    let lab = Lab::new(|options| options.operators = Operators { uid: None, gid: None, root: false });
    let mut client = lab.client();
    assert_eq!(client.hello().role, Role::Viewer);
    assert!(client.configuration().is_ok());
    match client.change(Change::ServiceAdd(ServiceAdd { service: service(1) }), false).unwrap_err() {
        ClientError::Refused { name, message, .. } => {
            assert_eq!(name, "forbidden");
            assert!(message.contains("may look but not change"), "{message}");
        }
        error => panic!("{error}"),
    }
    let zero = client.zero(CountersZero::default()).unwrap_err();
    assert!(matches!(zero, ClientError::Refused { name, .. } if name == "forbidden"));
    assert_eq!(client.configuration().unwrap().revision, 0);
}

#[test]
fn the_seventeenth_client_is_told_and_a_place_comes_free() {
    let lab = Lab::new(|_| {});
    let mut clients: Vec<Client> = (0..16).map(|_| lab.client()).collect();
    match Client::connect(&lab.socket()).unwrap_err() {
        ClientError::Refused { name, message, .. } => {
            assert_eq!(name, "too_many_clients");
            assert!(message.contains("all 16 places"), "{message}");
        }
        error => panic!("{error}"),
    }
    for client in &mut clients {
        assert!(client.configuration().is_ok());
    }
    clients.pop();
    lab.wait_for_clients(15);
    lab.answers();
}

#[test]
fn a_line_too_long_is_refused_and_a_largest_state_fits() {
    let lab = Lab::new(|options| options.operator_line_bytes = 20 << 20);
    let services: Vec<Value> = (0..10_000)
        .map(|number| {
            let destination: Vec<Value> =
                (1..6).map(|last| json!({"address": format!("10.0.0.{last}"), "weight": 1})).collect();
            let address = format!("10.{}.{}.1:80", number / 250, number % 250);
            json!({"protocol": "tcp", "address": address, "scheduler": "wlc", "destination": destination})
        })
        .collect();
    let services: Vec<ServiceSpec> = serde_json::from_value(services.into()).unwrap();
    let mut client = lab.client();
    let made = client.change(Change::Apply(Apply { services, ..Apply::default() }), false).unwrap();
    assert_eq!((made.revision, made.changes.len()), (1, 10_000));
    assert_eq!(client.configuration().unwrap().services.len(), 10_000);

    let short = Lab::new(|options| options.operators = Operators { uid: None, gid: None, root: false });
    let mut raw = short.raw();
    let last_word = ask(&mut raw, &vec![b'x'; (1 << 20) + 1]).unwrap();
    assert_eq!(last_word["error"]["data"]["name"], "line_too_long");
    assert_eq!(next(&mut raw.1), None);
    short.answers();
    // One byte less is only garbage.
    let mut raw = short.raw();
    let fault = ask(&mut raw, &vec![b'x'; 1 << 20]).unwrap();
    assert_eq!(fault["error"]["data"]["name"], "parse");
    short.answers();
}

#[test]
fn half_lines_and_silence_end_in_time() {
    let lab = Lab::new(|options| {
        options.idle_timeout = Duration::from_millis(300);
        options.line_timeout = Duration::from_millis(200);
    });
    let start = Instant::now();
    let mut dripping = lab.raw();
    let mut silent = lab.raw();
    let drip = std::thread::spawn(move || {
        for _ in 0..40 {
            if dripping.0.write_all(b"{").is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        next(&mut dripping.1)
    });
    assert_eq!(next(&mut silent.1).unwrap()["error"]["data"]["name"], "idle");
    assert_eq!(next(&mut silent.1), None);
    let last_word = drip.join().unwrap();
    assert!(last_word.is_none_or(|word| word["error"]["data"]["name"] == "idle"));
    assert!(start.elapsed() < Duration::from_secs(3));
    lab.wait_for_clients(0);
    // A half line and then the end is no error, only an end.
    let (mut stream, mut reader) = lab.raw();
    stream.write_all(b"{\"jsonrpc\"").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(next(&mut reader), None);
    lab.answers();
}

#[test]
fn lines_may_come_in_pieces_or_together() {
    let lab = Lab::new(|_| {});
    let (mut stream, mut reader) = lab.raw();
    let request = r#"{"jsonrpc":"2.0","id":"a","method":"config.get"}"#;
    for byte in request.bytes().chain(*b"\n") {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(next(&mut reader).unwrap()["id"], "a");
    stream.write_all(format!("{request}\n{request}\n{request}\n").as_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(next(&mut reader).unwrap()["result"]["revision"], 0);
    }
}

#[test]
fn a_reader_that_takes_nothing_is_let_go_and_disturbs_nobody() {
    let lab = Lab::new(|options| options.write_timeout = Duration::from_millis(300));
    let (mut stream, _reader) = lab.raw();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let request =
        r#"{"jsonrpc":"2.0","id":1,"method":"no such method, and a long answer"}"#.to_owned() + "\n";
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) && stream.write_all(request.as_bytes()).is_ok() {}
    assert!(start.elapsed() < Duration::from_secs(5), "the server went on reading");
    lab.answers();
    lab.wait_for_clients(0);
}

#[test]
fn garbage_never_ends_the_server() {
    let lab = Lab::new(|_| {});
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let good = [
        r#"{"jsonrpc":"2.0","id":1,"method":"service.add","params":{"service":{"protocol":"tcp","address":"192.168.132.254:80","scheduler":"rr","persistent":120,"netmask":24,"destination":[{"address":"192.168.132.64:80","weight":3}]}}}"#,
        r#"{"jsonrpc":"2.0","id":"x","method":"destination.edit","params":{"service":{"protocol":"tcp","address":"192.168.132.254:80"},"address":"192.168.132.64","weight":0,"wait":true}}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"config.apply","params":{"services":[],"expected_revision":0,"dry_run":true}}"#,
        r#"{"jsonrpc":"2.0","id":4,"method":"connection.list","params":{"limit":10,"client":"10.0.0.1"}}"#,
    ];
    let pieces = [
        "\"",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "null",
        "-1",
        "1e999",
        "99999999999999999999",
        "\\u0000",
        "\\ud800",
        "\u{fffd}",
        "true",
        " ",
    ];
    let mut raw = lab.raw();
    let (mut results, mut faults) = (0, 0);
    for round in 0..10_000_u32 {
        let mut line = good[(random() % 4) as usize].as_bytes().to_vec();
        for _ in 0..random() % 4 {
            let at = usize::try_from(random() % line.len() as u64).unwrap();
            match random() % 4 {
                0 => line[at] = (random() & 0xff) as u8,
                1 => drop(line.drain(at..(at + 1 + (random() % 9) as usize).min(line.len()))),
                2 => drop(line.splice(at..at, pieces[(random() % 16) as usize].bytes())),
                _ => line.truncate(at.max(1)),
            }
            if line.is_empty() {
                line.push(b'{');
            }
        }
        line.retain(|byte| *byte != b'\n');
        let answer = ask(&mut raw, &line).unwrap_or_else(|| panic!("round {round}: no answer to {line:?}"));
        assert_eq!(answer["jsonrpc"], "2.0");
        if answer["error"].is_object() {
            faults += 1;
            assert!(answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        } else {
            results += 1;
        }
    }
    println!("10000 mutations: {faults} refused, {results} answered");
    assert!(faults > 5_000 && results > 100, "{faults} {results}");
    // Bytes without any form, in chunks that know nothing of lines.
    let (mut stream, reader) = lab.raw();
    let reading = std::thread::spawn(move || {
        let mut reader = reader;
        std::io::copy(&mut reader, &mut std::io::sink()).ok();
    });
    for _ in 0..500 {
        let chunk: Vec<u8> = (0..1_000).map(|_| (random() & 0xff) as u8).collect();
        stream.write_all(&chunk).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    reading.join().unwrap();
    // Brackets deeper than anybody's stack.
    let deep = ask(&mut lab.raw(), &[b"{\"params\":".as_slice(), &b"[".repeat(400_000)].concat()).unwrap();
    assert_eq!(deep["error"]["data"]["name"], "parse");
    assert!(lab.client().configuration().is_ok());
}

#[test]
fn a_second_instance_is_refused_and_the_end_leaves_nothing() {
    let lab = Lab::new(|_| {});
    let group = rustix::process::getegid().as_raw().to_string();
    let sentence = ControlDirectory::claim(&lab.path, &group).unwrap_err().to_string();
    assert!(sentence.contains("already serves"), "{sentence}");
    lab.answers();
    let path = lab.path.clone();
    let (_stream, mut reader) = lab.raw();
    let mut lab = lab;
    let start = Instant::now();
    drop(lab.server.take());
    assert!(start.elapsed() < Duration::from_millis(500));
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    assert!(!path.join("control.sock").exists());
    let until = Instant::now() + Duration::from_secs(2);
    while path.join("uvsd.lock").exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!path.join("uvsd.lock").exists());
    assert!(
        Client::connect(&path.join("control.sock")).unwrap_err().to_string().contains("is uvsd running?")
    );
    ControlDirectory::claim(&path, &group).unwrap();
}
