//! The system is slow to make a thread, or refuses it, while the runtime ends or starts.
//!
//! This program has a `pthread_create` of its own, which all code in it calls in place of the C
//! library's. It can hold one call up for as long as a test wants.

use std::{
    ffi::{CStr, c_int, c_void},
    mem,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use umcg::{Builder, Runtime};
use umcg_sys::{
    Emulated, EmulatedOptions, Placement, Provider, ProviderChoice, Register, UmcgTask,
};
use umcg_tests::{
    BlockerGate, eventually, isolated, proc, runtime::assert_blocks_are_seen, threads,
};

/// What the next call of `pthread_create` does.
static NEXT: AtomicU32 = AtomicU32::new(next::PASS);

mod next {
    /// The call does what it always does.
    pub(super) const PASS: u32 = 0;
    /// The call is held up, and sets HELD.
    pub(super) const HOLD: u32 = 1;
    pub(super) const HELD: u32 = 2;
    /// The call that is held up goes on. This and REFUSE become PASS.
    pub(super) const MAKE: u32 = 3;
    /// The call that is held up fails.
    pub(super) const REFUSE: u32 = 4;
}

type Main = extern "C" fn(*mut c_void) -> *mut c_void;
type Create = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Main,
    *mut c_void,
) -> c_int;

/// Takes the place of the function of the C library.
///
/// # Safety
/// As for that function.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    main: Main,
    argument: *mut c_void,
) -> c_int {
    const NAME: &CStr = c"pthread_create";
    if NEXT
        .compare_exchange(next::HOLD, next::HELD, SeqCst, SeqCst)
        .is_ok()
    {
        let answer = loop {
            match NEXT.load(SeqCst) {
                next::HELD => thread::sleep(Duration::from_millis(1)),
                answer => break answer,
            }
        };
        NEXT.store(next::PASS, SeqCst);
        if answer == next::REFUSE {
            return libc::EAGAIN;
        }
    }
    // SAFETY: the next definition of this name is that of the C library, which has this type.
    unsafe {
        let create = libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr());
        assert!(!create.is_null(), "the C library has a pthread_create");
        mem::transmute::<*mut c_void, Create>(create)(thread, attributes, main, argument)
    }
}

/// A runtime of one server whose only worker is blocked. It is making a second worker, and that
/// call is held up.
fn runtime_that_grows(gate: &Arc<BlockerGate>) -> Runtime {
    let runtime = Builder::new().servers(1).build().expect("a runtime");
    let blocks = |gate: &Arc<BlockerGate>| {
        let gate = Arc::clone(gate);
        drop(runtime.spawn_blocking(move || gate.wait()));
    };
    blocks(gate);
    eventually("it is blocked", || gate.waiting() == 1);
    NEXT.store(next::HOLD, SeqCst);
    blocks(gate);
    eventually("a worker is asked for", || NEXT.load(SeqCst) == next::HELD);
    runtime
}

/// Ends the runtime while the worker is being made. Then the worker is made or refused, as `answer`
/// says.
fn ends(answer: u32, end: impl FnOnce(Runtime) + Send + 'static) {
    let gate = Arc::new(BlockerGate::new());
    let runtime = runtime_that_grows(&gate);
    let ending = thread::spawn(move || end(runtime));
    gate.open();
    // The server has nothing left to wait for except the worker that is being made.
    eventually("the other worker is gone", || threads::named("umcg-w") == 0);
    threads::until_at_rest(
        "the server, if there still is one",
        Duration::from_millis(20),
        |thread| threads::is_server(&thread.name),
    );
    NEXT.store(answer, SeqCst);
    eventually("the end", || ending.is_finished());
    ending.join().expect("no panic");
    // The sentinel and the monitor of the emulated provider may stay as long as the process.
    for name in ["umcg-s0", "umcg-w", "umcg-spawner"] {
        eventually(&format!("{name} is gone"), || threads::named(name) == 0);
    }
}

#[test]
fn a_worker_is_refused_while_the_runtime_is_dropped() {
    isolated(60, || ends(next::REFUSE, drop));
}

#[test]
fn a_worker_is_made_while_the_runtime_is_dropped() {
    isolated(60, || ends(next::MAKE, drop));
}

#[test]
fn a_worker_is_refused_while_the_runtime_ends_in_the_background() {
    isolated(60, || ends(next::REFUSE, Runtime::shutdown_background));
}

#[test]
fn a_worker_is_made_while_the_runtime_ends_in_the_background() {
    isolated(60, || ends(next::MAKE, Runtime::shutdown_background));
}

/// A server that registers without a pin. Its monitor is being made, and that call is held up.
/// Returns the tid of the server, and the thread that returns the result of its registration.
fn server_that_starts_the_monitor() -> (u32, thread::JoinHandle<Result<(), umcg_sys::Error>>) {
    let (tell, told) = mpsc::channel();
    let server = thread::spawn(move || {
        let provider = Emulated::new(EmulatedOptions::default()).expect("the emulated provider");
        let task = UmcgTask::for_current_thread(0);
        NEXT.store(next::HOLD, SeqCst);
        tell.send(task.tid()).expect("the test waits for it");
        // SAFETY: it fails, or is undone before the task is dropped.
        unsafe { provider.register(NonNull::from(&task), &Register::server(Placement::Unpinned)) }
            .inspect(|()| {
                let _ = provider.unregister(NonNull::from(&task));
            })
    });
    let tid = told.recv().expect("its tid");
    eventually("the monitor is being made", || {
        NEXT.load(SeqCst) == next::HELD
    });
    (tid, server)
}

/// Two servers register at once, and the monitor is refused to the first one: the second one makes
/// it.
#[test]
fn a_monitor_that_is_refused_to_one_server_is_made_by_another() {
    isolated(60, || {
        let (_, first) = server_that_starts_the_monitor();
        let second = thread::spawn(|| {
            let runtime = Builder::new()
                .provider(ProviderChoice::Emulated)
                .pin(false)
                .servers(2)
                .build()
                .expect("a runtime");
            assert_blocks_are_seen(&runtime);
        });
        // Its servers register, and wait for the monitor that the first server is making.
        eventually("the runtime starts its servers", || {
            !threads::list(|thread| threads::is_server(&thread.name)).is_empty()
        });
        threads::until_at_rest("the servers", Duration::from_millis(20), |thread| {
            threads::is_server(&thread.name)
        });
        NEXT.store(next::REFUSE, SeqCst);
        let error = first.join().expect("no panic").expect_err("no monitor");
        assert_eq!(error.errno(), libc::EAGAIN);
        eventually("its blocks are seen", || second.is_finished());
        second.join().expect("they are");
    });
}

/// A worker finds a server that then fails to register.
#[test]
fn a_worker_learns_that_its_server_failed_to_register() {
    isolated(60, || {
        let (server_tid, server) = server_that_starts_the_monitor();
        let (tell, told) = mpsc::channel();
        let worker = thread::spawn(move || {
            let provider = Emulated::new(EmulatedOptions::default()).expect("the provider");
            let task = UmcgTask::for_current_thread(server_tid);
            tell.send(task.tid()).expect("the test waits for it");
            // SAFETY: it fails.
            unsafe { provider.register(NonNull::from(&task), &Register::worker()) }
        });
        let tid = told.recv().expect("its tid");
        eventually("it waits to be admitted", || proc::asleep(tid));
        NEXT.store(next::REFUSE, SeqCst);
        server.join().expect("no panic").expect_err("no monitor");
        eventually("it is told", || worker.is_finished());
        let error = worker.join().expect("no panic").expect_err("no server");
        assert_eq!(error.errno(), libc::ESRCH);
    });
}
