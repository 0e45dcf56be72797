//! A laboratory for tests against the real kernel: two network namespaces, a director's twin in one, a peer in the
//! other, and an exception path that connects them in the place of the workers.

use super::{Twin, TwinConfig};
use dataplane::exception::{ExceptionPath, InjectError, PuntClass};
use dataplane::id::PortId;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

pub(crate) const PORT: PortId = PortId(0);
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0x84, 0x1e];
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0x84, 0x40];

/// A network namespace that goes with the value.
pub(crate) struct Namespace(String);

impl Namespace {
    fn make(role: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("uvst{}-{}{role}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        run(&format!("ip netns add {name}"));
        Self(name)
    }

    /// Moves the calling thread, and what it starts from now on, into the namespace.
    pub(crate) fn enter(&self) {
        let path = format!("/run/netns/{}", self.0);
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// What `ip netns` calls it.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs a command in the namespace.
    pub(crate) fn run(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.0))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// Runs a command in the calling thread's namespace; it has to succeed.
pub(crate) fn run(command: &str) -> String {
    let (ok, output) = attempt(command);
    assert!(ok, "{command}: {output}");
    output
}

/// Runs a command; whether it succeeded, and what it said.
pub(crate) fn attempt(command: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Runs `test` on a thread of its own inside a fresh namespace, with a second one for its peer. Skips when not root.
pub(crate) fn in_namespaces(test: impl FnOnce(&Namespace, &Namespace) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root to make network namespaces");
        return;
    }
    let thread = std::thread::spawn(move || {
        let (director, peer) = (Namespace::make("d"), Namespace::make("p"));
        director.enter();
        run("ip link set lo up");
        test(&director, &peer);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn twin() -> Twin {
    Twin::create(TwinConfig { port: PORT, name: "eth0".into(), mac: MAC, mtu: 1500 }).unwrap()
}

/// A peer's TAP, `lan0` in `peer`, with 192.168.132.64/24 and fd00::64/64.
pub(crate) fn peer_tap(director: &Namespace, peer: &Namespace) -> Twin {
    peer.enter();
    let config = TwinConfig { port: PortId(255), name: "lan0".into(), mac: PEER_MAC, mtu: 9000 };
    let tap = Twin::create(config).unwrap();
    run(
        "ip link set lo up; ip addr add 192.168.132.64/24 dev lan0; ip -6 addr add fd00::64/64 dev lan0 nodad",
    );
    director.enter();
    tap
}

/// Knobs and counters of a [`Wire`].
#[derive(Default)]
pub(crate) struct Knobs {
    /// What the workers' heartbeat says.
    pub(crate) age_ms: AtomicU64,
    /// The inject ring has no room.
    pub(crate) full: AtomicBool,
    /// Stray frames that wait to be punted, beyond what the peer sends.
    pub(crate) stray_flood: AtomicU64,
    /// Frames injected.
    pub(crate) injected: AtomicU64,
    /// Frames handed to the thread.
    pub(crate) drained: AtomicU64,
    /// No frame passes in either direction, as if the cable were cut.
    pub(crate) cut: AtomicBool,
}

/// An exception path that ends in the peer's TAP instead of in workers.
pub(crate) struct Wire {
    tap: Twin,
    knobs: Arc<Knobs>,
    queues: [VecDeque<Vec<u8>>; 3],
}

impl Wire {
    pub(crate) fn new(tap: Twin) -> (Box<Self>, Arc<Knobs>) {
        let knobs = Arc::new(Knobs::default());
        (Box::new(Self { tap, knobs: Arc::clone(&knobs), queues: Default::default() }), knobs)
    }

    fn receive(&mut self) {
        let mut frame = vec![0; 65_600];
        while let Ok(length) = self.tap.read(&mut frame) {
            if self.knobs.cut.load(Relaxed) {
                continue;
            }
            let class = match frame[12..14] {
                [0x08, 0x06] => PuntClass::Control,
                [0x86, 0xdd] if frame[20] == 58 && frame[54] >= 133 => PuntClass::Control,
                _ => PuntClass::Local,
            };
            self.queues[class.index()].push_back(frame[..length].to_vec());
        }
    }
}

impl ExceptionPath for Wire {
    fn drain(&mut self, class: PuntClass, max: usize, frame: &mut dyn FnMut(PortId, &[u8])) -> usize {
        self.receive();
        let mut count = 0;
        while count < max
            && let Some(bytes) = self.queues[class.index()].pop_front()
        {
            frame(PORT, &bytes);
            count += 1;
        }
        if class == PuntClass::Stray {
            let flood = usize::try_from(self.knobs.stray_flood.load(Relaxed)).unwrap().min(max - count);
            for _ in 0..flood {
                let mut bytes = [0; 60];
                bytes[..6].copy_from_slice(&MAC);
                bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
                frame(PORT, &bytes);
            }
            self.knobs.stray_flood.fetch_sub(flood as u64, Relaxed);
            count += flood;
        }
        self.knobs.drained.fetch_add(count as u64, Relaxed);
        count
    }

    fn inject(&mut self, _: PortId, frame: &[u8]) -> Result<(), InjectError> {
        if self.knobs.full.load(Relaxed) {
            return Err(InjectError::Full);
        }
        if frame.len() > 1514 {
            return Err(InjectError::TooLong { limit: 1514 });
        }
        self.knobs.injected.fetch_add(1, Relaxed);
        if !self.knobs.cut.load(Relaxed) {
            let _ = self.tap.write(frame);
        }
        Ok(())
    }

    fn slowest_worker_age_ms(&self) -> u64 {
        self.knobs.age_ms.load(Relaxed)
    }
}

/// Waits until `done` holds; how long that took. Fails after `limit`.
pub(crate) fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
    started.elapsed()
}
