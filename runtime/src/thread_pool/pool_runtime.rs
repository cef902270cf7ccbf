//! The runtime that the jobs of a pool run on.

use std::{io, sync::OnceLock};

use crate::{Builder, Handle, Runtime};

/// The runtime of one pool.
#[derive(Debug)]
pub(super) struct PoolRuntime {
    handle: Handle,
    /// Present if the runtime belongs to this pool alone and is shut down with it.
    own: Option<Runtime>,
}

impl PoolRuntime {
    /// Finds a runtime whose workers have at least `stack_size` bytes of stack: the current
    /// runtime, or else the one that all pools outside of a runtime share, or else a new one.
    pub(super) fn find(stack_size: Option<usize>) -> io::Result<Self> {
        let fits = |handle: &Handle| {
            stack_size.is_none_or(|least| handle.shared().thread_stack_size() >= least)
        };
        if let Some(handle) = Handle::try_current().ok().filter(fits) {
            return Ok(Self::of(handle));
        }
        let shared = shared()?;
        if fits(shared) {
            return Ok(Self::of(shared.clone()));
        }
        let own = new_runtime(stack_size)?;
        Ok(Self {
            handle: own.handle().clone(),
            own: Some(own),
        })
    }

    /// A runtime that the pool does not own.
    pub(super) fn of(handle: Handle) -> Self {
        Self { handle, own: None }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for PoolRuntime {
    fn drop(&mut self) {
        // Each job holds its pool, so no job is left. The last one may have dropped the pool on a
        // worker of this runtime, and a worker cannot wait for its own end.
        if let Some(own) = self.own.take() {
            own.shutdown_background();
        }
    }
}

/// The runtime of all pools that are made outside of a runtime. It is never shut down: jobs may
/// outlive their pool, as they do in the threads of other pools.
fn shared() -> io::Result<&'static Handle> {
    static SHARED: OnceLock<Runtime> = OnceLock::new();
    let shared = match SHARED.get() {
        Some(shared) => shared,
        None => {
            // If two threads come here at once, one of the two runtimes is dropped again.
            let made = new_runtime(None)?;
            SHARED.get_or_init(|| made)
        }
    };
    Ok(shared.handle())
}

fn new_runtime(stack_size: Option<usize>) -> io::Result<Runtime> {
    let mut builder = Builder::new().thread_name("umcg-pool");
    if let Some(bytes) = stack_size {
        builder = builder.thread_stack_size(bytes);
    }
    Ok(builder.build()?)
}
