//! The server loop of the design mail with three workers. One computes and yields, one sleeps, one
//! reads from a socket. They make ordinary blocking calls, and while one is blocked another runs.

use std::{
    collections::VecDeque,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use umcg_sys::{List, Placement, Provider, ProviderChoice, Register, UmcgTask, select, state};

/// The worker that yielded and waits for its next turn; 0 for none.
static YIELDED: AtomicU32 = AtomicU32::new(0);
/// How many workers have finished.
static DONE: AtomicU32 = AtomicU32::new(0);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let selected = select(ProviderChoice::Auto)?;
    println!("{}", selected.why);
    let provider = selected.provider;
    let own: &'static UmcgTask = Box::leak(Box::new(UmcgTask::for_current_thread(0)));
    // Work that the server's lists do not show. The provider asks before it looks for blocks.
    let how = Register::server(Placement::Auto).has_work(Arc::new(|| YIELDED.load(SeqCst) != 0));
    // SAFETY: the task is leaked, so it never moves and is never freed.
    unsafe { provider.register(NonNull::from(own), &how)? };

    let (mut ours, mut theirs) = UnixStream::pair()?;
    let workers = [
        worker("spinner", &provider, own.tid(), spin_and_yield),
        worker("sleeper", &provider, own.tid(), move |_, _| {
            thread::sleep(Duration::from_millis(10));
            theirs.write_all(b"hello").expect("write to the socket");
        }),
        worker("reader", &provider, own.tid(), move |_, _| {
            let mut text = [0; 5];
            ours.read_exact(&mut text).expect("read from the socket");
            println!("    reader got {:?}", String::from_utf8_lossy(&text));
        }),
    ];

    // The server loop of the mail, with the policy "first come, first served".
    let mut queue = VecDeque::new();
    while DONE.load(SeqCst) < workers.len() as u32 {
        own.begin_drain(); // RUNNABLE: an event from here on ends the next `wait`
        own.set_next_tid(0);
        let runnable = own.take(List::Runnable); // taken first, processed last
        for task in own.take(List::Blocked) {
            // SAFETY: workers leak their tasks, so these are never freed.
            let task = unsafe { task.as_ref() };
            if task.state() == state::BLOCKED {
                println!("{} blocks", name(task.tid()));
            }
        }
        for task in runnable {
            // SAFETY: as above.
            let tid = unsafe { task.as_ref() }.tid();
            println!("{} can run", name(tid));
            queue.push_back(tid);
        }
        queue.extend(Some(YIELDED.swap(0, SeqCst)).filter(|&tid| tid != 0));
        if let Some(&pick) = queue.front() {
            println!("  run {}", name(pick));
            own.set_next_tid(pick);
        }
        match provider.wait(0, 0) {
            // Switched. With the pick still in `next_tid`, an event came first.
            Ok(()) if own.next_tid() == 0 => drop(queue.pop_front()),
            Ok(()) => {}
            // A worker holds the slot: it took the slot while this server idled. Sleep until the
            // worker leaves.
            Err(error) if error.is_busy() => {
                own.begin_drain();
                own.set_next_tid(0);
                provider.wait(0, 0)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    provider.unregister(NonNull::from(own))?;
    for worker in workers {
        worker.join().expect("a worker");
    }
    println!("{}", provider.describe());
    Ok(())
}

/// Starts a thread that becomes a worker, runs `body`, and becomes an ordinary thread again.
fn worker(
    name: &'static str,
    provider: &Arc<dyn Provider>,
    server: u32,
    body: impl FnOnce(&dyn Provider, &UmcgTask) + Send + 'static,
) -> JoinHandle<()> {
    let provider = Arc::clone(provider);
    let run = move || {
        let own: &'static UmcgTask = Box::leak(Box::new(UmcgTask::for_current_thread(server)));
        // SAFETY: the task is leaked. The call returns when the server first runs this worker.
        unsafe { provider.register(NonNull::from(own), &Register::worker()) }.expect("register");
        body(provider.as_ref(), own);
        // `body` may have blocked: stop here until the server picks this worker.
        provider.checkpoint().expect("checkpoint");
        println!("    {name} is done");
        DONE.fetch_add(1, SeqCst);
        // Gives the slot back and wakes the server.
        let done = provider.unregister(NonNull::from(own));
        done.expect("unregister");
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.expect("a thread")
}

/// Computes, and yields to the other workers in between.
fn spin_and_yield(provider: &dyn Provider, own: &UmcgTask) {
    for turn in 1..=4 {
        println!("    spinner computes, turn {turn}");
        for _ in 0..1_000_000 {
            std::hint::spin_loop();
        }
        while !own.leave() {
            provider.checkpoint().expect("checkpoint"); // judged: queue for a slot first
        }
        YIELDED.store(own.tid(), SeqCst); // from here on the server owns this worker
        provider.wait(0, 0).expect("until the next turn");
    }
}

/// The name of a thread, from the kernel.
fn name(tid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
    name.map_or_else(|_| tid.to_string(), |name| name.trim().to_owned())
}
