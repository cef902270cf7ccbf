//! The cooperative budget of a task.
//!
//! # The problem
//!
//! A future that is always ready never returns to its caller. In
//! `timeout(limit, async { loop { receive().await } })` with a sender that is fast enough, the loop
//! never suspends, so the timeout around it is never polled, and neither is any other branch of a
//! `select!` or `join!`.
//!
//! # The mechanism
//!
//! Each poll of a task begins with a budget of 128 operations, as in tokio. The leaf futures of
//! this crate ([`JoinHandle`](crate::JoinHandle), [`JoinSet`](crate::JoinSet), the futures of
//! [`time`](crate::time), [`consume_budget`]) take one from it each time that they are ready. When
//! the budget is used up such a future wakes its task and returns `Pending` instead. So the loop
//! above suspends, the timeout looks at the clock, and the task goes to the back of its server's
//! run queue with a new budget.
//!
//! [`Handle::block_on`](crate::Handle::block_on) and [`block_on`](crate::block_on()) give the
//! future that they poll a budget of its own. A closure has none, and neither does code outside of
//! this runtime: there [`poll_proceed`] always says that the caller may go on.
//!
//! # What it does not cover
//!
//! * Futures of other crates do not take from this budget: `std::future::ready`, the channels of
//!   `futures` and of `async-channel`. tokio's `sync` types take from tokio's own budget, which
//!   exists on tokio's workers only. A loop over these alone needs [`consume_budget`], or
//!   [`cooperative`] around the future.
//! * Another executor that runs inside a poll, such as `futures::executor::block_on`, polls again
//!   at once what has woken itself. After 128 refusals in one poll of the task it therefore gets a
//!   new budget, and goes on.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// How many operations a poll of a task may do. tokio's number.
const BUDGET: i16 = 128;

/// After how many refusals in one poll of a task a new budget is given. Whoever polls again what
/// has woken itself is an executor inside of the task's poll, which would otherwise poll forever.
const REFUSALS: i16 = 128;

/// The value of [`LEFT`] where there is no budget.
const UNCONSTRAINED: i16 = i16::MAX;

crate::sync::thread_local_cell! {
    /// What is left of the budget of the task that is being polled on this thread: above 0,
    /// operations; at 0 and below, the refusals since, negated; or [`UNCONSTRAINED`].
    static LEFT: Cell<i16> = Cell::new(UNCONSTRAINED)
}

/// Gives the code that runs until the guard is dropped a budget of its own.
///
/// Inlined, as the functions below: the polls of tasks are compiled in the crate of the
/// application, and calls cost 25 instructions a poll.
#[inline]
pub(crate) fn enter_budget() -> BudgetGuard {
    BudgetGuard::new(BUDGET)
}

/// Lets the code that runs until the guard is dropped take as much as it wants.
#[inline]
pub(crate) fn enter_unconstrained() -> BudgetGuard {
    BudgetGuard::new(UNCONSTRAINED)
}

/// Restores the budget that the thread had before, when it is dropped.
#[derive(Debug)]
#[must_use = "the budget ends when the guard is dropped"]
pub(crate) struct BudgetGuard {
    /// The value of [`LEFT`] before.
    outer: i16,
    not_send: PhantomData<*mut ()>,
}

impl BudgetGuard {
    #[inline]
    fn new(left: i16) -> Self {
        Self {
            outer: LEFT.with(|cell| cell.replace(left)),
            not_send: PhantomData,
        }
    }
}

impl Drop for BudgetGuard {
    #[inline]
    fn drop(&mut self) {
        LEFT.with(|cell| cell.set(self.outer));
    }
}

/// Whether the task that is being polled may do another operation. `true` where there is no
/// budget.
///
/// # Examples
///
/// ```
/// // Outside of a task there is no limit.
/// assert!(umcg::task::coop::has_budget_remaining());
/// ```
#[must_use]
pub fn has_budget_remaining() -> bool {
    LEFT.with(Cell::get) > 0
}

