//! Ways to block in the kernel. No call is wrapped, and nobody tells the provider.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read, Write},
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

/// One way to block: a call that sleeps until it is released, and what it then returns.
pub struct Blocker {
    /// For messages.
    pub name: &'static str,
    /// Makes the call, and returns what the system call returned.
    pub call: Box<dyn FnOnce() -> i64 + Send>,
    /// Ends the sleep. Any thread may call it.
    pub release: Box<dyn FnOnce() + Send>,
    /// What the call must return: the stop after it leaves the result unchanged.
    pub expect: i64,
}

impl std::fmt::Debug for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocker")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn blocker(
    name: &'static str,
    expect: i64,
    call: impl FnOnce() -> i64 + Send + 'static,
    release: impl FnOnce() + Send + 'static,
) -> Blocker {
    Blocker {
        name,
        call: Box::new(call),
        release: Box::new(release),
        expect,
    }
}

/// Both ends of a pipe.
///
/// # Panics
/// If the system gives none.
#[must_use]
pub fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    let result = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(result, 0, "pipe: {}", io::Error::last_os_error());
    // SAFETY: both descriptors are new, and nobody else has them.
    unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) }
}

/// Every blocker that this system permits.
#[must_use]
pub fn all() -> Vec<Blocker> {
    let mut all = vec![
        pipe_read(),
        pipe_write(),
        futex(),
        poll(),
        epoll(),
        eventfd(),
        socket_receive(),
        accept(),
        flock(),
        open_fifo(),
        mutex(),
    ];
    match page_fault() {
        Ok(fault) => all.push(fault),
        Err(error) => eprintln!("no page-fault blocker here: userfaultfd: {error}"),
    }
    all
}

/// `read` of an empty pipe.
#[must_use]
pub fn pipe_read() -> Blocker {
    let (mut reader, mut writer) = pipe();
    blocker(
        "pipe read",
        3,
        move || {
            let mut buffer = [0; 8];
            reader.read(&mut buffer).map_or(-1, |count| count as i64)
        },
        move || {
            writer.write_all(b"abc").expect("write to the pipe");
            // It stays open: an end of file would also end the read.
            mem::forget(writer);
        },
    )
}

/// `write` to a full pipe.
fn pipe_write() -> Blocker {
    let (mut reader, mut writer) = pipe();
    // SAFETY: a plain call on an own descriptor.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ) } as usize;
    writer.write_all(&vec![0; size]).expect("fill the pipe");
    blocker(
        "pipe write",
        1,
        move || writer.write(&[1]).map_or(-1, |count| count as i64),
        move || {
            let mut all = vec![0; size];
            reader.read_exact(&mut all).expect("empty the pipe");
            mem::forget(reader);
        },
    )
}

/// A futex word. `wait` sleeps while it is 0.
#[derive(Clone, Debug, Default)]
pub struct Futex(pub Arc<AtomicU32>);

impl Futex {
    /// Sleeps while the word is 0.
    pub fn wait(&self) {
        while self.0.load(SeqCst) == 0 {
            // SAFETY: the word is alive; no timeout.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.0.as_ptr(),
                    libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                    0,
                    ptr::null::<libc::timespec>(),
                );
            }
        }
    }

    /// Sets the word and wakes all waiters.
    pub fn set(&self) {
        self.0.store(1, SeqCst);
        // SAFETY: the word is alive.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                i32::MAX,
            );
        }
    }
}

fn futex() -> Blocker {
    let word = Futex::default();
    let waiter = word.clone();
    blocker(
        "futex",
        0,
        move || {
            waiter.wait();
            0
        },
        move || word.set(),
    )
}

fn poll() -> Blocker {
    let (reader, mut writer) = pipe();
    blocker(
        "poll",
        1,
        move || {
            let mut entry = libc::pollfd {
                fd: reader.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid entry.
            i64::from(unsafe { libc::poll(&raw mut entry, 1, -1) })
        },
        move || {
            writer.write_all(b"x").expect("write to the pipe");
            mem::forget(writer);
        },
    )
}

fn epoll() -> Blocker {
    let (reader, mut writer) = pipe();
    blocker(
        "epoll_wait",
        1,
        move || {
            // SAFETY: plain calls on own descriptors, with valid entries.
            unsafe {
                let set = OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
                let mut entry = libc::epoll_event {
                    events: libc::EPOLLIN as u32,
                    u64: 0,
                };
                let fd = reader.as_raw_fd();
                libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut entry);
                i64::from(libc::epoll_wait(set.as_raw_fd(), &raw mut entry, 1, -1))
            }
        },
        move || {
            writer.write_all(b"x").expect("write to the pipe");
            mem::forget(writer);
        },
    )
}

fn eventfd() -> Blocker {
    // SAFETY: plain call; the descriptor is new.
    let mut event = unsafe { File::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
    let mut other = event.try_clone().expect("another descriptor");
    blocker(
        "eventfd",
        8,
        move || {
            let mut buffer = [0; 8];
            event.read(&mut buffer).map_or(-1, |count| count as i64)
        },
        move || {
            other.write_all(&1_u64.to_ne_bytes()).expect("an event");
        },
    )
}

fn socket_receive() -> Blocker {
    let (mut here, mut there) = UnixStream::pair().expect("a socket pair");
    blocker(
        "socket receive",
        4,
        move || {
            let mut buffer = [0; 8];
            here.read(&mut buffer).map_or(-1, |count| count as i64)
        },
        move || {
            there.write_all(b"abcd").expect("write to the socket");
            mem::forget(there);
        },
    )
}

fn temporary(kind: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, SeqCst);
    let name = format!("umcg-tests-{}-{count}.{kind}", std::process::id());
    std::env::temp_dir().join(name)
}

