#[path = "../mock.rs"]
mod mock;

use std::{process::ExitCode, time::Duration};

const SERVERS: usize = 2;

/// Documented.
#[umcg_macros::main(
    servers = SERVERS,
    max_workers = 1 + 1,
    min_idle_workers = 0,
    keep_alive = Duration::from_secs(1),
    name = "hello",
    thread_stack_size = 1 << 20,
    provider = "auto",
    pin = false,
    crate = mock,
)]
fn main() -> ExitCode {
    ExitCode::from(answer() - 42)
}

#[umcg_macros::main(crate = "mock")]
pub async fn answer() -> u8 {
    42
}
