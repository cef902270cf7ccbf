//! Managed calls of every family at once and at random, for `UMCG_STRESS_SECONDS` (default 10), on
//! 1, 2 and 5 servers: every message arrives, every count is right, and nothing stops.
//!
//! `UMCG_STRESS_SEED` repeats the choices of a run, but not its timing.

umcg::managed_calls!();

#[cfg(feature = "asan")]
mod asan;

use std::{
    cell::UnsafeCell,
    env,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::{fs::FileExt, net::UnixStream},
    },
    process::{Command, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, Handle, JoinHandle};
use umcg_tests::{Random, blockers, isolated, random::number, runtime::compute, thread_report};

/// What all tasks of a round share.
#[derive(Default)]
struct Site {
    /// Each step of any task counts. The watcher ends the process if there is none for long.
    steps: AtomicU64,
    mutex: Mutex<u64>,
    /// Whose turn it is, for tasks that take turns by a condition.
    turn: Mutex<u64>,
    turned: Condvar,
    c: C,
    /// How often each lock was taken.
    taken: AtomicU64,
    c_taken: AtomicU64,
}

impl Site {
    fn step(&self) {
        self.steps.fetch_add(1, Relaxed);
    }
}

/// A lock, a condition and a count behind it, as C has them.
struct C {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    condition: UnsafeCell<libc::pthread_cond_t>,
    count: UnsafeCell<u64>,
}

// SAFETY: pthread's objects are for all threads, and the count is behind the mutex.
unsafe impl Sync for C {}
// SAFETY: as above; it is not moved after its first use.
unsafe impl Send for C {}

impl Default for C {
    fn default() -> Self {
        Self {
            mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            condition: UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER),
            count: UnsafeCell::new(0),
        }
    }
}

impl C {
    /// Adds one, and wakes those in `wait`.
    fn add(&self, meanwhile: impl FnOnce()) {
        // SAFETY: initialized, and used by reference only; the count is behind the lock.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(self.mutex.get()), 0);
            let count = *self.count.get();
            meanwhile();
            *self.count.get() = count + 1;
            libc::pthread_cond_broadcast(self.condition.get());
            assert_eq!(libc::pthread_mutex_unlock(self.mutex.get()), 0);
        }
    }

    /// Waits until the count has reached `least`.
    fn wait(&self, least: u64) {
        // SAFETY: as above.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(self.mutex.get()), 0);
            while *self.count.get() < least {
                libc::pthread_cond_wait(self.condition.get(), self.mutex.get());
            }
            assert_eq!(libc::pthread_mutex_unlock(self.mutex.get()), 0);
        }
    }
}

/// A stream of either kind.
trait Stream: Read + Write + Send + 'static {}
impl<T: Read + Write + Send + 'static> Stream for T {}

