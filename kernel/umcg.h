/* SPDX-License-Identifier: GPL-2.0 */
/*
 * UMCG as a loadable module: the declarations that its files share.
 *
 *   main.c      the device, its ioctls, module init and exit
 *   registry.c  registrations: look-up by tid, pinned pages, life times
 *   slot.c      which worker holds which server's slot: claims, pushes, wake-ups
 *   wait.c      the calls WAIT and PREEMPT
 *   gate.c      the report of a block, and the gate before user mode
 *   hooks.c     tracepoints and the user-return notifier
 *
 * Terms
 * -----
 * A *server* is a thread that schedules *workers*. Each server has one *slot*, and a worker
 * runs in user mode only while it holds a slot. A worker *blocks* when it goes to sleep in
 * the kernel while it holds a slot, anywhere but in WAIT. The *gate* is the place on the way
 * back to user mode where a worker sleeps until a server gives it a slot. A *spare* is the
 * idle worker that takes over the slot when the worker that is armed with it blocks. A
 * *detached* worker is an ordinary thread, because its server is gone.
 *
 * In the code s is a server, w a worker, n the worker that gets a slot next, t either kind
 * of thread, and g a group.
 *
 * Locking
 * -------
 * thread->lock is a raw spinlock, taken with interrupts off. The order is:
 *
 *   rq->lock  ->  worker lock(s), lower address first  ->  one server lock
 *
 * 1. rq->lock comes first because umcg_sched_out() runs under it. Under a thread lock the
 *    module must therefore not do anything that takes rq->lock or pi_lock (any wake-up),
 *    allocates, frees or prints. It notes which thread to wake, drops the lock, and then
 *    wakes. In umcg_sched_out() itself only irq_work_queue() is possible.
 * 2. Two server locks are never held at once.
 * 3. worker->host == s  <=>  s->curr == worker, except for a moment inside one section of
 *    the worker's lock. host is written under the worker's lock, curr under the server's
 *    lock. A server sets its own curr only from NULL; the holder of the slot passes curr on
 *    only while it is the holder.
 * 4. Threads other than a task's own write the task's user words only under its lock and
 *    with !umcg_gone(), and so never after UNREGISTER has returned.
 * 5. Look-ups, and the wake-ups that follow them, are under rcu_read_lock(). A thread is
 *    freed a grace period after its last reference was dropped.
 * 6. group->hash_lock (raw, leaf) is for writers of the hash. group->pages_lock (mutex,
 *    process context only) is for the list of pinned pages.
 *
 * Bounds
 * ------
 * User space can write any of its words at any time. Every retry on such a word under a
 * lock is therefore bounded (UMCG_TRIES), and the gate does later what was given up under
 * rq->lock. The hash is searched under rq->lock too. It is salted, because a process can
 * choose its tids and could otherwise fill one bucket. The state is one byte of its word
 * and is changed by a byte-wide cmpxchg, which the application's bits cannot make fail.
 *
 * The kernel's own phase, host and curr are authoritative; the user state only follows
 * them. A worker sleeps until its *phase* says that it holds a slot.
 */
#ifndef UMCG_H
#define UMCG_H

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/irq_work.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/rculist.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/task_work.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "umcg_uapi.h"

#define UMCG_BUCKET_BITS 10
#define UMCG_BUCKETS	BIT(UMCG_BUCKET_BITS)
#define UMCG_TRIES	8

/**
 * enum umcg_phase - where a worker is, as the kernel sees it
 * @UMCG_PH_HOLD: holds the slot of its host, also between its step to RUNNABLE in user space
 *	and its WAIT
 * @UMCG_PH_BLOCKED: went to sleep while it held a slot, or has just registered; it must
 *	pass the gate
 * @UMCG_PH_OUT: holds no slot and waits to be picked
 * @UMCG_PH_DETACHED: its server is gone, and it is an ordinary thread
 */
enum umcg_phase { UMCG_PH_HOLD, UMCG_PH_BLOCKED, UMCG_PH_OUT, UMCG_PH_DETACHED };

