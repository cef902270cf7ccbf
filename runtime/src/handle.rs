//! A reference to a runtime.

use std::sync::Arc;

use crate::{context, context::EnterGuard, sched::Shared};

/// A reference to a runtime.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    #[cfg(test)]
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Makes this the current runtime of the thread.
    pub fn enter(&self) -> EnterGuard<'_> {
        context::enter(self)
    }
}
