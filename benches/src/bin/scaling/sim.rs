//! The simulation: actors that take turns in simulated time, deterministic for a seed.
//!
//! Each server with its workers is one actor on a CPU of its own; so are the outside thread, if the
//! workload has one, and the provider's monitor. An actor that has nothing left to do is asked for
//! its next step (`sched`), which changes the state at once and says what that costs: work, fences,
//! accesses. So two actors never see half a step of each other; what they wait for is lines.

use std::{cmp::Reverse, collections::BinaryHeap, collections::VecDeque};

use fastrand::Rng;

use super::{
    line::{Fabric, LineId, Lines, NS, Ps},
    word::{WORDS, Word},
};

/// Tasks of one round of a root.
pub(crate) const BATCH: u32 = 64;

/// With `Fixes::queue`: from here ...
const FIRST_BACKOFF: Ps = 50 * NS;
/// ... doubling so often.
const BACKOFF_DOUBLES: u32 = 6;

/// When the outside thread begins: the servers have gone to sleep.
const OUTSIDE_AT: Ps = 1_000_000 * NS;

/// No run takes so long, in simulated time.
const TOO_LONG: Ps = 100_000_000_000 * NS;

/// Slots of a queue that are told apart, in lines of four.
const SLOT_LINES: usize = 16;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Workload {
    /// On each server a root spawns 64 tasks, again and again.
    Local,
    /// The same with a root on one server in so many: the others steal.
    Stolen {
        /// One in so many.
        every: usize,
    },
    /// A thread that is no worker spawns so many tasks, and all of them run.
    Outside {
        /// How many.
        tasks: u64,
    },
    /// As `Local`, with tasks that block for so long after their work.
    Blocking {
        /// How long.
        block: Ps,
    },
}

/// What costs time and is no access to a shared word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    /// What the task itself computes, on average (exponential).
    pub(crate) task: Ps,
    /// The runtime's own work for a spawn.
    pub(crate) spawn: Ps,
    /// The runtime's own work to take, run and finish a task.
    pub(crate) run: Ps,
    /// Reading the clock.
    pub(crate) clock: Ps,
    /// A switch between two threads of a CPU.
    pub(crate) switch: Ps,
    /// A block and what follows, beyond `switch`.
    pub(crate) block: Ps,
    /// Waking a thread that sleeps on another CPU, for the caller.
    pub(crate) wake: Ps,
    /// From there until it runs.
    pub(crate) wake_latency: Ps,
}

/// Changes to the runtime that are tried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fixes {
    /// Tasks do not count references to `Shared`.
    pub(crate) count: bool,
    /// Several tasks are moved from one queue to another by one compare-exchange of each; one
    /// that failed is tried again after a while, doubling; a push does not look at the head.
    pub(crate) queue: bool,
    /// A pusher reads `Sleep::word` again before it writes it, and leaves it alone if a server is
    /// being woken.
    pub(crate) wake: bool,
    /// Looks at all queues begin at the own one.
    pub(crate) scan: bool,
}

/// A task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// It spawns others.
    pub(crate) root: bool,
    /// The CPU that wrote it last.
    pub(crate) home: usize,
}

/// A queue and its lines.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) tasks: VecDeque<Task>,
    /// How many were ever popped.
    pub(crate) popped: u64,
    pub(crate) head: LineId,
    pub(crate) tail: LineId,
    slots: Vec<LineId>,
}

impl Queue {
    fn new(lines: &mut Lines, [head, tail, slot]: [Word; 3]) -> Self {
        Self {
            tasks: VecDeque::new(),
            popped: 0,
            head: lines.add(head),
            tail: lines.add(tail),
            slots: (0..SLOT_LINES).map(|_| lines.add(slot)).collect(),
        }
    }

    /// The line of the slot with that number.
    pub(crate) fn slot(&self, number: u64) -> LineId {
        self.slots[(number / 4) as usize % SLOT_LINES]
    }

    /// How many were ever pushed.
    pub(crate) fn pushed(&self) -> u64 {
        self.popped + self.tasks.len() as u64
    }
}

