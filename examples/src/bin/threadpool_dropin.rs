//! A program that was written for the crate `threadpool`, with one line changed:
//! `use umcg::ThreadPool`.
//!
//! The size of the pool still limits how many jobs run at the same time, and a job that blocks
//! still counts. The difference is that the pool shares its threads with all other tasks of the
//! runtime, which run while its jobs block.

use std::{sync::mpsc, thread, time::Duration};

use umcg::ThreadPool;

fn main() {
    let jobs = 16;
    let pool = ThreadPool::with_name("resolver".into(), 4);

    let (sender, receiver) = mpsc::channel();
    for job in 0..jobs {
        let sender = sender.clone();
        pool.execute(move || {
            // Stands for a query to another machine.
            thread::sleep(Duration::from_millis(20));
            sender.send(job * job).expect("the receiver waits");
        });
    }
    drop(sender);
    println!(
        "{} jobs run, {} are queued, at most {} at a time",
        pool.active_count(),
        pool.queued_count(),
        pool.max_count()
    );

    let sum: u64 = receiver.iter().sum();
    println!("the sum of the squares below {jobs} is {sum}");

    pool.execute(|| panic!("a job that panics takes no thread with it"));
    pool.join();
    println!("all jobs are done, {} panicked", pool.panic_count());
}
