#[path = "../mock.rs"]
mod mock;

use std::{error::Error, rc::Rc};

#[umcg_macros::main(crate = "mock")]
async fn main() -> Result<(), Box<dyn Error>> {
    let here = Rc::new(1);
    std::future::ready(()).await;
    let number: i32 = "1".parse()?;
    assert_eq!(number, *here);
    Ok(())
}
