// SPDX-License-Identifier: GPL-2.0
/*
 * Which worker holds which server's slot: claims, pushes, wake-ups. All functions but
 * umcg_wake() run under the locks that their comments name; umcg.h has the lock order.
 */
#include <linux/irq_work.h>

#include "umcg.h"

/**
 * umcg_wake() - wake a thread that sleeps in one of the module's waits
 * @t: the thread, kept alive by RCU or by a reference
 * @wake_flags: UMCG_WF_SYNC when the caller is about to sleep, UMCG_WF_HERE to prefer the
 *	current CPU
 *
 * The wake-up is for TASK_INTERRUPTIBLE sleeps only: when it comes late, it must not
 * disturb an uninterruptible sleep in other code of the kernel.
 *
 * Context: not under any thread lock.
 */
void umcg_wake(struct umcg_thread *t, int wake_flags)
{
	wait_queue_entry_t entry = { .private = t->task };

	default_wake_function(&entry, TASK_INTERRUPTIBLE, wake_flags, NULL);
}

static u64 *umcg_list_word(struct umcg_task *u, enum umcg_list list)
{
	return list == UMCG_L_BLOCKED ? &u->blocked_ptr : &u->runnable_ptr;
}

/**
 * umcg_push() - put a worker on a list of a server
 * @s: the server; locked, not gone
 * @w: the worker; locked, not gone
 * @list: the list
 *
 * The link is claimed before anything else. If it is in use already, the event is pending
 * and is not pushed a second time. A list therefore never becomes a loop (trace A3).
 *
 * Return: 0, or -EAGAIN if user space kept changing the head. Nothing was pushed then.
 */
int umcg_push(struct umcg_thread *s, struct umcg_thread *w, enum umcg_list list)
{
	u64 *head = umcg_list_word(s->u, list);
	u64 *link = umcg_list_word(w->u, list);
	u64 old, seen;
	int tries;

	/*
	 * Claims the link if it is 0, and leaves the link of a pending event alone: an xchg
	 * would cut off the rest of the list. Full barrier, on x86 also when it fails; pairs
	 * with the server's store of 0 to the link.
	 */
	if (cmpxchg(link, 0, UMCG_LINKED))
		return 0;
	old = READ_ONCE(*head);
	for (tries = 0; tries < UMCG_TRIES; tries++) {
		WRITE_ONCE(*link, old | UMCG_LINKED);
		/* Full barrier; pairs with the server's xchg of the head. */
		seen = cmpxchg(head, old, w->uaddr);
		if (seen == old)
			return 0;
		old = seen;
	}
	WRITE_ONCE(*link, 0);
	atomic64_inc(&w->group->deferred);
	return -EAGAIN;
}

/**
 * umcg_prepare_wake() - make a waiting server RUNNING, unless a worker is in its slot
 * @s: the server; locked
 *
 * A server with a worker in its slot is left alone: the same call is made when that worker
 * leaves.
 *
 * Return: true if the caller must wake the server after it has dropped the locks.
 */
bool umcg_prepare_wake(struct umcg_thread *s)
{
	return !s->curr && !umcg_gone(s) &&
	       umcg_move(s, UMCG_RUNNABLE, UMCG_RUNNING) && !umcg_broken(wake);
}

/**
 * umcg_release_slot() - take a worker out of the slot that it holds
 * @w: the worker; locked
 *
 * Return: the server that the caller must wake, or NULL.
 */
struct umcg_thread *umcg_release_slot(struct umcg_thread *w)
{
	struct umcg_thread *s = w->host;
	bool wake = false;

	if (!s)
		return NULL;
	w->host = NULL;
	raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
	if (s->curr == w) {
		s->curr = NULL;
		wake = umcg_prepare_wake(s);
	}
	raw_spin_unlock(&s->lock);
	return wake ? s : NULL;
}

/**
 * umcg_claim() - take a RUNNABLE worker for a slot
 * @n: the worker; locked
 * @s: the server whose slot it is for; locked
 *
 * Several servers may pick the same worker; one cmpxchg of its state decides which of them
 * gets it. On success the caller makes @n the server's curr and calls umcg_finish_claim().
 *
 * Return: 0, -ESRCH or -EBUSY.
 */
int umcg_claim(struct umcg_thread *n, struct umcg_thread *s)
{
	if (umcg_gone(n) || umcg_gone(s) || n->phase == UMCG_PH_DETACHED)
		return -ESRCH;
	if (n->phase == UMCG_PH_BLOCKED ||
	    READ_ONCE(n->u->server_tid) != s->tid)
		return -EBUSY;
	if (!umcg_move(n, UMCG_RUNNABLE, UMCG_RUNNING))
		return -EBUSY;
	return 0;
}

/**
 * umcg_finish_claim() - finish giving a slot to a claimed worker
 * @n: the worker; locked, and already the curr of its new server
 * @s: its new server; not locked
 *
 * A worker that left RUNNING in user space, was put in a queue there, and has not come to
 * its WAIT yet still holds its old slot. That slot goes back to its server (trace A6).
 *
 * Return: the old server if the caller must wake it, or NULL. The caller must wake @n in
 * any case.
 */
struct umcg_thread *umcg_finish_claim(struct umcg_thread *n, struct umcg_thread *s)
{
	struct umcg_thread *old = umcg_release_slot(n);

	n->host = s;
	clear_bit(UMCG_F_PREEMPT, &n->flags);
	/*
	 * Stored after umcg_claim() has made the state RUNNING. Pairs with the acquire in
	 * umcg_sleep_worker().
	 */
	smp_store_release(&n->phase, UMCG_PH_HOLD);
	return old;
}

/**
 * umcg_server_gone() - is the server that a worker belongs to gone?
 * @w: the worker; locked, and no server is locked
 *
 * A worker may go to sleep, or be left asleep by a walk over the workers, only if its
 * server is alive after that moment: the walk at the end of that server then finds the
 * sleeping worker and detaches it.
 *
 * Context: under rcu_read_lock().
 *
 * Return: true if the server is unregistered or exiting.
 */
bool umcg_server_gone(struct umcg_thread *w)
{
	struct umcg_thread *s = umcg_find_server(w->group, READ_ONCE(w->u->server_tid));
	bool gone;

	if (!s)
		return true;
	raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
	gone = umcg_gone(s);
	raw_spin_unlock(&s->lock);
	return gone;
}

/**
 * umcg_detach_locked() - make a worker an ordinary thread, because its server is gone
 * @w: the worker; locked, and no server is locked
 * @left: set to the server that the caller must wake, or NULL
 *
 * User space may have changed server_tid meanwhile, so the worker may hold the slot of a
 * server that is alive. That server must not keep a pointer to the worker, so the slot is
 * released.
 *
 * Return: true if the worker may be asleep in one of the module's waits.
 */
bool umcg_detach_locked(struct umcg_thread *w, struct umcg_thread **left)
{
	bool asleep = w->phase == UMCG_PH_OUT;

	*left = umcg_release_slot(w);
	/* Pairs with the acquire in umcg_sleep_worker(). */
	smp_store_release(&w->phase, UMCG_PH_DETACHED);
	return asleep;
}
