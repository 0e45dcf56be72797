//! The stages by name.

use crate::director::{Director, Shape};
use crate::packets::{ACK, Checksums, FIN, LookUp, Parse, SYN, Steer};
use crate::scheduling::Service;
use dataplane::counters::Counter;
use dataplane::id::Ticks;
use dataplane::pipeline::BURST;
use dataplane::snapshot::{Method, SchedulerKind, Tunnel};
use std::error::Error;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Work that is done over and over.
pub trait Stage {
    /// What is not to be measured: frames are written, time passes.
    fn prepare(&mut self) {}

    /// The work; how many packets (or connections, or checksums) it was for.
    fn run(&mut self) -> u64;

    /// Whether the work was what it should be.
    ///
    /// # Errors
    /// What happened instead.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Makes a stage.
pub type Make = fn() -> Result<Box<dyn Stage>, Box<dyn Error>>;

/// Every stage.
pub const STAGES: [(&str, Make); 31] = [
    ("parse ipv4 udp", || Ok(bursts(Parse::new(&UDP), |parse| parse.run()))),
    ("parse ipv4 tcp", || Ok(bursts(Parse::new(&TCP), |parse| parse.run()))),
    ("parse ipv6 tcp", || Ok(bursts(Parse::new(&Shape { ipv6: true, ..TCP }), |parse| parse.run()))),
    ("hash ipv4", || Ok(bursts(LookUp::<Ipv4Addr>::new(4096)?, LookUp::hash))),
    ("hash ipv6", || Ok(bursts(LookUp::<Ipv6Addr>::new(4096)?, LookUp::hash))),
    ("look up ipv4", || Ok(bursts(LookUp::<Ipv4Addr>::new(4096)?, LookUp::find))),
    ("look up ipv6", || Ok(bursts(LookUp::<Ipv6Addr>::new(4096)?, LookUp::find))),
    ("direct ipv4 udp", || established(UDP, false)),
    ("direct ipv4 tcp", || established(TCP, false)),
    ("direct ipv6 udp", || established(Shape { ipv6: true, ..UDP }, false)),
    ("direct ipv6 tcp", || established(Shape { ipv6: true, ..TCP }, false)),
    ("nat in ipv4 tcp", || established(Shape { destinations: 1, ..NAT }, false)),
    ("nat out ipv4 tcp", || established(Shape { destinations: 1, ..NAT }, true)),
    ("nat in ipv4 udp", || established(Shape { destinations: 1, tcp: false, ..NAT }, false)),
    ("nat out ipv4 udp", || established(Shape { destinations: 1, tcp: false, ..NAT }, true)),
    ("tunnel ipip tcp", || established(Shape { method: Method::Tunnel(IPIP), ..TCP }, false)),
    ("new connection rr", || opened(SchedulerKind::Rr)),
    ("new connection wrr", || opened(SchedulerKind::Wrr)),
    ("new connection wlc", || opened(SchedulerKind::Wlc)),
    ("new connection mh", || opened(SchedulerKind::Mh)),
    ("choice rr of 10,000", || chosen(SchedulerKind::Rr)),
    ("choice wlc of 10,000", || chosen(SchedulerKind::Wlc)),
    ("choice lblc of 10,000", || chosen(SchedulerKind::Lblc)),
    ("expiry", expired),
    ("life rr", || lived(TCP)),
    ("life rr nat", || lived(Shape { destinations: 1, ..NAT })),
    ("life wlc of 1,000", || lived(Shape { scheduler: SchedulerKind::Wlc, destinations: 1000, ..TCP })),
    ("checksum 1460 bytes", || Ok(bursts(Checksums::new(1460), |sums| sums.sum()))),
    ("checksum update", || Ok(bursts(Checksums::new(0), |sums| sums.update()))),
    ("toeplitz any key", || Ok(bursts(Steer::default(), |steer| steer.any_key()))),
    ("toeplitz own key", || Ok(bursts(Steer::default(), |steer| steer.own_key()))),
];

const TCP: Shape = Shape {
    ipv6: false,
    tcp: true,
    method: Method::Direct,
    scheduler: SchedulerKind::Rr,
    destinations: 2,
    connections: 16_384,
};
const UDP: Shape = Shape { tcp: false, ..TCP };
const NAT: Shape = Shape { method: Method::Masquerade, ..TCP };
const IPIP: Tunnel = Tunnel {
    kind: dataplane::snapshot::TunnelKind::Ipip,
    checksum: dataplane::snapshot::TunnelChecksum::None,
    port: 0,
};

/// A stage without preparation, a burst at a time.
struct Bursts<T> {
    of: T,
    work: fn(&mut T),
}

fn bursts<T: 'static>(of: T, work: fn(&mut T)) -> Box<dyn Stage> {
    Box::new(Bursts { of, work })
}

