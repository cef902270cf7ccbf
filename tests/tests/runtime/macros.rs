//! `#[umcg::main]` and `#[umcg::test]` with the real runtime. The crate of the macros tests what
//! they accept and which errors they report.

use std::{
    error::Error, io::Read, num::ParseIntError, os::unix::net::UnixStream, panic,
    process::ExitCode, rc::Rc, sync::mpsc, thread,
};

use umcg::{__private::run_main, Builder};

fn same(a: ExitCode, b: ExitCode) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

fn one_server() -> Builder {
    Builder::new().servers(1)
}

#[umcg::test]
async fn a_future_is_a_task_and_may_spawn() {
    assert!(umcg::task::try_id().is_some());
    let child = umcg::spawn(async { 1 });
    assert_eq!(child.await.unwrap() + 1, 2);
}

#[umcg::test]
fn a_plain_function_is_a_task_and_may_spawn() {
    assert!(umcg::task::try_id().is_some());
    assert_eq!(umcg::spawn_blocking(|| 1).join().unwrap(), 1);
}

#[umcg::test]
fn a_test_has_one_server_unless_the_environment_says() {
    let servers = std::env::var("UMCG_SERVERS").map_or(1, |n| n.parse().unwrap());
    assert_eq!(umcg::Handle::current().metrics().servers().len(), servers);
}

#[umcg::test(servers = 2, name = "named")]
async fn options_reach_the_builder() {
    assert_eq!(umcg::Handle::current().metrics().servers().len(), 2);
    let name = umcg::spawn_blocking(|| thread::current().name().map(str::to_owned));
    let name = name.await.unwrap().unwrap();
    assert!(name.starts_with("named"), "{name}");
}

#[umcg::test]
async fn a_result_is_reported() -> Result<(), ParseIntError> {
    let not_send = Rc::new("1");
    umcg::yield_now().await;
    not_send.parse::<i32>().map(drop)
}

#[umcg::test]
#[should_panic(expected = "on purpose")]
async fn a_panic_fails_the_test() {
    panic!("on purpose");
}

#[umcg::main(servers = 1)]
async fn answer() -> u32 {
    umcg::spawn(async { 42 }).await.unwrap()
}

#[test]
fn a_function_that_is_not_main_returns_its_result() {
    assert_eq!(answer(), 42);
    assert_eq!(answer(), 42, "each call has a runtime of its own");
}

#[test]
fn main_reports_what_it_returns() {
    let code = run_main(one_server(), || ExitCode::from(7));
    assert!(same(code, ExitCode::from(7)));
    let code = run_main(one_server(), || -> Result<(), Box<dyn Error>> {
        Err("as asked".into())
    });
    assert!(same(code, ExitCode::FAILURE));
    let code = run_main(one_server(), || {});
    assert!(same(code, ExitCode::SUCCESS));
}

#[test]
fn the_panic_of_main_goes_on_in_its_caller() {
    let caught = panic::catch_unwind(|| run_main(one_server(), || panic!("on purpose")));
    let payload = caught.expect_err("a panic");
    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
}

#[test]
fn a_runtime_that_cannot_be_built_is_a_failure() {
    let code = run_main(Builder::new().thread_stack_size(usize::MAX), || {});
    assert!(same(code, ExitCode::FAILURE));
}

#[test]
fn main_does_not_wait_for_a_task_that_is_blocked_forever() {
    let (mut silent, _never_written) = UnixStream::pair().unwrap();
    let (about_to_block, blocks) = mpsc::channel();
    let code = run_main(one_server(), move || {
        drop(umcg::spawn_blocking(move || {
            about_to_block.send(()).unwrap();
            silent.read(&mut [0]).unwrap()
        }));
        blocks.recv().unwrap();
    });
    assert!(same(code, ExitCode::SUCCESS));
}