/* Bits of umcg_thread.flags */
enum {
	UMCG_F_GATE_QUEUED,	/* the gate is queued or runs; only current sets it */
	UMCG_F_PREEMPT_QUEUED,	/* preempt_work is queued; any thread sets it */
	UMCG_F_SECOND_PASS,	/* the gate has let the rest of the batch go first */
	UMCG_F_ASLEEP,		/* current sleeps in WAIT or in the gate: no block */
	UMCG_F_MUST_GATE,	/* the worker blocked and must pass the gate */
	UMCG_F_IN_GATE,		/* the worker is in the gate, or was interrupted there */
	UMCG_F_REQUEUE_GATE,	/* the worker left the gate for a signal and must come back */
	UMCG_F_PREEMPT,		/* the worker must give up its slot */
	UMCG_F_EVENT_PENDING,	/* its blocked event could not be pushed yet */
};

/* The two lists of a server, and the link of a worker for each */
enum umcg_list { UMCG_L_BLOCKED, UMCG_L_RUNNABLE };

/* lockdep subclasses of thread->lock */
enum { UMCG_LOCK_WORKER, UMCG_LOCK_WORKER2, UMCG_LOCK_SERVER };

/**
 * struct umcg_page - a pinned page of user memory
 * @list: in umcg_group.pages; under pages_lock
 * @page: the page
 * @users: registrations whose struct umcg_task lies in it; under pages_lock
 */
struct umcg_page {
	struct list_head list;
	struct page	*page;
	unsigned int	users;
};

/**
 * struct umcg_group - an open file of the device, and the tasks registered with it
 * @ref: one for the file, one for each thread, one for a queued @detach_work
 * @mm: the memory of the process that opened the file; calls from others are refused
 * @tgid: the process
 * @dead: the file is closed; set once
 * @salt: of the hash; constant
 * @hash_lock: serializes writers of @threads; readers use RCU
 * @pages_lock: protects @pages and umcg_page.users
 * @pages: the pinned pages
 * @detach_work: detaches the workers of servers that are gone
 * @live: registered tasks
 * @gates: times that a worker was sent through the gate
 * @requeues: times that a signal interrupted the gate
 * @user_returns: times that the user-return notifier had to queue the gate
 * @deferred: pushes given up after UMCG_TRIES, to be done later
 * @threads: hash of the registered tasks by tid
 */
struct umcg_group {
	refcount_t		ref;
	struct mm_struct	*mm;
	struct pid		*tgid;
	bool			dead;
	u32			salt;
	raw_spinlock_t		hash_lock;
	struct mutex		pages_lock;	/* pages, umcg_page.users */
	struct list_head	pages;
	struct work_struct	detach_work;
	atomic_t		live;
	atomic64_t		gates, requeues, user_returns, deferred;
	struct hlist_head	threads[UMCG_BUCKETS];
};

/**
 * struct umcg_thread - the registration of a task, server or worker
 * @lock: see Locking above
 * @worker: a worker, else a server; constant
 * @dead: the registration has ended; under @lock
 * @phase: of a worker; written under @lock
 * @flags: UMCG_F_*, changed by atomic bit operations
 * @tid: as the process sees it; constant
 * @u: the task's struct umcg_task, by its kernel address in the pinned page
 * @uaddr: the same by its user address, which list heads contain
 * @host: of a worker: the server whose slot it holds, or NULL; under @lock
 * @curr: of a server: the worker that holds its slot, or NULL; under @lock
 * @blocked_at: of a worker: when it blocked, 0 if it did not; written by itself, under @lock
 * @dispatches: of a server: workers that were given its slot; under @lock
 * @blocks: of a server: workers that blocked in its slot; under @lock
 * @preempted: of a server: preemptions that took effect; under the lock of the worker in
 *	its slot
 * @longest_block: of a server: in nanoseconds; under @lock
 * @task: the thread; holds a reference
 * @group: its group; holds a reference
 * @page: the pinned page of @u
 * @notifier: reports that the thread leaves a CPU or is back on one
 * @gate_work: task_work that runs the gate
 * @preempt_work: task_work that makes current look at UMCG_F_PREEMPT
 * @waker: wakes the thread from contexts that hold rq->lock
 * @node: in umcg_group.threads
 * @ref: one for the registration, one for each queued task_work
 * @free: frees the thread a grace period after the last reference
 */
