/* SPDX-License-Identifier: GPL-2.0 */
/*
 * UMCG as a loadable module: what its files share.
 *
 *   main.c      the device, ioctls, module init and exit
 *   registry.c  who is registered: look-up, pinned pages, life times
 *   slot.c      who holds which slot: claims, pushes, wake-ups
 *   wait.c      WAIT and PREEMPT
 *   gate.c      blocks, and the gate before user mode
 *   hooks.c     tracepoints and the user-return notifier
 *
 * Locking
 * -------
 * thread->lock, a raw spinlock, interrupts off. Order:
 *
 *   rq->lock  ->  worker lock(s), lower address first  ->  one server lock
 *
 * 1. rq->lock comes first because umcg_sched_out() runs under it. Hence nothing
 *    that takes rq->lock or pi_lock (any wake-up), allocates, frees or prints
 *    may be done under a thread lock: note whom to wake, unlock, then wake. In
 *    umcg_sched_out() itself only irq_work_queue() is possible.
 * 2. Never two server locks at once.
 * 3. worker->host == s  <=>  s->curr == worker, except for a moment inside one
 *    section of the worker's lock. host is written under the worker's lock,
 *    curr under the server's lock; a server sets its own curr only from NULL,
 *    a holder hands it on only while it is the holder.
 * 4. The user words of a task are written by others only under its lock and
 *    with !umcg_gone(), hence never after UNREGISTER returned.
 * 5. Look-ups and the wake-ups that follow them are under rcu_read_lock(); a
 *    thread is freed a grace period after its last reference went.
 * 6. group->hash_lock (raw, leaf) is for writers of the hash; group->pages_lock
 *    (mutex) for the list of pinned pages, process context only.
 *
 * Bounds: user space can write any of its words at any time, so every retry on
 * one is bounded (UMCG_TRIES) while a lock is held; what is given up under
 * rq->lock the gate does later. The hash is salted: tids are chosen too easily,
 * and it is searched under rq->lock. State is one byte, changed
 * by a byte-wide cmpxchg, which the application's bits cannot disturb at all.
 *
 * The kernel-side phase and host/curr are the truth, the user's state mirrors
 * them: a worker sleeps until its *phase* says that it holds a slot.
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
 * @UMCG_PH_HOLD: holds the slot of its host (also between its step to RUNNABLE
 *	in user space and its WAIT)
 * @UMCG_PH_BLOCKED: slept while it held a slot, or has just registered; must pass
 *	the gate
 * @UMCG_PH_OUT: in no slot, waits to be picked
 * @UMCG_PH_DETACHED: its server is gone: an ordinary thread
 */
enum umcg_phase { UMCG_PH_HOLD, UMCG_PH_BLOCKED, UMCG_PH_OUT, UMCG_PH_DETACHED };

enum {
	UMCG_F_GATE_QUEUED,		/* gate is queued or runs; only current sets it */
	UMCG_F_PREEMPT_QUEUED,		/* kick is queued; by anybody */
	UMCG_F_SECOND_PASS,		/* the gate let the rest of the batch go first */
	UMCG_F_ASLEEP,		/* current sleeps in a wait of ours: no block */
	UMCG_F_MUST_GATE,		/* blocked: has to pass the gate */
	UMCG_F_IN_GATE,		/* is in the gate, perhaps interrupted */
	UMCG_F_REQUEUE_GATE,		/* left the gate for a signal, must come back */
	UMCG_F_PREEMPT,		/* is to be preempted */
	UMCG_F_EVENT_PENDING,	/* its blocked event could not be pushed yet */
};

enum umcg_list { UMCG_L_BLOCKED, UMCG_L_RUNNABLE };

/* lockdep subclasses of thread->lock */
enum { UMCG_LOCK_WORKER, UMCG_LOCK_WORKER2, UMCG_LOCK_SERVER };

struct umcg_page {
	struct list_head list;
	struct page	*page;
	unsigned int	users;
};

struct umcg_group {
	refcount_t		ref;
	struct mm_struct	*mm;
	struct pid		*tgid;
	bool			dead;		/* its file is closed */
	u32			salt;		/* of the hash */
	raw_spinlock_t		hash_lock;
	struct mutex		pages_lock;	/* pages, and umcg_page.users */
	struct list_head	pages;
	struct work_struct	detach_work;	/* a server is gone: frees its workers */
	atomic_t		live;
	atomic64_t		gates, requeues, user_returns, deferred;
	struct hlist_head	threads[UMCG_BUCKETS];
};

struct umcg_thread {
	raw_spinlock_t		lock;
	bool			worker;
	bool			dead;		/* lock: unregistered or gone */
	enum umcg_phase		phase;		/* worker; lock */
	unsigned long		flags;		/* UMCG_F_*, atomic bits */
	u32			tid;
	struct umcg_task	*u;		/* kernel address, in the pinned page */
	u64			uaddr;
	struct umcg_thread	*host;		/* worker: whose slot; lock */
	struct umcg_thread	*curr;		/* server: who is in the slot; lock */
	u64			blocked_at;	/* worker; own */
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

/* Breaks the design on purpose; the tests must notice. Debug builds only. */
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
 * Unregistered, or on its way out: exit_mm() lets its joiner take the memory, some
 * time before the exit tracepoint takes its lock. Its lock does not keep PF_EXITING
 * from being set, but a thread needs far longer from there to exit_mm() than a
 * section of the lock lasts.
 */
static inline bool umcg_gone(struct umcg_thread *t)
{
	return t->dead || READ_ONCE(t->task->flags) & PF_EXITING;
}

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