/// A server's seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    Awake,
    Idle,
    Claimed,
}

/// A server's lines, beside those of its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerLines {
    pub(crate) seat: LineId,
    pub(crate) waiting: LineId,
    pub(crate) counts: LineId,
    pub(crate) words: LineId,
    pub(crate) task: LineId,
    pub(crate) lists: LineId,
    pub(crate) record: LineId,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) queue: Queue,
    pub(crate) seat: Seat,
    /// It was claimed and has not answered.
    pub(crate) waking: bool,
    pub(crate) lines: ServerLines,
    /// When its blocked workers wake up, soonest first.
    pub(crate) blocked: BinaryHeap<Reverse<Ps>>,
    pub(crate) takes: u64,
    pub(crate) injector_turn: Ps,
}

/// See `sched::sleep` of the runtime.
#[derive(Debug)]
pub(crate) struct Sleep {
    pub(crate) word: LineId,
    pub(crate) idle: usize,
    /// A server was claimed and has not answered.
    pub(crate) waking: bool,
}

/// What an actor does next, after what its last step cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A worker between two tasks.
    Pass,
    /// It found nothing so far, and looks at the queue that is so many further.
    Steal(usize),
    /// It tried to pop a task, on this way.
    Tried(Way),
    /// It has a task, and moves so many more to the own queue.
    Bring(Place, usize),
    /// It tried to pop the next of those.
    Brought(Place, usize),
    /// It runs the task that it has.
    Run,
    /// A root that has so many tasks to spawn.
    Spawn(u32),
    /// Its task blocks.
    Block,
    /// It found nothing: the server is about to drain and to look.
    Drain,
    /// The server has looked; true: for the last time.
    Look(bool),
    /// The server picks an idle worker.
    Dispatch,
    Asleep,
    /// The outside thread, with so many tasks left.
    Outside(u64),
    /// The monitor, with its tick.
    Monitor(Ps),
}

/// Names a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Injector,
    Server(usize),
}

/// How a worker comes to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It was the injector's turn.
    Turn,
    Own,
    /// The own queue was empty.
    Injector,
    /// From the server that is so many further.
    Steal(usize),
}

/// What a step costs, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Work(Ps),
    Fence,
    Read(LineId),
    /// A read, one of many that do not wait for each other.
    Scan(LineId),
    /// A read whose value the next `Cas` of that line expects.
    See(LineId),
    Cas(LineId),
    /// Pops so many tasks into the actor's hand, none if the queue is empty, by a `Cas` of the
    /// head. Three operations before it the head is seen: there it goes on after a failure.
    Pop(Place, usize),
    Write(LineId),
    /// The server's thread is woken.
    Wake(usize),
}

#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) cpu: usize,
    pub(crate) stage: Stage,
    pub(crate) ops: Vec<Op>,
    at: usize,
    seen: u32,
    /// Turns that were announced before this went up are void.
    epoch: u32,
    /// When it fell asleep.
    since: Ps,
    /// When it found its own queue and the injector empty.
    pub(crate) searching: Ps,
    /// It was woken before it slept.
    pub(crate) rung: bool,
    /// Compare-exchanges that failed in a row.
    failures: u32,
    /// What it popped.
    pub(crate) hand: Vec<Task>,
    /// What it is about to run.
    pub(crate) task: Option<Task>,
    pub(crate) rng: Rng,
    pub(crate) spawned: u64,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Tasks per second and CPU.
    pub(crate) per_cpu: f64,
    /// For each word: how busy its busiest line was, and the part of the CPUs' time that went
    /// into waiting for it; 0 to 1.
    pub(crate) words: [(f64, f64); WORDS.len()],
    /// Accesses and transfers of a word, for one task.
    pub(crate) per_task: [(f64, f64); WORDS.len()],
    /// Steals for one task, as the runtime counts them: of one task each, and more may come along.
    pub(crate) stolen: f64,
    /// Times that a server went to sleep, for one task.
    pub(crate) idled: f64,
    /// How long that took from the empty queue on, nanoseconds.
    pub(crate) falling: f64,
    /// Part of the CPUs' time in which the server slept; 0 to 1.
    pub(crate) asleep: f64,
    /// How busy the monitor was; 0 to 1.
    pub(crate) monitor: f64,
    /// How busy the outside thread was; 0 to 1.
    pub(crate) outside: f64,
}

