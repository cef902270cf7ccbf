//! Running a future on the calling thread, blocking.

use std::{
    cell::RefCell,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    sync::{keep_in_models, thread_local_cell},
    task::coop::enter_budget,
    wait::{ManagedWait, Parker},
};

/// A parker and its waker, which are made together and used again by later waits of a thread.
struct CachedParker {
    parker: Arc<Parker>,
    /// Of `parker`.
    waker: Waker,
}

impl CachedParker {
    fn new() -> Self {
        let parker = Arc::new(Parker::new());
        keep_in_models(&parker);
        let waker = Waker::from(Arc::clone(&parker));
        Self { parker, waker }
    }

    /// Takes this thread's parker, or makes one. A nested `block_on` finds it taken and makes its
    /// own: with a shared one, the poll of the inner future would take the token of the outer one.
    fn take() -> Self {
        CACHE
            .try_with(|cache| cache.borrow_mut().take())
            .ok()
            .flatten()
            .unwrap_or_else(Self::new)
    }

    /// Leaves it to the next wait of this thread. A token may be left in it, which costs that wait
    /// one poll.
    fn put_back(self) {
        let _ = CACHE.try_with(|cache| *cache.borrow_mut() = Some(self));
    }
}

thread_local_cell! {
    /// This thread's parker. `None`: not made, or in use.
    static CACHE: RefCell<Option<CachedParker>> = RefCell::new(None)
}

/// Polls `future` on this thread until it is ready, and sleeps in between.
///
/// Works on any thread: outside of any runtime, and on a worker inside a task, nested as deep as
/// the stack permits. While a worker sleeps here its server runs other tasks, and the worker does
/// not count against `max_workers`.
///
/// Does not enter a runtime. For [`spawn`](crate::spawn()) inside of `future` a runtime must have
/// been entered: see [`Handle::enter`](crate::Handle::enter) and
/// [`Runtime::block_on`](crate::Runtime::block_on).
///
/// # Panics
///
/// With the panic of the future.
///
/// # Examples
///
/// ```
/// assert_eq!(umcg::block_on(async { 6 * 7 }), 42);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let cached = CachedParker::take();
    let output = loop {
        let mut cx = Context::from_waker(&cached.waker);
        let polled = {
            let _budget = enter_budget();
            future.as_mut().poll(&mut cx)
        };
        if let Poll::Ready(output) = polled {
            break output;
        }
        ManagedWait::begin().park(&cached.parker);
    };
    // If the future panics the parker is dropped, and the next wait makes one.
    cached.put_back();
    output
}

#[cfg(test)]
mod tests {
    use std::{
        future::{poll_fn, ready},
        panic::{AssertUnwindSafe, catch_unwind},
        sync::mpsc,
        thread,
    };

    use super::*;

    /// Ready once another thread has woken it.
    fn woken_by_another_thread() -> impl Future<Output = ()> {
        let (send, receive) = mpsc::channel::<Waker>();
        thread::spawn(move || receive.recv().unwrap().wake());
        let mut polls = 0;
        poll_fn(move |cx| {
            polls += 1;
            if polls == 1 {
                send.send(cx.waker().clone()).unwrap();
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
    }

    #[test]
    fn ready_future_is_polled_once() {
        assert_eq!(block_on(ready(7)), 7);
    }

    #[test]
    fn sleeps_until_woken() {
        for _ in 0..100 {
            block_on(woken_by_another_thread());
        }
    }

    #[test]
    fn wake_inside_the_poll_is_not_lost() {
        block_on(crate::task::yield_now());
    }

    #[test]
    fn nested_one_does_not_eat_the_wake_of_the_outer_one() {
        // So that there is a cached parker to take.
        block_on(ready(()));
        let mut polls = 0;
        block_on(poll_fn(|cx| {
            polls += 1;
            if polls == 2 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            block_on(woken_by_another_thread());
            block_on(woken_by_another_thread());
            Poll::Pending
        }));
    }

    #[test]
    fn unpark_of_the_user_is_left_alone() {
        thread::current().unpark();
        block_on(woken_by_another_thread());
        thread::park_timeout(std::time::Duration::from_secs(60));
    }

    #[test]
    fn works_after_a_panic_in_the_future() {
        let panicked = catch_unwind(AssertUnwindSafe(|| block_on(async { panic!("inside") })));
        assert!(panicked.is_err());
        block_on(woken_by_another_thread());
    }
}
