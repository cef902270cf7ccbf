//! Each decision of the policy, by a table.

use super::*;

/// What a server picks, four times in a row, that has: `r`eady, `y`ielded and `i`dle workers,
/// `t`asks, `d`ue ones; and that is `s`topping. Each pick is an initial, or `-`: nobody.
fn picks(has: &str) -> String {
    let mut turns = PickTurns::new();
    let view = PickView {
        ready: has.contains('r'),
        yielded: has.contains('y'),
        idle: has.contains('i'),
        tasks: has.contains('t'),
        task_is_due: has.contains('d'),
        stopping: has.contains('s'),
    };
    (0..4)
        .map(|_| match turns.next_worker(&view) {
            Some(PickFrom::Ready) => 'r',
            Some(PickFrom::Yielded) => 'y',
            Some(PickFrom::Idle) => 'i',
            None => '-',
        })
        .collect()
}

#[test]
fn ready_workers_come_first_and_let_yielded_ones_in() {
    for (has, expected) in [
        ("", "----"),
        ("r", "rrrr"),
        ("y", "yyyy"),
        ("ry", "ryry"),
        // Ready workers come before tasks, also with an idle worker at hand.
        ("rit", "rrrr"),
        ("it", "iiii"),
        // Tasks and yielded workers alternate, if there is a worker for the tasks.
        ("yit", "iyiy"),
        ("yt", "yyyy"),
        ("ryit", "riyr"),
        // Idle workers without a task stay idle, unless they are to leave.
        ("i", "----"),
        ("is", "iiii"),
        ("yis", "yyyy"),
        // A task that is due comes before everybody, if there is a worker for it.
        ("ryitd", "iiii"),
        ("rytd", "ryry"),
    ] {
        assert_eq!(picks(has), expected, "{has:?}");
    }
}

#[test]
fn yielders_that_only_wait_get_a_worker_for_the_tasks() {
    let mut rounds = YieldRounds::default();
    let mut needs = |takes| rounds.tasks_need_worker(takes);
    assert!((0..64).all(|_| !needs(5)));
    assert!(needs(5), "the 65th");
    assert!((0..64).all(|_| !needs(5)), "begins again");
    // A task began: progress.
    assert!((0..64).all(|_| !needs(6)));
    assert!(needs(6));
}

#[test]
fn waiting_workers_are_stolen_before_idle_ones() {
    assert_eq!(steal_order(true, false), [Steal::Waiting, Steal::Idle]);
    assert_eq!(steal_order(false, false), [Steal::Waiting]);
    assert_eq!(steal_order(true, true), []);
    for (waiting, slot_in_use, may) in [
        (0, true, false),
        (1, false, false),
        (1, true, true),
        (2, false, true),
    ] {
        assert_eq!(may_steal_waiting(waiting, || slot_in_use), may);
    }
}

/// Places without tasks. Remembers in which order it was asked, by an initial each; a capital
/// one for a place in its turn.
struct Empty(String);

impl Empty {
    fn ask(&mut self, place: char) -> Option<()> {
        self.0.push(place);
        None
    }
}

impl Places for Empty {
    type Task = ();

    fn injector_in_turn(&mut self) -> Option<()> {
        self.ask('I')
    }

    fn lifo_in_turn(&mut self) -> Option<()> {
        self.ask('L')
    }

    fn queue(&mut self) -> Option<()> {
        self.ask('q')
    }

    fn lifo(&mut self) -> Option<()> {
        self.ask('l')
    }

    fn injector(&mut self) -> Option<()> {
        self.ask('i')
    }

    fn others(&mut self) -> Option<()> {
        self.ask('o')
    }
}

#[test]
fn tasks_are_looked_for_nearby_first() {
    for (injector_is_due, lifo_is_due, order) in [
        (false, true, "Lqlio"),
        (false, false, "qlio"),
        (true, true, "ILqlio"),
        (true, false, "Iqlio"),
    ] {
        let mut places = Empty(String::new());
        take(&mut places, injector_is_due, lifo_is_due);
        assert_eq!(places.0, order);
    }
}

