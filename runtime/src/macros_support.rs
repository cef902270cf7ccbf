//! The functions that the code of `#[umcg::main]` and `#[umcg::test]` calls. They are not meant to
//! be called by hand, and may change from one version to the next.
//!
//! Each entry point works in the same order. It builds a runtime and runs the body as a task; the
//! calling thread, which is outside of the runtime, waits for it. Then the runtime is shut down in
//! the background: a task that is blocked without end must not keep the program alive, just as
//! the threads of a plain `main` do not. Only then is the result or the panic of the body
//! passed on.

use std::process::{ExitCode, Termination};

pub use umcg_sys::ProviderChoice;

use crate::{Builder, Runtime};

/// The builder that a test starts with: one server, unless the environment sets the number.
///
/// If the value in the environment is invalid, [`Builder::build`] refuses it.
pub fn test_builder() -> Builder {
    let builder = Builder::new();
    match std::env::var_os("UMCG_SERVERS") {
        Some(_) => builder,
        None => builder.servers(1),
    }
}

/// Runs the body of `main`. Its result is reported on the worker, so it need not be `Send`.
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
            // The body has no `AbortHandle`, and the runtime was not shut down before.
            Err(error) => unreachable!("the body of an entry point was cancelled: {error}"),
        },
    }
}
