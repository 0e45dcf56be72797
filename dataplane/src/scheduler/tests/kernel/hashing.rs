//! dh and sh: tables written out bucket by bucket for every choice.

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
}
