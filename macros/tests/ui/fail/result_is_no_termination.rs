#[path = "../mock.rs"]
mod mock;

#[umcg_macros::main(crate = "mock")]
async fn main() -> u32 {
    1
}

#[umcg_macros::main(crate = "mock")]
fn not_send() -> std::rc::Rc<u32> {
    std::rc::Rc::new(1)
}
