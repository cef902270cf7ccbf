//! Running a future on the calling thread, blocking.

use std::{
    cell::RefCell,
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use crate::{context, parker::Parker};

/// A parker and its waker, made together once and used over and over.
struct Seat {
    parker: Parker,
    waker: Waker,
}

impl Seat {
    fn new() -> Self {
        let parker = Parker::new();
        let waker = parker.waker();
        Self { parker, waker }
    }
}

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
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut seat = SEAT
        .try_with(|seat| seat.borrow_mut().take())
        .ok()
        .flatten()
        .unwrap_or_else(Seat::new);
    let output = loop {
        let mut cx = Context::from_waker(&seat.waker);
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            break output;
        }
        let _wait = context::own_wait();
        seat.parker.park();
    };
    // A token may be left in the seat: at worst one poll too many next time. When the future
    // panics the seat is lost, and the next wait makes one.
    let _ = SEAT.try_with(|cell| *cell.borrow_mut() = Some(seat));
    output
}
