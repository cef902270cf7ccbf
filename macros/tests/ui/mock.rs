//! The parts of the runtime that the expanded code uses, with a thread in place of a worker.

#![allow(dead_code)]

use std::{
    future::Future,
    pin::pin,
    process::Termination,
    task::{Context, Poll, Waker},
    time::Duration,
};

pub struct Builder;

impl Builder {
    pub fn new() -> Self {
        Self
    }
    pub fn servers(self, _: usize) -> Self {
        self
    }
    pub fn max_workers(self, _: usize) -> Self {
        self
    }
    pub fn min_idle_workers(self, _: usize) -> Self {
        self
    }
    pub fn keep_alive(self, _: Duration) -> Self {
        self
    }
    pub fn thread_name(self, _: impl Into<String>) -> Self {
        self
    }
    pub fn thread_stack_size(self, _: usize) -> Self {
        self
    }
    pub fn provider(self, _: __private::ProviderChoice) -> Self {
        self
    }
    pub fn pin(self, _: bool) -> Self {
        self
    }
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the mock polls once"),
    }
}

pub mod __private {
    use super::*;
    use std::process::ExitCode;

    pub enum ProviderChoice {
        Auto,
        Emulated,
        Device,
    }

    pub fn test_builder() -> Builder {
        Builder::new()
    }

    pub fn run_main<R: Termination>(
        _: Builder,
        body: impl FnOnce() -> R + Send + 'static,
    ) -> ExitCode {
        std::thread::spawn(|| body().report()).join().unwrap()
    }

    pub fn run_test<R: Termination>(
        builder: Builder,
        body: impl FnOnce() -> R + Send + 'static,
    ) -> ExitCode {
        run_main(builder, body)
    }

    pub fn run_function<R: Send + 'static>(
        _: Builder,
        body: impl FnOnce() -> R + Send + 'static,
    ) -> R {
        match std::thread::spawn(body).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The definitions of libc's functions: none.
#[allow(unused_macros)]
macro_rules! managed_calls {
    () => {};
}
#[allow(unused_imports)]
pub(crate) use managed_calls;
