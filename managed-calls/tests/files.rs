//! Files, pipes, terminals and file locks beside libc's own.

mod common;

use std::{
    ffi::CString,
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    ptr,
};

use common::{
    Guarded, keeps_errno, of, outcome, pipe, same, set_non_blocking, terminal, while_asleep,
};
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
        let (master, slave) = terminal();
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

/// Reads, by `readv` and `preadv` as well, and writes from wrong addresses: all of a pipe, a file
/// and a terminal lose what they lose in the kernel.
#[test]
fn wrong_addresses_are_the_kernels_to_report() {
    let guarded = Guarded::new();
    let (results, _) = same(|| {
        let file = Temporary::new("fault");
        fs::write(&file.0, b"0123456789").unwrap();
        let file = file.open();
        let (out, into) = pipe();
        let (master, slave) = terminal();
        write(&into, b"0123456789");
        write(&master, b"0123456789\n");
        let mut results = Vec::new();
        for fd in [&file, &out, &slave] {
            for address in [ptr::without_provenance_mut(8), guarded.end_minus(4)] {
                let raw = fd.as_raw_fd();
                let part = libc::iovec {
                    iov_base: address,
                    iov_len: 8,
                };
                let none = ptr::without_provenance(8);
                // SAFETY: the kernel checks the addresses.
                let calls = unsafe {
                    [
                        outcome(libc::read(raw, address, 8) as i64),
                        outcome(libc::pread(raw, address, 8, 0) as i64),
                        outcome(libc::preadv(raw, &raw const part, 1, 0) as i64),
                        outcome(libc::readv(raw, none, 1) as i64),
                        outcome(libc::readv(raw, &raw const part, -1) as i64),
                    ]
                };
                results.extend(calls);
            }
            set_non_blocking(fd);
            results.push(read(fd, 16).0);
        }
        for fd in [&file, &into, &master] {
            for address in [
                ptr::without_provenance(8),
                guarded.end_minus(4).cast_const(),
            ] {
                // SAFETY: as above.
                let wrote = unsafe { libc::write(fd.as_raw_fd(), address, 8) };
                results.push(outcome(wrote as i64));
            }
        }
        results.push(read(&out, 16).0);
        results
    });
    assert!(
        results.contains(&(-1, libc::EFAULT)) && results.contains(&(4, 0)),
        "{results:?}"
    );
}

#[test]
fn vectors_at_offsets_with_flags() {
    same(|| {
        let file = Temporary::new("vectors");
        let fd = file.open();
        let raw = fd.as_raw_fd();
        let mut bytes = *b"abcdefgh";
        let (first, second) = bytes.split_at_mut(3);
        let parts = [first, second].map(|part| libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        });
        let parts = parts.as_ptr();
        // SAFETY: live parts.
        let results = unsafe {
            [
                outcome(libc::pwritev(raw, parts, 2, 2) as i64),
                outcome(libc::pwritev2(raw, parts, 1, -1, 0) as i64),
                outcome(libc::pwritev2(raw, parts, 2, 0, libc::RWF_APPEND) as i64),
                outcome(libc::pwritev2(raw, parts, 2, 0, 1 << 30) as i64),
                outcome(libc::preadv(raw, parts, 2, 12) as i64),
                outcome(libc::preadv2(raw, parts, 2, 0, 0) as i64),
                outcome(libc::preadv2(raw, parts, 2, -1, 0) as i64),
                outcome(libc::preadv2(raw, parts, 2, -2, 0) as i64),
                outcome(libc::pwritev(raw, parts, 2, -1) as i64),
            ]
        };
        (results, bytes, fs::read(&file.0).unwrap())
    });
}

#[test]
fn what_cannot_be_read_or_written_is_reported() {
    same(|| {
        let file = Temporary::new("modes");
        fs::write(&file.0, b"0123456789").unwrap();
        let appends: OwnedFd = fs::File::options()
            .append(true)
            .open(&file.0)
            .unwrap()
            .into();
        let reads: OwnedFd = fs::File::open(&file.0).unwrap().into();
        let folder: OwnedFd = fs::File::open(std::env::temp_dir()).unwrap().into();
        let path = file.path();
        let results = [
            write(&appends, b"end"),
            read(&appends, 4).0,
            write(&reads, b"x"),
            read(&folder, 4).0,
            write(&folder, b"x"),
        ];
        // SAFETY: C strings and open descriptors.
        let opened = unsafe {
            [
                outcome(libc::open(
                    path.as_ptr(),
                    libc::O_RDONLY | libc::O_DIRECTORY,
                )),
                outcome(libc::open(ptr::without_provenance(8), libc::O_RDONLY)),
                outcome(libc::openat(
                    folder.as_raw_fd(),
                    c"umcg-no-such".as_ptr(),
                    libc::O_RDWR,
                )),
                outcome(libc::openat(reads.as_raw_fd(), c"x".as_ptr(), libc::O_RDWR)),
                outcome(libc::openat(-1, c"x".as_ptr(), libc::O_RDWR)),
                outcome(libc::creat(c"/proc/no".as_ptr(), 0o600)),
                outcome(libc::sync_file_range(-1, 0, 0, 0)),
                outcome(libc::msync(
                    ptr::without_provenance_mut(1),
                    1,
                    libc::MS_SYNC,
                )),
                outcome(libc::syncfs(-1)),
                outcome(libc::copy_file_range(
                    reads.as_raw_fd(),
                    ptr::null_mut(),
                    folder.as_raw_fd(),
                    ptr::null_mut(),
                    4,
                    0,
                ) as i64),
            ]
        };
        (results, opened, fs::read(&file.0).unwrap())
    });
}

