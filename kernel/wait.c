// SPDX-License-Identifier: GPL-2.0
/*
 * The calls WAIT and PREEMPT.
 *
 * A signal ends neither a server's nor a worker's wait. The sleep returns ERESTARTNOINTR,
 * the handler runs, and the call starts again. Starting again is harmless: a switch that
 * was made has cleared next_tid, and the caller does not hold the slot any more.
 */
#include <linux/errno.h>
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/sched/signal.h>

#include "umcg.h"

#define UMCG_WF_HANDOFF	(UMCG_WF_SYNC | UMCG_WF_HERE)

/*
 * Is a signal pending for current, or has another thread taken the signal and left only
 * TIF_SIGPENDING behind? Called with a sleep state set; the caller sets it again.
 */
static bool umcg_interrupted(void)
{
	if (!signal_pending(current))
		return false;
	__set_current_state(TASK_RUNNING);
	spin_lock_irq(&current->sighand->siglock);
	recalc_sigpending();
	spin_unlock_irq(&current->sighand->siglock);
	return signal_pending(current);
}

/**
 * umcg_sleep_worker() - sleep until a server gives current a slot
 * @w: current's registration; it holds no slot, or is about to lose the one it holds
 * @interrupted: the value to return for a signal
 *
 * Return: 0 with a slot; -ESRCH if the worker is detached, with the state RUNNING; or
 * @interrupted.
 */
