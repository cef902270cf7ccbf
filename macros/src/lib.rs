//! `#[umcg::main]` and `#[umcg::test]`.
//!
//! This crate is a part of `umcg`, which re-exports both attributes. Use them from there.

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
/// `main` may be an `async fn` or a plain `fn`, since a task may block:
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
/// The program builds a runtime and runs the body on one of its workers, so that the body may block
/// like any other task. The main thread waits until the body has ended. It does not wait for other
/// tasks, as a plain `main` does not wait for its threads ([`Runtime::shutdown_background`]): join
/// the tasks that have to finish. Closures that were spawned and have not begun by then are
/// dropped without being called.
///
/// The body may return whatever a plain `main` may return ([`Termination`]). The value need not be
/// `Send`, since it is reported on the worker. A panic of the body continues in the main thread,
/// and the program ends as with a plain `main`. If the runtime cannot be built, the program prints
/// the reason and exits with a failure.
///
/// The body has the stack of a worker, which is smaller than that of the main thread: see
/// `thread_stack_size`. If a library must be called on the main thread itself, write a plain `main`
/// that makes a [`Runtime`].
///
/// On `fn main` the attribute also asks for managed calls, as [`managed_calls!`] does: a task that
/// blocks in libc gives its slot away before it sleeps. So the attribute belongs in the
/// executable's own `main.rs`, and such a program must not call the macro a second time.
///
/// A function with another name does not ask for managed calls, because a program may have several
/// such functions. Call `umcg::managed_calls!()` once in `main.rs` if it is to have them. Such a
/// function builds a runtime at each call, runs its body there, and returns
/// the result, which has to be `Send`.
///
/// # Options
///
/// The defaults are those of [`Builder`], including the environment variables. A value may be any
/// expression of the type, except that of `provider`, which is one of the texts.
///
/// | option | type | meaning |
/// |---|---|---|
/// | `servers` | `usize` | the number of servers: how many tasks run at the same time |
/// | `max_workers` | `usize` | the worker limit: how many threads there may be, blocked ones included |
/// | `min_idle_workers` | `usize` | how many idle workers each server keeps |
/// | `keep_alive` | `Duration` | how long other idle workers are kept |
/// | `name` or `thread_name` | text | what the names of the threads begin with |
/// | `thread_stack_size` | `usize` | the stack of each worker in bytes, and so that of `main` |
/// | `provider` | `"auto"`, `"emulated"`, `"device"` | which provider reports blocks |
/// | `pin` | `bool` | whether servers are pinned to CPUs |
/// | `crate` | path | the path of the crate `umcg`, if it has another name |
///
/// [`Builder`]: https://docs.rs/umcg/latest/umcg/struct.Builder.html
/// [`managed_calls!`]: https://docs.rs/umcg/latest/umcg/macro.managed_calls.html
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
/// This works like [`main`](macro@main) and has the same options. The default is one server, unless
/// `UMCG_SERVERS` sets the number, so no two tasks run at the same time until one of them blocks.
///
/// The attribute adds `#[test]` and keeps the function's other attributes (`#[ignore]`,
/// `#[should_panic]`, `#[cfg]`). The test fails if its body panics or returns an error. A panic of
/// one of its tasks is in the `JoinHandle` of that task.
#[proc_macro_attribute]
pub fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(Entry::Test, options.into(), item.into()).into()
}
