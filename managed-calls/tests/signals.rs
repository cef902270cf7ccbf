//! Signals in managed calls, managed calls in signal handlers, and cancellation.

mod common;

use std::{
    cell::Cell,
    ffi::c_void,
    mem,
    os::fd::AsRawFd,
    ptr,
    ptr::NonNull,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
};

use common::{handle, managed, of, outcome, pipe};
use libc::c_int;
use umcg_managed_calls::{
    CurrentWorker, Inherited, ManagedCall, Return, Sleep, Worker, set_current,
};

umcg_managed_calls::define!();

/// Handlers are the process's, so tests that install them take turns.
static HANDLERS: Mutex<()> = Mutex::new(());

static HANDLED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Whether this thread runs a handler.
    static IN_HANDLER: Cell<bool> = const { Cell::new(false) };
}

/// The pipe that a handler reads from and writes to.
static PIPE: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

extern "C" fn use_calls(_signal: c_int) {
    IN_HANDLER.set(true);
    let mut byte = [7_u8];
    // SAFETY: these are async-signal-safe; errno is restored for the code that was interrupted.
    unsafe {
        let errno = *libc::__errno_location();
        let (out, into) = (PIPE[0].load(SeqCst) as c_int, PIPE[1].load(SeqCst) as c_int);
        assert_eq!(libc::write(into, byte.as_ptr().cast(), 1), 1);
        assert_eq!(libc::read(out, byte.as_mut_ptr().cast(), 1), 1);
        let time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 1000,
        };
        libc::nanosleep(&raw const time, ptr::null_mut());
        *libc::__errno_location() = errno;
    }
    HANDLED.fetch_add(1, SeqCst);
    IN_HANDLER.set(false);
}

/// A worker that gets a signal in each of its own steps.
struct Interrupted {
    depth: Cell<u32>,
    deepest: Cell<u32>,
}

impl Interrupted {
    fn step(&self) {
        let depth = self.depth.get() + 1;
        self.depth.set(depth);
        self.deepest.set(self.deepest.get().max(depth));
        // The calls of a handler are a worker's as well, if it interrupted the application's code.
        if !IN_HANDLER.get() {
            // SAFETY: the handler of this test.
            unsafe { libc::raise(libc::SIGUSR2) };
        }
        self.depth.set(depth - 1);
    }
}

impl Worker for Interrupted {
    fn enter(&self, _call: ManagedCall, _sleep: Sleep, _how: Return) {
        self.step();
    }

    fn exit(&self, _how: Return) {
        self.step();
    }

    fn yield_now(&self) {
        self.step();
    }

    fn affinity(&self, _mask: &mut [u8]) {
        self.step();
    }

    fn unmanage(&self) -> fn(Inherited) {
        |_| {}
    }

    fn before_child(&self) {}

    fn after_child(&self) {}
}

#[test]
fn handlers_may_make_managed_calls_at_any_step() {
    let _turn = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner);
    handle(libc::SIGUSR2, use_calls, 0);
    let (out, into) = pipe();
    PIPE[0].store(out.as_raw_fd() as usize, SeqCst);
    PIPE[1].store(into.as_raw_fd() as usize, SeqCst);
    HANDLED.store(0, SeqCst);
    let worker = Interrupted {
        depth: Cell::new(0),
        deepest: Cell::new(0),
    };
    let current = CurrentWorker::new(NonNull::from(&worker as &dyn Worker));
    // SAFETY: the worker lives until it is taken back.
    unsafe { set_current(Some(NonNull::from(&current))) };
    // SAFETY: the handler; a live set; a wrong descriptor.
    unsafe {
        // A handler that interrupts the application's own code is a worker's code.
        libc::raise(libc::SIGUSR2);
        let mut byte = 0_u8;
        assert_eq!(libc::read(-1, (&raw mut byte).cast(), 1), -1);
        assert_eq!(*libc::__errno_location(), libc::EBADF);
        libc::sched_yield();
        let mut cpus: libc::cpu_set_t = mem::zeroed();
        libc::sched_getaffinity(0, mem::size_of_val(&cpus), &raw mut cpus);
        set_current(None);
    }
    assert_eq!(
        worker.deepest.get(),
        1,
        "a step of the worker's began inside of another one"
    );
    assert!(HANDLED.load(SeqCst) >= 5);
}

#[test]
fn a_thread_is_cancelled_in_a_managed_call() {
    // As a C program calls it. The declaration of the libc crate says that it does not unwind.
    unsafe extern "C-unwind" {
        fn pause() -> c_int;
    }

    // By force, too, an unwinding may only pass functions that say so.
    extern "C-unwind" fn wait_for_ever(tell: *mut c_void) -> *mut c_void {
        // SAFETY: the sender that the test made for this thread.
        let tell = unsafe { Box::from_raw(tell.cast::<mpsc::Sender<libc::pid_t>>()) };
        // SAFETY: no arguments.
        tell.send(unsafe { libc::gettid() }).unwrap();
        drop(tell);
        let recorder = common::Recorder::default();
        let current = CurrentWorker::new(NonNull::from(&recorder as &dyn Worker));
        let worker = NonNull::from(&current);
        // The thread ends by force: the recorder must not be dropped, and it is not.
        mem::forget(recorder);
        // SAFETY: the memory stays until the thread ends.
        unsafe {
            set_current(Some(worker));
            pause();
        }
        ptr::null_mut()
    }

    unsafe extern "C" {
        fn pthread_cancel(thread: libc::pthread_t) -> c_int;
    }
    // SAFETY: the two types differ in what they say about unwinding only, and a thread's first
    // function may be unwound.
    let main = unsafe {
        mem::transmute::<
            extern "C-unwind" fn(*mut c_void) -> *mut c_void,
            extern "C" fn(*mut c_void) -> *mut c_void,
        >(wait_for_ever)
    };

    let (tell, told) = mpsc::channel();
    let argument = Box::into_raw(Box::new(tell));
    let mut thread = 0;
    let mut value = ptr::null_mut();
    // SAFETY: a thread function and its argument; then a thread that was not joined yet.
    unsafe {
        let made = libc::pthread_create(&raw mut thread, ptr::null(), main, argument.cast());
        assert_eq!(made, 0);
        common::until_asleep(told.recv().unwrap());
        assert_eq!(pthread_cancel(thread), 0);
        assert_eq!(libc::pthread_join(thread, &raw mut value), 0);
    }
    // PTHREAD_CANCELED.
    assert_eq!(value as isize, -1);
}

#[test]
fn waits_for_signals() {
    let (result, said) = managed(|| {
        // SAFETY: live sets; a signal that only this thread has blocked is sent to this thread.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGRTMIN());
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
            libc::pthread_kill(libc::pthread_self(), libc::SIGRTMIN());
            let mut signal = 0;
            let waited = libc::sigwait(&raw const set, &raw mut signal);
            let time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            let none = outcome(libc::sigtimedwait(
                &raw const set,
                ptr::null_mut(),
                &raw const time,
            ));
            (waited, signal == libc::SIGRTMIN(), none)
        }
    });
    assert_eq!(result, (0, true, (-1, libc::EAGAIN)));
    assert_eq!(of("sigwait", &said), [(Sleep::Possible, Return::Io)]);
}
