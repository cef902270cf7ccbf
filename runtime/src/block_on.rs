//! Running a future on the calling thread, blocking.

#[cfg(not(loom))]
use std::cell::RefCell;
use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{context, task::coop::enter_budget, wait::Parker};

/// A parker and its waker, made together once and used over and over.
struct Seat {
    parker: Arc<Parker>,
    waker: Waker,
}

impl Seat {
    fn new() -> Self {
        let parker = Arc::new(Parker::new());
        let waker = Waker::from(Arc::clone(&parker));
        Self { parker, waker }
    }
}

#[cfg(not(loom))]
thread_local! {
    /// This thread's seat while nobody sits on it. A nested `block_on` finds it taken and makes
    /// its own: sharing one would let the inner future's poll eat the outer one's token.
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// Polls `future` on this thread until it is ready, sleeping in between.
///
/// Works everywhere: outside of any runtime, and on a worker inside a task, nested as deep as
/// the stack goes. On a worker the sleep is an ordinary block: the server runs other tasks
/// meanwhile, and the wait does not count against `max_workers`.
///
/// Does not enter a runtime: [`spawn`](crate::spawn) inside of it needs one that was entered,
/// see [`Handle::enter`](crate::Handle::enter) or [`Runtime::block_on`](crate::Runtime::block_on).
///
/// # Panics
///
/// With the future's own panic.
///
/// # Examples
///
/// ```
/// assert_eq!(umcg::block_on(async { 6 * 7 }), 42);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    // In a model the threads share the real thread's locals, and runs must not share parkers. The
    // parker stays: the model cannot see that `Arc` orders its end after everybody's last use.
    #[cfg(loom)]
    let seat = Seat::new();
    #[cfg(loom)]
    std::mem::forget(seat.waker.clone());
    #[cfg(not(loom))]
    let seat = SEAT
        .try_with(|seat| seat.borrow_mut().take())
        .ok()
        .flatten()
        .unwrap_or_else(Seat::new);
    let output = loop {
        let mut cx = Context::from_waker(&seat.waker);
        let polled = {
            let _budget = enter_budget();
            future.as_mut().poll(&mut cx)
        };
        if let Poll::Ready(output) = polled {
            break output;
        }
        let _wait = context::managed_blocking();
        seat.parker.park();
    };
    // A token may be left in the seat: at worst one poll too many next time. When the future
    // panics the seat is lost, and the next wait makes one.
    #[cfg(not(loom))]
    let _ = SEAT.try_with(|cell| *cell.borrow_mut() = Some(seat));
    output
}

#[cfg(all(test, not(loom)))]
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
        // So that there is a seat to take.
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