/// How much is simulated, in tasks of a CPU; not for workloads that have a number of tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Before anything is counted.
    pub(crate) warm: u64,
    /// Counted.
    pub(crate) counted: u64,
}

/// One machine, one runtime, one workload.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) lines: Lines,
    pub(crate) local: Local,
    pub(crate) workload: Workload,
    pub(crate) fixes: Fixes,
    pub(crate) servers: Vec<Server>,
    pub(crate) actors: Vec<Actor>,
    pub(crate) injector: Queue,
    pub(crate) sleep: Sleep,
    pub(crate) shared_count: LineId,
    pub(crate) bed: LineId,
    pub(crate) cap: LineId,
    pub(crate) task_id: LineId,
    pub(crate) outside_counts: LineId,
    pub(crate) done: u64,
    pub(crate) stolen: u64,
    pub(crate) idled: u64,
    /// Counted is what comes after this.
    begin: Ps,
    /// What was done last was done then.
    now: Ps,
    /// So many tasks are simulated.
    goal: u64,
    /// How long it took those that fell asleep from an empty queue to there.
    falling: Ps,
    /// How long servers slept, those that sleep from their waking on.
    asleep: Ps,
    /// What the monitor and the outside thread spent.
    spent: [Ps; 2],
    turns: BinaryHeap<Reverse<(Ps, u64, usize, u32)>>,
    next_turn: u64,
}

impl Sim {
    pub(crate) fn new(
        servers: usize,
        workload: Workload,
        fixes: Fixes,
        fabric: Fabric,
        local: Local,
        seed: u64,
    ) -> Self {
        let mut lines = Lines::new(fabric, servers);
        let mut rng = Rng::with_seed(seed);
        let actors = (0..servers + 2).map(|cpu| Actor {
            cpu,
            stage: Stage::Pass,
            ops: Vec::new(),
            at: 0,
            seen: 0,
            epoch: 0,
            since: 0,
            searching: 0,
            rung: false,
            failures: 0,
            hand: Vec::new(),
            task: None,
            rng: rng.fork(),
            spawned: cpu as u64 * 17,
        });
        let mut sim = Self {
            local,
            workload,
            fixes,
            actors: actors.collect(),
            servers: (0..servers).map(|_| Server::new(&mut lines)).collect(),
            injector: Queue::new(
                &mut lines,
                [Word::InjectorHead, Word::InjectorTail, Word::InjectorSlot],
            ),
            sleep: Sleep {
                word: lines.add(Word::Sleep),
                idle: 0,
                waking: false,
            },
            shared_count: lines.add(Word::SharedCount),
            bed: lines.add(Word::Bed),
            cap: lines.add(Word::Cap),
            task_id: lines.add(Word::TaskId),
            outside_counts: lines.add(Word::OutsideCounts),
            done: 0,
            stolen: 0,
            idled: 0,
            begin: 0,
            now: 0,
            goal: 0,
            falling: 0,
            asleep: 0,
            spent: [0; 2],
            turns: BinaryHeap::new(),
            next_turn: 0,
            lines,
        };
        sim.populate();
        sim
    }

    /// Roots where the workload has them; everybody's first turn.
    fn populate(&mut self) {
        let count = self.servers.len();
        let every = match self.workload {
            Workload::Local | Workload::Blocking { .. } => 1,
            Workload::Stolen { every } => every,
            Workload::Outside { .. } => usize::MAX,
        };
        if every != usize::MAX {
            for server in (0..count).step_by(every) {
                let root = Task {
                    root: true,
                    home: server,
                };
                self.servers[server].queue.tasks.push_back(root);
            }
        }
        for server in 0..count {
            self.turn(server, server as Ps * 10 * NS);
        }
        if let Workload::Outside { tasks } = self.workload {
            self.actors[count].stage = Stage::Outside(tasks);
            self.turn(count, OUTSIDE_AT);
        }
        self.actors[count + 1].stage = Stage::Monitor(50_000 * NS);
        self.turn(count + 1, 0);
    }

