//! `#[umcg::main]` and `#[umcg::test]`.
//!
//! Use them by the names that the crate `umcg` gives them; this crate is a part of it.

mod expand;
mod options;

use proc_macro::TokenStream;

use crate::expand::{Entry, expand};

/// Runs `main` as a task of a new runtime.
///
/// ```
/// #[umcg::main]
/// async fn main() -> std::io::Result<()> {
///     let size = umcg::spawn(async { std::fs::read("Cargo.toml").map(|text| text.len()) });
///     println!("{} bytes", size.await.expect("the task panicked")?);
///     Ok(())
/// }
/// ```
///
/// An `async fn` and a plain `fn` are both fine, since a task may block:
///
/// ```
/// #[umcg::main(servers = 2, name = "hello")]
/// fn main() {
///     let sum = umcg::spawn_blocking(|| 1 + 1).join().expect("the task panicked");
///     assert_eq!(sum, 2);
/// }
/// ```
///
/// # What happens
///
/// A runtime is built, and the body runs on one of its workers, so that it may block like any
/// other task. The program's main thread waits for its end, and nothing else: tasks that still
/// run or are blocked then are not waited for, like the threads of a plain `main`
/// ([`Runtime::shutdown_background`]). Join what has to be finished.
///
/// What `main` returns may be anything that a plain `main` may return ([`Termination`]), and
/// need not be `Send`: it is reported on the worker. A panic of the body goes on in the main
/// thread, and the program ends as with a plain `main`. If the runtime cannot be built, the
/// reason is printed and the exit code is a failure.
///
/// The body has a worker's stack, which is smaller than that of the main thread: see
/// `thread_stack_size`. A library that must be called on the main thread itself needs a plain
/// `main` and a [`Runtime`].
///
/// On a function with another name it makes that function build a runtime at each call, run its
/// body there, and return the result, which then has to be `Send`.
///
/// # Options
///
/// What is not said is as in [`Builder`], environment variables included. A value may be any
/// expression of the type.
///
/// | option | type | meaning |
/// |---|---|---|
/// | `servers` | `usize` | how many tasks run at the same time |
/// | `max_workers` | `usize` | how many threads there may be, blocked ones included |
/// | `min_idle_workers` | `usize` | how many idle threads each server keeps ready |
/// | `keep_alive` | `Duration` | how long other idle threads are kept |
/// | `name` or `thread_name` | text | how the threads' names begin |
/// | `thread_stack_size` | `usize` | a worker's stack in bytes, and so that of `main` |
/// | `provider` | `"auto"`, `"emulated"`, `"device"` | who reports blocks |
/// | `pin` | `bool` | whether servers are pinned to CPUs |
/// | `crate` | path | the crate `umcg` under another name |
///
/// [`Builder`]: https://docs.rs/umcg/latest/umcg/struct.Builder.html
/// [`Runtime`]: https://docs.rs/umcg/latest/umcg/struct.Runtime.html
/// [`Runtime::shutdown_background`]: https://docs.rs/umcg/latest/umcg/struct.Runtime.html#method.shutdown_background
/// [`Termination`]: std::process::Termination
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(Entry::Main, options.into(), item.into()).into()
}

/// Runs a test as a task of a runtime of its own.
///
/// ```no_run
/// #[umcg::test]
/// async fn both_finish() {
///     let slow = umcg::spawn_blocking(|| std::thread::sleep(std::time::Duration::from_millis(5)));
///     let quick = umcg::spawn(async { 1 });
///     assert_eq!(quick.await.unwrap(), 1);
///     slow.await.unwrap();
/// }
///
/// #[umcg::test(servers = 2)]
/// #[should_panic(expected = "on purpose")]
/// fn plain_functions_too() {
///     panic!("on purpose");
/// }
/// ```
///
/// As [`main`](macro@main), with the same options, but with one server if neither the test nor
/// `UMCG_SERVERS` says otherwise: so no two tasks run at the same time, until one of them
/// blocks. The test's own attributes (`#[ignore]`, `#[should_panic]`, `#[cfg]`) are kept; `#[test]` is added. A test
/// fails when its body panics or returns an error; panics of its tasks are in their
/// `JoinHandle`s.
#[proc_macro_attribute]
pub fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(Entry::Test, options.into(), item.into()).into()
}
