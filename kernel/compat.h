/* SPDX-License-Identifier: GPL-2.0 */
#ifndef UMCG_COMPAT_H
#define UMCG_COMPAT_H

/* Everything that differs between kernels. Tested with 6.1 and 6.12. */

#include <linux/sched.h>
#include <linux/version.h>
#include <linux/wait.h>
#include <trace/events/sched.h>
#include <trace/events/signal.h>

#ifndef CONFIG_PREEMPT_NOTIFIERS
#error "umcg needs a kernel with CONFIG_PREEMPT_NOTIFIERS (usually by CONFIG_KVM)"
#endif
#ifndef CONFIG_USER_RETURN_NOTIFIER
#error "umcg needs a kernel with CONFIG_USER_RETURN_NOTIFIER (x86, usually by CONFIG_KVM)"
#endif
#ifndef CONFIG_TRACEPOINTS
#error "umcg needs a kernel with CONFIG_TRACEPOINTS"
#endif
#ifndef CONFIG_X86_64
#error "umcg supports x86-64 only: little endian, no highmem, byte-wide cmpxchg"
#endif

/*
 * For a sched_out notifier: is current still runnable (it was preempted), or does it go to
 * sleep? Since 6.12 a sleeping task may stay on the run queue for a while (delayed dequeue),
 * so on_rq does not tell.
 */
static inline bool umcg_was_preempted(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	return task_is_runnable(current);
#else
	return current->on_rq;
#endif
}

/* The gate is also queued with preemption off, where nothing may be allocated. */
#ifdef UMCG_TWAF_NO_ALLOC
#define UMCG_TWA	(TWA_RESUME | TWAF_NO_ALLOC)
#else
#define UMCG_TWA	TWA_RESUME
#endif

#ifndef TASK_FREEZABLE
#define TASK_FREEZABLE	0
#endif
#define UMCG_SLEEP	(TASK_INTERRUPTIBLE | TASK_FREEZABLE)

/*
 * Two wake flags of kernel/sched/sched.h, which is private. default_wake_function() takes
 * these two and warns about others.
 */
#define UMCG_WF_SYNC	0x10
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
#define UMCG_WF_HERE	0x40	/* WF_CURRENT_CPU */
#else
#define UMCG_WF_HERE	0
#endif

/*
 * Probes are registered as void pointers, so a signature that changed would compile without
 * a warning. The calls below only make the compiler check the types. Kbuild finds out which
 * signature sched_process_exit has.
 */
#ifdef UMCG_EXIT_GROUP_DEAD
#define UMCG_EXIT_PROBE(name) \
	void name(void *data, struct task_struct *p, bool group_dead)
#else
#define UMCG_EXIT_PROBE(name) \
	void name(void *data, struct task_struct *p)
#endif
#define UMCG_EXEC_PROBE(name) \
	void name(void *data, struct task_struct *p, pid_t old_pid, \
		  struct linux_binprm *bprm)
#define UMCG_SIGNAL_PROBE(name) \
	void name(void *data, int sig, struct kernel_siginfo *info, \
		  struct k_sigaction *ka)

static inline void umcg_check_probes(UMCG_EXIT_PROBE((*on_exit)),
				     UMCG_EXEC_PROBE((*on_exec)),
				     UMCG_SIGNAL_PROBE((*on_signal)))
{
	check_trace_callback_type_sched_process_exit(on_exit);
	check_trace_callback_type_sched_process_exec(on_exec);
	check_trace_callback_type_signal_deliver(on_signal);
}

#endif /* UMCG_COMPAT_H */
