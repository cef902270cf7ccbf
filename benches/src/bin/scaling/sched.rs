//! The steps of the scheduler, as far as they touch shared words, in the order of the code: that of
//! `runtime/src/sched` and `umcg-sys/src/emulated` at commit 054fdfc.
//!
//! Left out is what is private to a CPU (the counters of a worker), seldom used by these workloads
//! (the LIFO slot), or read by all and written by nobody (`life`, the pointers in `Shared`): that
//! is in the local costs, which are fitted to a real run.

use std::cmp::Reverse;

use super::{
    line::{LineId, NS, Ps},
    sim::{BATCH, Next, Op, Place, Queue, Seat, Sim, Stage, Task, Way, Workload},
};

/// Of `backlog`: the injector comes first at each so many takes, or after so long.
const INJECTOR_INTERVAL: u64 = 61;
const INJECTOR_PATIENCE: Ps = 1_000_000 * NS;
const INJECTOR_BATCH: usize = 128;
const STEAL_BATCH: usize = 32;

/// Of `task::id`.
const ID_BLOCK: u64 = 128;

/// Tasks of a block of crossbeam's injector: within one, a steal need not look at the tail if a
/// later block is there.
const LAP: u64 = 63;

/// Of `monitor`: it asks `/proc` about a worker that stayed in its slot for a tick.
const PROC: Ps = 2_700 * NS;
const FIRST_TICK: Ps = 50_000 * NS;
const LAST_TICK: Ps = 1_000_000 * NS;

/// What is asked when all queues are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// `any_queued`.
    Queued,
    /// `reachable`: LIFO slots, too.
    Reachable,
    /// `exceeds(1)`.
    More,
}

impl Sim {
    /// The actor's turn has come while it slept.
    pub(super) fn wake_up(&mut self, actor: usize) {
        let server = &mut self.servers[actor];
        match server.seat {
            Seat::Claimed => {
                server.seat = Seat::Awake;
                server.waking = true;
                let line = server.lines.seat;
                // The CAS that fails, and the store.
                self.actors[actor].ops = vec![Op::Write(line), Op::Write(line)];
            }
            Seat::Idle | Seat::Awake => {
                let mut ops = Vec::new();
                self.rise(actor, &mut ops);
                self.actors[actor].ops = ops;
            }
        }
        self.actors[actor].stage = Stage::Drain;
    }

    /// What the actor does next, and what it costs.
    pub(super) fn step(&mut self, actor: usize, now: Ps) -> Next {
        let mut ops = std::mem::take(&mut self.actors[actor].ops);
        let stage = self.actors[actor].stage;
        let mut next = Next::Goes;
        self.actors[actor].stage = match stage {
            Stage::Pass => self.pass(actor, now, &mut ops),
            Stage::Steal(step) => self.steal(actor, step, &mut ops),
            Stage::Tried(way) => self.tried(actor, way, &mut ops),
            Stage::Bring(from, left) => self.bring(from, left, &mut ops),
            Stage::Brought(from, left) => self.brought(actor, from, left, &mut ops),
            Stage::Run => self.run_task(actor, &mut ops),
            Stage::Spawn(left) => self.spawn(actor, left, &mut ops),
            Stage::Block => self.block(actor, now, &mut ops),
            Stage::Drain => self.drain(actor, &mut ops),
            Stage::Look(last) => match self.looked(actor, last, now, &mut ops) {
                Some(stage) => stage,
                None => {
                    let soonest = self.servers[actor].blocked.peek();
                    next = Next::Sleeps(soonest.map(|Reverse(at)| *at));
                    Stage::Asleep
                }
            },
            Stage::Dispatch => self.dispatch(actor, &mut ops),
            Stage::Asleep => unreachable!("woken by `wake_up`"),
            Stage::Outside(0) => {
                next = Next::Sleeps(None);
                Stage::Asleep
            }
            Stage::Outside(left) => {
                self.spawn_outside(actor, &mut ops);
                Stage::Outside(left - 1)
            }
            Stage::Monitor(tick) => {
                if tick % 2 == 1 {
                    // Its round is over.
                    next = Next::Naps(tick - 1);
                    Stage::Monitor(tick - 1)
                } else {
                    Stage::Monitor(self.monitor(tick, &mut ops) + 1)
                }
            }
        };
        self.actors[actor].ops = ops;
        next
    }

    // A worker.

