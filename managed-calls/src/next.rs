//! The next definition of a function behind ours: libc's, or that of another interposer.

use std::{
    ffi::{CStr, c_void},
    sync::atomic::{
        AtomicPtr,
        Ordering::{Acquire, Release},
    },
};

/// Where the next definition of one function is.
#[derive(Debug)]
pub(crate) struct Next {
    name: &'static CStr,
    /// Null: not looked up yet. [`NONE`]: there is none. Written by anyone, always the same value.
    address: AtomicPtr<c_void>,
}

/// An address that is no function's.
const NONE: *mut c_void = std::ptr::without_provenance_mut(1);

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            address: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// The address, if it was looked up and there is one.
    #[inline(always)]
    pub(crate) fn known(&self) -> Option<*mut c_void> {
        // Acquire: pairs with the Release in `look_up`. The function's code was there before
        // the program began; this orders nothing else.
        let address = self.address.load(Acquire);
        (address > NONE).then_some(address)
    }

    /// Looks the definition up. `None`: this program has no other one, because it is linked
    /// statically. The first call takes the loader's lock, so it must not come from a
    /// signal handler: [`prepare`](crate::prepare) makes it while the program starts.
    #[cold]
    pub(crate) fn look_up(&self) -> Option<*mut c_void> {
        let address = self.address.load(Acquire);
        if !address.is_null() {
            return (address != NONE).then_some(address);
        }
        let found = self.search();
        self.address
            .store(if found.is_null() { NONE } else { found }, Release);
        (!found.is_null()).then_some(found)
    }

    /// In a statically linked program there is nothing to search.
    #[cfg(target_feature = "crt-static")]
    fn search(&self) -> *mut c_void {
        let _ = self.name;
        std::ptr::null_mut()
    }

    #[cfg(not(target_feature = "crt-static"))]
    fn search(&self) -> *mut c_void {
        // SAFETY: a C string.
        unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) }
    }
}