int umcg_sleep_worker(struct umcg_thread *w, int interrupted)
{
	int ret = 0;

	/* Until this is cleared, a sleep is not a block, whatever the phase says. */
	set_bit(UMCG_F_ASLEEP, &w->flags);
	for (;;) {
		enum umcg_phase phase;

		set_current_state(UMCG_SLEEP);
		/* Pairs with the release in umcg_finish_claim(): the state is RUNNING by then. */
		phase = smp_load_acquire(&w->phase);
		if (phase == UMCG_PH_HOLD)
			break;
		if (phase == UMCG_PH_DETACHED) {
			ret = -ESRCH;
			break;
		}
		if (signal_pending(current)) {
			if (!umcg_interrupted())
				continue;
			ret = interrupted;
			break;
		}
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	clear_bit(UMCG_F_ASLEEP, &w->flags);
	if (ret == -ESRCH && !umcg_move(w, UMCG_RUNNABLE, UMCG_RUNNING))
		umcg_move(w, UMCG_BLOCKED, UMCG_RUNNING);
	return ret;
}

static long umcg_sleep_server(struct umcg_thread *s, u64 deadline)
{
	ktime_t expires = ns_to_ktime(deadline);
	bool timed = deadline && deadline < KTIME_MAX;
	long ret = 0;

	for (;;) {
		set_current_state(UMCG_SLEEP);
		if (READ_ONCE(*umcg_state(s)) != UMCG_RUNNABLE)
			break;
		if (signal_pending(current)) {
			if (!umcg_interrupted())
				continue;
			ret = -ERESTARTNOINTR;
			break;
		}
		if (!timed) {
			schedule();
		} else if (!schedule_hrtimeout_range(&expires, 0,
						     HRTIMER_MODE_ABS)) {
			if (umcg_move(s, UMCG_RUNNABLE, UMCG_RUNNING))
				ret = -ETIMEDOUT;
			break;
		}
	}
	__set_current_state(TASK_RUNNING);
	return ret;
}

static void umcg_clear_next(struct umcg_thread *t, u32 tid)
{
	if (tid)
		cmpxchg(&t->u->next_tid, tid, 0);
}

/**
 * umcg_step_aside() - let the thread that was just woken on this CPU run first
 *
 * Called between the wake-up and the caller's own sleep. If the slot comes back soon, as it
 * does from a short task, the caller never sleeps, which saves a dequeue and an enqueue. A
 * futex waiter that is preempted by the thread it woke gains the same.
 */
void umcg_step_aside(void)
{
	cond_resched();
}

/*
 * Gives the server's slot, which the server holds itself, to the worker @tid.
 * Return: 0; an error; or 1 if an event came first and nothing was done.
 */
static int umcg_dispatch(struct umcg_thread *s, u32 tid)
{
	struct umcg_thread *n, *old = NULL;
	unsigned long irq;
	int ret;

	rcu_read_lock();
	n = umcg_find(s->group, tid);
	if (!n || !n->worker) {
		ret = n ? -EBUSY : -ESRCH;
		goto out;
	}
	raw_spin_lock_irqsave(&n->lock, irq);
	raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
	if (READ_ONCE(*umcg_state(s)) != UMCG_RUNNABLE) {
		ret = 1;
	} else {
		ret = umcg_claim(n, s);
		if (!ret) {
			s->curr = n;
			s->dispatches++;
			umcg_clear_next(s, tid);
		}
	}
	raw_spin_unlock(&s->lock);
	if (!ret)
		old = umcg_finish_claim(n, s);
	raw_spin_unlock_irqrestore(&n->lock, irq);
	if (old)
		umcg_wake(old, 0);
	if (!ret)
		umcg_wake(n, UMCG_WF_HANDOFF);
out:
	rcu_read_unlock();
	return ret;
}

/*
 * The server picks the worker that it saw in its slot. If that worker is RUNNING, it is
 * where the server wants it. If the worker has stepped to RUNNABLE, it is on its way out,
 * and it belongs to the server, which found it in a queue of user space. The pick stays in
 * next_tid then, and the worker's WAIT wakes the server.
 */
static void umcg_pick_holder(struct umcg_thread *s, u32 tid)
{
	struct umcg_thread *n;
	unsigned long irq;

	rcu_read_lock();
	n = umcg_find(s->group, tid);
	if (n && n->worker) {
		raw_spin_lock_irqsave(&n->lock, irq);
		raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
		if (s->curr == n && READ_ONCE(*umcg_state(n)) != UMCG_RUNNABLE)
			umcg_clear_next(s, tid);
		raw_spin_unlock(&s->lock);
		raw_spin_unlock_irqrestore(&n->lock, irq);
	}
	rcu_read_unlock();
}

static long umcg_wait_server(struct umcg_thread *s, u64 deadline)
{
	u32 next = READ_ONCE(s->u->next_tid);
	u32 held = 0;
	int ret = 0;

	if (next == s->tid)
		next = 0;
	raw_spin_lock_irq(&s->lock);
	if (s->curr)
		held = s->curr->tid;
	raw_spin_unlock_irq(&s->lock);
	/* A worker holds the slot: the server never dispatches a second one (trace A7). */
	if (held && next == held)
		umcg_pick_holder(s, next);
	else if (held && next)
		ret = -EBUSY;
	else if (next)
		ret = umcg_dispatch(s, next);
	if (ret < 0) {
		umcg_move(s, UMCG_RUNNABLE, UMCG_RUNNING);
		return ret;
	}
	if (ret)
		return 0;
	if (next && !held)
		umcg_step_aside();
	return umcg_sleep_server(s, deadline);
}

/*
 * A worker that lost its slot before it came to WAIT does not switch to its target @tid. The
 * target becomes a runnable event of the target's own server, so that it is not lost.
 */
static void umcg_queue_target(struct umcg_thread *w, u32 tid)
{
	struct umcg_group *g = w->group;
	struct umcg_thread *n, *s;
	unsigned long irq;
	bool wake;
	int ret;

	if (!tid || cmpxchg(&w->u->next_tid, tid, 0) != tid)
		return;
	do {
		ret = 0;
		wake = false;
		rcu_read_lock();
		n = umcg_find(g, tid);
		if (!n || !n->worker || n == w)
			goto next;
		raw_spin_lock_irqsave(&n->lock, irq);
		s = umcg_gone(n) ? NULL : umcg_find_server(g, READ_ONCE(n->u->server_tid));
		if (s) {
			raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
			if (!umcg_gone(s) && n->phase != UMCG_PH_DETACHED &&
			    READ_ONCE(*umcg_state(n)) == UMCG_RUNNABLE) {
				ret = umcg_push(s, n, UMCG_L_RUNNABLE);
				wake = !ret && umcg_prepare_wake(s);
			}
			raw_spin_unlock(&s->lock);
		}
		raw_spin_unlock_irqrestore(&n->lock, irq);
		if (wake)
			umcg_wake(s, 0);
next:
		rcu_read_unlock();
		cond_resched();
	} while (ret && !umcg_dying());
}

/*
 * A worker lost its slot before it offered itself in user space. Its server was woken when
 * the slot came back, did not find the worker, and may have gone idle. The server must look
 * again. If a worker is in its slot, the server is left alone: it is woken when that worker
 * leaves.
 */
static void umcg_notify_server(struct umcg_thread *w)
{
	struct umcg_thread *s;
	unsigned long irq;
	bool wake = false;

	rcu_read_lock();
	s = umcg_find_server(w->group, READ_ONCE(w->u->server_tid));
	if (s) {
		local_irq_save(irq);
		raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
		wake = umcg_prepare_wake(s);
		raw_spin_unlock(&s->lock);
		local_irq_restore(irq);
	}
	if (wake)
		umcg_wake(s, 0);
	rcu_read_unlock();
}

static void umcg_lock_workers(struct umcg_thread *a, struct umcg_thread *b)
{
	if (b && b < a)
		swap(a, b);
	raw_spin_lock(&a->lock);
	if (b)
		raw_spin_lock_nested(&b->lock, UMCG_LOCK_WORKER2);
}

static void umcg_unlock_workers(struct umcg_thread *a, struct umcg_thread *b)
{
	if (b)
		raw_spin_unlock(&b->lock);
	raw_spin_unlock(&a->lock);
}

/*
 * Switches from @w, which holds a slot, directly to @n. Both are locked.
 * Return: 0 or the error; *old: a server that the caller must wake, or NULL.
 */
static int umcg_switch(struct umcg_thread *w, struct umcg_thread *n, u32 next,
		       struct umcg_thread **old)
{
	struct umcg_thread *s = w->host;
	int ret;

	raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
	ret = umcg_claim(n, s);
	if (!ret) {
		s->curr = n;
		s->dispatches++;
	}
	raw_spin_unlock(&s->lock);
	if (ret)
		return ret;
	umcg_clear_next(w, next);
	w->host = NULL;
	w->phase = UMCG_PH_OUT;
	*old = umcg_finish_claim(n, s);
	return 0;
}

/*
 * The first half of a worker's WAIT: @w gives its slot away. Return: 0 if the worker must
 * sleep now; 1 if a server has picked it already; or an error.
 */
static int umcg_leave_slot(struct umcg_thread *w, u32 next)
{
	struct umcg_thread *n, *target, *wake = NULL, *old = NULL;
	bool lost_slot = false, moved = false;
	unsigned long irq;
	int ret = 0;

	rcu_read_lock();
	n = next ? umcg_find(w->group, next) : NULL;
	target = n && n->worker && n != w ? n : NULL;
	local_irq_save(irq);
	umcg_lock_workers(w, target);
	if (w->phase == UMCG_PH_DETACHED) {
		ret = -ESRCH;
	} else if (READ_ONCE(*umcg_state(w)) != UMCG_RUNNABLE) {
		ret = 1;
	} else if (w->phase == UMCG_PH_OUT) {
		lost_slot = true;
	} else if (w->phase != UMCG_PH_HOLD) {
		ret = -EINVAL;
	} else if (!next || next == w->host->tid ||
		   READ_ONCE(w->u->server_tid) != w->host->tid) {
		/*
		 * No target, or the server itself: the slot goes back to the server. If user space
		 * has changed server_tid, a server took the worker from a queue after it stepped
		 * to RUNNABLE. next_tid is then the spare that this server arms it with, not a
		 * target that the worker chose, and must stay.
		 */
		moved = READ_ONCE(w->u->server_tid) != w->host->tid;
		if (!moved)
			umcg_clear_next(w, next);
		w->phase = UMCG_PH_OUT;
		wake = umcg_release_slot(w);
	} else if (!target) {
		ret = n ? -EBUSY : -ESRCH;
	} else {
		ret = umcg_switch(w, target, next, &old);
		if (!ret)
			wake = target;
	}
	/*
	 * The worker lost its slot earlier, or belongs to another server than the one whose
	 * slot it leaves. Its own server may be gone already, and would never wake it.
	 */
	if ((lost_slot || moved) && umcg_server_gone(w)) {
		w->phase = UMCG_PH_DETACHED;
		ret = -ESRCH;
	}
	if (ret < 0)
		umcg_move(w, UMCG_RUNNABLE, UMCG_RUNNING);
	umcg_unlock_workers(w, target);
	local_irq_restore(irq);
	if (old)
		umcg_wake(old, 0);
	if (wake)
		umcg_wake(wake, UMCG_WF_HANDOFF);
	rcu_read_unlock();
	if (lost_slot) {
		umcg_queue_target(w, next);
		umcg_notify_server(w);
	}
	return ret;
}

/**
 * umcg_refuse() - answer a misuse of WAIT with an error, and the state RUNNING
 * @t: current's registration
 * @error: the answer
 *
 * A worker that lost its slot meanwhile passes the gate first, as after any block.
 *
 * Return: @error.
 */
long umcg_refuse(struct umcg_thread *t, long error)
{
	bool lost = false;

	if (!t->worker) {
		umcg_move(t, UMCG_RUNNABLE, UMCG_RUNNING);
		return error;
	}
	raw_spin_lock_irq(&t->lock);
	if (READ_ONCE(*umcg_state(t)) == UMCG_RUNNABLE) {
		if (t->phase == UMCG_PH_OUT) {
			t->phase = UMCG_PH_BLOCKED;
			t->blocked_at = 0;
			set_bit(UMCG_F_MUST_GATE, &t->flags);
			lost = true;
		} else {
			umcg_move(t, UMCG_RUNNABLE, UMCG_RUNNING);
		}
	}
	raw_spin_unlock_irq(&t->lock);
	if (lost)
		umcg_queue_gate(t);
	return error;
}

static long umcg_wait_worker(struct umcg_thread *w)
{
	u32 next = READ_ONCE(w->u->next_tid);
	int ret;

	if (next == w->tid || (!next && READ_ONCE(w->u->server_tid) == w->tid))
		return umcg_refuse(w, -EINVAL);
	ret = umcg_leave_slot(w, next);
	if (ret)
		return ret > 0 ? 0 : ret;
	umcg_step_aside();
	return umcg_sleep_worker(w, -ERESTARTNOINTR);
}

/**
 * umcg_wait() - the call WAIT
 * @t: current's registration
 * @how: the argument
 *
 * Return: 0 with the state RUNNING, or an error.
 */
long umcg_wait(struct umcg_thread *t, const struct umcg_wait *how)
{
	if (how->flags || how->pad || (t->worker && how->deadline_ns))
		return umcg_refuse(t, -EINVAL);
	switch (READ_ONCE(*umcg_state(t))) {
	case UMCG_RUNNING:
		return 0;
	case UMCG_RUNNABLE:
		break;
	default:
		return -EINVAL;
	}
	return t->worker ? umcg_wait_worker(t) :
			   umcg_wait_server(t, how->deadline_ns);
}

/**
 * umcg_preempt() - the call PREEMPT
 * @g: the caller's group
 * @tid: a worker to be taken out of its slot, or a server to be woken
 *
 * A preemption that comes too late, or that the worker's own step overtakes, is no error.
 *
 * Return: 0 or -ESRCH.
 */
int umcg_preempt(struct umcg_group *g, u32 tid)
{
	struct umcg_thread *n;
	unsigned long irq;
	bool hit;

	rcu_read_lock();
	n = umcg_find(g, tid);
	if (!n) {
		rcu_read_unlock();
		return -ESRCH;
	}
	local_irq_save(irq);
	if (n->worker) {
		raw_spin_lock(&n->lock);
		hit = !n->dead && n->phase == UMCG_PH_HOLD &&
		      READ_ONCE(*umcg_state(n)) == UMCG_RUNNING;
		if (hit)
			set_bit(UMCG_F_PREEMPT, &n->flags);
		raw_spin_unlock(&n->lock);
	} else {
		raw_spin_lock_nested(&n->lock, UMCG_LOCK_SERVER);
		/* Also with a worker in the slot: the caller asks for the server itself. */
		hit = !umcg_gone(n) && umcg_move(n, UMCG_RUNNABLE, UMCG_RUNNING);
		if (umcg_broken(lock))
			umcg_wake(n, 0);
		raw_spin_unlock(&n->lock);
	}
	local_irq_restore(irq);
	if (hit && n->worker)
		umcg_queue_preempt(n);
	else if (hit)
		umcg_wake(n, 0);
	rcu_read_unlock();
	return 0;
}
