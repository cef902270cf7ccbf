//! Whose calls are seen: of std, of C libraries, beside other interposers, in static programs; and
//! that a library leaves the program alone which loads it.
//!
//! Each test builds small programs with cargo and the C compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A folder for what a test builds.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(folder.join("crate"));
    fs::create_dir_all(folder.join("crate/src")).unwrap();
    folder
}

/// Runs it and demands that it succeeds.
fn run(command: &mut Command) -> String {
    let (output, text) = try_run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
    text
}

fn try_run(command: &mut Command) -> (Output, String) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output, text)
}

/// A crate with this one as its dependency.
fn write_crate(folder: &Path, library: &str, file: &str, source: &str) {
    let here = env!("CARGO_MANIFEST_DIR");
    let manifest = format!(
        "[package]\nname = \"fixture\"\nversion = \"0.0.0\"\nedition = \"2024\"\n{library}\n\
         [dependencies]\numcg-managed-calls = {{ path = \"{here}\" }}\nlibc = \"0.2\"\n\
         [workspace]\n[profile.release]\nlto = \"fat\"\n"
    );
    fs::write(folder.join("crate/Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("crate/src").join(file), source).unwrap();
    // The versions that this workspace was resolved with, so that nothing is downloaded.
    fs::copy(
        Path::new(here).join("../Cargo.lock"),
        folder.join("crate/Cargo.lock"),
    )
    .unwrap();
}

fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(arguments)
        .args(["--offline", "--manifest-path"])
        .arg(folder.join("crate/Cargo.toml"))
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("RUSTFLAGS", flags(folder))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// Where the linker finds the C libraries that are part of the program.
fn flags(folder: &Path) -> String {
    format!("-L native={}", folder.display())
}

/// Writes the crate of [`PROGRAM`], and compiles the C library that is a part of it.
fn write_program(folder: &Path) {
    write_crate(folder, "", "main.rs", PROGRAM);
    fs::write(folder.join("linked.c"), PROBE).unwrap();
    run(Command::new("cc")
        .args([
            "-c",
            "-O2",
            "-D_FORTIFY_SOURCE=2",
            "-Dprobe=linked_probe",
            "-o",
        ])
        .arg(folder.join("linked.o"))
        .arg(folder.join("linked.c")));
    run(Command::new("ar")
        .arg("rcs")
        .arg(folder.join("liblinked.a"))
        .arg(folder.join("linked.o")));
}

/// Compiles a C library.
fn c_library(folder: &Path, name: &str, source: &str) -> PathBuf {
    let file = folder.join(format!("{name}.c"));
    fs::write(&file, source).unwrap();
    let library = folder.join(format!("lib{name}.so"));
    run(Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-D_FORTIFY_SOURCE=2", "-o"])
        .arg(&library)
        .arg(&file));
    library
}

/// A program with a worker that says which calls it sees. Its arguments name what it does.
const PROGRAM: &str = r#"
use std::{ffi::CString, io::Read, ptr::NonNull};
use umcg_managed_calls::*;

umcg_managed_calls::define!();

#[link(name = "linked", kind = "static")]
unsafe extern "C" {
    fn linked_probe() -> i32;
}

struct Names;

impl Worker for Names {
    fn enter(&self, call: ManagedCall, _: Sleep, _: Return) {
        // Not by `println`, whose buffer the call may be about to flush.
        for part in ["seen ", call.name, "\n"] {
            unsafe { libc::write(1, part.as_ptr().cast(), part.len()) };
        }
    }
    fn exit(&self, _: Return) {}
    fn yield_now(&self) {}
    fn affinity(&self, _: &mut [u8]) {}
    fn unmanage(&self) -> fn(Inherited) { |_| {} }
    fn before_child(&self) {}
    fn after_child(&self) {}
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let current = CurrentWorker::new(NonNull::from(&Names as &dyn Worker));
    unsafe { set_current(Some(NonNull::from(&current))) };
    let mut text = String::new();
    std::fs::File::open("/proc/self/comm").unwrap().read_to_string(&mut text).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1));
    println!("read {}", text.trim());
    assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
    println!("linked");
    println!("probe {}", unsafe { linked_probe() });
    if let Some(library) = arguments.first() {
        let flags = if arguments.len() > 1 { libc::RTLD_DEEPBIND } else { 0 };
        let library = CString::new(library.as_str()).unwrap();
        println!("library");
        unsafe {
            let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW | flags);
            assert!(!handle.is_null());
            let probe = libc::dlsym(handle, c"probe".as_ptr());
            assert!(!probe.is_null());
            let probe: extern "C" fn() -> i32 = std::mem::transmute(probe);
            println!("probe {}", probe());
        }
    }
}
"#;

const PROBE: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int probe(void)
{
    char buffer[64];
    int fd = open("/proc/self/comm", O_RDONLY);
    int got = read(fd, buffer, sizeof(buffer));
    struct pollfd set = { .fd = -1 };
    struct timeval brief = { .tv_usec = 1000 };
    int both[2];

    close(fd);
    usleep(1000);
    poll(&set, 1, 1);
    socketpair(AF_UNIX, SOCK_STREAM, 0, both);
    setsockopt(both[0], SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof(brief));
    if (recv(both[0], buffer, 4, 0) != -1 || errno != EAGAIN)
        return -1;
    if (send(both[1], "abc", 3, 0) != 3 || recv(both[0], buffer, 4, 0) != 3)
        return -2;
    if (recv(both[0], (void *)8, 4, MSG_DONTWAIT) != -1 || errno != EAGAIN)
        return -3;
    close(both[0]);
    close(both[1]);
    if (close(both[0]) != -1 || errno != EBADF)
        return -4;
    return got;
}
"#;

