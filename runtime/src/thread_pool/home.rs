//! The runtime that a pool's jobs run on.

use std::{env, io, sync::OnceLock};

use crate::{Builder, Handle, Runtime, builder::MAX_WORKERS_ENV, context};

/// The limit on workers of the runtime that pools share, unless the environment says. Each pool
/// has a limit of its own, and more threads than this a process does not get by default.
const MAX_WORKERS: usize = 32_768;

/// A pool's runtime.
#[derive(Debug)]
pub(super) struct Home {
    handle: Handle,
    /// It belongs to this pool alone, and goes with it.
    own: Option<Runtime>,
}

impl Home {
    /// For jobs that need a stack of so many bytes: the current runtime if its workers have
    /// that, else the one that all pools outside of a runtime share, else a new one.
    pub(super) fn find(stack_size: Option<usize>) -> io::Result<Self> {
        let fits = |handle: &Handle| {
            stack_size.is_none_or(|least| handle.shared().thread_stack_size() >= least)
        };
        if let Some(handle) = context::current_handle().filter(fits) {
            return Ok(Self::at(handle));
        }
        let shared = shared()?;
        if fits(shared) {
            return Ok(Self::at(shared.clone()));
        }
        let own = new_runtime(stack_size)?;
        Ok(Self {
            handle: own.handle().clone(),
            own: Some(own),
        })
    }

    pub(super) fn at(handle: Handle) -> Self {
        Self { handle, own: None }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Each job holds its pool, so there is none any more. The last one may have dropped it,
        // on a worker of this runtime, which cannot wait for itself.
        if let Some(own) = self.own.take() {
            own.shutdown_background();
        }
    }
}

/// The runtime of all pools that are made outside of one. Never shut down: jobs may outlive
/// their pool, as they do in threads.
fn shared() -> io::Result<&'static Handle> {
    static SHARED: OnceLock<Runtime> = OnceLock::new();
    let shared = match SHARED.get() {
        Some(shared) => shared,
        None => {
            // If two threads come here at once, one of their runtimes goes again.
            let made = new_runtime(None)?;
            SHARED.get_or_init(|| made)
        }
    };
    Ok(shared.handle())
}

fn new_runtime(stack_size: Option<usize>) -> io::Result<Runtime> {
    let mut builder = Builder::new().thread_name("umcg-pool");
    if env::var_os(MAX_WORKERS_ENV).is_none() {
        builder = builder.max_workers(MAX_WORKERS);
    }
    if let Some(bytes) = stack_size {
        builder = builder.thread_stack_size(bytes);
    }
    Ok(builder.build()?)
}