fn accept() -> Blocker {
    let path = temporary("socket");
    let listener = UnixListener::bind(&path).expect("a listening socket");
    blocker(
        "accept",
        0,
        move || listener.accept().map_or(-1, |_| 0),
        move || {
            let client = UnixStream::connect(&path).expect("connect");
            let _ = fs::remove_file(&path);
            drop(client);
        },
    )
}

fn flock() -> Blocker {
    let path = temporary("lock");
    let holder = File::create(&path).expect("a lock file");
    let waiter = File::open(&path).expect("the lock file again");
    let _ = fs::remove_file(&path);
    // SAFETY: a plain call on an own descriptor.
    let taken = unsafe { libc::flock(holder.as_raw_fd(), libc::LOCK_EX) };
    assert_eq!(taken, 0, "flock");
    blocker(
        "flock",
        0,
        // SAFETY: as above.
        move || i64::from(unsafe { libc::flock(waiter.as_raw_fd(), libc::LOCK_EX) }),
        move || drop(holder),
    )
}

fn open_fifo() -> Blocker {
    let path = temporary("fifo");
    let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
    // SAFETY: a valid name.
    let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
    assert_eq!(made, 0, "mkfifo: {}", io::Error::last_os_error());
    let other = path.clone();
    blocker(
        "open of a fifo",
        0,
        move || File::open(&path).map_or(-1, |_| 0),
        move || {
            let writer = File::options().write(true).open(&other);
            let _ = fs::remove_file(&other);
            drop(writer.expect("the other end"));
        },
    )
}

fn mutex() -> Blocker {
    let mutex = Arc::new(std::sync::Mutex::new(7_i64));
    let other = Arc::clone(&mutex);
    let (locked, is_locked) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    // The guard must be dropped by the thread that took it.
    let holder = std::thread::spawn(move || {
        let guard = other.lock().expect("the lock");
        locked.send(()).expect("the test waits for this");
        let _ = released.recv();
        drop(guard);
    });
    is_locked.recv().expect("the lock is taken");
    blocker(
        "mutex",
        7,
        move || *mutex.lock().expect("the lock"),
        move || {
            drop(release);
            holder.join().expect("the holder of the lock");
        },
    )
}

const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const UFFD_USER_MODE_ONLY: i32 = 1;
const PAGE: usize = 4096;

/// A page whose first touch sleeps until it is supplied.
#[derive(Debug)]
struct AbsentPage {
    /// The address of the page, which stays mapped.
    address: usize,
    /// The descriptor that supplies the page.
    uffd: OwnedFd,
}

impl AbsentPage {
    fn new() -> io::Result<Self> {
        // SAFETY: plain call.
        let fd =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | UFFD_USER_MODE_ONLY) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else has it.
        let uffd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let ioctl = |request: libc::c_ulong, argument: *mut u64| {
            // SAFETY: the argument has the size that the request needs, see the callers below.
            match unsafe { libc::ioctl(uffd.as_raw_fd(), request as _, argument) } {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        };
        // struct uffdio_api { api, features, ioctls }
        let mut api = [0xaa_u64, 0, 0];
        ioctl(UFFDIO_API, api.as_mut_ptr())?;
        // SAFETY: a fresh anonymous mapping.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = address as usize;
        // struct uffdio_register { start, len, mode = MISSING, ioctls }
        let mut range = [address as u64, PAGE as u64, 1, 0];
        ioctl(UFFDIO_REGISTER, range.as_mut_ptr())?;
        Ok(Self { address, uffd })
    }

    fn touch(&self) -> i64 {
        // SAFETY: the page is mapped and readable, and `supply` serves the fault.
        i64::from(unsafe { ptr::read_volatile(self.address as *const u8) })
    }

    fn supply(&self, byte: u8) {
        let source = vec![byte; PAGE];
        // struct uffdio_copy { dst, src, len, mode, copy }
        let mut copy = [
            self.address as u64,
            source.as_ptr() as u64,
            PAGE as u64,
            0,
            0,
        ];
        // SAFETY: both ranges are mapped and PAGE long.
        let result =
            unsafe { libc::ioctl(self.uffd.as_raw_fd(), UFFDIO_COPY as _, copy.as_mut_ptr()) };
        assert_eq!(result, 0, "UFFDIO_COPY: {}", io::Error::last_os_error());
    }
}

/// A page fault that is served late.
///
/// # Errors
/// This system does not permit userfaultfd.
pub fn page_fault() -> io::Result<Blocker> {
    // It is never unmapped: a page and a descriptor for each test are cheap.
    let page = Arc::new(AbsentPage::new()?);
    let other = Arc::clone(&page);
    Ok(blocker(
        "page fault",
        42,
        move || page.touch(),
        move || other.supply(42),
    ))
}