impl<T> Stage for Bursts<T> {
    fn run(&mut self) -> u64 {
        (self.work)(&mut self.of);
        BURST as u64
    }
}

/// Flows of the stages with established connections.
const FLOWS: u16 = 256;

/// Packets of established connections.
struct Established {
    director: Director,
    from_servers: bool,
    frames: Vec<Vec<u8>>,
    next: usize,
    sent: u64,
    before: [u64; 2],
}

fn established(shape: Shape, from_servers: bool) -> Result<Box<dyn Stage>, Box<dyn Error>> {
    let mut director = Director::new(&shape)?;
    let requests = |flags| (0..FLOWS).map(|flow| shape.request(flow, flags)).collect::<Vec<_>>();
    let answers = |flags| (0..FLOWS).map(|flow| shape.answer(flow, flags)).collect::<Vec<_>>();
    director.pass(false, &requests(SYN));
    if shape.method == Method::Masquerade {
        director.pass(true, &answers(SYN | ACK));
    }
    director.pass(false, &requests(ACK));
    let frames = if from_servers { answers(ACK) } else { requests(ACK) };
    let before = [Counter::Misses, Counter::Transmitted].map(|counter| director.count(counter));
    Ok(Box::new(Established { director, from_servers, frames, next: 0, sent: 0, before }))
}

impl Stage for Established {
    fn prepare(&mut self) {
        let burst = self.frames[self.next..self.next + BURST].iter().map(Vec::as_slice);
        self.director.load(self.from_servers, burst);
        self.next = (self.next + BURST) % self.frames.len();
    }

    #[inline]
    fn run(&mut self) -> u64 {
        self.director.turn();
        self.sent += BURST as u64;
        BURST as u64
    }

    fn check(&self) -> Result<(), String> {
        let [misses, sent] = self.before;
        let now = [Counter::Misses, Counter::Transmitted].map(|counter| self.director.count(counter));
        let wanted = [misses, sent + self.sent];
        (now == wanted)
            .then_some(())
            .ok_or_else(|| format!("misses and packets sent: {now:?}, not {wanted:?}"))
    }
}

/// Connections that are opened one after the other.
struct Opened {
    shape: Shape,
    director: Director,
    flow: u16,
    opened: u64,
}

fn opened(scheduler: SchedulerKind) -> Result<Box<dyn Stage>, Box<dyn Error>> {
    let shape = Shape { scheduler, destinations: 16, ..TCP };
    Ok(Box::new(Opened { shape, director: Director::new(&shape)?, flow: 0, opened: 0 }))
}

impl Stage for Opened {
    fn prepare(&mut self) {
        let burst: Vec<_> = (0..32).map(|flow| self.shape.request(self.flow + flow, SYN)).collect();
        self.flow += 32;
        self.director.load(false, burst.iter().map(Vec::as_slice));
    }

    #[inline]
    fn run(&mut self) -> u64 {
        self.director.turn();
        self.opened += BURST as u64;
        BURST as u64
    }

    fn check(&self) -> Result<(), String> {
        let open = self.director.open();
        (open == self.opened).then_some(()).ok_or_else(|| format!("{open} connections, not {}", self.opened))
    }
}

