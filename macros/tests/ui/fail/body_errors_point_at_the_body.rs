#[path = "../mock.rs"]
mod mock;

#[umcg_macros::main(crate = "mock")]
async fn main() -> Result<(), std::io::Error> {
    let n: u32 = "text";
}
