//! Closures on worker lcores.

mod common;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use dpdk::{Burst, EalError, LaunchError, LcoreId, PortConfig};

    use super::common;

    #[test]
    fn workers_run_closures() {
        let eal = common::eal();
        let workers: Vec<LcoreId> = eal.workers().collect();
        assert_eq!(workers.iter().map(|worker| worker.get()).collect::<Vec<_>>(), [1]);
        let worker = workers[0];
        assert_eq!(eal.cpus(worker), [0]);
        assert_eq!(eal.cpus(LcoreId::current().unwrap()), dpdk::eal::allowed_cpus());
        assert_eq!(eal.socket(worker), 0);

        let handle = eal
            .launch(worker, || {
                let status = fs::read_to_string("/proc/thread-self/status").unwrap();
                let cpus = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
                (LcoreId::current(), cpus.rsplit('\t').next().unwrap().to_owned())
            })
            .unwrap();
        assert_eq!(handle.join().unwrap(), (Some(worker), "0".to_owned()), "bound to its CPU");

        let main = LcoreId::current().unwrap();
        assert_eq!(eal.launch(main, || ()).unwrap_err(), LaunchError::NotAWorker(main));

        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let busy = eal
            .launch(worker, move || {
                while !seen.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                42
            })
            .unwrap();
        assert!(!busy.is_finished());
        assert_eq!(eal.launch(worker, || ()).unwrap_err(), LaunchError::Busy(worker));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(busy.join().unwrap(), 42);

        // A queue moves to its worker, and the port closes when the worker returns.
        let pool = common::pool(&eal, "packets");
        let mut port = eal.attach("net_null0").unwrap().start(&PortConfig::default(), &pool).unwrap();
        let (mut rx, mut tx) = (port.rx_queue(0).unwrap(), port.tx_queue(0).unwrap());
        let mine = pool.clone();
        let handle = eal
            .launch(worker, move || {
                let mut forwarded = 0;
                let mut burst: Burst = Burst::new();
                for _ in 0..1000 {
                    assert_eq!(rx.receive(&mut burst), 32);
                    forwarded += tx.transmit(&mut burst);
                    assert!(burst.is_empty());
                }
                assert!(mine.alloc().is_some_and(|packet| packet.is_empty()));
                forwarded
            })
            .unwrap();
        assert_eq!(handle.join().unwrap(), 32_000);
        assert_eq!(port.stats().unwrap().tx_packets, 32_000);
        port.close().unwrap();
        assert_eq!(pool.in_use(), 0, "the worker's cache counts as available");

        if cfg!(panic = "unwind") {
            let handle = eal.launch(worker, || panic!("on purpose")).unwrap();
            let cause = handle.join().unwrap_err();
            assert_eq!(cause.downcast_ref::<&str>(), Some(&"on purpose"));
            assert_eq!(eal.launch(worker, || 7).unwrap().join().unwrap(), 7, "the lcore survives");
        }

        // A handle that is dropped leaves its worker running: the EAL must then stay.
        drop(pool);
        drop(eal.launch(worker, || ()).unwrap());
        assert!(matches!(eal.shutdown(), Err(EalError::InUse(1))));
    }
}