/// What a program has seen while [`PROBE`] ran.
fn assert_probed(text: &str) {
    for name in [
        "seen open\n",
        "seen read\n",
        "seen usleep\n",
        "seen poll\n",
        "seen recv\n",
        "probe 8\n",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    // The call that found something to receive is not seen.
    assert_eq!(text.matches("seen recv\n").count(), 1, "{text}");
}

#[test]
fn the_calls_of_c_libraries_are_seen_unless_they_are_bound_to_their_own() {
    let folder = folder("shared");
    write_program(&folder);
    let library = c_library(&folder, "probe", PROBE);
    for profile in [&["build"][..], &["build", "--release"]] {
        run(&mut cargo(&folder, profile));
        let kind = if profile.len() > 1 {
            "release"
        } else {
            "debug"
        };
        let program = folder.join("target").join(kind).join("fixture");

        let text = run(Command::new(&program).arg(&library));
        let (text, probe) = text.split_once("library").unwrap();
        let (std, linked) = text.split_once("linked").unwrap();
        for name in ["seen open64", "seen read", "seen clock_nanosleep"] {
            assert!(std.contains(name), "{kind}: {std}");
        }
        for probe in [linked, probe] {
            assert_probed(probe);
        }

        // Not seen, and nothing breaks.
        let text = run(Command::new(&program).arg(&library).arg("deep"));
        let (_, probe) = text.split_once("library").unwrap();
        assert!(probe.contains("probe 8"), "{text}");
        for name in ["seen open", "seen usleep", "seen poll"] {
            assert!(!probe.contains(name), "{kind}: {text}");
        }
    }
}

#[test]
fn another_interposer_comes_after_ours() {
    let folder = folder("preload");
    write_program(&folder);
    run(&mut cargo(&folder, &["build"]));
    let preload = c_library(
        &folder,
        "preload",
        r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/types.h>
#include <unistd.h>

ssize_t read(int fd, void *buffer, size_t count)
{
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    ssize_t got = next(fd, buffer, count);

    if (got > 0)
        ((char *)buffer)[0] = '!';
    return got;
}
"#,
    );
    let text = run(Command::new(folder.join("target/debug/fixture")).env("LD_PRELOAD", &preload));
    assert!(
        text.contains("seen read") && text.contains("read !ixture"),
        "{text}"
    );
}

#[test]
fn a_static_program_works_by_system_calls() {
    let folder = folder("static");
    write_program(&folder);
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = cargo(&folder, &["build", "--target", &target]);
    let flags = format!("{} -C target-feature=+crt-static", flags(&folder));
    run(build.env("RUSTFLAGS", flags));
    let program = folder.join("target").join(target).join("debug/fixture");
    let text = run(&mut Command::new(&program));
    let (std, linked) = text.split_once("linked").unwrap();
    for name in [
        "seen open64",
        "seen read",
        "seen clock_nanosleep",
        "read fixture",
    ] {
        assert!(std.contains(name), "{std}");
    }
    assert_probed(linked);
}

#[test]
fn a_library_for_others_exports_nothing_of_this() {
    let folder = folder("plugin");
    write_crate(
        &folder,
        "[lib]\ncrate-type = [\"cdylib\"]",
        "lib.rs",
        r#"
#[unsafe(no_mangle)]
pub extern "C" fn is_managed() -> i32 {
    std::thread::sleep(std::time::Duration::from_millis(1));
    umcg_managed_calls::is_managed().into()
}
"#,
    );
    run(&mut cargo(&folder, &["build", "--release"]));
    let library = folder.join("target/release/libfixture.so");
    let symbols = run(Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(&library));
    let exported: Vec<&str> = symbols
        .lines()
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    assert!(exported.contains(&"is_managed"), "{symbols}");
    for name in umcg_managed_calls::names() {
        assert!(!exported.contains(&name), "{name} is exported");
    }
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("NOT CHECKED HERE: that Python can load the library: there is no python3");
        return;
    }
    let script = "import ctypes, sys, time; l = ctypes.CDLL(sys.argv[1]); \
                  time.sleep(0.001); print(open('/proc/self/comm').read(), l.is_managed())";
    let text = run(Command::new("python3").args(["-c", script]).arg(&library));
    assert!(text.trim().ends_with('0'), "{text}");
}

#[test]
fn two_definitions_in_one_program_are_an_error() {
    let folder = folder("twice");
    write_crate(
        &folder,
        "",
        "main.rs",
        "mod a { umcg_managed_calls::define!(); }\nmod b { umcg_managed_calls::define!(); }\n\
         fn main() {}\n",
    );
    let (output, text) = try_run(&mut cargo(&folder, &["build"]));
    assert!(
        !output.status.success() && text.contains("already defined"),
        "{text}"
    );
}
