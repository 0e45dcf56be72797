//! Mbufs against a model: a byte vector with a headroom.

mod common;

#[cfg(test)]
mod tests {
    use dpdk::{Mbuf, Mempool};
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::common;

    #[derive(Debug, Clone)]
    enum Step {
        Prepend(usize),
        Adj(usize),
        Append(usize),
        Trim(usize),
        SetData(usize),
        Reset,
        Chain(usize),
        Linearize,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let size =
            || prop_oneof![4 => 0..200_usize, 1 => 0..3000_usize, 1 => Just(usize::MAX), 1 => Just(65536)];
        let step = prop_oneof![
            3 => size().prop_map(Step::Prepend),
            3 => size().prop_map(Step::Adj),
            3 => size().prop_map(Step::Append),
            3 => size().prop_map(Step::Trim),
            1 => (0..3000_usize).prop_map(Step::SetData),
            1 => Just(Step::Reset),
            2 => (0..2048_usize).prop_map(Step::Chain),
            1 => Just(Step::Linearize),
        ];
        proptest::collection::vec(step, 1..40)
    }

    const ROOM: usize = 2048;
    const HEADROOM: usize = 128;

    /// Segments' bytes; only the first and the last are changed.
    struct Model {
        headroom: usize,
        segments: Vec<Vec<u8>>,
    }

    impl Model {
        fn tailroom(&self) -> usize {
            let used = self.segments.last().unwrap().len();
            if self.segments.len() == 1 { HEADROOM + ROOM - self.headroom - used } else { ROOM - used }
        }

        fn check(&self, packet: &Mbuf) {
            assert_eq!(packet.data(), self.segments[0]);
            assert_eq!(packet.len(), self.segments[0].len());
            assert_eq!(packet.is_empty(), self.segments[0].is_empty());
            assert_eq!(usize::from(packet.segments()), self.segments.len());
            assert_eq!(packet.packet_len(), self.segments.iter().map(Vec::len).sum::<usize>());
            assert_eq!(packet.headroom(), self.headroom);
            assert_eq!(packet.tailroom(), self.tailroom());
            assert!(packet.iter_segments().eq(self.segments.iter().map(Vec::as_slice)));
            assert!(packet.is_exclusive());
            let mut copy = vec![0; packet.packet_len()];
            assert_eq!(packet.copy_to(&mut copy), Some(copy.len()));
            assert_eq!(copy, self.segments.concat());
            if !copy.is_empty() {
                let last = copy.len() - 1;
                assert_eq!(packet.copy_to(&mut copy[..last]), None);
            }
            packet.prefetch_data();
            packet.prefetch_header();
        }
    }

    fn pattern(length: usize, round: usize) -> Vec<u8> {
        (0..length).map(|index| u8::try_from((index * 7 + round * 13) % 256).unwrap()).collect()
    }

    fn run(pool: &Mempool, steps: &[Step]) {
        let mut packet = pool.alloc().unwrap();
        assert_eq!((packet.port(), packet.rss_hash(), packet.stripped_vlan()), (u16::MAX, None, None));
        let mut model = Model { headroom: HEADROOM, segments: vec![Vec::new()] };
        for (round, step) in steps.iter().enumerate() {
            apply(pool, &mut packet, &mut model, step, round);
            model.check(&packet);
        }
    }

    fn apply(pool: &Mempool, packet: &mut Mbuf, model: &mut Model, step: &Step, round: usize) {
        match *step {
            Step::Prepend(count) => match packet.prepend(count) {
                Some(room) => {
                    assert_eq!(room.len(), count);
                    room.copy_from_slice(&pattern(count, round));
                    assert!(count <= model.headroom);
                    model.headroom -= count;
                    model.segments[0].splice(..0, pattern(count, round));
                }
                None => assert!(count > model.headroom),
            },
            Step::Adj(count) => {
                let fits = count <= model.segments[0].len();
                assert_eq!(packet.adj(count), fits);
                if fits {
                    model.segments[0].drain(..count);
                    model.headroom += count;
                }
            }
            Step::Append(count) => {
                let fits = count <= model.tailroom();
                match packet.append(count) {
                    Some(room) => {
                        assert!(fits);
                        room.copy_from_slice(&pattern(count, round));
                        model.segments.last_mut().unwrap().extend(pattern(count, round));
                    }
                    None => assert!(!fits),
                }
            }
            Step::Trim(count) => {
                let last = model.segments.last_mut().unwrap();
                let fits = count <= last.len();
                assert_eq!(packet.trim(count), fits);
                if fits {
                    last.truncate(last.len() - count);
                }
            }
            Step::SetData(length) => {
                let fits = packet.set_data(&pattern(length, round));
                assert_eq!(fits, length <= ROOM);
                model.headroom = HEADROOM;
                model.segments = vec![if fits { pattern(length, round) } else { Vec::new() }];
            }
            Step::Reset => {
                packet.reset();
                *model = Model { headroom: HEADROOM, segments: vec![Vec::new()] };
            }
            Step::Chain(length) => {
                let mut tail = pool.alloc().unwrap();
                assert!(tail.set_data(&pattern(length, round)));
                packet.chain(tail).unwrap();
                model.segments.push(pattern(length, round));
            }
            Step::Linearize => {
                let rest: usize = model.segments[1..].iter().map(Vec::len).sum();
                let room = HEADROOM + ROOM - model.headroom - model.segments[0].len();
                assert_eq!(packet.linearize(), rest <= room);
                if rest <= room {
                    model.segments = vec![model.segments.concat()];
                }
            }
        }
    }

    #[test]
    fn accessors_agree_with_the_model() {
        let eal = common::eal();
        let pool = common::pool(&eal, "packets");
        let mut runner =
            TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
        runner
            .run(&steps(), |steps| {
                run(&pool, &steps);
                assert_eq!(pool.in_use(), 0, "every segment came back");
                Ok(())
            })
            .unwrap();
    }
}
