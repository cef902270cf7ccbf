//! The runtime that a pool's jobs run on.

use std::io;

use crate::{Handle, context};

/// A pool's runtime.
#[derive(Debug)]
pub(super) struct Home(Handle);

impl Home {
    /// For jobs that need a stack of so many bytes.
    pub(super) fn find(_stack_size: Option<usize>) -> io::Result<Self> {
        Ok(Self(context::current_handle().unwrap_or_else(|| {
            Handle::new(crate::sched::Shared::new())
        })))
    }

    #[cfg(test)]
    pub(super) fn at(handle: Handle) -> Self {
        Self(handle)
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.0
    }
}
