//! The smallest program: `main` is a task, and so is everything it spawns.

use std::{thread, time::Duration};

#[umcg::main]
async fn main() -> Result<(), umcg::JoinError> {
    // A future that calls blocking code keeps no other task from running.
    let future = umcg::spawn(async {
        thread::sleep(Duration::from_millis(100));
        "from a future that slept in the kernel"
    });
    // A closure is a task of the same kind.
    let closure = umcg::spawn_blocking(|| "from a closure");

    println!("hello {}", closure.await?);
    println!("hello {}", future.await?);
    Ok(())
}
