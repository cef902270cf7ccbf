//! Single operations, measured with criterion. Each operation is a group with all systems.
//!
//! Run `cargo bench --manifest-path benches/Cargo.toml`. criterion measures one system after the
//! other, while the program `umcg-benches` lets them take turns.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use umcg_benches::{
    for_futures,
    sets::work,
    system::{System, Systems},
};

// As in the program `umcg-benches`.
umcg::managed_calls!();

fn name<S: System>(_: &'static S) -> &'static str {
    S::NAME
}

fn micro(c: &mut Criterion) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let systems = Systems::start(workers);

    let mut group = c.benchmark_group("spawn_one");
    for_futures!(systems, s => group.bench_function(BenchmarkId::from_parameter(name(s)), |b| {
        b.iter(|| work::spawn_one(s));
    }));
    group.finish();

    // In a task, so on a worker: no other thread has to wake up.
    let mut group = c.benchmark_group("spawn_join_on_worker");
    for_futures!(systems, s => group.bench_function(BenchmarkId::from_parameter(name(s)), |b| {
        b.iter_custom(|count| {
            s.block_on(s.spawn(async move {
                let begin = std::time::Instant::now();
                for i in 0..count {
                    black_box(s.spawn(async move { i }).await);
                }
                begin.elapsed()
            }))
        });
    }));
    group.finish();

    let mut group = c.benchmark_group("spawn_blocking_noop_await");
    macro_rules! blocking {
        ($($s:expr),*) => {$({
            let s = $s;
            group.bench_function(BenchmarkId::from_parameter(name(s)), |b| {
                b.iter_custom(|count| {
                    s.block_on(s.spawn(async move {
                        let begin = std::time::Instant::now();
                        for i in 0..count {
                            black_box(s.spawn_blocking(move || i).await);
                        }
                        begin.elapsed()
                    }))
                });
            });
        })*};
    }
    blocking!(systems.umcg, systems.tokio, systems.async_executor);
    group.finish();

    let mut group = c.benchmark_group("ping_pong");
    for_futures!(systems, s => group.bench_function(BenchmarkId::from_parameter(name(s)), |b| {
        b.iter(|| work::ping_pong(s));
    }));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = micro
}
criterion_main!(benches);
