//! Managed calls: libc's blocking functions, entered through definitions that tell a scheduler
//! before the calling thread sleeps and after.
//!
//! # What problem this solves
//!
//! A user-space scheduler of threads wants to know when a thread is about to sleep in the kernel,
//! so that it can run another one, and it wants the thread to ask before it runs on. Neither is
//! possible without the kernel's help, except where the program goes through code of ours. A
//! function that an executable defines takes precedence over the one of the same name in a shared
//! library. So a program that defines `recv` is asked by std, by its crates and by the C libraries
//! that it uses, without a change to any of them.
//!
//! # How it works
//!
//! Only a final executable may define such symbols: a library that did would change the program
//! that loads it. So this crate has ordinary functions, and the macro [`define!`] makes symbols of
//! them, in the one place where it is called:
//!
//! ```no_run
//! umcg_managed_calls::define!();
//!
//! fn main() {}
//! ```
//!
//! Each function looks first whether its thread is a worker ([`set_current`]). If not it goes
//! straight to the next definition, which is libc's or another interposer's: one load, one branch
//! and a jump. On a worker it calls [`Worker::enter`], then libc, then [`Worker::exit`].
//!
//! A function that has a form which cannot sleep tries that form first, so a call that does not
//! sleep costs nothing: `recv` with `MSG_DONTWAIT`, `poll` with a timeout of zero, a lock by its
//! `try` function. The others say that they may sleep ([`Sleep::Possible`]).
//!
//! # Why it is correct
//!
//! A managed call ends in the call that the program made, with the same arguments, unless the form
//! that was tried first has succeeded or has failed for another reason than that it would have to
//! wait. Results, `errno`, partial transfers, timeouts, `EINTR` and cancellation are libc's own.
//! The tests of this crate compare each function with the unmanaged one.
//!
//! While `enter`, the call and `exit` run, the thread does not count as a worker. So a signal
//! handler may call managed functions at any time, and code inside of `enter` and `exit` that calls
//! libc does not come back here.
//!
//! # What is not seen
//!
//! Page faults; system calls by assembly (as `rustix` makes them) or inside of libc (`getaddrinfo`,
//! `fclose`, `popen`, stdio, locks of `malloc`); libraries that were opened with `RTLD_DEEPBIND` or
//! that have definitions of their own. A scheduler needs another way to learn of those. [`names`]
//! lists what is covered.

mod data;
mod descriptors;
mod family;
mod files;
mod futex;
mod next;
mod process;
mod raw;
#[cfg(not(target_feature = "crt-static"))]
mod start;
#[cfg(not(target_feature = "crt-static"))]
mod threads;
#[doc(hidden)]
pub mod types;
mod waiters;
mod waiting;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub use crate::worker::{
    CurrentWorker, Inherited, ManagedCall, Parked, Readiness, Return, Sleep, Waker, Worker,
    is_managed, set_current,
};

/// The managed functions as ordinary ones; for [`define!`].
#[doc(hidden)]
pub mod calls {
    pub use crate::{data::*, descriptors::*, files::*, futex::*, process::*, waiting::*};
    #[cfg(not(target_feature = "crt-static"))]
    pub use crate::{start::*, threads::*};
}

/// The families that this build covers: their names and their functions' next definitions.
static FAMILIES: &[(&[&str], &[&next::Next])] = &[
    (data::NAMES, data::NEXT),
    (waiting::NAMES, waiting::NEXT),
    (files::NAMES, files::NEXT),
    (futex::NAMES, futex::NEXT),
    #[cfg(not(target_feature = "crt-static"))]
    (threads::NAMES, threads::NEXT),
    #[cfg(not(target_feature = "crt-static"))]
    (start::NAMES, start::NEXT),
    (process::NAMES, process::NEXT),
    (descriptors::NAMES, descriptors::NEXT),
];

/// The names of the managed functions.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|(names, _)| names.iter().copied())
}

/// Whether this program has called [`define!`], so that its calls are managed.
static DEFINED: AtomicBool = AtomicBool::new(false);

/// Whether the calls of this program are managed: whether it has called [`define!`].
#[must_use]
pub fn is_defined() -> bool {
    // Relaxed: set before `main`.
    DEFINED.load(Relaxed)
}

/// Looks up the next definition of every function. A program's start-up calls it (see
/// [`define!`]); otherwise each function looks at its first call, which takes the dynamic loader's
/// lock and so must not happen in a signal handler.
pub fn prepare() {
    waiters::prepare();
    DEFINED.store(true, Relaxed);
    for (_, next) in FAMILIES {
        for next in *next {
            let _ = next.look_up();
        }
    }
}

/// Defines the symbols of all managed calls in the crate that calls it, which must be a final
/// executable. Once in a program: a second call is an error of the linker.
///
/// A `cdylib` must not call it: it would take the functions away from the program that loads it.
#[macro_export]
macro_rules! define {
    () => {
        #[doc(hidden)]
        #[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all)]
        mod __umcg_managed_calls {
            use $crate::types::*;

            $crate::__define_data!();
            $crate::__define_waiting!();
            $crate::__define_files!();
            $crate::__define_futex!();
            $crate::__define_threads_if_dynamic!();
            $crate::__define_process!();
            $crate::__define_descriptors!();

            extern "C" fn prepare() {
                $crate::prepare();
            }

            /// Called by the C start-up code before `main`.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static PREPARE: extern "C" fn() = prepare;
        }
    };
}

/// See `threads.rs` and `start.rs`.
#[doc(hidden)]
#[macro_export]
#[cfg(not(target_feature = "crt-static"))]
macro_rules! __define_threads_if_dynamic {
    () => {
        $crate::__define_threads!();
        $crate::__define_start!();
    };
}

/// See `threads.rs` and `start.rs`.
#[doc(hidden)]
#[macro_export]
#[cfg(target_feature = "crt-static")]
macro_rules! __define_threads_if_dynamic {
    () => {};
}
