//! Hostile bytes: recorded messages, broken in every way, against the real desired state.
//!
//! `UVS_MUTATIONS=1000000 cargo test -p mgmt mutations` plays a million of them (some minutes); `UVS_SEED` chooses others.

use std::collections::BTreeSet;

use super::real::Real;
use super::testing::{IPVSADM, KEEPALIVED, Model, ODD, ask, bytes, cases};
use crate::control::Backend as _;
use crate::desired::{Change, Desired, DestinationAdd, ServiceAdd};
use crate::management::Limits;
use crate::protocol::ServiceState;

const LIMITS: Limits = Limits { services: 12, destinations: 24 };

/// What is desired, in the words of the model.
fn held(desired: &Desired) -> Vec<ServiceState> {
    let mut model = Model::default();
    for service in desired.to_specs() {
        let add = ServiceAdd { service: service.clone() };
        model.change(&Change::ServiceAdd(add)).unwrap();
        for destination in service.destination {
            let add = DestinationAdd { service: service.key, destination };
            model.change(&Change::DestinationAdd(add)).unwrap();
        }
    }
    model.services
}

/// Numbers that look random and are the same every time (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 10] = [0, 1, 2, 3, 4, 10, 0x7f, 0x80, 0xfe, 0xff];
        if self.below(2) == 0 { TELLING[self.below(TELLING.len())] } else { self.next().to_le_bytes()[0] }
    }
}

/// Makes the header tell the message's length, so that what is behind it is looked at.
fn with_length(message: &mut [u8]) {
    let length = u32::try_from(message.len()).unwrap();
    if let Some(told) = message.get_mut(..4) {
        told.copy_from_slice(&length.to_ne_bytes());
    }
}

/// Attributes inside attributes, as deep as the bytes last.
fn nested_bomb(random: &mut Random) -> Vec<u8> {
    let mut message = bytes("0000000020000500010000000000000001010000");
    let depth = 1 + random.below(2000);
    for left in (1..=depth).rev() {
        message.extend(u16::try_from(left * 4).unwrap().to_ne_bytes());
        message.extend((u16::from(random.byte() % 16) | 0x8000).to_ne_bytes());
    }
    with_length(&mut message);
    message
}

fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut message = corpus[random.below(corpus.len())].clone();
    for _ in 0..random.below(4) {
        let at = random.below(message.len());
        let other = &corpus[random.below(corpus.len())];
        match random.below(11) {
            0 => message[at] ^= 1 << random.below(8),
            1 => message[at] = random.byte(),
            2 => message.truncate(at),
            3 => message.extend(other),
            4 => {
                let from = random.below(other.len());
                message.splice(at.., other[from..].iter().copied());
            }
            // A word, where lengths and types of attributes are.
            5 => {
                let at = at & !3;
                let word = [random.byte(), 0, random.byte() % 18, 0x80 * (random.byte() & 1)];
                message.splice(at..(at + 4).min(message.len()), word);
            }
            6 => {
                let end = (at + 4 * random.below(10)).min(message.len());
                let again = message[at..end].to_vec();
                message.splice(at..at, again);
            }
            7 => {
                let end = (at + 4 * random.below(6)).min(message.len());
                message.drain(at..end);
            }
            8 if message.len() > 16 => message[16] = random.byte() % 19,
            9 if message.len() > 7 => message[6..8].copy_from_slice(&[random.byte(), random.byte() % 4]),
            _ => message.extend((0..random.below(40)).map(|_| random.byte())),
        }
        if message.is_empty() {
            break;
        }
        // Most headers stay true, or nothing behind them would be seen.
        if random.below(4) != 0 {
            with_length(&mut message);
        }
    }
    message
}

/// Whether every message of an answer is whole and answers something that was asked.
fn is_well_formed(asked: &[u8], answered: &[Vec<u8>]) -> bool {
    let sequences: BTreeSet<&[u8]> = asked.windows(4).collect();
    answered.iter().all(|datagram| {
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let Some(length) = rest.first_chunk().map(|told| u32::from_ne_bytes(*told) as usize) else {
                return false;
            };
            if length < 16 || length > rest.len() || !sequences.contains(&rest[8..12]) {
                return false;
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
        true
    })
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn mutations_change_nothing_but_what_is_accepted() {
    let mut corpus: Vec<Vec<u8>> = [IPVSADM, KEEPALIVED, ODD]
        .iter()
        .flat_map(|text| cases(text))
        .flat_map(|case| case.exchanges)
        .map(|exchange| exchange.asked)
        .collect();
    corpus.retain(|message| !message.is_empty());
    for name in
        ["ip_vs", "ip_vs_conn", "ip_vs_conn_sync", "ip_vs_stats", "ip_vs_stats_percpu", "ip_vs_app", "x"]
    {
        let mut message = bytes("000000007e0005000100000000000000");
        message.extend(name.as_bytes());
        with_length(&mut message);
        corpus.push(message);
    }
    let director = Real::new(LIMITS);
    let mut random = Random(number("UVS_SEED", 1));
    let (mut refused, mut accepted) = (0_u64, 0_u64);
    for _ in 0..number("UVS_MUTATIONS", 20_000) {
        let asked = match random.below(200) {
            0 => nested_bomb(&mut random),
            1..40 => corpus[random.below(corpus.len())].clone(),
            _ => mutated(&mut random, &corpus),
        };
        let revision = director.revision();
        let accepted_before = director.lock().accepted;
        let answered = ask(&director, &asked);
        assert!(is_well_formed(&asked, &answered), "{asked:02x?}\n{answered:02x?}");
        let held_now = director.lock();
        let desired = held_now.management.desired();
        if held_now.accepted == accepted_before {
            assert_eq!(desired.revision(), revision, "{asked:02x?}");
            refused += 1;
        } else {
            assert_eq!(held(desired), held_now.model.services, "{asked:02x?}");
            assert_eq!(desired.timeouts(), held_now.model.timeouts, "{asked:02x?}");
            let (services, destinations) = desired.counts();
            assert!(services <= LIMITS.services as usize && destinations <= LIMITS.destinations as usize);
            accepted += 1;
        }
    }
    println!("{refused} changed nothing, {accepted} were accepted and changed what they said");
    assert!(accepted > 0 && refused > accepted / 10);
}
