//! A worker is held up in the middle of the scheduler, where it frees memory.
//!
//! This program has a global allocator of its own, which can hold up one call that frees memory of
//! one size.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use umcg::{Builder, JoinHandle, Runtime};
use umcg_tests::{BlockerGate, eventually, isolated, skip, threads};

/// The size of a block of the injector: 63 tasks and a link. A worker frees a block when it takes
/// its last task. That is in the middle of a fetch, when the tasks that come along are in no queue.
const BLOCK: usize = 63 * 16 + 8;

static HOLD: AtomicU32 = AtomicU32::new(hold::NOTHING);

mod hold {
    pub(super) const NOTHING: u32 = 0;
    /// The next call by a worker that frees memory of this size is held up, and sets HELD.
    pub(super) const ARMED: u32 = 1;
    pub(super) const HELD: u32 = 2;
}

struct Allocator;

// SAFETY: it forwards every call to the system's allocator.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract of this function is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if layout.size() == BLOCK
            && HOLD.load(SeqCst) == hold::ARMED
            && is_worker()
            && HOLD
                .compare_exchange(hold::ARMED, hold::HELD, SeqCst, SeqCst)
                .is_ok()
        {
            while HOLD.load(SeqCst) == hold::HELD {
                thread::sleep(Duration::from_millis(1));
            }
        }
        // SAFETY: the contract of this function is the same.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Whether the caller is a worker, by the name of its thread and without an allocation.
fn is_worker() -> bool {
    let mut name = [0_u8; 16];
    // SAFETY: room for a thread's name.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.starts_with(b"umcg-w")
}

/// A runtime whose only worker has fetched tasks and has not put them into its queue yet, and the
/// handles of all tasks. `None` if blocks of the injector do not have the size that this program
/// knows.
fn caught_in_a_fetch(
    task: impl Fn() + Clone + Send + 'static,
) -> Option<(Runtime, Vec<JoinHandle<()>>)> {
    let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
    let gate = Arc::new(BlockerGate::new());
    let first = runtime.spawn_blocking({
        let gate = Arc::clone(&gate);
        move || gate.wait()
    });
    eventually("the worker is blocked", || gate.waiting() == 1);
    let mut handles: Vec<_> = (0..200)
        .map(|_| runtime.spawn_blocking(task.clone()))
        .collect();
    handles.push(first);
    HOLD.store(hold::ARMED, SeqCst);
    gate.open();
    for _ in 0..2_000 {
        if HOLD.load(SeqCst) == hold::HELD {
            return Some((runtime, handles));
        }
        thread::sleep(Duration::from_millis(1));
    }
    HOLD.store(hold::NOTHING, SeqCst);
    None
}

const OTHER: &str = "the injector does not free blocks of that size";

#[test]
fn tasks_between_two_queues_are_cancelled_in_the_background() {
    isolated(60, || {
        let Some((runtime, handles)) = caught_in_a_fetch(|| ()) else {
            skip!("{OTHER}");
        };
        runtime.shutdown_background();
        HOLD.store(hold::NOTHING, SeqCst);
        let joins = thread::spawn(move || {
            for handle in handles {
                let _ = handle.join();
            }
        });
        eventually("each is run or cancelled", || joins.is_finished());
    });
}

/// The task that the worker is about to run waits for one that came along with it.
#[test]
fn tasks_between_two_queues_do_not_block_a_drop() {
    isolated(60, || {
        let last = Arc::new(Mutex::new(None::<JoinHandle<()>>));
        let task = {
            let last = Arc::clone(&last);
            move || {
                let last = last.lock().unwrap().take();
                if let Some(last) = last {
                    let _ = last.join();
                }
            }
        };
        let Some((runtime, mut handles)) = caught_in_a_fetch(task) else {
            skip!("{OTHER}");
        };
        // One of the tasks behind the one that the worker is about to run.
        *last.lock().unwrap() = Some(handles.swap_remove(50));
        let ending = threads::spawn_until_at_rest("the end", move || drop(runtime));
        HOLD.store(hold::NOTHING, SeqCst);
        eventually("the end", || ending.is_finished());
        ending.join().expect("no panic");
        drop(handles);
    });
}
