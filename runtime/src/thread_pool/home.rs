//! The runtime that a pool's jobs run on.

use std::{io, sync::OnceLock};

use crate::{Builder, Handle, Runtime, context};

/// A pool's runtime.
#[derive(Debug)]
pub(super) struct Home(Handle);

impl Home {
    /// For jobs that need a stack of so many bytes: the current runtime if its workers have
    /// that, else one that all pools outside of a runtime share.
    pub(super) fn find(stack_size: Option<usize>) -> io::Result<Self> {
        let least = stack_size.unwrap_or(0);
        if let Some(handle) = context::current_handle() {
            if handle.shared().thread_stack_size() >= least {
                return Ok(Self(handle));
            }
        }
        static SHARED: OnceLock<Runtime> = OnceLock::new();
        let shared = match SHARED.get() {
            Some(shared) => shared,
            None => {
                let made = Runtime::new()?;
                SHARED.get_or_init(|| made)
            }
        };
        if shared.handle().shared().thread_stack_size() >= least {
            return Ok(Self(shared.handle().clone()));
        }
        // It goes on for as long as the process, as its pools' jobs may outlive them.
        let own = Builder::new().thread_stack_size(least).build()?;
        let handle = own.handle().clone();
        std::mem::forget(own);
        Ok(Self(handle))
    }

    #[cfg(test)]
    pub(super) fn at(handle: Handle) -> Self {
        Self(handle)
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.0
    }
}