#[test]
fn the_injector_and_the_lifo_slot_have_their_turns() {
    for (takes, waited_ns, due) in [
        (1, 0, false),
        (60, 999_999, false),
        (61, 0, true),
        (122, 0, true),
        (1, 1_000_000, true),
    ] {
        assert_eq!(
            injector_is_due(takes, waited_ns),
            due,
            "{takes}, {waited_ns}"
        );
    }
    for (len, servers, share) in [(0, 2, 0), (1, 2, 0), (5, 2, 2), (1000, 2, 128), (64, 1, 64)] {
        assert_eq!(injector_share(len, servers), share);
    }
    assert_eq!([0, 2, 3, 4].map(lifo_is_due), [true, true, false, false]);
    for (owner_is_awake, overdue, open) in [
        (true, false, false),
        (true, true, true),
        (false, false, true),
        (false, true, true),
    ] {
        assert_eq!(lifo_is_open(owner_is_awake, overdue), open);
    }
}

#[test]
fn what_is_wanted_next_goes_to_the_lifo_slot() {
    let queue = |left_to_own| PlaceTask::Queue { left_to_own };
    for (origin, watched, nothing_queued, place) in [
        (Origin::Wake, false, false, PlaceTask::LifoSlot),
        (Origin::Wake, true, true, PlaceTask::LifoSlot),
        (Origin::Spawn, true, true, PlaceTask::LifoSlot),
        (Origin::Spawn, true, false, queue(false)),
        (Origin::Spawn, false, true, queue(false)),
        (Origin::Fork, true, true, queue(false)),
        (Origin::Yield, true, true, queue(true)),
        (Origin::Yield, false, false, queue(false)),
    ] {
        assert_eq!(
            place_task(origin, watched, || nothing_queued),
            place,
            "{origin:?}"
        );
    }
}

#[test]
fn a_turn_ends_by_count_or_by_time() {
    for (ran, waited_ns, over) in [
        (0, 0, false),
        (7, 99_999, false),
        (8, 0, true),
        (0, 100_000, true),
    ] {
        assert_eq!(turn_is_over(ran, || waited_ns), over, "{ran}, {waited_ns}");
    }
    assert_eq!([0, 7, 8].map(task_is_due), [false, false, true]);
}

#[test]
fn a_slot_is_handed_to_a_resumed_worker_unless_a_task_is_due() {
    use Successor::{Idle, Resumed, Server};
    for (has_resumed, has_task, task_is_due, expected) in [
        (false, false, false, Server),
        (false, false, true, Server),
        (false, true, false, Idle),
        (false, true, true, Idle),
        (true, false, false, Resumed),
        // A count of hand-offs that is high does not matter without a task.
        (true, false, true, Resumed),
        (true, true, false, Resumed),
        (true, true, true, Idle),
    ] {
        let chosen = |must_pick| successor(has_resumed, has_task, || task_is_due, || must_pick);
        assert_eq!(chosen(false), expected);
        assert_eq!(
            chosen(true),
            Server,
            "a worker waits that only the server can pick"
        );
    }
}

#[test]
fn a_block_goes_to_a_waiting_worker_unless_only_the_server_can_choose() {
    use BlockSuccessor::{Nobody, Resumed, Server};
    for (owner, server_must_pick, resumed, has_task, task_is_due, successor) in [
        (false, false, false, false, false, Nobody),
        (true, false, false, false, false, Nobody),
        (false, false, true, false, false, Resumed),
        (false, false, true, true, false, Resumed),
        // A task has its turn after some hand-offs, and the server finds a worker for it.
        (false, false, true, true, true, Server),
        (false, false, true, false, true, Resumed),
        (false, false, false, true, false, Server),
        (false, true, true, false, false, Server),
        (true, false, true, false, false, Server),
    ] {
        assert_eq!(
            block_successor(owner, server_must_pick, resumed, has_task, || task_is_due),
            successor
        );
    }
}

