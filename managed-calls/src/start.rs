//! Threads and programs that a worker starts: they begin as if there were no scheduler.
//!
//! A thread inherits the CPUs and the scheduling policy of the thread that makes it, and a program
//! those of the thread that starts it. For a worker these are the scheduler's.
//!
//! In a statically linked program these functions have one definition, libc's, and ours would leave
//! no way to reach it: there they are not managed.

use std::mem;

use libc::{
    c_char, c_int, c_void, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t, pthread_attr_t,
    pthread_t,
};

use crate::{Inherited, family::family, process::Strings};

/// The first function of a thread, as pthread has it.
pub type ThreadMain = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

family! {
    /// Threads and programs.
    __define_start;

    // Programs make their threads in order to have them run beside the one that makes them.
    fn pthread_create(
        thread: *mut pthread_t,
        attributes: *const pthread_attr_t,
        main: ThreadMain,
        argument: *mut c_void,
    ) -> c_int;
        raw { let _ = (thread, attributes, main, argument); libc::ENOSYS }
        managed |worker| {
            let inherited = inherited_by(attributes);
            let unmanage = worker.with(|worker| worker.unmanage());
            // A thread allocates its stack, so a small allocation more is no new demand.
            let start = Box::into_raw(Box::new(Start { unmanage, inherited, main, argument }));
            let result = real::pthread_create(thread, attributes, start_thread, start.cast());
            if result != 0 {
                // Not started, so the box is still this thread's.
                drop(Box::from_raw(start));
            }
            result
        }

    fn posix_spawn(
        pid: *mut pid_t,
        path: *const c_char,
        actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t,
        arguments: Strings,
        environment: Strings,
    ) -> c_int;
        raw {
            let _ = (pid, path, actions, attributes, arguments, environment);
            libc::ENOSYS
        }
        managed |worker| {
            worker.with(|worker| worker.before_child());
            let result = real::posix_spawn(pid, path, actions, attributes, arguments, environment);
            worker.with(|worker| worker.after_child());
            result
        }
    fn posix_spawnp(
        pid: *mut pid_t,
        path: *const c_char,
        actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t,
        arguments: Strings,
        environment: Strings,
    ) -> c_int;
        raw {
            let _ = (pid, path, actions, attributes, arguments, environment);
            libc::ENOSYS
        }
        managed |worker| {
            worker.with(|worker| worker.before_child());
            let result = real::posix_spawnp(pid, path, actions, attributes, arguments, environment);
            worker.with(|worker| worker.after_child());
            result
        }

    fn execv(path: *const c_char, arguments: Strings) -> c_int;
        raw { let _ = (path, arguments); missing() }
        managed |worker| {
            worker.with(|worker| (worker.unmanage())(Inherited::ALL));
            real::execv(path, arguments)
        }
    fn execvp(path: *const c_char, arguments: Strings) -> c_int;
        raw { let _ = (path, arguments); missing() }
        managed |worker| {
            worker.with(|worker| (worker.unmanage())(Inherited::ALL));
            real::execvp(path, arguments)
        }
    fn execvpe(path: *const c_char, arguments: Strings, environment: Strings) -> c_int;
        raw { let _ = (path, arguments, environment); missing() }
        managed |worker| {
            worker.with(|worker| (worker.unmanage())(Inherited::ALL));
            real::execvpe(path, arguments, environment)
        }
    fn fexecve(fd: c_int, arguments: Strings, environment: Strings) -> c_int;
        raw { let _ = (fd, arguments, environment); missing() }
        managed |worker| {
            worker.with(|worker| (worker.unmanage())(Inherited::ALL));
            real::fexecve(fd, arguments, environment)
        }
}

/// What a function returns that has no next definition and no system call of its own.
fn missing() -> c_int {
    crate::worker::set_errno(libc::ENOSYS);
    -1
}

/// What a new thread needs to know.
struct Start {
    unmanage: fn(Inherited),
    inherited: Inherited,
    main: ThreadMain,
    argument: *mut c_void,
}

/// The first function of a thread that a worker made.
unsafe extern "C-unwind" fn start_thread(start: *mut c_void) -> *mut c_void {
    // SAFETY: the box that `pthread_create` gave to this thread alone. It is freed before the
    // thread's own code runs, which may end the thread without returning.
    let Start {
        unmanage,
        inherited,
        main,
        argument,
    } = *unsafe { Box::from_raw(start.cast::<Start>()) };
    unmanage(inherited);
    // SAFETY: the caller of `pthread_create` promised that.
    unsafe { main(argument) }
}

/// What a thread with these attributes has from the thread that makes it, rather than from them.
///
/// # Safety
/// Null, or initialized attributes.
unsafe fn inherited_by(attributes: *const pthread_attr_t) -> Inherited {
    let mut inherited = Inherited::ALL;
    if attributes.is_null() {
        return inherited;
    }
    let mut how = 0;
    // SAFETY: initialized attributes, and a live int.
    if unsafe { libc::pthread_attr_getinheritsched(attributes, &raw mut how) } == 0 {
        inherited.policy = how == libc::PTHREAD_INHERIT_SCHED;
    }
    #[cfg(target_env = "gnu")]
    {
        // All bits are set where the attributes say nothing about the CPUs.
        let mut mask = [0_u8; mem::size_of::<libc::cpu_set_t>()];
        // SAFETY: initialized attributes, and a set of that size.
        let result = unsafe {
            libc::pthread_attr_getaffinity_np(attributes, mask.len(), mask.as_mut_ptr().cast())
        };
        inherited.cpus = result != 0 || mask.iter().all(|&byte| byte == 0xff);
    }
    inherited
}
