//! Runs the example `tree_hash` on trees that the tests make: the digest, and entries that cannot
//! be hashed.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tree_hash");

fn tree_hash(tree: &Path, options: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("--quiet")
        .args(options)
        .arg(tree)
        .output()
        .expect("the example starts")
}

fn digest(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let digest = text.split_whitespace().next().expect("a first line");
    assert_eq!(digest.len(), 64, "{text}");
    digest.to_owned()
}

/// A tree with every kind of entry.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().expect("a temporary directory");
    let root = tree.path();
    for directory in 0..20 {
        let path = root.join(format!("d{directory}/deeper"));
        fs::create_dir_all(&path).expect("a directory");
        for file in 0..20 {
            fs::write(path.join(format!("f{file}")), format!("{directory} {file}"))
                .expect("a file");
        }
    }
    fs::write(root.join("large"), vec![7; 1 << 20]).expect("a file");
    fs::write(root.join(OsStr::from_bytes(b"not \xff UTF-8")), "x").expect("a file");
    symlink("/nowhere", root.join("dangling")).expect("a link");
    symlink("..", root.join("d0/loop")).expect("a link");
    let fifo = Command::new("mkfifo").arg(root.join("fifo")).status();
    assert!(fifo.expect("mkfifo").success());
    tree
}

#[test]
fn the_digest_depends_on_the_tree_alone() {
    let tree = tree();
    let first = digest(&tree_hash(tree.path(), &[]));
    for options in [
        &["--servers", "1"][..],
        &["--servers", "3", "--in-flight", "1"],
        &["--max-workers", "12"],
        &["--one-file-system"],
    ] {
        assert_eq!(
            digest(&tree_hash(tree.path(), options)),
            first,
            "{options:?}"
        );
    }

    fs::write(tree.path().join("d7/deeper/f7"), "7 8").expect("a file");
    let changed = digest(&tree_hash(tree.path(), &[]));
    assert_ne!(changed, first, "a changed file");
    fs::rename(tree.path().join("d7"), tree.path().join("e7")).expect("a rename");
    assert_ne!(digest(&tree_hash(tree.path(), &[])), changed, "a new name");
}

#[test]
fn files_and_bytes_are_counted() {
    let tree = tree();
    let output = tree_hash(tree.path(), &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    // 400 small files, the large one, the one with the odd name, two links, and the FIFO.
    assert!(text.contains("405 files in 41 directories"), "{text}");
    assert!(text.contains("provider: "), "{text}");
}

#[test]
fn unreadable_files_are_listed_and_the_exit_code_says_so() {
    let outside = tempfile::tempdir().expect("a temporary directory");
    let tree = tree();
    for directory in [outside.path(), tree.path()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    fs::set_permissions(tree.path().join("large"), fs::Permissions::from_mode(0o000))
        .expect("a mode");
    // Root can read everything, so the program runs as another user. That user may not be allowed
    // to enter the folder where the program was built.
    let program = outside.path().join("tree_hash");
    fs::copy(PROGRAM, &program).expect("a copy");
    let mut command = Command::new(program);
    if fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
        command.uid(65534).gid(65534);
    }
    let output = command
        .arg("--quiet")
        .arg(tree.path())
        .output()
        .expect("the example starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("not hashed: \"large\""), "{text}");
    assert!(
        text.contains("not hashed: 1: 1 permission denied"),
        "{text}"
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("404 files"), "{text}");
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let tree = tree();
    for path in ["large", "nothing of this name"] {
        let output = tree_hash(&tree.path().join(path), &[]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!output.stderr.is_empty());
    }
}
