//! Work that shows whether a runtime does what it is for, whatever else is wrong.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use umcg::Runtime;

use super::{Dam, eventually};

/// A mix of futures and closures, most of which sleep a millisecond: all results arrive.
///
/// # Panics
/// If one is lost or wrong.
#[track_caller]
pub fn overlap(runtime: &Runtime, tasks: u64) {
    let handles: Vec<_> = (0..tasks)
        .map(|i| match i % 4 {
            0 => runtime.spawn(async move {
                umcg::yield_now().await;
                i
            }),
            1 => runtime.spawn(async move {
                thread::sleep(Duration::from_millis(1));
                umcg::yield_now().await;
                i
            }),
            _ => runtime.spawn_blocking(move || {
                thread::sleep(Duration::from_millis(1));
                i
            }),
        })
        .collect();
    for (i, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.join().expect("no task fails"), i as u64);
    }
}

/// With as many tasks blocked as there are servers, and one more, another one still runs, and
/// in good time; then the blocked ones finish.
///
/// # Panics
/// If not.
#[track_caller]
pub fn blocks_are_seen(runtime: &Runtime) {
    let blocked = runtime.metrics().servers().len() + 1;
    let dam = Arc::new(Dam::new());
    let handles: Vec<_> = (0..blocked)
        .map(|i| {
            let dam = Arc::clone(&dam);
            runtime.spawn_blocking(move || {
                dam.wait();
                i
            })
        })
        .collect();
    eventually("all are blocked", || dam.waiting() == blocked);
    let begun = Instant::now();
    assert_eq!(runtime.spawn(async { 7 }).join().expect("it runs"), 7);
    // A worker was blocked, so this took the next one: a block bound, with room for noise.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    dam.open();
    for (i, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.join().expect("it ends"), i);
    }
}
