//! Nothing is built. Cargo accepts the `links` key, which keeps two versions of this crate out of
//! one program, only from a package with a build script.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
