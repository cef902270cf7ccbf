//! `may`: coroutines with stacks.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use may::{coroutine, sync::Semphore};

use super::{
    System,
    closures::{Sent, sending},
};

/// The size of a stack in machine words. The default of 4096 is too small for some of the benches.
const STACK_WORDS: usize = 0x2000;

/// The one scheduler of may. A future runs on a coroutine, which parks while the future is pending.
#[derive(Debug)]
pub struct May;

impl May {
    /// A system with this many workers.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn new(workers: usize) -> Self {
        may::config()
            .set_workers(workers)
            .set_stack_size(STACK_WORDS);
        Self
    }
}

/// The waker of a coroutine that polls a future. It uses a semaphore and not `coroutine::park`:
/// with a handle of the coroutine in a waker, a worker spins for ever in about one of a thousand
/// ends of a coroutine (may 0.3.51, `Park::drop` inside `fast_wake_up`).
struct Again(Semphore);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.post();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.post();
    }
}

/// Polls the future on the current coroutine, which waits between the polls.
fn park_on<F: Future>(future: F) -> F::Output {
    let again = Arc::new(Again(Semphore::new(0)));
    let waker = Waker::from(Arc::clone(&again));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => again.0.wait(),
        }
    }
}

impl System for May {
    const NAME: &'static str = "may";
    const THREADS: &'static str = "may";
    type Task<T: Send + 'static> = Sent<T>;

    fn spawn<F>(&'static self, future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_blocking(move || park_on(future))
    }

    fn spawn_blocking<F, R>(&'static self, f: F) -> Self::Task<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let (closure, sent) = sending(f);
        self.execute(closure);
        sent
    }

    fn detach<T: Send + 'static>(task: Self::Task<T>) {
        drop(task);
    }

    fn execute<F>(&'static self, f: F)
    where
        F: FnOnce() + Send + 'static,
    {
        // SAFETY: may requires that no thread-local is used across a switch and that the stack is
        // large enough. The closures of the benches hold no thread-local across a park, and the
        // stacks are twice the default.
        unsafe { coroutine::spawn(f) };
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        std::future::poll_fn(|_| {
            coroutine::yield_now();
            Poll::Ready(())
        })
    }

    async fn sleep(duration: Duration) {
        coroutine::sleep(duration);
    }

    fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        futures_lite::future::block_on(future)
    }
}
