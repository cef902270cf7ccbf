#[path = "../mock.rs"]
mod mock;

#[umcg_macros::main(
    crate = "mock",
    servers = 0,
    max_workers = "many",
    keep_alive = 10,
    pin,
    provider = "cloud",
    name = "a",
    thread_name = "b"
)]
async fn main() {}

#[umcg_macros::main(crate = "mock", servers = mock::Builder::new())]
async fn wrong_type() {}
