//! A runtime on which blocking code keeps every CPU busy.
//!
//! A *task* is a future or a closure. It runs on a *worker*, which is a kernel thread, and it may
//! block anywhere: in a system call, in a C library, on a mutex, in a page fault. There is a
//! *server* for each CPU. The server decides which worker runs on that CPU. When that worker blocks
//! the server is told, and runs another one. So there is one kind of function, and no number of
//! threads to tune. At most one worker of a server uses the CPU at a time.
//!
//! ```
//! use std::time::Duration;
//!
//! #[umcg::main]
//! async fn main() {
//!     let tasks: Vec<_> = (0..100)
//!         .map(|i| {
//!             umcg::spawn(async move {
//!                 // Plain blocking code, right here in a future. No other task waits for it.
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
//! | start a runtime | [`#[umcg::main]`](macro@main), [`#[umcg::test]`](macro@test), or [`Builder`] and [`Runtime`] |
//! | run a future or a closure as a task | [`spawn`], [`spawn_blocking`]; [`try_spawn`] where the number of queued tasks is limited |
//! | wait for a task | `.await` its [`JoinHandle`], or [`JoinHandle::join`], which blocks the calling thread |
//! | handle many tasks | [`JoinSet`]; [`scope`] for closures that borrow |
//! | run two closures in parallel and get both results | [`join`], in the shape of `rayon::join` |
//! | port code that uses threads | [`thread`], in the shape of [`std::thread`]; [`ThreadPool`], in the shape of the `threadpool` crate and of rayon's |
//! | wait for time | [`time`], or `std::thread::sleep` |
//! | watch the runtime | [`Handle::metrics`], and a subscriber of `tracing` (target `umcg`) |
//!
//! # Who reports a block
//!
//! UMCG was proposed on the Linux mailing list in 2021 and never merged. In that design the kernel
//! tells a server that its worker has blocked. Here a *provider* plays that part of the kernel; see
//! [`umcg_sys`]. There are two:
//!
//! * `device` is a kernel module.
//! * `emulated` works on any Linux kernel without privileges. Threads of its own watch the workers.
//!   It sees a block within microseconds on a CPU that no other program uses, and within about a
//!   millisecond on a busy one. A block that it misses costs time. A block that it reports wrongly
//!   costs a thread switch.
//!
//! A worker whose block has ended continues to the end of its poll or closure, or to its next
//! [`thread::yield_now`], before it queues up behind others. [`RuntimeMetrics`] says which provider
//! a runtime uses, and why.
//!
//! # What to know
//!
//! * A future that blocks suspends everything that is polled with it: the other branches of a
//!   `select!` or `join!` around it wait, too. Other tasks do not.
//! * Workers run many tasks, one after the other. A thread-local that one task has set may be seen
//!   by a later one, and a future may be on another worker after each `.await`.
//! * Child processes of a worker, and threads of [`std::thread`] that it makes, inherit the
//!   worker's CPU affinity and scheduling policy. [`CommandUnmanaged`] and
//!   [`unmanage_current_thread`] undo that.
//! * A runtime does not work in a forked child, and nothing of it may be called in a signal
//!   handler.
//!
//! # Coming from another runtime
//!
//! * When a runtime shuts down, closures that were spawned and have not begun are cancelled; tokio
//!   and `threadpool` run them. [`Runtime`](Runtime#shutting-down) has the rules.
//! * [`std::thread::current`] is the worker. [`thread::current`] is the thread, or the pool's job,
//!   and has its name.
//! * The leaf futures of this crate share a cooperative budget, as tokio's do: see [`task::coop`],
//!   also for what the budget does not cover.
//! * `tokio::task_local!` and tokio's `sync` types work here; its I/O and timers need a tokio
//!   runtime.
//! * [`join`] is rayon's: it runs two closures. To wait for a task is [`JoinHandle::join`], to wait
//!   for a thread is [`thread::JoinHandle::join`], and to wait for a pool is [`ThreadPool::join`].
#![cfg_attr(
    loom,
    allow(
        dead_code,
        unused_imports,
        reason = "under `--cfg loom` only the model checks are compiled, which do not use everything"
    )
)]

// Under `--cfg loom` this crate consists of its model checks only: the parts of the scheduler that
// use no lock, managed waits, and what happens to a task from its spawn to its join.
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
        mod thread_limits;
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
            CommandUnmanaged, Error as ProviderError, Provider, ProviderChoice, ProviderKind,
            SelectError, ServerCounters,
        };

        /// Call this in a thread that a task, or a library on its behalf, made with
        /// [`std::thread`]: such a thread inherits the CPU affinity and the scheduling policy of
        /// its worker. A [`thread::spawn`] does not need it.
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

        /// Makes the runtimes of this program manage the calls of libc that may sleep.
        ///
        /// A task that blocks in `recv`, `accept`, `poll`, `sleep`, `fsync`, a lock and so on, from
        /// Rust, from `std` or from C, then gives its slot away before it sleeps, and comes back
        /// through the scheduler. Nothing in that code changes: a function that an executable
        /// defines takes precedence over libc's, and this macro defines these functions. On a
        /// thread that is no worker each of them goes straight to libc, for six instructions more.
        ///
        /// `#[umcg::main]` on `fn main` includes it. Otherwise call it once, at the top level of
        /// `main.rs` or of a test's file, and never in a library: two definitions do not link, and
        /// a `cdylib` would take the functions away from the program that loads it.
        ///
        /// It is off with [`Builder::managed_calls`]`(false)`, with the environment variable
        /// `UMCG_MANAGED_CALLS=0`, and in builds without the feature `managed-calls`, where the
        /// macro expands to nothing. Which functions are managed is listed in the documentation of
        /// `umcg-managed-calls`.
        ///
        /// ```
        /// umcg::managed_calls!();
        ///
        /// fn main() {
        ///     let runtime = umcg::Runtime::new().unwrap();
        ///     let slept = runtime.spawn_blocking(|| {
        ///         std::thread::sleep(std::time::Duration::from_millis(1));
        ///     });
        ///     slept.join().unwrap();
        /// }
        /// ```
        #[macro_export]
        #[cfg(feature = "managed-calls")]
        macro_rules! managed_calls {
            () => {
                $crate::__private::umcg_managed_calls::define!();
            };
        }

        /// Expands to nothing, because the feature `managed-calls` is off.
        #[macro_export]
        #[cfg(not(feature = "managed-calls"))]
        macro_rules! managed_calls {
            () => {};
        }

        /// For the code that the attributes generate; see `macros_support.rs`.
        #[doc(hidden)]
        pub mod __private {
            pub use crate::macros_support::*;
            pub use umcg_managed_calls;
        }
    }
}

/// The code in the project's first page compiles and runs.
#[cfg(all(doctest, feature = "macros"))]
#[doc = include_str!("../../README.md")]
struct Readme;
