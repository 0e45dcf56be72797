//! `cargo bench -p stages --bench schedulers`: a choice and its connection's life, by scheduler and number of destinations.

use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::snapshot::SchedulerKind;
use stages::scheduling::{Refill, Service};
use std::hint::black_box;
use std::time::Duration;

/// Every scheduler with few, some and many destinations.
fn choices(criterion: &mut Criterion) {
    for scheduler in SchedulerKind::ALL {
        let mut group = criterion.benchmark_group(scheduler.name());
        group.sample_size(20).warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_secs(1));
        for destinations in [2_u32, 100, 10_000] {
            let Ok(mut service) = Service::new(scheduler, destinations) else { continue };
            group.bench_function(destinations.to_string(), |bencher| {
                bencher.iter(|| black_box(service.live()));
            });
        }
        group.finish();
    }
}

/// A changed weight under mh with a table of 65,537 slots.
fn fills(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mh fill");
    group.sample_size(20);
    for destinations in [2_u32, 100, 10_000] {
        let Ok(mut refill) = Refill::new(destinations) else { continue };
        group.bench_function(destinations.to_string(), |bencher| bencher.iter(|| black_box(refill.edit())));
    }
    group.finish();
}

criterion_group!(benches, choices, fills);
criterion_main!(benches);