/// Pipes: what is read in parts, what does not fit, and what moves from one to another.
#[test]
fn pipes_that_are_full_or_empty() {
    same(|| {
        let (out, into) = pipe();
        // SAFETY: an open pipe.
        let size = unsafe { libc::fcntl(into.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
        assert_eq!(size, 4096);
        set_non_blocking(&into);
        let part = write(&into, &[1; 10_000]);
        let full = [write(&into, b"x"), write(&into, &[1; 5000])];
        // SAFETY: an open pipe.
        unsafe { libc::fcntl(into.as_raw_fd(), libc::F_SETFL, 0) };
        let mut got = Vec::new();
        let waited = while_asleep(|| write(&into, b"later"), || got = read(&out, 5000).1);
        let rest = read(&out, 5000).1;
        let (other_out, other_into) = pipe();
        // SAFETY: open pipes.
        let move_bytes = |from: &OwnedFd, to: &OwnedFd, tee: bool| unsafe {
            let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
            if tee {
                outcome(libc::tee(from, to, 3, 0) as i64)
            } else {
                let none = ptr::null_mut();
                outcome(libc::splice(from, none, to, ptr::null_mut(), 100, 0) as i64)
            }
        };
        let teed = while_asleep(
            || move_bytes(&out, &other_into, true),
            || {
                write(&into, b"abcdef");
            },
        );
        let spliced = move_bytes(&out, &other_into, false);
        let waits = while_asleep(
            || move_bytes(&out, &other_into, false),
            || {
                write(&into, b"ghi");
            },
        );
        drop(into);
        let ended = move_bytes(&out, &other_into, false);
        let moved = read(&other_out, 100);
        (
            part,
            full,
            waited,
            (got, rest),
            (teed, spliced, waits, ended),
            moved,
        )
    });
}

/// The kernel's read keeps the file when another one gets the number.
#[test]
fn a_read_of_a_pipe_keeps_its_file() {
    use std::os::fd::IntoRawFd;

    let (got, _) = same(|| {
        let (out, into) = pipe();
        let (other, other_into) = pipe();
        write(&other_into, b"not");
        let fd = out.into_raw_fd();
        let mut buffer = [0_u8; 4];
        let to = buffer.as_mut_ptr().cast();
        let got = while_asleep(
            // SAFETY: room for four bytes.
            || outcome(unsafe { libc::read(fd, to, 4) } as i64),
            || {
                // SAFETY: this test's descriptors.
                assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), fd) }, fd);
                write(&into, b"mine");
            },
        );
        // SAFETY: this test's descriptor.
        unsafe { libc::close(fd) };
        (got, buffer, read(&other, 8).1)
    });
    assert_eq!(got, ((4, 0), *b"mine", b"not".to_vec()));
}

#[test]
fn counters_and_timers() {
    same(|| {
        // SAFETY: new descriptors.
        let [units, full] = [(5, libc::EFD_SEMAPHORE), (0, 0)]
            .map(|(value, flags)| unsafe { OwnedFd::from_raw_fd(libc::eventfd(value, flags)) });
        let most = (u64::MAX - 1).to_ne_bytes();
        let mut results = vec![
            read(&units, 8),
            read(&units, 16),
            (write(&full, &most), vec![]),
            (write(&full, &u64::MAX.to_ne_bytes()), vec![]),
            (write(&full, &[0; 4]), vec![]),
        ];
        // The counter is full: a writer waits for a reader.
        let mut taken = ((0, 0), vec![]);
        let added = while_asleep(
            || write(&full, &7_u64.to_ne_bytes()),
            || taken = read(&full, 8),
        );
        results.extend([taken, (added, vec![]), read(&full, 8)]);
        set_non_blocking(&full);
        results.push(read(&full, 8));
        // SAFETY: a new descriptor, and a live time.
        let timer = unsafe {
            let timer = libc::timerfd_create(libc::CLOCK_MONOTONIC, 0);
            let mut time: libc::itimerspec = std::mem::zeroed();
            time.it_value.tv_nsec = 10_000_000;
            let set = libc::timerfd_settime(timer, 0, &raw const time, ptr::null_mut());
            assert_eq!(set, 0);
            OwnedFd::from_raw_fd(timer)
        };
        results.push(read(&timer, 8));
        results
    });
}

