//! What the code that `#[umcg::main]` and `#[umcg::test]` make calls. Nothing here is for use by
//! hand, and nothing of it is promised from one version to the next.
//!
//! The order is the same in all of them: build; run the body as a task; the calling thread waits
//! for it outside the runtime; shut down in the background, since a task that is blocked for ever
//! must not keep the program (the threads of a plain `main` do not either); only then pass on
//! the result or the panic.

use std::process::{ExitCode, Termination};

pub use umcg_sys::ProviderChoice;

use crate::{Builder, Runtime};

/// What a test starts from: one server, unless the environment says how many.
///
/// An invalid value there is left for [`Builder::build`] to refuse.
pub fn test_builder() -> Builder {
    let builder = Builder::new();
    match std::env::var_os("UMCG_SERVERS") {
        Some(_) => builder,
        None => builder.servers(1),
    }
}

/// Runs `main`'s body. Its result is reported on the worker, so it need not be `Send`.
#[must_use]
pub fn run_main<R, F>(builder: Builder, body: F) -> ExitCode
where
    R: Termination,
    F: FnOnce() -> R + Send + 'static,
{
    match builder.build() {
        Ok(runtime) => run(runtime, || body().report()),
        Err(error) => {
            eprintln!("umcg: the runtime cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the body of a test that returns something.
///
/// # Panics
///
/// With the body's panic, or if the runtime cannot be built.
#[must_use]
pub fn run_test<R, F>(builder: Builder, body: F) -> ExitCode
where
    R: Termination,
    F: FnOnce() -> R + Send + 'static,
{
    run_function(builder, || body().report())
}

/// Runs the body of a test without a result, or of a function that is not `main`.
///
/// # Panics
///
/// With the body's panic, or if the runtime cannot be built.
pub fn run_function<R, F>(builder: Builder, body: F) -> R
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    match builder.build() {
        Ok(runtime) => run(runtime, body),
        Err(error) => panic!("the runtime cannot be started: {error}"),
    }
}

fn run<R, F>(runtime: Runtime, body: F) -> R
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    let result = runtime.spawn_blocking(body).join();
    runtime.shutdown_background();
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Nobody has a handle to abort it by, and the runtime was up.
            Err(error) => unreachable!("the body of an entry point was cancelled: {error}"),
        },
    }
}
