//! A runtime on which blocking code keeps every CPU busy.
//!
//! A *task* is a future or a closure. It runs on a *worker*, a real kernel thread, and may block
//! anywhere: in a system call, a C library, a mutex, a page fault. A *server* for each CPU picks
//! which worker runs; when that worker blocks the server is told, and runs another. So there is
//! one kind of function, no thread count to tune, and at most one managed worker a server on a
//! CPU.
//!
//! ```
//! use std::time::Duration;
//!
//! #[umcg::main]
//! async fn main() {
//!     let tasks: Vec<_> = (0..100)
//!         .map(|i| {
//!             umcg::spawn(async move {
//!                 // Plain blocking code, right here in a future: nothing stalls.
//!                 std::thread::sleep(Duration::from_millis(5));
//!                 i
//!             })
//!         })
//!         .collect();
//!     let mut sum = 0;
//!     for task in tasks {
//!         sum += task.await.unwrap();
//!     }
//!     assert_eq!(sum, 4950);
//! }
//! ```
//!
//! # What to use
//!
//! | to | use |
//! |---|---|
//! | start | [`#[umcg::main]`](macro@main), [`#[umcg::test]`](macro@test), or [`Builder`] and [`Runtime`] |
//! | run a future, a closure | [`spawn`], [`spawn_blocking`]; at a full queue [`try_spawn`] |
//! | wait for it | `.await` a [`JoinHandle`], or [`JoinHandle::join`], which blocks and may |
//! | many of them | [`JoinSet`]; [`scope`] for closures that borrow; [`join`] for two |
//! | keep code that uses threads | [`thread`], in the shape of [`std::thread`]; [`ThreadPool`], in that of the `threadpool` crate |
//! | wait for time | [`time`], or `std::thread::sleep` |
//! | see what goes on | [`Handle::metrics`], the feature `tracing` |
//!
//! # Who reports a block
//!
//! A *provider* plays the part of the kernel that UMCG, as designed on the Linux mailing list in
//! 2021 and never merged, would have: see [`umcg_sys`]. The `device` one is a kernel
//! module's; `emulated` works on any Linux without privilege, by helper threads. Its blocks are seen
//! within microseconds on a CPU that nobody else uses, within a millisecond or so on a busy one;
//! a block that is not seen costs time, one that is seen wrongly a thread switch. A worker whose
//! block is over runs on to the end of its poll or closure, or its next [`thread::yield_now`],
//! before it queues up behind others. [`RuntimeMetrics`] says which provider is used and why.
//!
//! # What to know
//!
//! * Blocking inside a future suspends that future, with everything that is polled by it: the
//!   other branches of a `select!` or `join!` wait too. Other tasks do not.
//! * Workers are used again: a thread-local of one task may be seen by a later one, and a future
//!   may go on on another worker after each `.await`.
//! * Children of a worker, and threads of [`std::thread`] that it makes, inherit its CPU pin and
//!   policy; [`CommandUnmanaged`] and [`unmanage_current_thread`] undo that.
//! * A runtime is not for a forked child, and none of its calls is for a signal handler.
#![cfg_attr(
    loom,
    allow(
        dead_code,
        unused_imports,
        reason = "under `--cfg loom` only the model checks are compiled, which do not use everything"
    )
)]

// Under `--cfg loom` this crate consists of its model checks only: the parts of the scheduler that
// use no lock, the parker, and the way of a task from spawn to join.
cfg_if::cfg_if! {
    if #[cfg(loom)] {
        mod block_on;
        mod events;
        mod panic;
        #[path = "sched/model.rs"]
        mod sched;
        mod sync;
        pub mod task;
        mod wait;

        pub use crate::block_on::block_on;
    } else {
        mod block_on;
        mod builder;
        mod driver;
        mod error;
        mod events;
        mod handle;
        mod hooks;
        mod join;
        mod macros_support;
        mod metrics;
        mod panic;
        mod runtime;
        mod sched;
        mod spawn;
        mod sync;
        pub mod task;
        #[cfg(test)]
        mod testing;
        pub mod thread;
        pub mod thread_pool;
        pub mod time;
        mod wait;

        pub use crate::{
            block_on::block_on,
            builder::Builder,
            error::{BuildError, TryCurrentError, TrySpawnError},
            handle::{EnterGuard, Handle},
            join::join,
            metrics::{RuntimeMetrics, ServerMetrics, WorkerCounts},
            runtime::Runtime,
            spawn::{block_in_place, spawn, spawn_blocking, try_spawn},
            task::{AbortHandle, JoinError, JoinHandle, JoinSet, yield_now},
            thread::scope::{Scope, ScopedJoinHandle, scope},
            thread_pool::ThreadPool,
        };
        #[cfg(feature = "macros")]
        pub use umcg_macros::{main, test};
        pub use umcg_sys::{
            CommandUnmanaged, Provider, ProviderChoice, ProviderKind, ServerCounters,
        };

        /// For a thread that a task made with [`std::thread`], or that a library made for it: such
        /// a thread inherits its worker's CPU and scheduling policy. A [`thread::spawn`] needs
        /// nothing of the kind.
        ///
        /// ```
        /// # umcg::Runtime::new().unwrap().block_on(async {
        /// # umcg::spawn(async {
        /// let thread = std::thread::spawn(|| {
        ///     umcg::unmanage_current_thread();
        ///     std::thread::available_parallelism().unwrap().get()
        /// });
        /// println!("{} CPUs for it", thread.join().unwrap());
        /// # }).await.unwrap();
        /// # });
        /// ```
        #[doc(inline)]
        pub use umcg_sys::unmanage_current_thread;

        /// For the code that the attributes make; see `macros_support.rs`.
        #[doc(hidden)]
        pub mod __private {
            pub use crate::macros_support::*;
        }
    }
}

/// The code in the project's first page compiles and runs.
#[cfg(all(doctest, feature = "macros"))]
#[doc = include_str!("../../README.md")]
struct Readme;
