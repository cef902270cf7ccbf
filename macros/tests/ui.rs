//! What the compiler says about right and wrong uses of the attributes.
//!
//! The cases name `ui/mock.rs` as their runtime: they are about the macros alone. The texts are
//! those of the compiler that the workspace is built with; after a change of it run the test
//! with `TRYBUILD=overwrite` and look at the difference.

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
