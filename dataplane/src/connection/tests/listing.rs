//! Listings beside the writer.

use super::*;
use std::sync::atomic::AtomicBool;

/// A connection all of whose fields say the same number.
fn marked<A: Address>(number: u32) -> NewConnection<A> {
    let small = (number & 0xFFFF) as u16;
    let [a, b, c, d] = number.to_le_bytes();
    let address = |salt| A::from_words([number ^ salt, number, number ^ salt, number]);
    NewConnection {
        tuple: Tuple {
            source: address(1),
            destination: address(2),
            source_port: small,
            destination_port: !small,
            protocol: a,
        },
        server: address(3),
        server_port: small,
        state: State::from_number(a % 25),
        flags: number,
        timeout: number & 0xFFFF,
        destination: DestinationSlot(!number),
        template: number,
        side: number,
        client_mac: [a, b, c, d, a, b],
        ingress: PortId(c),
        both_directions: number.is_multiple_of(2),
    }
}

fn assert_whole<A: Address>(view: &ConnectionView<A>) {
    let wanted = marked::<A>(view.flags);
    assert_eq!(view.tuple, wanted.tuple);
    assert_eq!((view.server, view.server_port), (wanted.server, wanted.server_port));
    assert_eq!(
        (view.state, view.timeout, view.destination),
        (wanted.state, wanted.timeout, wanted.destination)
    );
    assert_eq!(
        (view.template, view.client_mac, view.ingress),
        (wanted.template, wanted.client_mac, wanted.ingress)
    );
    assert_eq!((view.last_seen, view.packets_in), (Ticks(view.flags), 0));
    assert_eq!(view.generation & 1, 1);
}

/// Ends the readers when the writer is done, or fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn lists_beside_a_writer<A: Address>() {
    const LINES: u32 = 3;
    let rounds = if cfg!(miri) { 60 } else { 200_000 };
    let mut table = table::<A>(LINES, true, Ticks(0));
    let slab = table.slab();
    let stop = AtomicBool::new(false);
    let (seen, begun) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _stop = Stop(&stop);
                begun.fetch_add(1, Relaxed);
                while !stop.load(Relaxed) {
                    for id in 0..slab.used() {
                        if let Some(view) = slab.read(ConnectionId(id)) {
                            assert_whole(&view);
                            seen.fetch_add(1, Relaxed);
                        }
                    }
                    assert!(slab.read(ConnectionId(LINES)).is_none());
                    std::hint::spin_loop();
                }
            });
        }
        let stop = Stop(&stop);
        while begun.load(Relaxed) < 2 {
            std::thread::yield_now();
        }
        let mut open_ids = std::collections::VecDeque::new();
        for number in 0..rounds {
            let number = 0x0101_0305u32.wrapping_mul(number);
            open_ids.push_back(open(&mut table, &marked::<A>(number), Ticks(number)).unwrap());
            if open_ids.len() == LINES as usize {
                assert!(table.close(open_ids.pop_front().unwrap()));
            }
            if cfg!(miri) {
                std::thread::yield_now();
            }
        }
        drop(stop);
    });
    assert!(seen.load(Relaxed) > 0);
}

#[test]
fn a_listing_sees_whole_connections_or_none() {
    lists_beside_a_writer::<Ipv4Addr>();
    lists_beside_a_writer::<Ipv6Addr>();
}