/// Whole lives of connections that come one after the other, as many as go: SYN, ACK, FIN and ACK of the client's, and the expiry.
struct Lived {
    director: Director,
    /// By flow, the frames of its life.
    frames: Vec<[Vec<u8>; 4]>,
    next: usize,
    opened: u64,
}

/// Connections that begin, and end, in a burst.
const LIVES: usize = BURST / 4;
/// Connections that begin between a connection's first packet and each of its others.
const LAGS: [usize; 4] = [0, LIVES, 10 * LIVES, 11 * LIVES];
/// Milliseconds from one burst to the next.
const LIVED: u32 = 1000;
/// Bursts until as many connections come as go: a life is some 130 s.
const GENERATION: usize = 160;

fn lived(shape: Shape) -> Result<Box<dyn Stage>, Box<dyn Error>> {
    let frames = |flow| [SYN, ACK, FIN | ACK, ACK].map(|flags| shape.request(flow, flags));
    let frames = (0..4096).map(frames).collect();
    let mut lived = Lived { director: Director::new(&shape)?, frames, next: 0, opened: 0 };
    for _ in 0..GENERATION {
        lived.prepare();
        lived.run();
    }
    Ok(Box::new(lived))
}

impl Stage for Lived {
    fn prepare(&mut self) {
        let count = self.frames.len();
        let frame = |place: usize| {
            let (step, flow) = (place % 4, self.next + place / 4);
            &*self.frames[(flow + count - LAGS[step]) % count][step]
        };
        let burst: Vec<_> = (0..BURST).map(frame).collect();
        self.director.load(false, burst.into_iter());
        self.director.now = Ticks(self.director.now.0 + LIVED);
        self.next += LIVES;
    }

    #[inline]
    fn run(&mut self) -> u64 {
        self.director.turn();
        self.opened += LIVES as u64;
        LIVES as u64
    }

    fn check(&self) -> Result<(), String> {
        let opened = self.director.count(Counter::ConnectionsOpened);
        let open = self.director.open();
        (opened == self.opened && (500..1200).contains(&open))
            .then_some(())
            .ok_or_else(|| format!("{opened} connections were opened, not {}; {open} are open", self.opened))
    }
}

/// Choices among many destinations, each with the life of a connection around it.
fn chosen(scheduler: SchedulerKind) -> Result<Box<dyn Stage>, Box<dyn Error>> {
    let live = |service: &mut Service| {
        for _ in 0..BURST {
            black_box(service.live());
        }
    };
    Ok(bursts(Service::new(scheduler, 10_000)?, live))
}

/// Connections that time out.
struct Expired {
    director: Director,
    left: u64,
}

/// Connections of the stage that closes them.
const EXPIRING: u16 = 8192;
/// A half-open connection's time, and a little more, in milliseconds.
const TIMEOUT: u32 = 61_000;

fn expired() -> Result<Box<dyn Stage>, Box<dyn Error>> {
    let mut director = Director::new(&TCP)?;
    let frames: Vec<_> = (0..EXPIRING).map(|flow| TCP.request(flow, SYN)).collect();
    director.pass(false, &frames);
    let left = director.open();
    director.now = Ticks(director.now.0 + TIMEOUT);
    Ok(Box::new(Expired { director, left }))
}

impl Stage for Expired {
    #[inline]
    fn run(&mut self) -> u64 {
        self.director.turn();
        let left = self.director.open();
        std::mem::replace(&mut self.left, left) - left
    }

    fn check(&self) -> Result<(), String> {
        (self.left < u64::from(EXPIRING)).then_some(()).ok_or_else(|| "no connection timed out".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_does_what_its_name_says() {
        for (name, make) in STAGES {
            let mut stage = make().unwrap();
            let packets: u64 = (0..40)
                .map(|_| {
                    stage.prepare();
                    stage.run()
                })
                .sum();
            assert!(packets >= 320, "{name}: {packets}");
            stage.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
