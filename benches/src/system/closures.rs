//! What systems that only know closures share: results through a channel.

use std::future::Future;

use futures::channel::oneshot;
use futures_lite::future;

use super::Unwrapped;

/// The result of a closure on its way.
pub(super) type Sent<T> = Unwrapped<oneshot::Receiver<T>>;

/// A closure that sends its result, and where that arrives.
pub(super) fn sending<F, R>(f: F) -> (impl FnOnce() + Send + 'static, Sent<R>)
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let closure = move || {
        // Nobody may be waiting.
        let _ = tell.send(f());
    };
    (closure, Unwrapped(told))
}

/// A future as a closure that blocks on it.
pub(super) fn blocking_on<F>(future: F) -> impl FnOnce() -> F::Output + Send + 'static
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    || future::block_on(future)
}
