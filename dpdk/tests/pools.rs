//! Mempools: every buffer comes back, from every thread, and none is freed under its owner.

mod common;

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use dpdk::{Burst, Eal, EalError, Mbuf, Mempool, MempoolConfig, PoolOps};

    use super::common;

    #[test]
    fn buffers_are_conserved() {
        let eal = common::eal();
        for ops in [PoolOps::Default, PoolOps::Relaxed] {
            let config = MempoolConfig {
                name: format!("{ops:?}"),
                buffers: 1000,
                cache: 64,
                ops,
                ..MempoolConfig::default()
            };
            let pool = Mempool::new(&eal, &config).unwrap();
            assert_eq!((pool.available(), pool.in_use()), (pool.capacity(), 0));

            let all: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
            let capacity = if ops == PoolOps::Default { 1000 } else { 1024 };
            assert_eq!((all.len(), pool.capacity()), (capacity, capacity));
            assert_eq!((pool.available(), pool.in_use()), (0, capacity));
            assert!(pool.alloc().is_none());
            let mut burst: Burst = Burst::new();
            assert!(!pool.alloc_bulk(&mut burst, 1));
            drop(all);
            assert_eq!(pool.in_use(), 0);

            assert!(!pool.alloc_bulk(&mut burst, 33), "more than the burst holds");
            assert!(pool.alloc_bulk(&mut burst, 20));
            assert!(!pool.alloc_bulk(&mut burst, 13));
            assert!(pool.alloc_bulk(&mut burst, 12));
            assert!(burst.is_full() && pool.alloc_bulk(&mut burst, 0));
            bursts_own_their_packets(burst, &pool);

            // Threads that are no lcores, allocating here and freeing there.
            let (sender, receiver) = std::sync::mpsc::sync_channel::<Mbuf>(64);
            let maker = {
                let pool = pool.clone();
                thread::spawn(move || {
                    for _ in 0..20_000 {
                        if let Some(packet) = pool.alloc() {
                            sender.send(packet).unwrap();
                        }
                    }
                })
            };
            let taker = thread::spawn(move || receiver.into_iter().count());
            for _ in 0..20_000 {
                drop(pool.alloc());
            }
            maker.join().unwrap();
            assert!(taker.join().unwrap() > 0);
            assert_eq!(pool.in_use(), 0);
        }

        survives_preemption(&eal);

        // Both pools were freed above: their names are free again.
        let pool = Mempool::new(&eal, &MempoolConfig { name: "Default".into(), ..MempoolConfig::default() });
        let pool = pool.unwrap();
        let mut packet = pool.alloc().unwrap();
        drop(pool);
        assert!(packet.set_data(b"still mapped"), "a pool with buffers outstanding is leaked");
        drop(packet);
        assert!(matches!(eal.shutdown(), Err(EalError::InUse(1))), "and the EAL with it");
    }

    /// Threads without a cache, more of them than CPUs: some are preempted in the middle of a call. A ring
    /// without slots to spare loses buffers within a second of this.
    fn survives_preemption(eal: &Eal) {
        let config =
            MempoolConfig { name: "busy".into(), buffers: 16_383, cache: 0, ..MempoolConfig::default() };
        let pool = Mempool::new(eal, &config).unwrap();
        assert_eq!((pool.config().ops, pool.capacity()), (PoolOps::Relaxed, 16_384));
        let until = Instant::now() + Duration::from_secs(1);
        let threads: Vec<_> = (0..6)
            .map(|_| {
                let pool = pool.clone();
                thread::spawn(move || {
                    let mut burst: Burst = Burst::new();
                    while Instant::now() < until {
                        for _ in 0..100 {
                            let _ = pool.alloc_bulk(&mut burst, 32);
                            burst.clear();
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(pool.in_use(), 0);
        assert_eq!(std::iter::from_fn(|| pool.alloc()).collect::<Vec<_>>().len(), 16_384);
    }

    fn bursts_own_their_packets(mut burst: Burst, pool: &Mempool) {
        assert_eq!((burst.len(), burst.room(), pool.in_use()), (32, 0, 32));
        let extra = pool.alloc().unwrap();
        assert!(burst.push(extra).is_err());
        for (index, packet) in burst.iter_mut().enumerate() {
            packet.set_port(u16::try_from(index).unwrap());
        }
        assert_eq!(burst.pop().unwrap().port(), 31);
        assert_eq!(burst.swap_remove(0).unwrap().port(), 0);
        assert_eq!(burst[0].port(), 30);
        assert!(burst.swap_remove(30).is_none());
        assert_eq!((burst.len(), pool.in_use()), (30, 30));
        let mut drain = burst.drain();
        assert_eq!(drain.len(), 30);
        assert_eq!(drain.next().unwrap().port(), 30);
        assert_eq!(drain.next().unwrap().port(), 1);
        drop(drain);
        assert!(burst.is_empty());
        assert_eq!(pool.in_use(), 0, "a dropped drain frees the rest");
        assert!(pool.alloc_bulk(&mut burst, 3));
        burst.clear();
        assert_eq!((burst.len(), pool.in_use()), (0, 0));
        assert!(pool.alloc_bulk(&mut burst, 3));
        drop(burst);
        assert_eq!(pool.in_use(), 0);
    }
}
