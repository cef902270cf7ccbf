//! What is left of the scheduler under `--cfg loom`: the parts that lock nothing, each with its
//! model at its end.

mod idle;
mod inbox;
mod lifecycle;
mod refs;
mod run_queue {
    mod lifo_slot;
}
mod spawner {
    mod limit;
    mod request;
}
mod worker {
    mod handoff;
}
mod worker_list;
