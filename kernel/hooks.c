// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints, and the user-return notifier, which is the gate's last resort.
 */
#define pr_fmt(fmt) "umcg: " fmt

#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/irq_work.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/tracepoint.h>
#include <linux/user-return-notifier.h>

#include "umcg.h"

/*
 * The last resort of an interrupted gate. When another thread takes the signal that
 * interrupted the gate, neither signal_deliver nor sched_in need follow, and nothing would
 * queue the gate again. The user-return notifier then runs as the CPU goes to user mode. It
 * queues the gate and makes the CPU interrupt itself, and the task_work runs on the way
 * back from that interrupt.
 */
struct umcg_return {
	struct user_return_notifier notifier;
	struct irq_work		self_interrupt;
	bool			registered;	/* read and written with interrupts off */
};

static DEFINE_PER_CPU(struct umcg_return, umcg_return);
static int umcg_cpuhp_state;

static void umcg_interrupt(struct irq_work *work)
{
}

/* Context: interrupts off. */
static void umcg_unregister_return(struct umcg_return *r)
{
	if (r->registered) {
		r->registered = false;
		user_return_notifier_unregister(&r->notifier);
	}
}

static void umcg_on_user_return(struct user_return_notifier *notifier)
{
	struct umcg_return *r = container_of(notifier, struct umcg_return, notifier);
	struct umcg_thread *w;
	unsigned long irq;

	local_irq_save(irq);
	umcg_unregister_return(r);
	w = umcg_current();
	if (w && test_bit(UMCG_F_REQUEUE_GATE, &w->flags) &&
	    !test_bit(UMCG_F_GATE_QUEUED, &w->flags)) {
		atomic64_inc(&w->group->user_returns);
		umcg_queue_gate(w);
		irq_work_queue(&r->self_interrupt);
	}
	local_irq_restore(irq);
}

/**
 * umcg_requeue_gate() - make sure that an interrupted gate is entered again
 * @w: current's registration
 *
 * Sets the flag that the tracepoint, sched_in and the user-return notifier look at, and
 * registers the notifier on this CPU.
 */
void umcg_requeue_gate(struct umcg_thread *w)
{
	struct umcg_return *r;
	unsigned long irq;

	atomic64_inc(&w->group->requeues);
	if (umcg_broken(requeue_gate)) {
		clear_bit(UMCG_F_IN_GATE, &w->flags);
		return;
	}
	set_bit(UMCG_F_REQUEUE_GATE, &w->flags);
	local_irq_save(irq);
	r = this_cpu_ptr(&umcg_return);
	if (!r->registered) {
		r->registered = true;
		r->notifier.on_user_return = umcg_on_user_return;
		user_return_notifier_register(&r->notifier);
	}
	local_irq_restore(irq);
}

/* Runs on the CPU that goes offline, and at module exit on each CPU that is online. */
static int umcg_cpu_offline(unsigned int cpu)
{
	unsigned long irq;

	local_irq_save(irq);
	umcg_unregister_return(this_cpu_ptr(&umcg_return));
	local_irq_restore(irq);
	return 0;
}

/* Runs after exit_mm(): the user memory may have another user by now. */
static UMCG_EXIT_PROBE(umcg_on_exit)
{
	struct umcg_thread *t = p == current ? umcg_current() : NULL;

	if (t)
		umcg_end_registration(t, false);
}

static UMCG_EXEC_PROBE(umcg_on_exec)
{
	struct umcg_thread *t = umcg_current();

	if (t)
		umcg_end_registration(t, false);
}

/* Context: siglock held, interrupts off. */
static UMCG_SIGNAL_PROBE(umcg_on_signal)
{
	struct umcg_thread *w = umcg_current();

	if (w && test_bit(UMCG_F_REQUEUE_GATE, &w->flags))
		umcg_queue_gate(w);
}

static struct {
	const char *name;
	void *probe;
	struct tracepoint *point;
} umcg_points[] = {
	{ "sched_process_exit", umcg_on_exit },
	{ "sched_process_exec", umcg_on_exec },
	{ "signal_deliver", umcg_on_signal },
};

static void umcg_find_point(struct tracepoint *point, void *unused)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(umcg_points); i++)
		if (!strcmp(point->name, umcg_points[i].name))
			umcg_points[i].point = point;
}

static void umcg_remove_probes(int count)
{
	while (count--)
		tracepoint_probe_unregister(umcg_points[count].point,
					    umcg_points[count].probe, NULL);
	tracepoint_synchronize_unregister();
}

static int umcg_add_probes(void)
{
	int i, ret;

	umcg_check_probes(umcg_on_exit, umcg_on_exec, umcg_on_signal);
	for_each_kernel_tracepoint(umcg_find_point, NULL);
	for (i = 0; i < ARRAY_SIZE(umcg_points); i++) {
		ret = -ENOENT;
		if (umcg_points[i].point)
			ret = tracepoint_probe_register(umcg_points[i].point,
							umcg_points[i].probe, NULL);
		if (ret) {
			pr_err("no tracepoint %s: %d\n", umcg_points[i].name, ret);
			umcg_remove_probes(i);
			return ret;
		}
	}
	return 0;
}

/**
 * umcg_hooks_init() - install tracepoint probes, CPU hotplug state and preempt notifiers
 *
 * Return: 0 or an error.
 */
int umcg_hooks_init(void)
{
	int cpu, ret;

	for_each_possible_cpu(cpu)
		per_cpu(umcg_return, cpu).self_interrupt = IRQ_WORK_INIT_HARD(umcg_interrupt);
	ret = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "umcg:online", NULL,
					umcg_cpu_offline);
	if (ret < 0)
		return ret;
	umcg_cpuhp_state = ret;
	ret = umcg_add_probes();
	if (ret) {
		cpuhp_remove_state_nocalls(umcg_cpuhp_state);
		return ret;
	}
	preempt_notifier_inc();
	return 0;
}

/**
 * umcg_hooks_exit() - undo umcg_hooks_init()
 *
 * Context: no task is registered any more.
 */
void umcg_hooks_exit(void)
{
	int cpu;

	preempt_notifier_dec();
	umcg_remove_probes(ARRAY_SIZE(umcg_points));
	cpuhp_remove_state(umcg_cpuhp_state);	/* runs umcg_cpu_offline() on each CPU */
	for_each_possible_cpu(cpu)
		irq_work_sync(&per_cpu(umcg_return, cpu).self_interrupt);
}