    fn pass(&mut self, actor: usize, now: Ps, ops: &mut Vec<Op>) -> Stage {
        let lines = self.servers[actor].lines;
        ops.push(Op::Read(lines.words));
        ops.push(Op::Read(lines.waiting));
        ops.push(Op::Read(self.injector.head));
        ops.push(Op::Read(self.injector.tail));
        self.servers[actor].takes += 1;
        self.actors[actor].searching = now;
        if !self.injector.tasks.is_empty() {
            ops.push(Op::Work(self.local.clock));
            let server = &mut self.servers[actor];
            if server.takes.is_multiple_of(INJECTOR_INTERVAL)
                || now.saturating_sub(server.injector_turn) >= INJECTOR_PATIENCE
            {
                server.injector_turn = now;
                self.pop(Place::Injector, 1, ops);
                return Stage::Tried(Way::Turn);
            }
        }
        if !self.servers[actor].queue.tasks.is_empty() {
            self.pop(Place::Server(actor), 1, ops);
            return Stage::Tried(Way::Own);
        }
        self.miss(Place::Server(actor), ops);
        if !self.injector.tasks.is_empty() {
            self.pop(Place::Injector, 1, ops);
            return Stage::Tried(Way::Injector);
        }
        self.miss(Place::Injector, ops);
        Stage::Steal(1)
    }

    /// Looks at the queue of the server that is so many further.
    fn steal(&mut self, actor: usize, step: usize, ops: &mut Vec<Op>) -> Stage {
        let count = self.servers.len();
        let lines = self.servers[actor].lines;
        if step == count {
            // The worker rests: on the inbox, and its server's thread runs.
            ops.push(Op::Read(self.cap));
            ops.push(Op::Write(lines.words));
            ops.push(Op::Write(lines.lists));
            ops.push(Op::Work(self.local.switch));
            return Stage::Drain;
        }
        let victim = (actor + step) % count;
        if self.servers[victim].queue.tasks.is_empty() {
            self.miss(Place::Server(victim), ops);
            ops.push(Op::Scan(self.servers[victim].lines.seat));
            if self.servers[victim].seat != Seat::Awake {
                ops.push(Op::Scan(self.servers[victim].lines.waiting));
            }
            return Stage::Steal(step + 1);
        }
        self.pop(Place::Server(victim), 1, ops);
        Stage::Tried(Way::Steal(step))
    }

    /// What came of a pop.
    fn tried(&mut self, actor: usize, way: Way, ops: &mut Vec<Op>) -> Stage {
        let count = self.servers.len();
        let Some(task) = self.actors[actor].hand.pop() else {
            // Somebody else had the last one.
            return match way {
                Way::Turn | Way::Own => Stage::Pass,
                Way::Injector => Stage::Steal(1),
                Way::Steal(step) => Stage::Steal(step + 1),
            };
        };
        self.actors[actor].task = Some(task);
        let from = match way {
            Way::Turn | Way::Injector => Place::Injector,
            Way::Own => Place::Server(actor),
            Way::Steal(step) => Place::Server((actor + step) % count),
        };
        let own_is_empty = self.servers[actor].queue.tasks.is_empty();
        let queue = self.queue(from);
        ops.push(Op::Write(queue.slot(queue.popped)));
        let share = match way {
            Way::Own => 0,
            Way::Turn if own_is_empty => 0,
            Way::Turn => (queue.tasks.len() / count).min(INJECTOR_BATCH),
            Way::Injector => (queue.tasks.len() / count).min(STEAL_BATCH),
            Way::Steal(_) => (queue.tasks.len() / 2).min(STEAL_BATCH),
        };
        if way != Way::Own {
            ops.push(Op::Read(queue.tail));
            ops.push(Op::Read(queue.head));
        }
        if matches!(way, Way::Steal(_)) {
            self.stolen += 1;
            ops.push(Op::Write(self.servers[actor].lines.counts));
        }
        Stage::Bring(from, share)
    }

    /// Moves tasks to the own queue, one by one as `backlog::bring`, or in one step.
    fn bring(&mut self, from: Place, left: usize, ops: &mut Vec<Op>) -> Stage {
        if left == 0 {
            return Stage::Run;
        }
        self.pop(from, if self.fixes.queue { left } else { 1 }, ops);
        Stage::Brought(from, left)
    }

