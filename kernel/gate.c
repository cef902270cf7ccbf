// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks, and the gate before user mode.
 *
 * A worker that goes to sleep while it holds a slot is reported from the
 * preempt notifier sched_out. When it is back on a CPU, sched_in queues the
 * gate as task_work: on its way to user mode it queues up at its server and
 * sleeps until it is picked.
 *
 * Nothing of the worker may run in user mode before that, not even a signal
 * handler, and yet stops, ptrace, the freezer and SIGKILL must work at once. So
 * a signal interrupts the gate, which lets get_signal() do its work and is
 * queued again, by whichever comes first: the signal_deliver tracepoint (the
 * handler's frame is built, then the gate), sched_in (after a stop), or, when
 * another thread took the signal, the user-return notifier. It must not queue
 * itself: task_work_run() loops until its list is empty.
 */
#include <linux/errno.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>

#include "umcg.h"

/*
 * Claims @n, which @w is armed with, for the slot of @host. The armed tid is
 * taken first: user space disarms by the same cmpxchg, and one of us gets it.
 */
static bool umcg_claim_spare(struct umcg_thread *w, struct umcg_thread *n,
			 struct umcg_thread *host)
{
	if (READ_ONCE(host->u->runnable_ptr) ||
	    cmpxchg(&w->u->next_tid, n->tid, 0) != n->tid)
		return false;
	if (!umcg_claim(n, host))
		return true;
	cmpxchg(&w->u->next_tid, 0, n->tid);
	return false;
}

/* The slot of @host, which @w leaves, to @n if that can be had, else to @host. */
static struct umcg_thread *umcg_pass_slot(struct umcg_thread *w,
					struct umcg_thread *host,
					struct umcg_thread *n)
{
	struct umcg_thread *wake = NULL;

	raw_spin_lock_nested(&host->lock, UMCG_LOCK_SERVER);
	if (host->curr == w) {
		host->blocks++;
		if (n && !umcg_gone(host) && umcg_claim_spare(w, n, host)) {
			host->curr = n;
			host->dispatches++;
			wake = n;
		} else {
			host->curr = NULL;
			if (umcg_prepare_wake(host))
				wake = host;
		}
	}
	raw_spin_unlock(&host->lock);
	return wake;
}

static void umcg_report_block(struct umcg_thread *w, struct umcg_thread *s)
{
	int ret = -EAGAIN;

	if (s) {
		raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
		if (!umcg_gone(s))
			ret = umcg_push(s, w, UMCG_L_BLOCKED);
		raw_spin_unlock(&s->lock);
	}
	/* Information may come late: the gate tries again. */
	if (ret)
		set_bit(UMCG_F_EVENT_PENDING, &w->flags);
}

/* Both locked. RUNNING -> BLOCKED, event, slot. */
static void umcg_block_locked(struct umcg_thread *w, struct umcg_thread *n)
{
	struct umcg_thread *host = w->host, *wake, *old = NULL;
	u32 server_tid = READ_ONCE(w->u->server_tid);
	u8 state;

	state = cmpxchg(umcg_state(w), UMCG_RUNNING, UMCG_BLOCKED);
	if (state == UMCG_RUNNABLE) {
		/*
		 * Between its step to RUNNABLE and WAIT: somebody else owns it
		 * already. The slot goes on, and that is all.
		 */
		w->phase = UMCG_PH_OUT;
		wake = umcg_release_slot(w);
		if (wake)
			irq_work_queue(&wake->waker);
		return;
	}
	if (state != UMCG_RUNNING)
		WRITE_ONCE(*umcg_state(w), UMCG_BLOCKED);
	w->phase = UMCG_PH_BLOCKED;
	w->blocked_at = ktime_get_mono_fast_ns();
	set_bit(UMCG_F_MUST_GATE, &w->flags);

	umcg_report_block(w, server_tid == host->tid ? host :
			  umcg_find_server(w->group, server_tid));
	w->host = NULL;
	wake = umcg_pass_slot(w, host, n);
	if (wake && wake == n)
		old = umcg_finish_claim(n, host);
	if (wake)
		irq_work_queue(&wake->waker);
	if (old)
		irq_work_queue(&old->waker);
}

/* rq->lock held, interrupts off. */
static void umcg_sched_out(struct preempt_notifier *notifier,
			   struct task_struct *next)
{
	struct umcg_thread *w = container_of(notifier, struct umcg_thread, notifier);
	struct umcg_thread *n = NULL;
	u32 tid;

	if (!w->worker || READ_ONCE(w->phase) != UMCG_PH_HOLD ||
	    umcg_was_preempted() || test_bit(UMCG_F_ASLEEP, &w->flags))
		return;
	if ((current->flags & PF_EXITING) || current->mm != w->group->mm)
		return;

	rcu_read_lock();
	tid = READ_ONCE(w->u->next_tid);
	if (tid)
		n = umcg_find(w->group, tid);
	if (n && (!n->worker || n == w))
		n = NULL;
	if (n && n < w)
		raw_spin_lock(&n->lock);
	raw_spin_lock_nested(&w->lock, n && n < w ? UMCG_LOCK_WORKER2 : UMCG_LOCK_WORKER);
	if (n && n > w)
		raw_spin_lock_nested(&n->lock, UMCG_LOCK_WORKER2);
	if (w->phase == UMCG_PH_HOLD)
		umcg_block_locked(w, n);
	raw_spin_unlock(&w->lock);
	if (n)
		raw_spin_unlock(&n->lock);
	rcu_read_unlock();
}

/* Preemption off, interrupts on, no lock. */
static void umcg_sched_in(struct preempt_notifier *notifier, int cpu)
{
	struct umcg_thread *w = container_of(notifier, struct umcg_thread, notifier);

	if ((test_bit(UMCG_F_MUST_GATE, &w->flags) ||
	     test_bit(UMCG_F_REQUEUE_GATE, &w->flags)) &&
	    !(current->flags & PF_EXITING))
		umcg_queue_gate(w);
}

struct preempt_ops umcg_preempt_ops = {
	.sched_in	= umcg_sched_in,
	.sched_out	= umcg_sched_out,
};

/**
 * umcg_queue_gate() - stop current on its way to user mode
 * @w: current's registration
 *
 * Any context but under a thread lock. Nobody else queues it: who finds it
 * QUEUED relies on its being on the list before user mode is reached, and
 * another thread could be held up for long between the two steps.
 */
void umcg_queue_gate(struct umcg_thread *w)
{
	if (test_and_set_bit(UMCG_F_GATE_QUEUED, &w->flags))
		return;
	if (refcount_inc_not_zero(&w->ref)) {
		if (!task_work_add(w->task, &w->gate_work, UMCG_TWA))
			return;
		umcg_put(w);	/* it is exiting */
	}
	clear_bit(UMCG_F_GATE_QUEUED, &w->flags);
}

/**
 * umcg_on_preempt() - a preemption has arrived
 * @head: the other task_work of current's registration
 */
void umcg_on_preempt(struct callback_head *head)
{
	struct umcg_thread *w = container_of(head, struct umcg_thread, preempt_work);

	clear_bit(UMCG_F_PREEMPT_QUEUED, &w->flags);
	/* Then look; pairs with the test_and_set_bit() in umcg_queue_preempt(). */
	smp_mb__after_atomic();
	if (test_bit(UMCG_F_PREEMPT, &w->flags))
		umcg_queue_gate(w);
	umcg_put(w);
}

/**
 * umcg_queue_preempt() - send a worker that has UMCG_F_PREEMPT set through the gate
 * @w: found under rcu_read_lock()
 */
void umcg_queue_preempt(struct umcg_thread *w)
{
	if (test_and_set_bit(UMCG_F_PREEMPT_QUEUED, &w->flags))
		return;
	if (refcount_inc_not_zero(&w->ref)) {
		if (!task_work_add(w->task, &w->preempt_work, UMCG_TWA))
			return;
		umcg_put(w);	/* it is exiting */
	}
	clear_bit(UMCG_F_PREEMPT_QUEUED, &w->flags);
}

/**
 * umcg_dying() - will current never see user mode again?
 *
 * get_signal() takes the SIGKILL off its list, hence not fatal_signal_pending()
 * alone: in a dump of core, in a debugger's stop at its end, and while io_uring
 * cancels its requests a thread sleeps and runs task_work before PF_EXITING, and
 * somebody waits for its end: exec, or who killed it.
 */
bool umcg_dying(void)
{
	struct signal_struct *signal = current->signal;
	struct task_struct *exec = READ_ONCE(signal->group_exec_task);

	return current->flags & PF_EXITING || fatal_signal_pending(current) ||
	       READ_ONCE(signal->flags) & SIGNAL_GROUP_EXIT ||
	       (exec && exec != current);
}

static int umcg_try_enqueue_self(struct umcg_thread *w)
{
	struct umcg_group *g = w->group;
	struct umcg_thread *s, *wake = NULL, *left = NULL;
	unsigned long irq;
	int ret = -ESRCH;
	u64 length;

	rcu_read_lock();
	raw_spin_lock_irqsave(&w->lock, irq);
	if (w->phase == UMCG_PH_HOLD) {		/* picked between two tries */
		ret = 0;
		goto unlock;
	}
	if (w->phase == UMCG_PH_DETACHED)
		goto unlock;
	s = umcg_find_server(g, READ_ONCE(w->u->server_tid));
	if (!s || READ_ONCE(g->dead)) {
		umcg_detach_locked(w, &left);
		goto unlock;
	}
	WRITE_ONCE(*umcg_state(w), UMCG_RUNNABLE);
	w->phase = UMCG_PH_OUT;
	raw_spin_lock_nested(&s->lock, UMCG_LOCK_SERVER);
	if (!umcg_gone(s)) {
		/* Who is on the runnable list was on the blocked list before. */
		if (test_bit(UMCG_F_EVENT_PENDING, &w->flags) &&
		    !umcg_push(s, w, UMCG_L_BLOCKED))
			clear_bit(UMCG_F_EVENT_PENDING, &w->flags);
		ret = umcg_push(s, w, UMCG_L_RUNNABLE);
		if (!ret && umcg_prepare_wake(s))
			wake = s;
		if (!ret && w->blocked_at) {
			length = ktime_get_mono_fast_ns() - w->blocked_at;
			s->longest_block = max(s->longest_block, length);
			w->blocked_at = 0;
		}
	}
	raw_spin_unlock(&s->lock);
	/* A preempted worker still holds its slot; the event comes first. */
	if (ret == -ESRCH) {
		umcg_detach_locked(w, &left);
	} else if (!ret && w->host) {
		w->host->preempted++;
		left = umcg_release_slot(w);
	}
unlock:
	raw_spin_unlock_irqrestore(&w->lock, irq);
	if (wake)
		umcg_wake(wake, UMCG_WF_SYNC | UMCG_WF_HERE);
	if (left)	/* != wake: a server is poked once, and then RUNNING */
		umcg_wake(left, UMCG_WF_SYNC | UMCG_WF_HERE);
	rcu_read_unlock();
	return ret;
}

/**
 * umcg_enqueue_self() - RUNNABLE, and a runnable event on the server's list
 * @w: current's registration
 *
 * Return: 0, or -ESRCH: the server is gone, an ordinary thread.
 */
int umcg_enqueue_self(struct umcg_thread *w)
{
	int ret;

	while ((ret = umcg_try_enqueue_self(w)) == -EAGAIN) {
		if (umcg_dying())
			return 0;
		cond_resched();
	}
	return ret;
}

/* Is current, on its way to user mode, to stop? */
static bool umcg_must_stop(struct umcg_thread *w)
{
	bool enqueue = test_and_clear_bit(UMCG_F_MUST_GATE, &w->flags);

	if (!enqueue && test_and_clear_bit(UMCG_F_PREEMPT, &w->flags)) {
		raw_spin_lock_irq(&w->lock);
		if (w->phase == UMCG_PH_HOLD &&
		    umcg_move(w, UMCG_RUNNING, UMCG_RUNNABLE)) {
			/* Nobody owns it yet: no claim before it queued up. */
			w->phase = UMCG_PH_BLOCKED;
			enqueue = true;
		}
		raw_spin_unlock_irq(&w->lock);
	}
	if (enqueue) {
		set_bit(UMCG_F_IN_GATE, &w->flags);
		atomic64_inc(&w->group->gates);
		umcg_enqueue_self(w);
		umcg_step_aside();
	}
	return test_bit(UMCG_F_IN_GATE, &w->flags) && !umcg_broken(gate);
}

/**
 * umcg_gate() - the gate
 * @head: the task_work of current's registration
 */
void umcg_gate(struct callback_head *head)
{
	struct umcg_thread *w = container_of(head, struct umcg_thread, gate_work);

	/* After exec or on the way out nothing is left to stop, or to preempt. */
	if (umcg_dying() || current->mm != w->group->mm) {
		clear_bit(UMCG_F_SECOND_PASS, &w->flags);
		umcg_put(w);	/* stays QUEUED: never again */
		return;
	}
	/*
	 * Let every other task_work of this batch run first (a delayed fput):
	 * what is added now runs in the next round of task_work_run().
	 */
	if (!test_and_set_bit(UMCG_F_SECOND_PASS, &w->flags) &&
	    !task_work_add(current, &w->gate_work, UMCG_TWA))
		return;

	clear_bit(UMCG_F_REQUEUE_GATE, &w->flags);
	if (!umcg_must_stop(w))
		goto through;
	if (umcg_sleep_worker(w, -EINTR) != -EINTR)
		goto through;
	if (!task_sigpending(current) && test_thread_flag(TIF_NOTIFY_SIGNAL)) {
		/*
		 * Not a signal, but a task_work of io_uring's: let it run. The
		 * list is last in, first out: in the first round we come before it.
		 */
		clear_notify_signal();
		clear_bit(UMCG_F_SECOND_PASS, &w->flags);
		if (!task_work_add(current, &w->gate_work, UMCG_TWA))
			return;
	} else if (!umcg_dying()) {
		clear_bit(UMCG_F_SECOND_PASS, &w->flags);
		clear_bit(UMCG_F_GATE_QUEUED, &w->flags);
		umcg_requeue_gate(w);
		umcg_put(w);
		return;
	}
through:
	clear_bit(UMCG_F_IN_GATE, &w->flags);
	clear_bit(UMCG_F_SECOND_PASS, &w->flags);
	clear_bit(UMCG_F_GATE_QUEUED, &w->flags);
	umcg_put(w);
}
