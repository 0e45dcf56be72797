//! `cargo bench -p stages --bench stages`: the time of every hot stage, and of look-ups in tables of all sizes.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::pipeline::BURST;
use stages::packets::LookUp;
use stages::stage::STAGES;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Every stage that the gate counts, but those that use up what they work on.
fn stages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stage");
    group.throughput(Throughput::Elements(BURST as u64));
    let lasting = STAGES.iter().filter(|(name, _)| !name.starts_with("new") && *name != "expiry");
    for (name, make) in lasting {
        let Ok(stage) = make() else { continue };
        let stage = std::cell::RefCell::new(stage);
        group.bench_function(*name, |bencher| {
            let prepare = || stage.borrow_mut().prepare();
            bencher.iter_batched(prepare, |()| stage.borrow_mut().run(), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Look-ups among more and more connections, in an order that no cache can guess.
fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(BURST as u64));
    for connections in [1024_u32, 65_536, 1_048_576] {
        if let Ok(mut table) = LookUp::<Ipv4Addr>::new(connections) {
            group.bench_function(format!("ipv4 {connections}"), |bencher| bencher.iter(|| table.find()));
        }
        if let Ok(mut table) = LookUp::<Ipv6Addr>::new(connections) {
            group.bench_function(format!("ipv6 {connections}"), |bencher| bencher.iter(|| table.find()));
        }
    }
    group.finish();
}

criterion_group!(benches, stages, tables);
criterion_main!(benches);