#[test]
fn workers_that_came_back_have_their_turn_among_the_ready_ones() {
    let mut in_a_row = 0;
    let mut next = |woken, io| io_is_next(&mut in_a_row, woken, io);
    for _ in 0..3 {
        assert!((0..8).all(|_| !next(true, true)), "woken ones come first");
        assert!(next(true, true), "the ninth");
    }
    assert!(!next(true, false));
    assert!(next(false, true));
    assert!(!next(false, false));
}

#[test]
fn a_worker_is_preempted_after_its_slice_and_an_offer() {
    use SliceStep::{OfferOrPreempt, Preempt, SleepUntil};
    const MS: u64 = 1_000_000;
    let mut slice = Slice::begin(7, 0);
    assert_eq!(slice.holder(), 7);
    // Nobody waits: it is looked at a slice later, for as long as that lasts.
    assert_eq!(slice.next_step(50 * MS, 0, None), SleepUntil(55 * MS));
    // Somebody begins to wait long after the slice: it has a moment to give way by itself.
    assert_eq!(slice.next_step(60 * MS, 1, None), SleepUntil(61 * MS));
    assert_eq!(slice.next_step(60 * MS + 1, 2, None), SleepUntil(61 * MS));
    assert_eq!(slice.next_step(61 * MS, 1, None), OfferOrPreempt);
    assert_eq!(slice.offered(61 * MS), 66 * MS);
    assert_eq!(slice.next_step(65 * MS, 1, None), SleepUntil(66 * MS));
    assert_eq!(slice.next_step(66 * MS, 1, None), Preempt);
    // Those that waited were taken over: the next one that waits is offered anew.
    assert_eq!(slice.next_step(72 * MS, 0, None), SleepUntil(77 * MS));
    assert_eq!(slice.next_step(82 * MS, 1, None), SleepUntil(83 * MS));
    assert_eq!(slice.next_step(83 * MS, 1, None), OfferOrPreempt);
    // Somebody waits from the start: the whole slice.
    assert_eq!(
        Slice::begin(7, 5 * MS).next_step(6 * MS, 1, None),
        SleepUntil(10 * MS)
    );
}

#[test]
fn a_server_sleeps_with_a_deadline_while_somebody_may_come_back() {
    for (waiting, unlisted, tasks, deadline, take_over) in [
        (0, 1, false, false, true),
        (0, 2, false, true, true),
        (1, 1, false, true, false),
        (0, 1, true, true, true),
    ] {
        assert_eq!(needs_slice_deadline(waiting, unlisted, tasks), deadline);
        assert_eq!(may_take_over(waiting), take_over);
    }
}

#[test]
fn a_task_comes_first_where_a_worker_was_preempted_for_it() {
    let view = PickView {
        ready: true,
        yielded: true,
        idle: true,
        tasks: true,
        task_is_due: false,
        stopping: false,
    };
    let mut turns = PickTurns::new();
    turns.preempted_for_task();
    assert_eq!(turns.next_worker(&view), Some(PickFrom::Idle));
    assert_eq!(turns.next_worker(&view), Some(PickFrom::Ready));
    // The task has gone elsewhere meanwhile.
    turns.preempted_for_task();
    let gone = PickView {
        tasks: false,
        ..view
    };
    assert_eq!(turns.next_worker(&gone), Some(PickFrom::Yielded));
    assert_eq!(turns.next_worker(&view), Some(PickFrom::Ready));
}

