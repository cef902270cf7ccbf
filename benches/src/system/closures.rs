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

/// What a [`System`](super::System) that only knows `execute` makes of it.
macro_rules! closures_only {
    () => {
        type Task<T: Send + 'static> = $crate::system::closures::Sent<T>;

        fn spawn<F>(&'static self, future: F) -> Self::Task<F::Output>
        where
            F: ::std::future::Future + Send + 'static,
            F::Output: Send + 'static,
        {
            self.spawn_blocking($crate::system::closures::blocking_on(future))
        }

        fn spawn_blocking<F, R>(&'static self, f: F) -> Self::Task<R>
        where
            F: FnOnce() -> R + Send + 'static,
            R: Send + 'static,
        {
            let (closure, sent) = $crate::system::closures::sending(f);
            self.execute(closure);
            sent
        }

        fn detach<T: Send + 'static>(task: Self::Task<T>) {
            drop(task);
        }

        fn block_on<F: ::std::future::Future>(&'static self, future: F) -> F::Output {
            futures_lite::future::block_on(future)
        }
    };
}
pub(super) use closures_only;