    /// The actor goes on at that time.
    fn turn(&mut self, actor: usize, at: Ps) {
        let epoch = self.actors[actor].epoch;
        self.turns.push(Reverse((at, self.next_turn, actor, epoch)));
        self.next_turn += 1;
    }

    /// Simulates, and counts what comes after `warm`. A workload with a number of tasks is counted
    /// from its beginning to its end.
    pub(crate) fn run(mut self, span: Span) -> Outcome {
        let servers = self.servers.len() as u64;
        let counted = match self.workload {
            Workload::Outside { tasks } => {
                self.until(OUTSIDE_AT - 1, u64::MAX);
                self.now = OUTSIDE_AT;
                tasks
            }
            _ => {
                self.until(Ps::MAX, span.warm * servers);
                span.counted * servers
            }
        };
        self.lines.reset();
        self.spent = [0; 2];
        self.asleep = 0;
        self.falling = 0;
        self.begin = self.now;
        let begin = self.begin;
        let before = (self.done, self.stolen, self.idled);
        self.until(Ps::MAX, before.0 + counted);
        let end = self.now;
        let tasks = (self.done - before.0).max(1) as f64;
        let time = (end - begin).max(1) as f64;
        let sleepers = self.actors[..self.servers.len()].iter();
        let sleeping: Ps = sleepers
            .filter(|actor| actor.stage == Stage::Asleep)
            .map(|actor| end - actor.since.max(begin))
            .sum();
        let cpus = self.servers.len() as f64;
        Outcome {
            per_cpu: tasks / (time * 1e-12) / cpus,
            words: WORDS.map(|word| {
                let stall = self.lines.tally(word).stall as f64;
                let busy = self.lines.busiest(word) as f64 / time;
                (busy.min(1.0), stall / time / cpus)
            }),
            per_task: WORDS.map(|word| {
                let tally = self.lines.tally(word);
                (tally.accesses as f64 / tasks, tally.misses as f64 / tasks)
            }),
            stolen: (self.stolen - before.1) as f64 / tasks,
            idled: (self.idled - before.2) as f64 / tasks,
            falling: self.falling as f64 / NS as f64 / (self.idled - before.2).max(1) as f64,
            asleep: (self.asleep + sleeping) as f64 / time / cpus,
            monitor: (self.spent[1] as f64 / time).min(1.0),
            outside: (self.spent[0] as f64 / time).min(1.0),
        }
    }

    /// Until that time, or until so many tasks are done.
    fn until(&mut self, end: Ps, tasks: u64) {
        self.goal = tasks;
        while let Some(Reverse((at, _, actor, epoch))) = self.turns.peek().copied() {
            if at > end || self.done >= self.goal {
                return;
            }
            assert!(at < TOO_LONG || end < Ps::MAX, "it does not end");
            self.turns.pop();
            if epoch == self.actors[actor].epoch {
                self.now = at;
                self.go_on(actor, at, end);
            }
        }
    }

    /// Lets an actor go on until somebody else is first, or it sleeps.
    fn go_on(&mut self, actor: usize, mut now: Ps, end: Ps) {
        if self.actors[actor].stage == Stage::Asleep {
            self.asleep += now - self.actors[actor].since.max(self.begin);
            self.wake_up(actor);
        }
        loop {
            if self.actors[actor].at == self.actors[actor].ops.len() {
                self.actors[actor].at = 0;
                self.actors[actor].ops.clear();
                match self.step(actor, now) {
                    Next::Goes => {}
                    Next::Sleeps(until) => {
                        self.actors[actor].epoch += 1;
                        self.actors[actor].stage = Stage::Asleep;
                        self.actors[actor].since = now;
                        self.falling += now - self.actors[actor].searching;
                        if let Some(until) = until {
                            self.turn(actor, until.max(now));
                        }
                        return;
                    }
                    Next::Naps(time) => {
                        self.turn(actor, now + time);
                        return;
                    }
                }
                continue;
            }
            let before = now;
            now = self.charge(actor, now);
            if let Some(helper) = actor.checked_sub(self.servers.len()) {
                self.spent[helper] += now - before;
            }
            self.now = now;
            let first = self.turns.peek().is_none_or(|Reverse(turn)| now < turn.0);
            if !first || now > end || self.done >= self.goal {
                self.turn(actor, now);
                return;
            }
        }
    }