    fn brought(&mut self, actor: usize, from: Place, left: usize, ops: &mut Vec<Op>) -> Stage {
        let tasks = std::mem::take(&mut self.actors[actor].hand);
        if tasks.is_empty() {
            return Stage::Run;
        }
        let queue = self.queue(from);
        let first = queue.popped - tasks.len() as u64;
        // Its slots do not wait for each other.
        let slots = (first..queue.popped).map(|number| Op::Write(queue.slot(number)));
        ops.extend(slots);
        let own = &mut self.servers[actor].queue;
        let count = tasks.len();
        ops.push(Op::See(own.tail));
        ops.push(Op::Cas(own.tail));
        for task in tasks {
            ops.push(Op::Write(own.slot(own.pushed())));
            own.tasks.push_back(task);
        }
        Stage::Bring(from, left.saturating_sub(count))
    }

    fn run_task(&mut self, actor: usize, ops: &mut Vec<Op>) -> Stage {
        let task = self.actors[actor].task.take().expect("it has one");
        let lines = self.servers[actor].lines;
        let blocking = matches!(self.workload, Workload::Blocking { .. });
        ops.push(Op::Read(lines.seat));
        // The task itself is two lines.
        ops.push(Op::Work(2 * self.lines.fabric.between(task.home, actor)));
        if blocking {
            // `lacks_spare`: a sibling is blocked.
            self.look_over(actor, Question::Queued, ops);
        }
        if task.root {
            return Stage::Spawn(BATCH);
        }
        let part = -(1.0 - self.actors[actor].rng.f64()).ln();
        let work = (part * self.local.task as f64) as Ps;
        ops.push(Op::Work(self.local.run + work));
        if blocking {
            return Stage::Block;
        }
        self.finish(ops);
        Stage::Pass
    }

    fn finish(&mut self, ops: &mut Vec<Op>) {
        self.count(ops);
        self.done += 1;
    }

    fn spawn(&mut self, actor: usize, left: u32, ops: &mut Vec<Op>) -> Stage {
        if left == 0 {
            // It yields, and goes to the back of the queue.
            let root = Task {
                root: true,
                home: actor,
            };
            self.push(Place::Server(actor), root, ops);
            self.announce(ops);
            return Stage::Pass;
        }
        self.count(ops);
        ops.push(Op::Work(self.local.spawn));
        self.task_id(actor, ops);
        let task = Task {
            root: false,
            home: actor,
        };
        self.push(Place::Server(actor), task, ops);
        self.announce(ops);
        Stage::Spawn(left - 1)
    }

    fn spawn_outside(&mut self, actor: usize, ops: &mut Vec<Op>) {
        self.count(ops);
        ops.push(Op::Work(self.local.spawn));
        self.task_id(actor, ops);
        ops.push(Op::Write(self.outside_counts));
        let task = Task {
            root: false,
            home: actor,
        };
        self.push(Place::Injector, task, ops);
        ops.push(Op::Fence);
        if !self.claim(ops) {
            ops.push(Op::Read(self.bed));
        }
    }

    fn block(&mut self, actor: usize, now: Ps, ops: &mut Vec<Op>) -> Stage {
        let Workload::Blocking { block } = self.workload else {
            unreachable!("the workload blocks");
        };
        self.servers[actor].blocked.push(Reverse(now + block));
        ops.push(Op::Work(self.local.switch));
        if self.is_unblocked(actor, now) {
            return self.resume(actor, ops);
        }
        // The sentinel's verdict, and the server's thread runs.
        let record = self.servers[actor].lines.record;
        ops.extend([Op::Write(record); 4]);
        ops.push(Op::Work(self.local.switch));
        Stage::Drain
    }

    fn is_unblocked(&self, actor: usize, now: Ps) -> bool {
        let soonest = self.servers[actor].blocked.peek();
        soonest.is_some_and(|Reverse(at)| *at <= now)
    }

    /// A worker that was blocked runs, ends its task, and takes the slot over.
    fn resume(&mut self, actor: usize, ops: &mut Vec<Op>) -> Stage {
        self.servers[actor].blocked.pop();
        ops.push(Op::Work(self.local.block));
        self.finish(ops);
        let record = self.servers[actor].lines.record;
        ops.extend([Op::Write(record); 4]);
        self.look_over(actor, Question::Reachable, ops);
        Stage::Pass
    }

    // A server's thread.

    fn drain(&mut self, actor: usize, ops: &mut Vec<Op>) -> Stage {
        let lines = self.servers[actor].lines;
        ops.extend([Op::Write(lines.task); 3]);
        ops.push(Op::Write(lines.lists));
        ops.push(Op::Write(lines.words));
        ops.push(Op::Write(lines.waiting));
        // `current`: pinned and let go.
        ops.extend([Op::Write(lines.record); 2]);
        ops.push(Op::Fence);
        self.look_over(actor, Question::Reachable, ops);
        Stage::Look(false)
    }

