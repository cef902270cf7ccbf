#[path = "../mock.rs"]
mod mock;

#[umcg_macros::main(crate = "mock")]
fn start(_arguments: Vec<String>) {}

#[umcg_macros::main(crate = "mock")]
struct NotAFunction;

#[umcg_macros::main(crate = "mock")]
async fn generic<T>() {}

#[umcg_macros::main(crate = "mock")]
unsafe fn not_safe() {}

#[umcg_macros::test(crate = "mock")]
#[test]
async fn twice() {}

fn main() {}
