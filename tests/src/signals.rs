//! Signals: handlers that count, and threads that send.
//!
//! A handler belongs to the whole process, and tests run side by side. A test that installs a
//! handler therefore takes a signal that no other test uses ([`unused`]).

use std::{
    mem, ptr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicI32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// One more than the largest number of a signal.
const SIGNALS: usize = 65;

/// How many signals of each number were handled in this process.
static HANDLED: [AtomicU64; SIGNALS] = [const { AtomicU64::new(0) }; SIGNALS];

/// A real-time signal that no other test of this process uses.
///
/// # Panics
/// If there is none left.
#[must_use]
pub fn unused() -> i32 {
    static TAKEN: AtomicI32 = AtomicI32::new(0);
    let signal = libc::SIGRTMIN() + TAKEN.fetch_add(1, SeqCst);
    assert!(signal <= libc::SIGRTMAX(), "all real-time signals are used");
    signal
}

/// Installs a handler that counts ([`handled`]), with `flags` (0, or `SA_RESTART`).
pub fn count(signal: i32, flags: i32) {
    extern "C" fn count(signal: i32) {
        HANDLED[signal as usize].fetch_add(1, SeqCst);
    }
    handle(signal, count, flags);
}

/// How many of these signals were handled in this process by the handler of [`count`].
#[must_use]
pub fn handled(signal: i32) -> u64 {
    HANDLED[signal as usize].load(SeqCst)
}

/// Installs a handler, which must be async-signal-safe.
///
/// # Panics
/// If the system refuses it.
pub fn handle(signal: i32, handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: an all-zero action is valid; the handler is safe by the contract of this function.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags;
        let result = libc::sigaction(signal, &raw const action, ptr::null_mut());
        assert_eq!(result, 0, "sigaction");
    }
}

/// Sends a signal to one thread of this process, which may have ended.
pub fn send(tid: u32, signal: i32) {
    // SAFETY: plain values.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal);
    }
}

/// Sends a signal to threads of this process again and again, until it is dropped.
#[derive(Debug)]
pub struct Storm {
    /// Tells the sending thread to end.
    stop: Arc<AtomicBool>,
    /// The sending thread. `Some` until the drop.
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    /// Sends to the threads that `targets` returns, each time anew. The sending thread itself gets
    /// no signal.
    #[must_use]
    pub fn on(signal: i32, mut targets: impl FnMut() -> Vec<u32> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let own = umcg_sys::gettid();
            while !stopped.load(Relaxed) {
                for tid in targets() {
                    if tid != own {
                        send(tid, signal);
                    }
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
