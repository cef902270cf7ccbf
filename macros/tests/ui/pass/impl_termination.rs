#[path = "../mock.rs"]
mod mock;

#[umcg_macros::main(crate = "mock")]
#[allow(clippy::unused_unit)]
pub fn main() -> impl std::process::Termination {
    #![allow(unused_variables)]
    let unused = 1;
    std::process::ExitCode::SUCCESS
}