    /// The server has looked. `None`: it sleeps.
    fn looked(&mut self, actor: usize, last: bool, now: Ps, ops: &mut Vec<Op>) -> Option<Stage> {
        let lines = self.servers[actor].lines;
        if self.is_unblocked(actor, now) {
            self.rise(actor, ops);
            return Some(self.resume(actor, ops));
        }
        if self.queued() > 0 {
            self.rise(actor, ops);
            return Some(Stage::Dispatch);
        }
        // `steal_waiting`.
        let others = (1..self.servers.len()).map(|step| (actor + step) % self.servers.len());
        ops.extend(others.map(|other| Op::Scan(self.servers[other].lines.waiting)));
        if !last {
            self.servers[actor].seat = Seat::Idle;
            ops.push(Op::Write(lines.seat));
            self.sleep.idle += 1;
            ops.push(Op::Write(self.sleep.word));
            self.answer(actor, ops);
            ops.push(Op::Fence);
            self.look_over(actor, Question::Reachable, ops);
            return Some(Stage::Look(true));
        }
        if std::mem::take(&mut self.actors[actor].rung) {
            self.rise(actor, ops);
            return Some(Stage::Drain);
        }
        self.idled += 1;
        None
    }

    /// The server is awake, whatever its seat was.
    fn rise(&mut self, actor: usize, ops: &mut Vec<Op>) {
        let server = &mut self.servers[actor];
        let line = server.lines.seat;
        match std::mem::replace(&mut server.seat, Seat::Awake) {
            Seat::Awake => {}
            Seat::Idle => {
                ops.push(Op::Write(line));
                self.sleep.idle -= 1;
                ops.push(Op::Write(self.sleep.word));
            }
            Seat::Claimed => {
                server.waking = true;
                ops.extend([Op::Write(line); 2]);
            }
        }
    }

    /// The answer of a server that was claimed.
    fn answer(&mut self, actor: usize, ops: &mut Vec<Op>) {
        if std::mem::take(&mut self.servers[actor].waking) {
            self.sleep.waking = false;
            ops.push(Op::Write(self.sleep.word));
            ops.push(Op::Fence);
        }
    }

    fn dispatch(&mut self, actor: usize, ops: &mut Vec<Op>) -> Stage {
        let lines = self.servers[actor].lines;
        ops.push(Op::Write(lines.lists));
        ops.push(Op::Write(lines.words));
        ops.push(Op::Write(lines.waiting));
        self.answer(actor, ops);
        if self.look_over(actor, Question::More, ops) {
            ops.push(Op::Fence);
            self.claim(ops);
            ops.push(Op::Read(self.bed));
        }
        // `exceeds`, after `has_more_for_others`.
        self.look_over(actor, Question::More, ops);
        ops.extend([Op::Write(lines.record); 4]);
        ops.push(Op::Work(self.local.switch));
        Stage::Pass
    }

    // What they share.

    /// How many tasks are queued.
    fn queued(&self) -> usize {
        let servers = self.servers.iter().map(|server| &server.queue);
        let queues = servers.map(|queue| queue.tasks.len());
        self.injector.tasks.len() + queues.sum::<usize>()
    }

    /// A reference to `Shared` comes or goes.
    fn count(&self, ops: &mut Vec<Op>) {
        if !self.fixes.count {
            ops.push(Op::Write(self.shared_count));
        }
    }

    fn task_id(&mut self, actor: usize, ops: &mut Vec<Op>) {
        self.actors[actor].spawned += 1;
        if self.actors[actor].spawned.is_multiple_of(ID_BLOCK) {
            ops.push(Op::Write(self.task_id));
        }
    }

    /// After a push by a worker: the monitor, and a server that sleeps.
    fn announce(&mut self, ops: &mut Vec<Op>) {
        ops.push(Op::Fence);
        ops.push(Op::Read(self.bed));
        self.claim(ops);
    }

