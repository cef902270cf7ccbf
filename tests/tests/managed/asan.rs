//! What a program with managed calls needs to run under AddressSanitizer. `ci/asan.sh` has the
//! whole story.
//!
//! The managed `pthread_create` takes the place of AddressSanitizer's, which therefore knows none
//! of the threads, and its `pthread_detach` and `pthread_tryjoin_np` abort the program for a thread
//! that they do not know. These take their places.

use std::{
    ffi::{CStr, c_int, c_void},
    mem,
};

/// libc's definition of a function, past AddressSanitizer's.
fn next(name: &CStr) -> *mut c_void {
    // SAFETY: a C string.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!next.is_null(), "{name:?}");
    next
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_detach(thread: libc::pthread_t) -> c_int {
    type Detach = unsafe extern "C" fn(libc::pthread_t) -> c_int;
    // SAFETY: the function has this type.
    let detach: Detach = unsafe { mem::transmute(next(c"pthread_detach")) };
    // SAFETY: the promise of the caller.
    unsafe { detach(thread) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_tryjoin_np(thread: libc::pthread_t, value: *mut *mut c_void) -> c_int {
    type TryJoin = unsafe extern "C" fn(libc::pthread_t, *mut *mut c_void) -> c_int;
    // SAFETY: the function has this type.
    let try_join: TryJoin = unsafe { mem::transmute(next(c"pthread_tryjoin_np")) };
    // SAFETY: the promise of the caller.
    unsafe { try_join(thread, value) }
}
