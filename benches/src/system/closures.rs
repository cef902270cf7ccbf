//! Code for systems that take closures only: results come through a channel.

use std::future::Future;

use futures::channel::oneshot;
use futures_lite::future;

use super::Unwrapped;

/// The future result of a closure.
pub(super) type Sent<T> = Unwrapped<oneshot::Receiver<T>>;

/// Makes a closure that sends its result, and the future that receives it.
pub(super) fn sending<F, R>(f: F) -> (impl FnOnce() + Send + 'static, Sent<R>)
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let closure = move || {
        // It fails if the receiver was dropped.
        let _ = tell.send(f());
    };
    (closure, Unwrapped(told))
}

/// Makes the future a closure that blocks on it.
pub(super) fn blocking_on<F>(future: F) -> impl FnOnce() -> F::Output + Send + 'static
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    || future::block_on(future)
}

/// The items of a [`System`](super::System) that has `execute` only.
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
