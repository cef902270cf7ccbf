#[path = "../mock.rs"]
mod mock;

#[umcg_macros::main(crate = "mock", flavor = "multi_thread", worker_threads = 4)]
async fn main() {}

#[umcg_macros::test(crate = "mock", start_paused = true)]
async fn test() {}
