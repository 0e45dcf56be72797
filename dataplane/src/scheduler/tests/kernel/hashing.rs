//! dh, sh and mh: tables written out bucket by bucket.

use super::{Kernel, Server};
use crate::scheduler::Request;
use std::net::IpAddr;

fn number(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => u32::from_be_bytes(v4.octets()),
        IpAddr::V6(v6) => v6
            .octets()
            .chunks(4)
            .fold(0, |folded, word| folded ^ u32::from_be_bytes(word.try_into().unwrap())),
    }
}

/// The byte that hash_32 with 8 bits leaves.
fn bucket(of: u32) -> usize {
    let product = u64::from(of) * 0x61C8_8647 % (1 << 32);
    usize::try_from(product >> 24).unwrap()
}

/// `hsiphash_1u32`, with the state in variables and the key's halves alike.
fn hsiphash(x: u32, key: u64) -> u32 {
    let (mut a, mut b) = (key ^ 0x736f_6d65_7073_6575, key ^ 0x646f_7261_6e64_6f6d);
    let (mut c, mut d) = (key ^ 0x6c79_6765_6e65_7261, key ^ 0x7465_6462_7974_6573);
    let word = u64::from(x) + (4 << 56);
    d ^= word;
    for number in 1..=4 {
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32);
        c = c.wrapping_add(b);
        a = a.wrapping_add(d);
        b = b.rotate_left(17) ^ c;
        d = d.rotate_left(21) ^ a;
        c = c.rotate_left(32);
        if number == 1 {
            a ^= word;
            c ^= 0xff;
        }
    }
    u32::try_from((a ^ b ^ c ^ d) % (1 << 32)).unwrap()
}

const H1: u64 = 2_654_435_761;
const H2: u64 = 2_654_446_892;

impl Kernel {
    fn sum(&self, request: &Request) -> u32 {
        let port = if self.flags & 2 == 0 { 0 } else { u32::from(request.client_port) };
        number(request.client).wrapping_add(port)
    }

    fn if_usable(&self, server: Option<&Server>) -> Option<u8> {
        server.filter(|server| self.usable(server)).map(|server| server.name)
    }

    pub(super) fn dh(&self, request: &Request) -> Option<u8> {
        let count = self.list.len().max(1);
        self.if_usable(self.list.get(bucket(number(request.destination)) % count))
    }

    pub(super) fn sh(&self, request: &Request) -> Option<u8> {
        let mut table = Vec::new();
        while table.len() < 256 && !self.list.is_empty() {
            for server in &self.list {
                for _ in 0..server.weight.clamp(1, 256) {
                    table.push(*server);
                }
            }
        }
        let hash = bucket(self.sum(request));
        let found = self.if_usable(table.get(hash));
        if found.is_some() || self.flags & 1 == 0 {
            return found;
        }
        (0..256).find_map(|offset| self.if_usable(table.get(((offset + hash) % 256 + hash) % 256)))
    }

    /// The lookup table of mh, kept until the list or a weight changes.
    fn maglev(&self) -> Vec<Option<u8>> {
        let size = usize::try_from(self.size).unwrap();
        let last = |server: &Server| self.last_weights.get(&server.name).copied().unwrap_or(0);
        let weights: Vec<u32> = self.list.iter().map(last).filter(|weight| *weight > 0).collect();
        let mut table = vec![None; size];
        let Some(greatest) = weights.iter().max().copied() else { return table };
        let g = (1..=greatest).rev().find(|g| weights.iter().all(|weight| weight % g == 0)).unwrap();
        let fls = (0..=32).find(|bits| u64::from(greatest / g) < 1 << bits).unwrap();
        let shift = u32::max(fls, self.table_bits) - self.table_bits;
        let steps: Vec<(usize, usize)> = self
            .list
            .iter()
            .map(|server| {
                let (address, port) = self.address(server.name);
                let x = number(address).wrapping_add(u32::from(port));
                let (offset, skip) = (hsiphash(x, H1) % self.size, hsiphash(x, H2) % (self.size - 1) + 1);
                (usize::try_from(offset).unwrap(), usize::try_from(skip).unwrap())
            })
            .collect();
        let mut at: Vec<usize> = steps.iter().map(|(offset, _)| *offset).collect();
        let mut free = size;
        loop {
            for (place, server) in self.list.iter().enumerate() {
                let turns = match last(server) {
                    0 => 0,
                    weight => ((weight / g) >> shift).max(1),
                };
                for _ in 0..turns {
                    if free == 0 {
                        return table;
                    }
                    while table[at[place]].is_some() {
                        at[place] = (at[place] + steps[place].1) % size;
                    }
                    table[at[place]] = Some(server.name);
                    free -= 1;
                }
            }
        }
    }

    pub(super) fn mh(&mut self, request: &Request) -> Option<u8> {
        if self.table.is_empty() {
            self.table = self.maglev();
        }
        let x = self.sum(request);
        let slot = |hash: u32| {
            let name = self.table[usize::try_from(hash % self.size).unwrap()]?;
            self.if_usable(self.list.iter().find(|server| server.name == name))
        };
        let hash = hsiphash(x, H1) % self.size;
        let found = slot(hash);
        if found.is_some() || self.flags & 1 == 0 {
            return found;
        }
        (0..self.size).find_map(|offset| slot(hsiphash(x.wrapping_add((offset + hash) % self.size), H1)))
    }
}
