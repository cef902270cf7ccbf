//! Several servers that share one queue: SMP as the mail leaves it to the user.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

use crate::{Server, Stage, in_ms};

/// Server threads, each in the mail's loop, with a common queue of owned workers. A server that
/// takes a worker out of the queue writes its own tid into `server_tid` first.
#[derive(Debug)]
pub struct Fleet {
    stage: Arc<Stage>,
    tids: Vec<u32>,
    stop: Arc<AtomicBool>,
    left: Arc<AtomicU32>,
}

impl Fleet {
    /// Starts that many servers, with time slices of 3 ms.
    #[must_use]
    pub fn start(stage: &Arc<Stage>, servers: usize) -> Self {
        let queue = Arc::new(Mutex::new(VecDeque::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let left = Arc::new(AtomicU32::new(0));
        let tids: Vec<Arc<AtomicU32>> = (0..servers).map(|_| Arc::default()).collect();
        for (index, slot) in tids.iter().enumerate() {
            let (stage, queue) = (Arc::clone(stage), Arc::clone(&queue));
            let (stop, left, slot) = (Arc::clone(&stop), Arc::clone(&left), Arc::clone(slot));
            let name = format!("server {index}");
            Arc::clone(&stage).thread(&name.clone(), move || {
                stage.guarded(&name, || {
                    let mut server = Server::named(&stage, &name);
                    slot.store(server.tid(), SeqCst);
                    while !stop.load(SeqCst) {
                        stage.check();
                        turn(&mut server, &queue);
                    }
                    server.finish();
                });
                left.fetch_add(1, SeqCst);
            });
        }
        stage.until("the servers register", || {
            tids.iter().all(|slot| slot.load(SeqCst) != 0)
        });
        Self {
            stage: Arc::clone(stage),
            tids: tids.iter().map(|slot| slot.load(SeqCst)).collect(),
            stop,
            left,
        }
    }

    /// The tid of one of the servers.
    #[must_use]
    pub fn tid(&self, index: usize) -> u32 {
        self.tids[index % self.tids.len()]
    }

    /// Ends the servers. All workers have exited by then.
    pub fn finish(self) {
        self.stop.store(true, SeqCst);
        self.stage.until("the servers end", || {
            self.left.load(SeqCst) as usize == self.tids.len()
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
        let record = server.stage().by_tid(tid).expect("a worker of this test");
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
        Err(error) => panic!("wait of a server of the fleet: {error}"),
    }
}
