#[path = "../mock.rs"]
mod mock;

#[umcg_macros::main(crate = "mock")]
fn main() -> ! {
    std::process::exit(0)
}