    /// `Sleep::claim`, and the wake-up of the server that it brought. True: one is woken.
    fn claim(&mut self, ops: &mut Vec<Op>) -> bool {
        ops.push(Op::Read(self.sleep.word));
        if self.sleep.idle == 0 || self.fixes.wake && self.sleep.waking {
            return false;
        }
        ops.push(Op::Write(self.sleep.word));
        if std::mem::replace(&mut self.sleep.waking, true) {
            return false;
        }
        let idle = |server: &super::sim::Server| server.seat == Seat::Idle;
        let found = self.servers.iter().position(idle);
        let server = found.expect("an idle server is counted after its seat is");
        let looked_at = self.servers[..=server].iter();
        ops.extend(looked_at.map(|server| Op::Scan(server.lines.seat)));
        self.sleep.idle -= 1;
        self.servers[server].seat = Seat::Claimed;
        let lines = self.servers[server].lines;
        ops.push(Op::Write(lines.seat));
        ops.push(Op::Write(self.sleep.word));
        // `preempt`: is it a worker, is it a server, slot, state, bell.
        ops.push(Op::Read(lines.task));
        ops.extend([Op::Write(lines.record); 2]);
        ops.push(Op::Fence);
        ops.push(Op::Write(lines.record));
        ops.push(Op::Fence);
        ops.push(Op::Write(lines.record));
        ops.push(Op::Write(lines.task));
        ops.push(Op::Write(lines.record));
        ops.push(Op::Wake(server));
        ops.push(Op::Work(self.local.wake));
        ops.push(Op::Write(lines.record));
        true
    }

    /// A look at all queues. True: more than the question asks for is there.
    fn look_over(&self, actor: usize, question: Question, ops: &mut Vec<Op>) -> bool {
        let limit = usize::from(question == Question::More);
        let mut look = |line: LineId| ops.push(Op::Scan(line));
        look(self.injector.tail);
        look(self.injector.head);
        let mut seen = self.injector.tasks.len();
        let first = if self.fixes.scan { actor } else { 0 };
        for step in 0..self.servers.len() {
            if seen > limit {
                return true;
            }
            let server = &self.servers[(first + step) % self.servers.len()];
            look(server.queue.tail);
            look(server.queue.head);
            if question == Question::More {
                look(server.lines.waiting);
            }
            seen += server.queue.tasks.len();
        }
        if seen <= limit && question == Question::Reachable {
            for server in &self.servers {
                look(server.lines.waiting);
            }
        }
        seen > limit
    }

    fn push(&mut self, to: Place, task: Task, ops: &mut Vec<Op>) {
        let looks = !self.fixes.queue;
        let queue = self.queue(to);
        if looks {
            // Whether it was empty.
            ops.push(Op::Read(queue.head));
        }
        ops.push(Op::See(queue.tail));
        ops.push(Op::Cas(queue.tail));
        ops.push(Op::Write(queue.slot(queue.pushed())));
        queue.tasks.push_back(task);
    }

    /// A steal, of so many.
    fn pop(&mut self, from: Place, count: usize, ops: &mut Vec<Op>) {
        let queue = self.queue(from);
        ops.push(Op::See(queue.head));
        if queue.popped / LAP == queue.pushed() / LAP {
            ops.push(Op::Fence);
            ops.push(Op::Read(queue.tail));
        } else {
            // The head says that there is a block behind this one.
            ops.extend([Op::Work(0); 2]);
        }
        ops.push(Op::Pop(from, count));
    }

    /// A steal from an empty queue.
    fn miss(&mut self, from: Place, ops: &mut Vec<Op>) {
        let queue = self.queue(from);
        // Nothing waits for what they say but a branch, whose outcome is guessed.
        ops.push(Op::Scan(queue.head));
        ops.push(Op::Fence);
        ops.push(Op::Scan(queue.tail));
    }

    fn queue(&mut self, place: Place) -> &mut Queue {
        match place {
            Place::Injector => &mut self.injector,
            Place::Server(index) => &mut self.servers[index].queue,
        }
    }

    // The monitor.

    /// One round over all servers; the next tick.
    fn monitor(&mut self, tick: Ps, ops: &mut Vec<Op>) -> Ps {
        let work = self.queued() > 0;
        let stays = !matches!(self.workload, Workload::Blocking { .. });
        for server in 0..self.servers.len() {
            let lines = self.servers[server].lines;
            let awake = self.servers[server].seat == Seat::Awake;
            ops.push(Op::Write(lines.record));
            ops.push(Op::Fence);
            ops.push(Op::Read(lines.task));
            if awake {
                ops.push(Op::Read(lines.waiting));
                self.look_over(server, Question::Queued, ops);
                if work && stays {
                    ops.push(Op::Work(PROC));
                    // `overdue`: what was in the LIFO slot and the inbox at the last look.
                    ops.extend([Op::Write(lines.waiting); 2]);
                }
            }
            ops.push(Op::Write(lines.record));
        }
        let next = (tick * 2).min(LAST_TICK);
        if work { next } else { next.max(FIRST_TICK) }
    }
}