/// Both ends of a connection, made as a client and a server do.
fn connection(random: &mut Random) -> (Box<dyn Stream>, Box<dyn Stream>) {
    if random.one_in(2) {
        let (here, there) = UnixStream::pair().expect("a socket pair");
        return (Box::new(here), Box::new(there));
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let accepts = umcg::spawn_blocking(move || listener.accept().expect("a client").0);
    let here = TcpStream::connect(address).expect("a connection");
    let there = accepts.join().expect("it accepts");
    for stream in [&here, &there] {
        stream.set_nodelay(true).expect("an option");
    }
    (Box::new(here), Box::new(there))
}

/// One end sends numbers and the other returns them.
fn echo(site: &Arc<Site>, random: &mut Random) {
    let (mut here, mut there) = connection(random);
    let (mut theirs, pause) = (random.split(), random.one_in(3));
    let echoes = umcg::spawn_blocking(move || {
        let mut buffer = [0; 8];
        while there.read_exact(&mut buffer).is_ok() {
            if pause {
                thread::sleep(theirs.micros(300));
            }
            there.write_all(&buffer).expect("the other end reads");
        }
    });
    let tag = random.draw();
    for k in 0..random.below(60) {
        here.write_all(&(tag ^ k).to_le_bytes()).expect("it echoes");
        let mut buffer = [0; 8];
        here.read_exact(&mut buffer).expect("it echoes");
        assert_eq!(u64::from_le_bytes(buffer), tag ^ k, "another's bytes");
        site.step();
    }
    drop(here);
    echoes.join().expect("it echoes");
}

/// More bytes than a socket takes at once, in both directions.
fn bulk(site: &Arc<Site>, random: &mut Random) {
    let (mut here, mut there) = connection(random);
    let (size, tag) = (random.below(1 << 20) as usize, random.draw() as u8);
    let sends = umcg::spawn_blocking(move || {
        let bytes: Vec<_> = (0..size).map(|i| (i as u8).wrapping_mul(tag)).collect();
        there.write_all(&bytes).expect("the other end reads");
    });
    let mut bytes = Vec::new();
    while bytes.len() < size {
        let mut part = vec![0; 1 + random.below(100_000) as usize];
        let count = here.read(&mut part).expect("it sends");
        assert_ne!(count, 0, "the end came early");
        bytes.extend_from_slice(&part[..count]);
        site.step();
    }
    assert_eq!(bytes.len(), size);
    for (i, byte) in bytes.into_iter().enumerate() {
        assert_eq!(byte, (i as u8).wrapping_mul(tag), "byte {i}");
    }
    sends.join().expect("it sends");
}

fn locks(site: &Arc<Site>, random: &mut Random) {
    for _ in 0..random.below(40) {
        // No sleep at all for zero.
        let nap = if random.one_in(4) {
            random.micros(100)
        } else {
            Duration::ZERO
        };
        if random.one_in(2) {
            let mut held = site.mutex.lock().expect("nobody panics with it");
            let count = *held;
            thread::sleep(nap);
            *held = count + 1;
            site.taken.fetch_add(1, SeqCst);
        } else {
            site.c.add(|| thread::sleep(nap));
            site.c_taken.fetch_add(1, SeqCst);
        }
        site.step();
    }
}

/// Four tasks take turns, so each turn needs another task.
fn turns(site: &Arc<Site>, random: &mut Random) {
    let local = Arc::new(Site::default());
    let rounds = random.below(30);
    let tasks: Vec<_> = (0..4)
        .map(|me| {
            let (site, local) = (Arc::clone(site), Arc::clone(&local));
            umcg::spawn_blocking(move || {
                for _ in 0..rounds {
                    let mut turn = local.turn.lock().expect("nobody panics with it");
                    while *turn % 4 != me {
                        turn = local.turned.wait(turn).expect("nobody panics with it");
                    }
                    *turn += 1;
                    local.turned.notify_all();
                    site.step();
                }
            })
        })
        .collect();
    join(tasks);
    assert_eq!(
        *local.turn.lock().expect("nobody panics with it"),
        4 * rounds
    );
}

fn conditions(site: &Arc<Site>, random: &mut Random) {
    let local = Arc::new(Site::default());
    let count = 1 + random.below(8);
    let tasks: Vec<_> = (0..count)
        .map(|me| {
            let (site, local) = (Arc::clone(site), Arc::clone(&local));
            umcg::spawn_blocking(move || {
                local.c.wait(me);
                local.c.add(thread::yield_now);
                site.step();
            })
        })
        .collect();
    local.c.wait(count);
    join(tasks);
}

fn channels(site: &Arc<Site>, random: &mut Random) {
    let (count, each) = (1 + random.below(4), random.below(100));
    // A bounded one, so that senders block as well.
    let (sender, receiver) = mpsc::sync_channel(random.below(4) as usize);
    let senders: Vec<_> = (0..count)
        .map(|_| {
            let (sender, site) = (sender.clone(), Arc::clone(site));
            umcg::spawn_blocking(move || {
                for k in 0..each {
                    sender.send(k).expect("somebody receives");
                    if k % 7 == 0 {
                        thread::yield_now();
                    }
                    site.step();
                }
            })
        })
        .collect();
    drop(sender);
    assert_eq!(receiver.iter().count() as u64, count * each);
    join(senders);
}

/// Pipes, and the task that waits for one of several.
fn polls(site: &Arc<Site>, random: &mut Random) {
    let (mut reader, mut writer) = blockers::pipe();
    let count = random.below(30);
    let (nap, by_poll) = (random.micros(200), random.one_in(2));
    let theirs = Arc::clone(site);
    let writes = umcg::spawn_blocking(move || {
        for k in 0..count {
            thread::sleep(nap);
            writer.write_all(&[k as u8]).expect("somebody reads");
            theirs.step();
        }
    });
    for k in 0..count {
        if by_poll {
            let mut entry = libc::pollfd {
                fd: reader.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid entry.
            let ready = unsafe { libc::poll(&raw mut entry, 1, -1) };
            assert_eq!(ready, 1, "poll: {}", io::Error::last_os_error());
        }
        let mut byte = [0];
        reader.read_exact(&mut byte).expect("it writes");
        assert_eq!(byte, [k as u8]);
    }
    writes.join().expect("it writes");
}

fn files(site: &Arc<Site>, random: &mut Random) {
    let name = format!("umcg-stress-{}-{:x}", std::process::id(), random.draw());
    let path = env::temp_dir().join(name);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .expect("a file");
    fs::remove_file(&path).expect("it is there");
    let text: Vec<_> = (0..random.below(20_000))
        .map(|_| random.draw() as u8)
        .collect();
    file.write_all(&text).expect("room on the disk");
    if random.one_in(4) {
        file.sync_data().expect("fdatasync");
    }
    file.rewind().expect("a seek");
    let mut read = Vec::new();
    file.read_to_end(&mut read).expect("a read");
    assert_eq!(read, text);
    let mut byte = [0];
    let at = text.len() / 2;
    if file.read_at(&mut byte, at as u64).expect("a read") == 1 {
        assert_eq!(byte[0], text[at]);
    }
    site.step();
}

fn children(site: &Arc<Site>, random: &mut Random) {
    let tag = random.draw().to_string();
    let output = Command::new("/bin/echo")
        .arg(&tag)
        .stdin(Stdio::null())
        .output()
        .expect("a child");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), tag);
    site.step();
}

