//! The macro that a family of managed calls is written in.

/// Defines managed calls. Each entry is
///
/// ```text
/// fn name(argument: type, ...) -> type;
///     raw { what to do where there is no next definition }
///     managed Possible Io;                 a call that is the next definition, announced
///     managed |worker| { ... }             or one with a form of its own on workers
///     always |_all| { ... }                or one with a form of its own on every thread
/// ```
///
/// and becomes three things: a function `name` that goes straight to the next definition unless the
/// calling thread is a worker; a function `real::name` that always does; and one symbol in the
/// macro that [`define!`](crate::define) calls in the final executable.
macro_rules! family {
    (
        $(#[$doc:meta])*
        $define:ident;
        $(
            fn $name:ident ( $($argument:ident : $type:ty),* $(,)? ) -> $result:ty;
            raw $raw:block
            $whose:ident $($sleep:ident $how:ident ;)? $(|$worker:ident| $body:block)?
        )*
    ) => {
        /// Where the next definitions of this family are.
        #[allow(non_upper_case_globals)]
        mod next_of {
            use crate::next::Next;

            $(
                pub(super) static $name: Next = Next::new(
                    match std::ffi::CStr::from_bytes_with_nul(
                        concat!(stringify!($name), "\0").as_bytes()
                    ) {
                        Ok(name) => name,
                        Err(_) => panic!("a name has no NUL byte"),
                    }
                );
            )*
        }

        /// All of them, to be looked up when the program starts.
        pub(crate) static NEXT: &[&crate::next::Next] = &[$(&next_of::$name),*];

        /// The names of the family's functions.
        pub(crate) static NAMES: &[&str] = &[$(stringify!($name)),*];

        /// The functions behind ours.
        pub(crate) mod real {
            #[allow(unused_imports)]
            use super::*;

            $(
                /// The next definition.
                ///
                /// # Safety
                /// As for the function of libc.
                #[inline(always)]
                pub(crate) unsafe fn $name($($argument: $type),*) -> $result {
                    type Function = unsafe extern "C-unwind" fn($($type),*) -> $result;

                    /// Out of line, so that the way to a known definition is short.
                    #[cold]
                    #[inline(never)]
                    unsafe extern "C-unwind" fn look_up($($argument: $type),*) -> $result {
                        match next_of::$name.look_up() {
                            // SAFETY: the address of the function with this name, which has this
                            // type in every libc; and the caller's promise.
                            Some(address) => unsafe {
                                std::mem::transmute::<*mut c_void, Function>(address)(
                                    $($argument),*
                                )
                            },
                            // SAFETY: the caller's promise.
                            #[allow(unused_unsafe)]
                            None => unsafe { $raw },
                        }
                    }

                    match next_of::$name.known() {
                        // SAFETY: as above.
                        Some(address) => unsafe {
                            std::mem::transmute::<*mut c_void, Function>(address)($($argument),*)
                        },
                        // SAFETY: the caller's promise.
                        None => unsafe { look_up($($argument),*) },
                    }
                }
            )*
        }

        $(
            /// See the function of this name in libc.
            ///
            /// # Safety
            /// As there.
            #[inline]
            pub unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                /// Out of line, with the same arguments: a jump.
                #[inline(never)]
                unsafe extern "C-unwind" fn on_worker($($argument: $type),*) -> $result {
                    let worker = crate::family::worker!($whose);
                    crate::family::on_worker!(
                        worker, $name($($argument),*), $($sleep $how)? $(|$worker| $body)?
                    )
                }

                if crate::family::is_ours!($whose) {
                    // SAFETY: the caller's promise.
                    unsafe { on_worker($($argument),*) }
                } else {
                    // SAFETY: as above.
                    unsafe { real::$name($($argument),*) }
                }
            }
        )*

        /// Defines the symbols of this family; for [`define!`](crate::define).
        #[doc(hidden)]
        #[macro_export]
        macro_rules! $define {
            () => {
                $(
                    #[unsafe(no_mangle)]
                    pub unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                        // SAFETY: the caller's promise, which is that of the function in libc.
                        unsafe { $crate::calls::$name($($argument),*) }
                    }
                )*
            };
        }
    };
}

/// Whether a call does not go straight to the next definition.
macro_rules! is_ours {
    (managed) => {
        crate::worker::is_managed()
    };
    (always) => {
        true
    };
}

/// The worker that makes a call which is ours.
macro_rules! worker {
    (managed) => {{
        let Some(worker) = crate::worker::current() else {
            unreachable!("the caller has looked");
        };
        worker
    }};
    (always) => {
        ()
    };
}

/// What a managed call does on a worker.
macro_rules! on_worker {
    ($managed:ident, $name:ident($($argument:ident),*), $sleep:ident $how:ident) => {
        $managed.call(
            crate::ManagedCall {
                name: stringify!($name),
                argument: crate::family::first!($($argument),*),
            },
            crate::Sleep::$sleep,
            crate::Return::$how,
            // SAFETY: the caller's promise.
            || unsafe { real::$name($($argument),*) },
        )
    };
    ($managed:ident, $name:ident($($argument:ident),*), |$worker:ident| $body:block) => {{
        let $worker = $managed;
        // SAFETY: the caller's promise.
        #[allow(unused_unsafe)]
        unsafe {
            $body
        }
    }};
}

/// The first of the arguments, as a number.
macro_rules! first {
    () => {
        0
    };
    ($first:ident $(, $rest:ident)*) => {
        $first as usize
    };
}

pub(crate) use family;
pub(crate) use first;
pub(crate) use is_ours;
pub(crate) use on_worker;
pub(crate) use worker;