/// Terminals: lines in parts, an end of file, raw input that waits for a number of bytes or for a
/// time, and what is left when one end is closed.
#[test]
fn terminals_wait_for_lines_bytes_and_time() {
    /// Raw input, which is there with `least` bytes, or after some tenths of a second.
    fn raw(fd: &OwnedFd, least: u8, tenths: u8) {
        // SAFETY: a live description of an open terminal.
        unsafe {
            let mut how: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(fd.as_raw_fd(), &raw mut how), 0);
            libc::cfmakeraw(&raw mut how);
            how.c_cc[libc::VMIN] = least;
            how.c_cc[libc::VTIME] = tenths;
            assert_eq!(
                libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &raw const how),
                0
            );
        }
    }

    let (_, said) = same(|| {
        let (master, slave) = terminal();
        let mut results = vec![];
        let fd = master.as_raw_fd();
        let typed = |bytes: &[u8]| {
            // SAFETY: readable bytes.
            let wrote = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
            assert_eq!(wrote, bytes.len() as isize);
        };
        results.push(while_asleep(|| read(&slave, 4), || typed(b"a line\nnext")));
        results.push(read(&slave, 64));
        // The line is not over.
        results.push(while_asleep(|| read(&slave, 64), || typed(b"\x04")));
        typed(b"\x04");
        results.push(read(&slave, 64));
        raw(&slave, 3, 0);
        typed(b"ab");
        results.push(while_asleep(|| read(&slave, 64), || typed(b"c")));
        raw(&slave, 0, 1);
        results.push(read(&slave, 64));
        set_non_blocking(&slave);
        results.push(read(&slave, 64));
        // SAFETY: an open terminal.
        unsafe { libc::fcntl(slave.as_raw_fd(), libc::F_SETFL, 0) };
        raw(&slave, 1, 0);
        results.push((write(&slave, b"shown"), vec![]));
        // What was typed as lines was shown as well.
        let mut shown = Vec::new();
        while !shown.ends_with(b"shown") {
            shown.extend(read(&master, 64).1);
        }
        let master = std::sync::Mutex::new(Some(master));
        results.push(while_asleep(
            || read(&slave, 64),
            || drop(master.lock().unwrap().take()),
        ));
        results.push((write(&slave, b"x"), vec![]));
        let (master, slave) = terminal();
        let slave = std::sync::Mutex::new(Some(slave));
        results.push(while_asleep(
            || read(&master, 64),
            || drop(slave.lock().unwrap().take()),
        ));
        results
    });
    assert!(of("read", &said).len() >= 10, "{said:?}");
}

/// Locks of ranges: of the open file and of the process.
#[test]
fn range_locks_are_waited_for_by_owners() {
    let (result, said) = same(|| {
        let file = Temporary::new("range");
        let (first, second) = (file.open(), file.open());
        let lock = |fd: &OwnedFd, command, kind: c_int| {
            // SAFETY: all zeros are a valid range, which is the whole file.
            let mut range: libc::flock = unsafe { std::mem::zeroed() };
            range.l_type = kind as i16;
            // SAFETY: a live range.
            outcome(unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut range) })
        };
        let held = lock(&first, libc::F_OFD_SETLK, libc::F_WRLCK);
        let busy = lock(&second, libc::F_OFD_SETLK, libc::F_WRLCK);
        let waited = while_asleep(
            || lock(&second, libc::F_OFD_SETLKW, libc::F_RDLCK),
            || {
                lock(&first, libc::F_OFD_SETLK, libc::F_UNLCK);
            },
        );
        let by_process = lock(&first, libc::F_SETLK, libc::F_WRLCK);
        // SAFETY: open files.
        let positions = unsafe {
            [
                outcome(libc::lockf(second.as_raw_fd(), libc::F_TLOCK, 0)),
                outcome(libc::lockf(second.as_raw_fd(), 99, 0)),
                outcome(libc::lockf(-1, libc::F_LOCK, 0)),
            ]
        };
        (held, busy, waited, by_process, positions)
    });
    assert_eq!(result.1, (-1, libc::EAGAIN));
    assert_eq!(of("fcntl", &said), [(Sleep::Possible, Return::Owner)]);
    assert_eq!(of("lockf", &said), [(Sleep::Possible, Return::Owner)]);
}
