//! What is left of the scheduler under `--cfg loom`: the parts that lock nothing, each with its
//! model at its end.

mod cap;
mod handover;
mod lifo;
mod list;
mod phase;
mod refs;
mod sleep;
mod wish;
