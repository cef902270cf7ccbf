#[path = "../mock.rs"]
mod mock;

#[umcg_macros::main(crate = "mock")]
async fn main() -> ! {
    std::future::ready(()).await;
    std::process::exit(0)
}
