//! Files, pipes, terminals and file locks beside libc's own.

mod common;

use std::{
    ffi::CString,
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    ptr,
};

use common::{keeps_errno, of, outcome, pipe, same, set_non_blocking, while_asleep};
use libc::c_int;
use umcg_managed_calls::{Return, Sleep};

umcg_managed_calls::define!();

/// A file that goes with the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let name = format!("umcg-managed-calls-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn path(&self) -> CString {
        CString::new(self.0.to_str().unwrap()).unwrap()
    }

    fn open(&self) -> OwnedFd {
        fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.0)
            .unwrap()
            .into()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn read(fd: &OwnedFd, count: usize) -> ((i64, c_int), Vec<u8>) {
    let mut buffer = vec![0xee; count];
    // SAFETY: room for `count` bytes.
    let result = keeps_errno(|| unsafe {
        libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), count) as i64
    });
    buffer.truncate(result.0.max(0) as usize);
    (result, buffer)
}

fn write(fd: &OwnedFd, bytes: &[u8]) -> (i64, c_int) {
    // SAFETY: `bytes` is readable.
    keeps_errno(|| unsafe {
        libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) as i64
    })
}

#[test]
fn files_are_read_and_written_at_offsets_and_in_parts() {
    same(|| {
        let file = Temporary::new("parts");
        let fd = file.open();
        let parts = [
            libc::iovec {
                iov_base: b"vector ".as_ptr().cast_mut().cast(),
                iov_len: 7,
            },
            libc::iovec {
                iov_base: b"of parts".as_ptr().cast_mut().cast(),
                iov_len: 8,
            },
        ];
        // SAFETY: readable parts, room for what is read, and open descriptors.
        let results = unsafe {
            let raw = fd.as_raw_fd();
            let mut buffer = [0_u8; 8];
            let into = buffer.as_mut_ptr().cast();
            [
                outcome(libc::writev(raw, parts.as_ptr(), 2) as i64),
                outcome(libc::pwrite(raw, b"V".as_ptr().cast(), 1, 0) as i64),
                outcome(libc::pread(raw, into, 8, 7) as i64),
                outcome(libc::pread64(raw, into, 8, 100) as i64),
                outcome(libc::pread(raw, into, 8, -1) as i64),
                outcome(libc::fsync(raw)),
                outcome(libc::fdatasync(raw)),
                outcome(libc::fsync(-1)),
            ]
        };
        (results, fs::read(&file.0).unwrap())
    });
}

#[test]
fn a_mode_is_passed_on_where_there_is_one() {
    same(|| {
        let file = Temporary::new("mode");
        let path = file.path();
        // SAFETY: C strings; no mode where the flags ask for none.
        let made = unsafe {
            libc::umask(0);
            libc::open(
                path.as_ptr(),
                libc::O_CREAT | libc::O_RDWR | libc::O_EXCL,
                0o640,
            )
        };
        assert!(made >= 0);
        // SAFETY: just opened.
        drop(unsafe { OwnedFd::from_raw_fd(made) });
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&file.0).unwrap().permissions().mode() & 0o777;
        // SAFETY: C strings.
        let again = unsafe {
            outcome(libc::open(
                path.as_ptr(),
                libc::O_CREAT | libc::O_EXCL,
                0o600,
            ))
        };
        // SAFETY: as above.
        let missing = unsafe { outcome(libc::open(c"/no/such/file".as_ptr(), libc::O_RDONLY)) };
        (mode, again, missing)
    });
}

#[test]
fn pipes_wait_and_end() {
    let (result, said) = same(|| {
        let (out, into) = pipe();
        let waited = while_asleep(
            || read(&out, 8),
            || {
                assert_eq!(write(&into, b"byte").0, 4);
            },
        );
        drop(into);
        let end = read(&out, 8);
        let (out, into) = pipe();
        set_non_blocking(&out);
        let empty = read(&out, 8);
        drop(out);
        // Rust ignores SIGPIPE, so this is an error and not the end of the process.
        let broken = write(&into, b"x");
        (waited, end, empty, broken)
    });
    assert_eq!(result.0.1, b"byte");
    assert!(of("read", &said).contains(&(Sleep::Possible, Return::Io)));
}

