//! The smallest program: `main` is a task that spawns two others.

use std::{thread, time::Duration};

#[umcg::main]
async fn main() -> Result<(), umcg::JoinError> {
    // This future blocks its thread. Other tasks run meanwhile.
    let future = umcg::spawn(async {
        thread::sleep(Duration::from_millis(100));
        "from a future that slept in the kernel"
    });
    // A closure runs on the same workers.
    let closure = umcg::spawn_blocking(|| "from a closure");

    println!("hello {}", closure.await?);
    println!("hello {}", future.await?);
    Ok(())
}