    /// When the actor's next operation is done.
    fn charge(&mut self, actor: usize, now: Ps) -> Ps {
        let Actor { cpu, at, .. } = self.actors[actor];
        let op = self.actors[actor].ops[at];
        let fabric = self.lines.fabric;
        let mut next = at + 1;
        let done = match op {
            Op::Work(time) => now + time,
            Op::Fence => now + fabric.fence,
            Op::Read(line) => self.lines.read(line, cpu, now, false),
            Op::Scan(line) => self.lines.read(line, cpu, now, true),
            Op::See(line) => {
                let done = self.lines.read(line, cpu, now, false);
                self.actors[actor].seen = self.lines.version(line);
                done
            }
            Op::Cas(line) => {
                let seen = self.actors[actor].seen;
                let (done, found) = self.lines.exchange(line, cpu, now, seen);
                if !found {
                    // Somebody came in between: the same again, with what was found.
                    self.actors[actor].seen = self.lines.version(line);
                    next = at;
                }
                done
            }
            Op::Pop(from, count) => {
                let expected = self.actors[actor].seen;
                let queue = match from {
                    Place::Injector => &mut self.injector,
                    Place::Server(server) => &mut self.servers[server].queue,
                };
                let count = count.min(queue.tasks.len());
                if count == 0 {
                    now
                } else {
                    let (done, found) = self.lines.exchange(queue.head, cpu, now, expected);
                    if found {
                        queue.popped += count as u64;
                        self.actors[actor].hand.extend(queue.tasks.drain(..count));
                        self.actors[actor].failures = 0;
                        done
                    } else {
                        next = at - 3;
                        let failures = self.actors[actor].failures;
                        self.actors[actor].failures = (failures + 1).min(BACKOFF_DOUBLES);
                        done + if self.fixes.queue {
                            FIRST_BACKOFF << failures
                        } else {
                            0
                        }
                    }
                }
            }
            Op::Write(line) => self.lines.write(line, cpu, now),
            Op::Wake(server) => {
                self.ring(server, now);
                now
            }
        };
        self.actors[actor].at = next;
        done
    }

    /// Somebody woke that server's thread.
    fn ring(&mut self, server: usize, now: Ps) {
        let at = now + self.local.wake_latency;
        if self.actors[server].stage == Stage::Asleep {
            // One turn is enough; a worker of it may unblock before that.
            self.actors[server].epoch += 1;
            let soonest = self.servers[server].blocked.peek();
            let soonest = soonest.map_or(Ps::MAX, |Reverse(at)| (*at).max(now));
            self.turn(server, at.min(soonest));
        } else {
            self.actors[server].rung = true;
        }
    }
}

/// How an actor goes on after a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// With what the step costs.
    Goes,
    /// When it is woken, or at that time.
    Sleeps(Option<Ps>),
    /// After that time.
    Naps(Ps),
}

impl Server {
    fn new(lines: &mut Lines) -> Self {
        Self {
            queue: Queue::new(lines, [Word::QueueHead, Word::QueueTail, Word::QueueSlot]),
            seat: Seat::Awake,
            waking: false,
            lines: ServerLines {
                seat: lines.add(Word::Seat),
                waiting: lines.add(Word::Waiting),
                counts: lines.add(Word::ServerCounts),
                words: lines.add(Word::ServerWords),
                task: lines.add(Word::ServerTask),
                lists: lines.add(Word::Lists),
                record: lines.add(Word::Record),
            },
            blocked: BinaryHeap::new(),
            takes: 0,
            injector_turn: 0,
        }
    }
}
