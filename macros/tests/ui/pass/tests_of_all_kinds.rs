#![deny(warnings)]

#[path = "../mock.rs"]
mod mock;

#[umcg_macros::test(crate = "mock")]
async fn with_a_future() {}

#[umcg_macros::test(crate = "mock", servers = 2)]
fn with_a_result() -> Result<(), std::num::ParseIntError> {
    "1".parse::<i32>().map(drop)
}

#[umcg_macros::test(crate = "mock")]
#[should_panic(expected = "on purpose")]
fn that_panics() {
    panic!("on purpose")
}

#[umcg_macros::test(crate = "mock")]
#[ignore = "to see that the attribute is kept"]
fn ignored() -> () {}

fn main() {}
