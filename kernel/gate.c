// SPDX-License-Identifier: GPL-2.0
/*
 * The report of a block, and the gate before user mode.
 *
 * The preempt notifier's sched_out hook runs when a worker leaves the CPU. If the worker
 * goes to sleep while it holds a slot, the hook reports the block to the server. When the
 * worker is back on a CPU, the sched_in hook queues the gate as task_work. On its way to
 * user mode the worker therefore runs the gate: it enqueues itself at its server and sleeps
 * until a server picks it.
 *
 * Nothing of the worker may run in user mode before that, not even a signal handler. Stops,
 * ptrace, the freezer and SIGKILL must nevertheless work at once. A signal therefore
 * interrupts the gate: the gate returns, so that get_signal() can do its work, and must be
 * queued again before the worker reaches user mode. Whichever of these comes first does so:
 *
 *   - the signal_deliver tracepoint: the kernel builds the handler's frame and then runs
 *     the gate, before the first instruction of the handler;
 *   - sched_in, when the worker continues after a stop;
 *   - the user-return notifier, when another thread took the signal (hooks.c).
 *
 * The gate cannot queue itself in this case, because task_work_run() loops until its list
 * is empty, and the worker would never get to get_signal().
 */
#include <linux/errno.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>

#include "umcg.h"

/*
 * Claims the spare @n, which @w is armed with, for the slot of @host. The armed tid in
 * next_tid is taken first, by the same cmpxchg that user space disarms with, so exactly one
 * of the two gets the spare.
 *
 * Return: true if @n was claimed.
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

/*
 * @w leaves the slot of @host. The slot goes to the spare @n if there is one and it can be
 * claimed, else to @host itself. Return: the thread that the caller must wake, or NULL.
 */
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
	/* The event is information and may come late: the gate tries again. */
	if (ret)
		set_bit(UMCG_F_EVENT_PENDING, &w->flags);
}

/*
 * Reports that @w blocks, in three steps: its state becomes BLOCKED, the event is pushed on
 * its server's list, its slot is passed on. @w is locked, and so is its spare @n unless it
 * is NULL.
 */
static void umcg_block_locked(struct umcg_thread *w, struct umcg_thread *n)
{
	struct umcg_thread *host = w->host, *wake, *old = NULL;
	u32 server_tid = READ_ONCE(w->u->server_tid);
	u8 state;

	state = cmpxchg(umcg_state(w), UMCG_RUNNING, UMCG_BLOCKED);
	if (state == UMCG_RUNNABLE) {
		/*
		 * The worker blocked between its step to RUNNABLE and its WAIT. A server may have
		 * found it in a queue and owns it then, so its state and its events are not
		 * touched. Only its slot is released.
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

/* Context: rq->lock held, interrupts off. */
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

/* Context: preemption off, interrupts on, no lock held. */
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
 * Only current queues its own gate. Whoever finds UMCG_F_GATE_QUEUED set relies on the gate
 * being on the list before current reaches user mode. If another thread queued it, that
 * thread could be held up for a long time between setting the flag and adding the work.
 *
 * Context: any, but not under a thread lock.
 */
void umcg_queue_gate(struct umcg_thread *w)
{
	if (test_and_set_bit(UMCG_F_GATE_QUEUED, &w->flags))
		return;
	if (refcount_inc_not_zero(&w->ref)) {
		if (!task_work_add(w->task, &w->gate_work, UMCG_TWA))
			return;
		umcg_put(w);	/* current is exiting */
	}
	clear_bit(UMCG_F_GATE_QUEUED, &w->flags);
}

/**
 * umcg_on_preempt() - the task_work of a preemption
 * @head: the preempt_work of current's registration
 */
void umcg_on_preempt(struct callback_head *head)
{
	struct umcg_thread *w = container_of(head, struct umcg_thread, preempt_work);

	clear_bit(UMCG_F_PREEMPT_QUEUED, &w->flags);
	/*
	 * Read UMCG_F_PREEMPT only after the flag is clear. Pairs with the
	 * test_and_set_bit() in umcg_queue_preempt(), so that a preemption that found the
	 * work still queued is not missed.
	 */
	smp_mb__after_atomic();
	if (test_bit(UMCG_F_PREEMPT, &w->flags))
		umcg_queue_gate(w);
	umcg_put(w);
}

/**
 * umcg_queue_preempt() - send a worker that has UMCG_F_PREEMPT set through the gate
 * @w: the worker, found under rcu_read_lock()
 */
void umcg_queue_preempt(struct umcg_thread *w)
{
	if (test_and_set_bit(UMCG_F_PREEMPT_QUEUED, &w->flags))
		return;
	if (refcount_inc_not_zero(&w->ref)) {
		if (!task_work_add(w->task, &w->preempt_work, UMCG_TWA))
			return;
		umcg_put(w);	/* the worker is exiting */
	}
	clear_bit(UMCG_F_PREEMPT_QUEUED, &w->flags);
}

/**
 * umcg_dying() - will current never see user mode again?
 *
 * fatal_signal_pending() alone does not tell, because get_signal() takes the SIGKILL off
 * its list before the thread is gone. A thread sleeps and runs task_work after that, and
 * before PF_EXITING is set, in three cases: while it dumps core, in a debugger's stop at
 * its exit, and while io_uring cancels its requests. Somebody waits for the thread to end
 * (exec, or the process that sent the signal), so it must not sleep in the gate.
 *
 * Return: true if current is on its way out.
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
	if (w->phase == UMCG_PH_HOLD) {		/* a server picked it between two tries */
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
		/*
		 * The blocked event comes first: a server may rely on each worker of the
		 * runnable list having been on the blocked list before.
		 */
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
	/* A preempted worker still holds its slot and releases it only after the event. */
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
	if (left)	/* never equal to wake: umcg_prepare_wake() returns true once */
		umcg_wake(left, UMCG_WF_SYNC | UMCG_WF_HERE);
	rcu_read_unlock();
	return ret;
}

/**
 * umcg_enqueue_self() - become RUNNABLE and push a runnable event on the server's list
 * @w: current's registration
 *
 * Return: 0, or -ESRCH if the server is gone. @w is detached then.
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

/* Must current, on its way to user mode, sleep in the gate? */
static bool umcg_must_stop(struct umcg_thread *w)
{
	bool enqueue = test_and_clear_bit(UMCG_F_MUST_GATE, &w->flags);

	if (!enqueue && test_and_clear_bit(UMCG_F_PREEMPT, &w->flags)) {
		raw_spin_lock_irq(&w->lock);
		if (w->phase == UMCG_PH_HOLD &&
		    umcg_move(w, UMCG_RUNNING, UMCG_RUNNABLE)) {
			/*
			 * No server owns the worker yet, so none may claim it before it has
			 * enqueued itself.
			 */
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
 * umcg_gate() - the gate: sleep until a server picks current
 * @head: the gate_work of current's registration
 */
void umcg_gate(struct callback_head *head)
{
	struct umcg_thread *w = container_of(head, struct umcg_thread, gate_work);

	/* After exec or on the way out there is nothing left to stop or to preempt. */
	if (umcg_dying() || current->mm != w->group->mm) {
		clear_bit(UMCG_F_SECOND_PASS, &w->flags);
		umcg_put(w);	/* UMCG_F_GATE_QUEUED stays set: never again */
		return;
	}
	/*
	 * Let every other task_work of this batch run first, for example a delayed fput():
	 * work that is added now runs in the next round of task_work_run().
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
		 * The interruption was not a signal but task_work of io_uring: let it run.
		 * task_work_run() takes the list last in, first out, so the gate comes before that
		 * work in the first round and must be added once more.
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
