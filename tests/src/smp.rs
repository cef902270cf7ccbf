//! Several servers that share one queue. The mail leaves SMP to user space; this is a simple form
//! of it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

use crate::{Harness, Server, in_ms};

/// Server threads, each of which runs the loop of the mail. Their queue of owned workers is common:
/// a server that takes a worker out of it first writes its own tid into `server_tid`.
#[derive(Debug)]
pub struct ServerGroup {
    /// The test that the servers belong to.
    harness: Arc<Harness>,
    /// The tids of the servers.
    tids: Vec<u32>,
    /// Tells the servers to end.
    stop: Arc<AtomicBool>,
    /// How many of the servers have ended.
    ended: Arc<AtomicU32>,
}

impl ServerGroup {
    /// Starts this number of servers, with time slices of 3 ms.
    #[must_use]
    pub fn start(harness: &Arc<Harness>, servers: usize) -> Self {
        let queue = Arc::new(Mutex::new(VecDeque::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicU32::new(0));
        let tids: Vec<Arc<AtomicU32>> = (0..servers).map(|_| Arc::default()).collect();
        for (index, tid) in tids.iter().enumerate() {
            let (harness, queue) = (Arc::clone(harness), Arc::clone(&queue));
            let (stop, ended, tid) = (Arc::clone(&stop), Arc::clone(&ended), Arc::clone(tid));
            let name = format!("server {index}");
            Arc::clone(&harness).thread(&name.clone(), move || {
                harness.guarded(&name, || {
                    let mut server = Server::named(&harness, &name);
                    tid.store(server.tid(), SeqCst);
                    while !stop.load(SeqCst) {
                        harness.check();
                        turn(&mut server, &queue);
                    }
                    server.finish();
                });
                ended.fetch_add(1, SeqCst);
            });
        }
        harness.until("the servers register", || {
            tids.iter().all(|tid| tid.load(SeqCst) != 0)
        });
        Self {
            harness: Arc::clone(harness),
            tids: tids.iter().map(|tid| tid.load(SeqCst)).collect(),
            stop,
            ended,
        }
    }

    /// The tid of one of the servers. An index beyond their number starts again at the first one.
    #[must_use]
    pub fn tid(&self, index: usize) -> u32 {
        self.tids[index % self.tids.len()]
    }

    /// Ends the servers. All of their workers must have exited.
    pub fn finish(self) {
        self.stop.store(true, SeqCst);
        self.harness.until("the servers end", || {
            self.ended.load(SeqCst) as usize == self.tids.len()
        });
    }
}

fn turn(server: &mut Server, queue: &Mutex<VecDeque<u32>>) {
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    server.drain();
    let pick = {
        let mut queue = lock();
        queue.extend(server.ready.drain(..));
        queue.pop_front()
    };
    if let Some(tid) = pick {
        let record = server.harness().by_tid(tid).expect("a worker of this test");
        record.task.set_server_tid(server.tid());
    }
    let result = server.wait(pick.unwrap_or(0), in_ms(3));
    if let Some(tid) = pick
        && server.task().next_tid() == tid
    {
        lock().push_front(tid);
    }
    match result {
        Ok(()) => {}
        Err(error) if error.is_timeout() || error.is_busy() => {
            if error.is_busy() || !lock().is_empty() {
                server.preempt_current();
            }
            if error.is_busy() {
                std::thread::yield_now();
            }
        }
        Err(error) => panic!("wait of a server of the group: {error}"),
    }
}
