//! A reference to a runtime.

use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

use crate::{context, context::EnterGuard, metrics::RuntimeMetrics, sched::Shared};

/// A reference to a runtime, cheap to clone, for any thread.
///
/// It does not keep the runtime going: after the [`Runtime`](crate::Runtime) was dropped or shut
/// down, tasks that are spawned by a handle are cancelled at once.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Which runtime it is.
    pub(crate) fn address(&self) -> *const Shared {
        Arc::as_ptr(&self.shared)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The runtime that the calling thread is in: as one of its workers, inside of
    /// [`block_on`](Self::block_on), or since [`enter`](Self::enter).
    ///
    /// # Panics
    ///
    /// Outside of a runtime; [`try_current`](Self::try_current) says `None` there.
    ///
    /// # Examples
    ///
    /// ```
    /// # umcg::Runtime::new().unwrap().block_on(async {
    /// let handle = umcg::Handle::current();
    /// std::thread::spawn(move || handle.spawn(async { 7 }).join().unwrap());
    /// # });
    /// ```
    #[must_use]
    #[track_caller]
    pub fn current() -> Self {
        context::expect_handle("Handle::current")
    }

    /// The runtime that the calling thread is in. `None`: outside.
    #[must_use]
    pub fn try_current() -> Option<Self> {
        context::current_handle()
    }

    /// Makes this the current runtime of the thread until the guard is dropped, so that
    /// [`umcg::spawn`](crate::spawn) and the like work here. Nothing runs on this thread
    /// because of it.
    ///
    /// Guards nest, and are to be dropped in the reverse order of their making.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = umcg::Runtime::new().unwrap();
    /// let _entered = runtime.handle().enter();
    /// assert_eq!(umcg::spawn(async { 7 }).join().unwrap(), 7);
    /// ```
    pub fn enter(&self) -> EnterGuard<'_> {
        context::enter(self)
    }

    /// The runtime's numbers as they are now. Never blocks for long: one pass over the records
    /// of all workers.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = umcg::Runtime::new().unwrap();
    /// let metrics = runtime.handle().metrics();
    /// println!("{} because {}", metrics.provider_kind(), metrics.provider_why());
    /// assert!(metrics.workers_peak() >= 1);
    /// ```
    #[must_use]
    pub fn metrics(&self) -> RuntimeMetrics {
        self.shared.metrics()
    }
}

// A panic in a call of a handle leaves the runtime as it was: those of user code are contained, and
// one of the scheduler ends the process.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("runtime", &Arc::as_ptr(&self.shared))
            .finish()
    }
}