#[test]
fn tasks_and_workers_that_wait_take_turns() {
    let mut turns = PickTurns::new();
    let tasks = |turns: &mut PickTurns, waiting, looks| {
        (0..looks)
            .filter(|_| {
                let next = turns.task_is_next_after(waiting);
                if next {
                    turns.preempted_for_task();
                }
                next
            })
            .count()
    };
    assert_eq!(tasks(&mut turns, 1, 10), 5);
    assert_eq!(tasks(&mut turns, CROWD - 1, 10), 5);
    assert_eq!(
        tasks(&mut turns, CROWD, 10 * (CROWD + 1)),
        10,
        "one in a round"
    );
}

#[test]
fn a_task_that_is_next_keeps_its_turn_until_it_has_a_worker() {
    let none_idle = PickView {
        ready: true,
        yielded: false,
        idle: false,
        tasks: true,
        task_is_due: false,
        stopping: false,
    };
    let idle = PickView {
        idle: true,
        ..none_idle
    };
    let mut turns = PickTurns::new();
    assert!(!turns.task_needs_worker(&none_idle));
    turns.preempted_for_task();
    assert!(turns.task_needs_worker(&none_idle));
    assert_eq!(turns.next_worker(&none_idle), Some(PickFrom::Ready));
    assert!(turns.task_needs_worker(&none_idle) && !turns.task_needs_worker(&idle));
    assert_eq!(turns.next_worker(&idle), Some(PickFrom::Idle));
    assert_eq!(turns.next_worker(&idle), Some(PickFrom::Ready));
    // The one that was made comes by the list of ready workers.
    turns.preempted_for_task();
    turns.worker_has_come();
    assert!(!turns.task_needs_worker(&none_idle));
    // A turn that a task could not use is kept for it.
    assert!(!turns.task_is_next_after(1));
    assert!(turns.task_is_next_after(1) && turns.task_is_next_after(1));
}

#[test]
fn workers_park_where_the_slot_is_busy() {
    let after = |blocks: &[(u32, bool)]| {
        blocks.iter().fold(0, |before, &(count, somebody_waits)| {
            (0..count).fold(before, |before, _| saturation(before, somebody_waits))
        })
    };
    assert!(!parks(after(&[]), 0));
    assert!(!parks(after(&[]), DEEP_QUEUE - 1) && parks(after(&[]), DEEP_QUEUE));
    assert!(!parks(after(&[(15, true)]), 0) && parks(after(&[(16, true)]), 0));
    assert!(parks(after(&[(1000, true), (2, false)]), 0));
    assert!(!parks(after(&[(1000, true), (3, false)]), 0));
}

#[test]
fn a_task_that_computes_for_a_slice_gives_way_to_a_queued_one() {
    use SliceStep::{OfferOrPreempt, PreemptForTask, SleepUntil};
    const MS: u64 = 1_000_000;
    let at = |takes| {
        Some(Progress {
            takes,
            task: Some(3),
        })
    };
    let mut slice = Slice::begin(7, 0);
    assert_eq!(slice.next_step(10 * MS, 0, at(1)), SleepUntil(15 * MS));
    // It has taken further tasks: the one that runs has its whole slice.
    assert_eq!(slice.next_step(15 * MS, 0, at(9)), SleepUntil(20 * MS));
    assert_eq!(slice.next_step(19 * MS, 0, at(9)), SleepUntil(20 * MS));
    assert_eq!(slice.next_step(20 * MS, 0, at(9)), PreemptForTask);
    // A worker that waits comes first.
    assert_eq!(slice.next_step(21 * MS, 1, at(9)), SleepUntil(22 * MS));
    assert_eq!(slice.next_step(22 * MS, 1, at(9)), OfferOrPreempt);
}

#[test]
fn as_many_servers_give_way_as_tasks_are_queued() {
    for (queued, servers, after) in [
        (0, 2, SLICE_NS),
        (1, 64, SLICE_NS),
        (2, 64, SLICE_NS / 2),
        (1000, 4, SLICE_NS / 4),
        (1000, 1, SLICE_NS),
    ] {
        assert_eq!(next_to_give_way(7, queued, servers), 7 + after);
    }
}
