//! What is left of the scheduler under `--cfg loom`: the parts that use no lock, and their models.

#![allow(
    dead_code,
    reason = "models use only some of the methods of what they check"
)]

mod idle;
mod inbox;
mod lifecycle;
#[cfg(test)]
mod models;
mod run_queue {
    pub(super) mod lifo_slot;
}
mod sleepers;
mod spawner {
    pub(super) mod limit;
    pub(super) mod request;
}
mod task_ref {
    pub(super) mod count;
}
mod worker {
    pub(super) mod handoff;
}
mod worker_list;