#[test]
fn a_large_write_to_a_pipe_is_whole() {
    let bytes: Vec<u8> = (0..500_000_u32).map(|i| (i % 253) as u8).collect();
    same(|| {
        let (out, into) = pipe();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut got = Vec::new();
                while got.len() < bytes.len() {
                    got.extend(read(&out, 70_000).1);
                }
                got
            });
            let wrote = write(&into, &bytes);
            assert!(reader.join().unwrap() == bytes);
            wrote
        })
    });
}

#[test]
fn event_counters_and_terminals() {
    let (_, said) = same(|| {
        // SAFETY: no memory is passed.
        let counter = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, 0)) };
        let counted = while_asleep(
            || read(&counter, 8),
            || {
                assert_eq!(write(&counter, &3_u64.to_ne_bytes()).0, 8);
            },
        );
        let short = read(&counter, 4);
        // SAFETY: a fresh pair of a terminal's ends.
        let (master, slave) = unsafe {
            let (mut master, mut slave) = (0, 0);
            let opened = libc::openpty(
                &raw mut master,
                &raw mut slave,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            );
            assert_eq!(opened, 0);
            (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
        };
        let line = while_asleep(
            || read(&slave, 64),
            || {
                assert_eq!(write(&master, b"a line\n").0, 7);
            },
        );
        (counted, short, line)
    });
    assert!(of("read", &said).len() >= 3);
}

#[test]
fn bytes_move_between_descriptors() {
    same(|| {
        let file = Temporary::new("move");
        fs::write(&file.0, b"0123456789").unwrap();
        let from = file.open();
        let (out, into) = pipe();
        // SAFETY: open descriptors and live offsets.
        let moved = unsafe {
            let mut offset = 2;
            let sent =
                outcome(
                    libc::sendfile(into.as_raw_fd(), from.as_raw_fd(), &raw mut offset, 4) as i64,
                );
            let mut at = 6;
            let spliced = outcome(libc::splice(
                from.as_raw_fd(),
                &raw mut at,
                into.as_raw_fd(),
                ptr::null_mut(),
                4,
                0,
            ) as i64);
            (sent, offset, spliced, at)
        };
        (moved, read(&out, 64))
    });
}

#[test]
fn file_locks_are_waited_for_by_owners() {
    let (_, said) = same(|| {
        let file = Temporary::new("lock");
        let (first, second) = (file.open(), file.open());
        // SAFETY: open descriptors.
        let lock = |fd: &OwnedFd, how| unsafe { outcome(libc::flock(fd.as_raw_fd(), how)) };
        let held = lock(&first, libc::LOCK_EX);
        let busy = lock(&second, libc::LOCK_EX | libc::LOCK_NB);
        let waited = while_asleep(
            || lock(&second, libc::LOCK_EX),
            || {
                lock(&first, libc::LOCK_UN);
            },
        );
        // SAFETY: a live flock.
        let range = unsafe {
            let mut range: libc::flock = std::mem::zeroed();
            range.l_type = libc::F_WRLCK as i16;
            (
                outcome(libc::fcntl(
                    first.as_raw_fd(),
                    libc::F_SETLKW,
                    &raw mut range,
                )),
                outcome(libc::fcntl(first.as_raw_fd(), libc::F_GETFD)),
                outcome(libc::lockf(first.as_raw_fd(), libc::F_ULOCK, 0)),
                outcome(libc::fcntl(-1, libc::F_GETFD)),
            )
        };
        (held, busy, waited, range)
    });
    assert_eq!(of("flock", &said), [(Sleep::Certain, Return::Owner)]);
    assert_eq!(of("fcntl", &said), [(Sleep::Possible, Return::Owner)]);
}
