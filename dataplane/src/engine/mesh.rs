//! The rings on which workers hand packets to each other: one for each pair and direction, with one producer and one consumer,
//! and nobody waits at either end.
//!
//! A worker that looked at every ring each turn would read a cache line for every other worker, packets or not. It has a *bell*
//! instead: one line on which senders mark themselves at the end of a turn in which they sent something. As long as nothing is
//! redirected, a turn reads that line alone, however many workers there are.

use super::{Place, Redirected, place};
use crate::id::WorkerId;
use crossbeam_utils::CachePadded;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Packets that may wait for one worker, in all its rings together.
const WAITING: usize = 4096;
/// Places of a ring with few workers, and with many.
const MOST: usize = 512;
const LEAST: usize = 64;

/// Words of a set of workers.
const WORDS: usize = 4;

/// Workers by number, of which there are at most 255.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Workers([u64; WORDS]);

impl Workers {
    #[inline(always)]
    fn insert(&mut self, worker: usize) {
        self.0[worker / 64 % WORDS] |= 1 << (worker % 64);
    }

    #[inline(always)]
    fn remove(&mut self, worker: usize) {
        self.0[worker / 64 % WORDS] &= !(1 << (worker % 64));
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// The first one from `from` on.
    fn next(&self, from: usize) -> Option<usize> {
        let rest = |word: usize| {
            let kept = if word == from / 64 { u64::MAX << (from % 64) } else { u64::MAX };
            (word, self.0[word] & kept)
        };
        let (word, bits) = (from / 64..WORDS).map(rest).find(|(_, bits)| *bits != 0)?;
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// Who has sent something since the owner looked. Written by senders, one line for each receiver.
#[derive(Debug, Default)]
pub(super) struct Bell {
    senders: [AtomicU64; WORDS],
}

/// One worker's ends of the rings between workers.
#[derive(Debug)]
pub struct Mesh<P> {
    own: WorkerId,
    /// By worker; `None` towards itself.
    to: Vec<Option<Producer<Redirected<P>>>>,
    /// By worker; `None` from itself.
    from: Vec<Option<Consumer<Redirected<P>>>>,
    bells: Arc<[CachePadded<Bell>]>,
    /// Receivers that have not been told yet.
    sent: Workers,
    /// Senders whose rings may hold something.
    waiting: Workers,
}

impl<P> Mesh<P> {
    /// The ends of each of `workers` workers.
    #[must_use]
    pub fn make(workers: u8) -> Vec<Self> {
        let bells: Arc<[CachePadded<Bell>]> = (0..workers).map(|_| CachePadded::default()).collect();
        let places = Self::places(workers.into());
        let end = |own| Self {
            own: WorkerId(own),
            to: Vec::with_capacity(workers.into()),
            from: (0..workers).map(|_| None).collect(),
            bells: Arc::clone(&bells),
            sent: Workers::default(),
            waiting: Workers::default(),
        };
        let mut ends: Vec<Self> = (0..workers).map(end).collect();
        for from in 0..ends.len() {
            for to in 0..ends.len() {
                let (producer, consumer) = (from != to).then(|| RingBuffer::new(places)).unzip();
                ends[from].to.push(producer);
                ends[to].from[from] = consumer;
            }
        }
        ends
    }

    /// Places of one ring. The more workers, the fewer of a worker's packets go to one of the others.
    const fn places(workers: usize) -> usize {
        if workers < 2 {
            return 0;
        }
        let even = WAITING / (workers - 1);
        if even > MOST {
            MOST
        } else if even < LEAST {
            LEAST
        } else {
            even
        }
    }

    /// Packets that all rings of so many workers can hold together.
    #[must_use]
    pub const fn capacity(workers: usize) -> usize {
        workers * workers.saturating_sub(1) * Self::places(workers)
    }

    /// Where the bells of all workers lie.
    #[must_use]
    pub fn place(&self) -> Place {
        place("bells of the redirect rings", &self.bells)
    }

    /// Puts a packet on the ring to another worker, which hears of it with the next [`Self::ring`].
    ///
    /// # Errors
    /// The packet, when the ring is full or there is no such worker.
    #[inline]
    pub fn send(&mut self, to: WorkerId, redirected: Redirected<P>) -> Result<(), P> {
        match self.to.get_mut(to.index()) {
            Some(Some(ring)) => {
                self.sent.insert(to.index());
                ring.push(redirected).map_err(|rtrb::PushError::Full(redirected)| redirected.packet)
            }
            _ => Err(redirected.packet),
        }
    }

    /// Tells those that were sent something; at the end of every turn.
    #[inline(always)]
    pub fn ring(&mut self) {
        if !self.sent.is_empty() {
            self.tell();
        }
    }

    #[cold]
    fn tell(&mut self) {
        let own = self.own.index();
        let mut at = 0;
        while let Some(to) = self.sent.next(at) {
            // What was pushed happens before the mark is seen.
            self.bells[to].senders[own / 64 % WORDS].fetch_or(1 << (own % 64), Release);
            at = to + 1;
        }
        self.sent = Workers::default();
    }

    /// Whether another worker has sent something. Asked before [`Self::next_sender`], once a turn.
    #[inline(always)]
    pub fn is_rung(&mut self) -> bool {
        let bell = &self.bells[self.own.index()];
        let rung = bell.senders.iter().any(|word| word.load(Relaxed) != 0);
        if rung {
            self.hear();
        }
        rung || !self.waiting.is_empty()
    }

    #[cold]
    fn hear(&mut self) {
        let bell = &self.bells[self.own.index()];
        for (waiting, senders) in self.waiting.0.iter_mut().zip(&bell.senders) {
            *waiting |= senders.swap(0, Acquire);
        }
    }

    /// The first worker from `from` on that has sent something.
    #[must_use]
    pub fn next_sender(&self, from: usize) -> Option<usize> {
        self.waiting.next(from)
    }

    /// Takes at most `most` packets of a sender; what is left is taken the next time.
    pub fn take(&mut self, sender: usize, most: usize, into: &mut Vec<Redirected<P>>) {
        let Some(Some(ring)) = self.from.get_mut(sender) else { return self.waiting.remove(sender) };
        let waiting = ring.slots();
        into.extend(std::iter::from_fn(|| ring.pop().ok()).take(waiting.min(most)));
        // Whatever comes after this look is told by the bell.
        if waiting <= most {
            self.waiting.remove(sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Redirect;
    use crate::id::PortId;

    fn redirected(packet: u32) -> Redirected<u32> {
        Redirected { packet, port: PortId(0), redirect: Redirect::ToOwner }
    }

    /// Everything that waits for a worker, by sender.
    fn receive(mesh: &mut Mesh<u32>, most: usize) -> Vec<(usize, Vec<u32>)> {
        let (mut all, mut at) = (Vec::new(), 0);
        if !mesh.is_rung() {
            return all;
        }
        while let Some(sender) = mesh.next_sender(at) {
            let mut taken = Vec::new();
            mesh.take(sender, most, &mut taken);
            all.push((sender, taken.into_iter().map(|one| one.packet).collect()));
            at = sender + 1;
        }
        all
    }

    #[test]
    fn every_worker_reaches_every_other_and_nobody_itself() {
        for workers in [1_u8, 2, 4, 63, 64, 65, 255] {
            let mut ends = Mesh::<u32>::make(workers);
            for from in 0..ends.len() {
                for to in 0..workers {
                    let sent = ends[from].send(WorkerId(to), redirected(u32::from(to)));
                    assert_eq!(sent.is_ok(), from != usize::from(to));
                }
                assert!(ends[from].send(WorkerId(255), redirected(0)).is_err());
                ends[from].ring();
                for (to, end) in ends.iter_mut().enumerate() {
                    let expected =
                        if to == from { vec![] } else { vec![(from, vec![u32::try_from(to).unwrap()])] };
                    assert_eq!(receive(end, 32), expected, "{workers}: {from} to {to}");
                    assert!(!end.is_rung());
                }
                if workers > 100 && from == 2 {
                    break;
                }
            }
        }
    }

    #[test]
    fn what_is_left_is_taken_the_next_time_and_nothing_is_heard_before_the_bell() {
        let mut ends = Mesh::<u32>::make(3);
        for packet in 0..70 {
            ends[2].send(WorkerId(1), redirected(packet)).unwrap();
        }
        assert_eq!(receive(&mut ends[1], 32), []);
        ends[2].ring();
        let lengths: Vec<usize> =
            std::iter::from_fn(|| receive(&mut ends[1], 32).first().map(|(_, packets)| packets.len()))
                .collect();
        assert_eq!(lengths, [32, 32, 6]);
        assert_eq!(receive(&mut ends[0], 32), []);
    }

    #[test]
    fn a_full_ring_gives_packets_back() {
        let mut ends = Mesh::<u32>::make(2);
        let sent = (0..1000).filter(|packet| ends[0].send(WorkerId(1), redirected(*packet)).is_ok()).count();
        assert_eq!((sent, Mesh::<u32>::capacity(2)), (MOST, 2 * MOST));
    }

    #[test]
    fn rings_take_memory_by_the_worker_not_by_the_pair() {
        assert_eq!([1, 2, 8, 9, 32, 64].map(Mesh::<u32>::places), [0, 512, 512, 512, 132, 65]);
        assert!([16, 32, 64].iter().all(|workers| Mesh::<u32>::capacity(*workers) <= workers * WAITING));
    }

    #[test]
    fn bells_do_not_share_a_line_nor_a_pair_of_lines() {
        assert_eq!((size_of::<Bell>(), align_of::<CachePadded<Bell>>()), (32, 128));
    }

    #[test]
    fn no_packet_stays_behind_whoever_sends_when() {
        const PACKETS: u32 = if cfg!(miri) { 100 } else { 50_000 };
        let mut ends = Mesh::<u32>::make(3);
        let mut receiver = ends.remove(0);
        std::thread::scope(|scope| {
            for mut end in ends {
                scope.spawn(move || {
                    let mut packet = 0;
                    while packet < PACKETS {
                        // Turns of different lengths.
                        for _ in 0..=packet % 5 {
                            if packet < PACKETS && end.send(WorkerId(0), redirected(packet)).is_ok() {
                                packet += 1;
                            }
                        }
                        end.ring();
                    }
                });
            }
            let mut expected = [0; 3];
            while expected[1] + expected[2] < 2 * PACKETS {
                for (sender, packets) in receive(&mut receiver, 32) {
                    for packet in packets {
                        assert_eq!(packet, expected[sender]);
                        expected[sender] += 1;
                    }
                }
                std::thread::yield_now();
            }
        });
    }
}
