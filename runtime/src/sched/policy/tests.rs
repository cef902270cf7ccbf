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
    for (owner, server_must_pick, resumed, has_task, task_is_due, parked, successor) in [
        (false, false, false, false, false, false, Nobody),
        (true, false, false, false, false, false, Nobody),
        (false, false, false, false, false, true, Server),
        (false, false, true, false, false, true, Resumed),
        (false, false, true, false, false, false, Resumed),
        (false, false, true, true, false, false, Resumed),
        // A task has its turn after some hand-offs, and the server finds a worker for it.
        (false, false, true, true, true, false, Server),
        (false, false, true, false, true, false, Resumed),
        (false, false, false, true, false, false, Server),
        (false, true, true, false, false, false, Server),
        (true, false, true, false, false, false, Server),
    ] {
        assert_eq!(
            block_successor(owner, server_must_pick, resumed, has_task, parked, || {
                task_is_due
            }),
            successor
        );
    }
}

#[test]
fn a_worker_is_preempted_after_its_slice_and_an_offer() {
    use SliceStep::{OfferOrPreempt, Preempt, SleepUntil};
    const MS: u64 = 1_000_000;
    let mut slice = Slice::begin(7, 0);
    assert_eq!(slice.holder(), 7);
    // Nobody waits: it is looked at a slice later, for as long as that lasts.
    assert_eq!(slice.next_step(50 * MS, 0), SleepUntil(60 * MS));
    // Somebody begins to wait long after the slice: it has a moment to give way by itself.
    assert_eq!(slice.next_step(60 * MS, 1), SleepUntil(61 * MS));
    assert_eq!(slice.next_step(60 * MS + 1, 2), SleepUntil(61 * MS));
    assert_eq!(slice.next_step(61 * MS, 1), OfferOrPreempt);
    assert_eq!(slice.offered(61 * MS), 71 * MS);
    assert_eq!(slice.next_step(70 * MS, 1), SleepUntil(71 * MS));
    assert_eq!(slice.next_step(71 * MS, 1), Preempt);
    // Those that waited were taken over: the next one that waits is offered anew.
    assert_eq!(slice.next_step(72 * MS, 0), SleepUntil(82 * MS));
    assert_eq!(slice.next_step(82 * MS, 1), SleepUntil(83 * MS));
    assert_eq!(slice.next_step(83 * MS, 1), OfferOrPreempt);
    // Somebody waits from the start: the whole slice.
    assert_eq!(
        Slice::begin(7, 5 * MS).next_step(6 * MS, 1),
        SleepUntil(15 * MS)
    );
}

#[test]
fn a_server_sleeps_with_a_deadline_while_somebody_may_come_back() {
    for (waiting, unlisted, deadline, take_over) in
        [(0, 1, false, true), (0, 2, true, true), (1, 1, true, false)]
    {
        assert_eq!(needs_slice_deadline(waiting, unlisted), deadline);
        assert_eq!(may_take_over(waiting), take_over);
    }
}
