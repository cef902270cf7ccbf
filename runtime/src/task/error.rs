//! Why a task has no output.

use std::{any::Any, error::Error, fmt, io};

use super::id::Id;

/// A task ended without an output: it panicked, or it was cancelled.
///
/// # Examples
///
/// To continue a panic in the thread that joins:
///
/// ```should_panic
/// # let runtime = umcg::Runtime::new().unwrap();
/// # let _entered = runtime.handle().enter();
/// let task = umcg::spawn_blocking(|| -> u32 { panic!("in the task") });
/// match task.join().map_err(umcg::JoinError::try_into_panic) {
///     Ok(value) => println!("{value}"),
///     Err(Ok(payload)) => std::panic::resume_unwind(payload),
///     Err(Err(cancelled)) => println!("{cancelled}"),
/// }
/// ```
pub struct JoinError {
    id: Id,
    /// `None`: the task was cancelled.
    payload: Option<Payload>,
}

/// The payload of a panic.
struct Payload(Box<dyn Any + Send>);

// SAFETY: through a shared reference a payload is only read as `&'static str` or `String`, which
// are Sync.
unsafe impl Sync for Payload {}

impl JoinError {
    pub(crate) fn cancelled(id: Id) -> Self {
        Self { id, payload: None }
    }

    pub(crate) fn panicked(id: Id, payload: Box<dyn Any + Send>) -> Self {
        Self {
            id,
            payload: Some(Payload(payload)),
        }
    }

    /// The id of the task that ended.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// Whether the task was aborted, or dropped by a runtime that shut down.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.payload.is_none()
    }

    /// Whether the task, or the destructor of its future, panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.payload.is_some()
    }

    /// The payload of the panic, for [`resume_unwind`](std::panic::resume_unwind).
    ///
    /// # Panics
    ///
    /// If the task was cancelled. [`try_into_panic`](Self::try_into_panic) does not.
    #[must_use]
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send + 'static> {
        self.try_into_panic()
            .expect("`JoinError` is a panic: the task was cancelled instead")
    }

    /// The payload of the panic.
    ///
    /// # Errors
    ///
    /// The error itself, if the task was cancelled.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send + 'static>, Self> {
        match self.payload {
            Some(payload) => Ok(payload.0),
            None => Err(self),
        }
    }

    /// The message of a panic, if it was a string.
    fn message(&self) -> Option<&str> {
        let payload = &*self.payload.as_ref()?.0;
        payload
            .downcast_ref::<&'static str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.payload, self.message()) {
            (None, _) => write!(f, "task {} was cancelled", self.id),
            (Some(_), Some(message)) => {
                write!(f, "task {} panicked with message {message:?}", self.id)
            }
            (Some(_), None) => write!(f, "task {} panicked", self.id),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.payload, self.message()) {
            (None, _) => write!(f, "JoinError::Cancelled({:?})", self.id),
            (Some(_), Some(message)) => write!(f, "JoinError::Panic({:?}, {message:?})", self.id),
            (Some(_), None) => write!(f, "JoinError::Panic({:?}, ...)", self.id),
        }
    }
}

impl Error for JoinError {}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        Self::other(error)
    }
}