/// Takes one operation from the budget of the task. For the `poll` of a leaf future, as its first
/// step.
///
/// `Ready`: the future may go on. If it turns out to be ready it calls
/// [`made_progress`](RestoreOnPending::made_progress); otherwise the operation is given back when
/// the value is dropped. `Pending`: the budget is used up. The task has been woken, and the future
/// returns `Pending` as well.
///
/// # Examples
///
/// A future that is ready at once, and still lets others have their turn:
///
/// ```
/// use std::{future::poll_fn, task::{Poll, ready}, time::Duration};
/// use umcg::{task::coop::poll_proceed, time::timeout};
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let endless = async {
///     loop {
///         poll_fn(|cx| {
///             ready!(poll_proceed(cx)).made_progress();
///             Poll::Ready(())
///         })
///         .await;
///     }
/// };
/// assert!(timeout(Duration::from_millis(1), endless).await.is_err());
/// # });
/// ```
#[inline]
pub fn poll_proceed(cx: &mut Context<'_>) -> Poll<RestoreOnPending> {
    let left = LEFT.with(Cell::get);
    if left > 0 {
        if left != UNCONSTRAINED {
            LEFT.with(|cell| cell.set(left - 1));
        }
        return Poll::Ready(RestoreOnPending {
            left,
            not_send: PhantomData,
        });
    }
    refuse(left, cx)
}

#[cold]
fn refuse(left: i16, cx: &mut Context<'_>) -> Poll<RestoreOnPending> {
    if left <= -REFUSALS {
        LEFT.with(|cell| cell.set(BUDGET - 1));
        return Poll::Ready(RestoreOnPending {
            left: BUDGET,
            not_send: PhantomData,
        });
    }
    LEFT.with(|cell| cell.set(left - 1));
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// One operation that was taken from the budget; see [`poll_proceed`]. It is given back when this
/// is dropped, unless [`made_progress`](Self::made_progress) was called.
#[derive(Debug)]
#[must_use = "the operation is given back when this is dropped"]
pub struct RestoreOnPending {
    /// The value of [`LEFT`] before. [`UNCONSTRAINED`]: nothing is to be given back.
    left: i16,
    not_send: PhantomData<*mut ()>,
}

impl RestoreOnPending {
    /// The future is ready: the operation is used up.
    #[inline]
    pub fn made_progress(mut self) {
        self.left = UNCONSTRAINED;
    }
}

impl Drop for RestoreOnPending {
    #[inline]
    fn drop(&mut self) {
        if self.left != UNCONSTRAINED {
            LEFT.with(|cell| cell.set(self.left));
        }
    }
}

/// Takes one operation from the budget of the task, and suspends once if there is none left.
///
/// For a loop whose futures are of other crates, or which computes for long.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// # let numbers = 0..1000;
/// let mut sum = 0;
/// for number in numbers {
///     sum += number;
///     umcg::task::consume_budget().await;
/// }
/// # assert_eq!(sum, 499_500);
/// # });
/// ```
pub async fn consume_budget() {
    poll_fn(|cx| {
        ready!(poll_proceed(cx)).made_progress();
        Poll::Ready(())
    })
    .await;
}

/// Lets a future of another crate take from the budget: one operation each time that it is ready.
///
/// # Examples
///
/// ```
/// use std::{future::ready, time::Duration};
/// use umcg::{task::coop::cooperative, time::timeout};
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let endless = async {
///     loop {
///         cooperative(ready(())).await;
///     }
/// };
/// assert!(timeout(Duration::from_millis(1), endless).await.is_err());
/// # });
/// ```
pub fn cooperative<F: Future>(future: F) -> Coop<F> {
    Coop { future }
}

/// The future of [`cooperative`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Coop<F> {
    /// Structurally pinned.
    future: F,
}

impl<F: Future> Future for Coop<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let proceed = ready!(poll_proceed(cx));
        // SAFETY: `future` is pinned with the whole: there is no `Drop`, no `Unpin` impl beside the
        // automatic one, and nothing else hands the field out.
        let future = unsafe { self.map_unchecked_mut(|this| &mut this.future) };
        let output = ready!(future.poll(cx));
        proceed.made_progress();
        Poll::Ready(output)
    }
}

/// Polls a future without a budget: the leaf futures in it never suspend for the sake of others.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let sum = umcg::task::unconstrained(async {
///     let mut sum = 0;
///     for i in 0..1000 {
///         sum += umcg::spawn(async move { i }).await.unwrap();
///     }
///     sum
/// });
/// assert_eq!(sum.await, 499_500);
/// # });
/// ```
pub fn unconstrained<F: Future>(future: F) -> Unconstrained<F> {
    Unconstrained { future }
}

/// The future of [`unconstrained`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Unconstrained<F> {
    /// Structurally pinned.
    future: F,
}

impl<F: Future> Future for Unconstrained<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _budget = enter_unconstrained();
        // SAFETY: as in `Coop`.
        let future = unsafe { self.map_unchecked_mut(|this| &mut this.future) };
        future.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        task::{Wake, Waker},
    };

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// How many polls in a row may proceed, at most `limit`.
    fn proceed(limit: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        (0..limit)
            .take_while(|_| {
                poll_proceed(&mut cx)
                    .map(RestoreOnPending::made_progress)
                    .is_ready()
            })
            .count()
    }

    #[test]
    fn a_task_has_128_operations_and_other_code_any_number() {
        assert_eq!(proceed(1000), 1000);
        {
            let _budget = enter_budget();
            assert_eq!(proceed(1000), 128);
            assert!(!has_budget_remaining());
        }
        assert_eq!(proceed(1000), 1000);
    }

    #[test]
    fn a_refusal_wakes_the_task() {
        let _budget = enter_budget();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        proceed(128);
        assert_eq!(count.0.load(SeqCst), 0);
        assert!(poll_proceed(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(count.0.load(SeqCst), 1);
    }

    #[test]
    fn an_operation_that_made_no_progress_is_given_back() {
        let _budget = enter_budget();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1000 {
            assert!(poll_proceed(&mut cx).is_ready());
        }
        assert_eq!(proceed(1000), 128);
    }

    #[test]
    fn budgets_nest() {
        let _outer = enter_budget();
        assert_eq!(proceed(100), 100);
        {
            let _inner = enter_budget();
            assert_eq!(proceed(1000), 128);
            let _none = enter_unconstrained();
            assert_eq!(proceed(1000), 1000);
        }
        assert_eq!(proceed(1000), 28);
    }

    /// What an executor inside of a poll does with a future that wakes itself.
    #[test]
    fn polls_that_are_repeated_at_once_get_through_in_the_end() {
        let _budget = enter_budget();
        let mut cx = Context::from_waker(Waker::noop());
        let mut thousand = pin!(async {
            for _ in 0..1000 {
                consume_budget().await;
            }
        });
        let mut polls = 0;
        while thousand.as_mut().poll(&mut cx).is_pending() {
            polls += 1;
            assert!(polls < 10_000, "it never gets through");
        }
        assert!(polls >= 128);
    }
}