struct umcg_thread {
	raw_spinlock_t		lock;
	bool			worker;
	bool			dead;
	enum umcg_phase		phase;
	unsigned long		flags;
	u32			tid;
	struct umcg_task	*u;
	u64			uaddr;
	struct umcg_thread	*host;
	struct umcg_thread	*curr;
	u64			blocked_at;
	u64			dispatches, blocks, preempted, longest_block;
	struct task_struct	*task;
	struct umcg_group	*group;
	struct umcg_page	*page;
	struct preempt_notifier	notifier;
	struct callback_head	gate_work, preempt_work;
	struct irq_work		waker;
	struct hlist_node	node;
	refcount_t		ref;
	struct rcu_work		free;
};

/*
 * The parameters break_* of a debug build. Each breaks one part of the design, and the tests
 * must notice.
 */
#ifdef UMCG_DEBUG
extern bool umcg_break_gate, umcg_break_requeue_gate, umcg_break_wake, umcg_break_lock;
#define umcg_broken(what) READ_ONCE(umcg_break_##what)
#else
#define umcg_broken(what) (sizeof(#what) == 0)	/* false */
#endif

/* registry.c */
int umcg_registry_init(void);
void umcg_registry_exit(void);
struct umcg_group *umcg_group_new(void);
void umcg_group_close(struct umcg_group *g);
struct umcg_thread *umcg_current(void);
struct umcg_thread *umcg_find(struct umcg_group *g, u32 tid);
struct umcg_thread *umcg_find_server(struct umcg_group *g, u32 tid);
int umcg_register(struct umcg_group *g, const struct umcg_register *how);
int umcg_unregister(struct umcg_thread *t);
void umcg_end_registration(struct umcg_thread *t, bool may_sleep);
void umcg_put(struct umcg_thread *t);

/* slot.c */
static inline u8 *umcg_state(struct umcg_thread *t)
{
	return (u8 *)&t->u->state;	/* little endian: bits 0 to 7 */
}

/*
 * Is the thread unregistered, or on its way out? After exit_mm() the thread that joins it
 * may reuse the user memory, some time before the exit tracepoint takes the thread's lock.
 * Hence PF_EXITING counts as well. The lock does not prevent PF_EXITING from being set just
 * after this test, but a thread needs far longer from there to exit_mm() than a section of
 * the lock lasts.
 */
static inline bool umcg_gone(struct umcg_thread *t)
{
	return t->dead || READ_ONCE(t->task->flags) & PF_EXITING;
}

/* Changes the user state from @from to @to. False if it was not @from. */
static inline bool umcg_move(struct umcg_thread *t, u8 from, u8 to)
{
	return cmpxchg(umcg_state(t), from, to) == from;
}

void umcg_wake(struct umcg_thread *t, int wake_flags);
int umcg_push(struct umcg_thread *s, struct umcg_thread *w, enum umcg_list list);
bool umcg_prepare_wake(struct umcg_thread *s);
struct umcg_thread *umcg_release_slot(struct umcg_thread *w);
int umcg_claim(struct umcg_thread *n, struct umcg_thread *s);
struct umcg_thread *umcg_finish_claim(struct umcg_thread *n, struct umcg_thread *s);
bool umcg_server_gone(struct umcg_thread *w);
bool umcg_detach_locked(struct umcg_thread *w, struct umcg_thread **left);

/* wait.c */
long umcg_wait(struct umcg_thread *t, const struct umcg_wait *how);
long umcg_refuse(struct umcg_thread *t, long error);
int umcg_preempt(struct umcg_group *g, u32 tid);
void umcg_step_aside(void);
int umcg_sleep_worker(struct umcg_thread *w, int interrupted);

/* gate.c */
extern struct preempt_ops umcg_preempt_ops;
void umcg_gate(struct callback_head *head);
void umcg_queue_gate(struct umcg_thread *w);
void umcg_on_preempt(struct callback_head *head);
void umcg_queue_preempt(struct umcg_thread *w);
int umcg_enqueue_self(struct umcg_thread *w);
bool umcg_dying(void);

/* hooks.c */
int umcg_hooks_init(void);
void umcg_hooks_exit(void);
void umcg_requeue_gate(struct umcg_thread *w);

#endif /* UMCG_H */