fn threads(site: &Arc<Site>, random: &mut Random) {
    let nap = random.micros(500);
    let thread = thread::spawn(move || {
        thread::sleep(nap);
        nap
    });
    assert_eq!(thread.join().expect("it sleeps"), nap);
    site.step();
}

/// A spin on what a queued task provides ends, since yields are yields of the worker.
fn spins(site: &Arc<Site>, managed: bool) {
    let flag = Arc::new(AtomicBool::new(false));
    let sets = Arc::clone(&flag);
    let other = umcg::spawn_blocking(move || sets.store(true, SeqCst));
    while managed && !flag.load(SeqCst) {
        thread::yield_now();
    }
    other.join().expect("it sets the flag");
    site.step();
}

fn futures(site: &Arc<Site>, random: &mut Random) {
    let (mut theirs, owned) = (random.split(), Arc::clone(site));
    let task = umcg::spawn(async move {
        for _ in 0..theirs.below(20) {
            match theirs.below(3) {
                0 => umcg::yield_now().await,
                1 => umcg::time::sleep(theirs.micros(200)).await,
                _ => thread::sleep(theirs.micros(100)),
            }
            owned.step();
        }
    });
    if random.one_in(4) {
        task.abort();
        let _ = task.join();
    } else {
        task.join().expect("the future");
    }
}

fn join(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        task.join().expect("a task");
    }
}

/// One task: a few activities, one after the other.
fn task(site: &Arc<Site>, random: &mut Random, managed: bool) {
    for _ in 0..1 + random.below(3) {
        match random.below(16) {
            0..3 => echo(site, random),
            3 => bulk(site, random),
            4 | 5 => locks(site, random),
            6 => turns(site, random),
            7 => conditions(site, random),
            8 | 9 => channels(site, random),
            10 => polls(site, random),
            11 => files(site, random),
            12 => threads(site, random),
            13 => spins(site, managed),
            14 => futures(site, random),
            _ if random.one_in(4) => children(site, random),
            _ => match random.below(4) {
                0 => thread::sleep(random.micros(2000)),
                1 => compute(random.micros(3000)),
                2 => umcg::thread::sleep(random.micros(500)),
                _ => umcg::thread::park_timeout(random.micros(500)),
            },
        }
        site.step();
    }
}

/// Reads the metrics all the time, and ends the process when there is no step for long.
fn watch(handle: &Handle, site: &Site, stop: &AtomicBool) {
    let (mut last, mut since) = (0, Instant::now());
    while !stop.load(SeqCst) {
        let metrics = handle.metrics();
        assert!(metrics.completed_tasks_count() <= metrics.spawned_tasks_count());
        let steps = site.steps.load(SeqCst);
        if steps != last {
            (last, since) = (steps, Instant::now());
        } else if since.elapsed() > Duration::from_secs(20) {
            let report = thread_report::of_process(std::process::id());
            eprintln!("STUCK after {steps} steps\n{metrics:#?}\n{report}");
            std::process::abort();
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn stress(seconds: u64, mut random: Random) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    while rounds < 3 || Instant::now() < end {
        let servers = [1, 2, 5][rounds % 3];
        let runtime = Builder::new()
            .servers(servers)
            .pin(!random.one_in(4))
            .keep_alive(Duration::from_millis(1 + random.below(50)))
            .build()
            .expect("a runtime");
        let managed = runtime.metrics().managed_calls();
        let site = Arc::new(Site::default());
        let stop = Arc::new(AtomicBool::new(false));
        let watcher = {
            let (handle, site, stop) = (
                runtime.handle().clone(),
                Arc::clone(&site),
                Arc::clone(&stop),
            );
            thread::spawn(move || watch(&handle, &site, &stop))
        };
        let tasks: Vec<_> = (0..10 + random.below(100))
            .map(|_| {
                let (site, mut random) = (Arc::clone(&site), random.split());
                runtime.spawn_blocking(move || task(&site, &mut random, managed))
            })
            .collect();
        join(tasks);
        let counters = runtime.metrics().provider();
        drop(runtime);
        stop.store(true, SeqCst);
        watcher.join().expect("the watcher");
        assert_eq!(
            *site.mutex.lock().expect("nobody panics with it"),
            site.taken.load(SeqCst)
        );
        // SAFETY: all tasks have ended.
        assert_eq!(unsafe { *site.c.count.get() }, site.c_taken.load(SeqCst));
        if !managed {
            assert_eq!(counters.blocks_announced, 0);
        }
        let steps = site.steps.load(SeqCst);
        println!("{servers} servers: {steps} steps, {counters:?}");
        rounds += 1;
    }
}

#[test]
fn managed_calls_of_all_kinds_at_once() {
    let seconds = number("UMCG_STRESS_SECONDS", 10);
    isolated(seconds + 60, || {
        stress(seconds, Random::from_env());
    });
}
