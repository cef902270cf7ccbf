//! What model-checked code is built on: atomics, cells, thread-locals and the futex.
//!
//! Under `--cfg loom` these are twins with the same shape, which loom can see into. So the code
//! that uses them needs no `cfg` of its own.

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        mod model;
        pub(crate) use self::model::*;
    } else {
        mod real;
        pub(crate) use self::real::*;
    }
}
