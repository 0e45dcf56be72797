//! What an mbuf costs: per operation, by ring algorithm and by kind of thread, alone and while threads
//! without a cache compete on the same CPUs.
//!
//! `cargo run --release -p dpdk --example pool_cost` (root; hugepages are used when there are any)

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dpdk::{Burst, Eal, EalConfig, Mempool, MempoolConfig, PoolOps, tsc, tsc_hz};

/// Rounds between two readings of the clock.
const CHUNK: u32 = 256;

/// Median cycles per mbuf over chunks of rounds, and the slowest chunk in microseconds, in at most a second.
fn measure(mut round: impl FnMut() -> u32) -> (f64, f64) {
    let mut costs = Vec::new();
    let mut slowest = 0;
    let start = tsc();
    while costs.len() < 2000 && tsc() - start < tsc_hz() {
        let before = tsc();
        let mbufs: u32 = (0..CHUNK).map(|_| round()).sum();
        let cycles = tsc() - before;
        slowest = slowest.max(cycles);
        costs.push(cycles as f64 / f64::from(mbufs.max(1)));
    }
    costs.sort_by(f64::total_cmp);
    (costs.get(costs.len() / 2).copied().unwrap_or(0.0), slowest as f64 * 1e6 / tsc_hz() as f64)
}

fn single(pool: &Mempool) -> (f64, f64) {
    measure(|| u32::from(std::hint::black_box(pool.alloc()).is_some()))
}

fn bulk(pool: &Mempool) -> (f64, f64) {
    let mut burst: Burst = Burst::new();
    measure(|| {
        let got = pool.alloc_bulk(&mut burst, 32);
        burst.clear();
        if got { 32 } else { 0 }
    })
}

fn report(what: &str, (single, single_slowest): (f64, f64), (bulk, bulk_slowest): (f64, f64)) {
    println!(
        "{what:50} single {single:7.1} cyc (slowest {single_slowest:8.1} us)   bulk 32 {bulk:6.1} cyc \
         (slowest {bulk_slowest:8.1} us)"
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let cpus = dpdk::eal::allowed_cpus();
    let last = cpus.last().copied().unwrap_or(0);
    let eal = Eal::init(&EalConfig {
        file_prefix: format!("uvs-pool-cost-{}", std::process::id()),
        memory_mib: 128,
        worker_cpus: vec![last],
        ..EalConfig::default()
    })?;
    println!("{}; {} MHz", eal.memory(), tsc_hz() / 1_000_000);
    let worker = eal.workers().next().ok_or("no worker")?;
    for (ops, cache) in
        [(PoolOps::Default, 256), (PoolOps::Relaxed, 256), (PoolOps::Default, 0), (PoolOps::Relaxed, 0)]
    {
        let config = MempoolConfig {
            name: format!("{ops:?}{cache}"),
            buffers: 16383,
            cache,
            ops,
            ..MempoolConfig::default()
        };
        let pool = Mempool::new(&eal, &config)?;
        let mine = pool.clone();
        let run = move || (single(&mine), bulk(&mine));
        let (one, many) = eal.launch(worker, run.clone())?.join().map_err(|_| "the worker panicked")?;
        report(&format!("{ops:?}, cache {cache}: lcore alone"), one, many);
        let (one, many) = thread::spawn(run.clone()).join().map_err(|_| "the thread panicked")?;
        report(&format!("{ops:?}, cache {cache}: other thread alone"), one, many);

        let stop = Arc::new(AtomicBool::new(false));
        let rivals: Vec<_> = (0..2)
            .map(|_| {
                let (pool, stop) = (pool.clone(), Arc::clone(&stop));
                thread::spawn(move || {
                    let mut burst: Burst = Burst::new();
                    while !stop.load(Ordering::Relaxed) {
                        let _ = pool.alloc_bulk(&mut burst, 32);
                        burst.clear();
                    }
                })
            })
            .collect();
        let (one, many) = eal.launch(worker, run)?.join().map_err(|_| "the worker panicked")?;
        stop.store(true, Ordering::Relaxed);
        for rival in rivals {
            rival.join().map_err(|_| "a rival panicked")?;
        }
        report(&format!("{ops:?}, cache {cache}: lcore, 2 other threads"), one, many);
        println!("  in use afterwards: {}", pool.in_use());
    }
    Ok(())
}
