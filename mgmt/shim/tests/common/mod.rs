//! A stand-in for uvsd's endpoint: just enough of IPVS's generic netlink for the tools to get on.
#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used
)]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, recv,
    send, socket_with,
};

/// Family number that the stand-in gives IPVS.
pub const FAMILY: u16 = 0x25;
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

/// The library, as cargo built it for this test.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let candidates = [deps.join("libuvs_ipvs.so"), deps.parent().unwrap().join("libuvs_ipvs.so")];
    candidates.into_iter().find(|path| path.exists()).expect("libuvs_ipvs.so beside the test")
}

/// Serves until the process ends; the socket's directory goes with it.
pub struct StandIn {
    directory: PathBuf,
    /// Every message that came, in order.
    pub seen: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Connections, the newest last.
    pub connections: Arc<Mutex<Vec<Arc<OwnedFd>>>>,
}

impl StandIn {
    pub fn new() -> Self {
        let standin = Self::absent();
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(standin.socket()).unwrap()).unwrap();
        listen(&listener, 16).unwrap();
        let (seen, connections) = (standin.seen.clone(), standin.connections.clone());
        thread::spawn(move || {
            while let Ok(connection) = accept(&listener) {
                let connection = Arc::new(connection);
                connections.lock().unwrap().push(connection.clone());
                let seen = seen.clone();
                thread::spawn(move || serve(&connection, &seen));
            }
        });
        standin
    }

    /// A path at which nobody listens.
    pub fn absent() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("uvs-shim-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self { directory, seen: Arc::default(), connections: Arc::default() }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("ipvs.sock")
    }

    /// Runs a command line with the library preloaded.
    pub fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Output {
        Command::new(program.as_ref())
            .args(arguments)
            .env("LD_PRELOAD", library())
            .env("UVS_IPVS_SOCKET", self.socket())
            .output()
            .unwrap()
    }

    /// Commands of the IPVS family that came, in order.
    pub fn commands(&self) -> Vec<u8> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|message| kind(message) == FAMILY).map(|message| message[16]).collect()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _leftover = std::fs::remove_dir_all(&self.directory);
    }
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

fn serve(connection: &OwnedFd, seen: &Mutex<Vec<Vec<u8>>>) {
    let mut buffer = vec![0; 65_536];
    while let Ok((length, _)) = recv(connection, buffer.as_mut_slice(), RecvFlags::empty()) {
        if length == 0 {
            return;
        }
        let message = buffer[..length].to_vec();
        seen.lock().unwrap().push(message.clone());
        for answer in answers(&message) {
            if send(connection, &answer, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A message with sequence number and port of the request.
fn message(kind: u16, flags: u16, request: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(&request[8..16]);
    bytes.extend(body);
    bytes
}

fn error(request: &[u8], errno: i32) -> Vec<u8> {
    let body = [&(-errno).to_ne_bytes(), &request[..16]].concat();
    message(2, 0, request, &body)
}

fn answers(request: &[u8]) -> Vec<Vec<u8>> {
    let body = &request[16..];
    match (kind(request), body.first()) {
        (0x7e, _) => match body {
            b"ip_vs_app" => vec![error(request, ENOENT)],
            name => {
                let text = format!("text of {}\n", String::from_utf8_lossy(name));
                let half = text.len() / 2;
                vec![
                    message(0x7e, 2, request, &text.as_bytes()[..half]),
                    message(0x7e, 2, request, &text.as_bytes()[half..]),
                    message(3, 2, request, &[0; 4]),
                ]
            }
        },
        (0x10, Some(3)) if body.windows(5).any(|bytes| bytes == b"IPVS\0") => {
            let family = [
                vec![1, 2, 0, 0],
                attribute(2, b"IPVS\0"),
                attribute(1, &FAMILY.to_ne_bytes()),
                attribute(3, &1_u32.to_ne_bytes()),
            ];
            vec![message(0x10, 0, request, &family.concat()), error(request, 0)]
        }
        (0x10, _) => vec![error(request, ENOENT)],
        // GET_INFO
        (FAMILY, Some(15)) => {
            let version = attribute(1, &0x01_02_01_u32.to_ne_bytes());
            let info = [vec![14, 1, 0, 0], version, attribute(2, &4096_u32.to_ne_bytes())];
            vec![message(FAMILY, 0, request, &info.concat()), error(request, 0)]
        }
        // Dumps of services and destinations: one service without destinations.
        (FAMILY, Some(4)) => {
            let service = [
                attribute(1, &2_u16.to_ne_bytes()),
                attribute(2, &6_u16.to_ne_bytes()),
                attribute(3, &[[192, 0, 2, 1].as_slice(), &[0; 12]].concat()),
                attribute(4, &80_u16.to_be_bytes()),
                attribute(6, b"rr\0"),
                attribute(7, &[0; 8]),
                attribute(8, &[0; 4]),
                attribute(9, &[0xff; 4]),
                attribute(10, &(1..=10_u16).flat_map(stat).collect::<Vec<u8>>()),
            ];
            let service = [vec![1, 1, 0, 0], attribute(1, &service.concat())];
            vec![message(FAMILY, 2, request, &service.concat()), message(3, 2, request, &[0; 4])]
        }
        (FAMILY, Some(8)) => vec![message(3, 2, request, &[0; 4])],
        // NEW_SERVICE
        (FAMILY, Some(1)) => vec![error(request, EEXIST)],
        _ => vec![error(request, 0)],
    }
}

fn stat(kind: u16) -> Vec<u8> {
    // Bytes have 64 bits, everything else 32.
    if kind == 4 || kind == 5 { attribute(kind, &[0; 8]) } else { attribute(kind, &[0; 4]) }
}
