// SPDX-License-Identifier: GPL-2.0
/*
 * Who holds which slot: claims, pushes, wake-ups. All but umcg_wake() run under
 * the locks that they name; see umcg.h for the order.
 */
#include <linux/irq_work.h>

#include "umcg.h"

/**
 * umcg_wake() - wake a task out of a wait of ours
 * @t: whom; alive by RCU or a reference
 * @wake_flags: UMCG_WF_SYNC when the caller is about to sleep, UMCG_WF_HERE to
 *	prefer this CPU
 *
 * Not under any thread lock. Only TASK_INTERRUPTIBLE: a late wake must never
 * disturb an uninterruptible sleep in somebody else's code.
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
 * @list: which list
 *
 * The link is claimed before anything else. Found in use, the event is pending
 * and there is no second push: a list never becomes a loop.
 *
 * Return: 0, or -EAGAIN when user space kept changing the head. Then nothing
 * was pushed.
 */
int umcg_push(struct umcg_thread *s, struct umcg_thread *w, enum umcg_list list)
{
	u64 *head = umcg_list_word(s->u, list);
	u64 *link = umcg_list_word(w->u, list);
	u64 old, seen;
	int tries;

	/*
	 * Claims the link, and leaves that of a pending event alone: an xchg would
	 * cut the rest of the list off. Full barrier (on x86 also when it fails);
	 * pairs with the server's store of 0.
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
 * umcg_prepare_wake() - make a server RUNNING if nobody runs in its slot
 * @s: the server; locked
 *
 * With a worker in the slot it is left alone: that worker's leaving pokes.
 *
 * Return: true if the caller must wake it once the locks are dropped.
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
 * Return: the server to be woken, or NULL.
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
 * One cmpxchg decides between servers that pick the same worker. On success
 * the caller makes @n the server's curr and calls umcg_finish_claim().
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
 * @n: the worker; locked, and its new server's curr already
 * @s: its new server; not locked
 *
 * A worker that left RUNNING, was published, and has not come to its WAIT yet
 * still holds another slot. That one becomes its server's again.
 *
 * Return: the old server, if it must be woken. @n must be woken in any case.
 */
struct umcg_thread *umcg_finish_claim(struct umcg_thread *n, struct umcg_thread *s)
{
	struct umcg_thread *old = umcg_release_slot(n);

	n->host = s;
	clear_bit(UMCG_F_PREEMPT, &n->flags);
	/* After the state in umcg_claim(); pairs with umcg_sleep_worker(). */
	smp_store_release(&n->phase, UMCG_PH_HOLD);
	return old;
}

/**
 * umcg_server_gone() - is the server that a worker belongs to gone?
 * @w: the worker; locked, and no server is. Under rcu_read_lock().
 *
 * Whoever goes to sleep, or is found asleep by a walk, must have a server that
 * lives after that moment, for the walk at its end frees those asleep.
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
 * @w: the worker; locked, and no server is
 * @left: the server to be woken, or NULL
 *
 * User space may have changed server_tid since: it may hold the slot of a server
 * that lives, which must not keep a pointer to it.
 *
 * Return: true if it may be asleep in a wait of ours.
 */
bool umcg_detach_locked(struct umcg_thread *w, struct umcg_thread **left)
{
	bool asleep = w->phase == UMCG_PH_OUT;

	*left = umcg_release_slot(w);
	/* Pairs with umcg_sleep_worker(). */
	smp_store_release(&w->phase, UMCG_PH_DETACHED);
	return asleep;
}
