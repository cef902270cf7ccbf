#[path = "../mock.rs"]
mod mock;

#[umcg_macros::main(crate = "mock", server = 1, colour = "red")]
async fn main() {}

#[umcg_macros::main(crate = "mock", servers: 1)]
async fn not_a_list() {}
