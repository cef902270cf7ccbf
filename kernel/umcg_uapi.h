/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef UMCG_UAPI_H
#define UMCG_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: User Managed Concurrency Groups, the interface of /dev/umcg
 *
 * One open file is one group of tasks. The tasks of a group are threads of the process that
 * opened the file. A call from another process (a forked child, or a process that received
 * the descriptor) fails with ESRCH. When the file is closed, all workers become ordinary
 * threads. A call in progress holds the file open; a worker that sleeps in the gate, on its
 * way back to user mode, does not.
 *
 * All shared state is in &struct umcg_task, in user memory. Beside it the kernel keeps only
 * which worker holds the slot of which server.
 */

/* Bits 0 to 7 of umcg_task.state */
#define UMCG_NONE		0	/* not registered */
#define UMCG_RUNNING		1	/* may use its CPU */
#define UMCG_RUNNABLE		2	/* worker: waits to be picked; server: waits for events */
#define UMCG_BLOCKED		3	/* worker: sleeps in the kernel, its server was told */

#define UMCG_STATE_MASK		0x000000ffU
#define UMCG_FLAG_MASK		0x0000ff00U	/* reserved, 0 */
#define UMCG_USER_MASK		0xffff0000U	/* the application's; the kernel keeps them */

/*
 * Bit 0 of a worker's blocked_ptr and runnable_ptr: the worker is on that list. The kernel
 * sets it before it pushes the worker. The server that unlinks the worker stores 0 to the
 * whole link before it reads the worker's state. While a link is not 0 the event is pending,
 * and the kernel does not push the worker a second time. List heads never carry this bit.
 */
#define UMCG_LINKED		1ULL

/**
 * struct umcg_task - the memory that a task shares with the kernel
 * @state: see above. Every transition keeps the bits of the others.
 * @server_tid: the server whose lists get this worker; a server's own tid
 * @next_tid: the target to switch to when the task leaves RUNNING, 0 for the task's server.
 *	The kernel clears it when that switch is made. It also clears it when no switch is
 *	needed, because a server named the worker that runs in its slot already, and when a
 *	worker lost its slot before it came to WAIT: the target is then a runnable event of
 *	its own server. In all other cases next_tid stays.
 * @tid: the task's own thread id
 * @blocked_ptr: of a server: head of the list of workers that blocked; of a worker: link
 * @runnable_ptr: the same for workers that became runnable
 *
 * The structure must be in private (anonymous) memory. Its page is pinned while the task is
 * registered; a pinned page of a file or of shared memory would hold up write-back,
 * truncation and the other users of that memory. The alignment of 64 bytes keeps the
 * structure within one page.
 */
struct umcg_task {
	__u32 state;
	__u32 server_tid;
	__u32 next_tid;
	__u32 tid;
	__u64 blocked_ptr;
	__u64 runnable_ptr;
} __attribute__((aligned(64)));

#define UMCG_ABI_VERSION	0

/* umcg_register.flags */
#define UMCG_REG_WORKER		0x00000001U	/* without it: a server */
#define UMCG_REG_VERSION_MASK	0xff000000U	/* UMCG_ABI_VERSION << 24 */
#define UMCG_REG_VERSION_SHIFT	24

/**
 * struct umcg_register - argument of %UMCG_IOC_REGISTER
 * @self: address of the caller's &struct umcg_task
 * @flags: UMCG_REG_*
 * @pad: 0
 */
struct umcg_register {
	__u64 self;
	__u32 flags;
	__u32 pad;
};

/**
 * struct umcg_wait - argument of %UMCG_IOC_WAIT
 * @deadline_ns: absolute CLOCK_MONOTONIC, 0 = none; servers only
 * @flags: 0
 * @pad: 0
 */
struct umcg_wait {
	__u64 deadline_ns;
	__u32 flags;
	__u32 pad;
};

/**
 * struct umcg_stat - argument of %UMCG_IOC_STAT
 * @tid: in: a server, or 0 for the counters of the group alone
 * @live: registered tasks of the group
 * @dispatches: workers that were given the server's slot
 * @blocks: workers that blocked in the slot
 * @preempted: preemptions that took effect
 * @longest_block_ns: the longest time from a block to its end
 * @gates: of the group: times that a worker was stopped on its way to user mode
 * @requeues: of the group: times that a signal interrupted such a stop, so that it had to
 *	be entered again
 * @user_returns: of the group: how many of @requeues needed the last resort, the
 *	user-return notifier
 * @deferred: of the group: list pushes that the kernel gave up, because user space kept
 *	changing the head, and did later
 */
struct umcg_stat {
	__u32 tid;
	__u32 live;
	__u64 dispatches;
	__u64 blocks;
	__u64 preempted;
	__u64 longest_block_ns;
	__u64 gates;
	__u64 requeues;
	__u64 user_returns;
	__u64 deferred;
};

/*
 * REGISTER	The caller becomes a task. A server is RUNNING, and the call returns at once.
 *		A worker becomes RUNNABLE and is pushed on its server's runnable_ptr. Nothing
 *		of it runs before a server picks it, not even a signal handler. If its server
 *		goes away first, the worker is an ordinary thread: the call returns 0, and
 *		CHECK fails with ESRCH.
 *		EINVAL: flags, version, alignment, or memory that is not anonymous; the
 *		caller is registered already; tid is not the caller's, the state is not
 *		NONE, or next_tid is not 0; a server whose server_tid is not its own; a
 *		worker whose links are not 0.
 *		ESRCH: no such server. EFAULT. ENOMEM, also for RLIMIT_MEMLOCK.
 * UNREGISTER	Takes the address of a __u64 that holds the address of the registered task.
 *		EINVAL: that is not the caller's task. EBUSY: the state is not RUNNING. A
 *		worker also gets EBUSY if it slept for a page of the argument: a server has
 *		picked it since, it is RUNNING, and it calls again.
 *		The worker may still be on a list. Its memory must stay until UMCG_LINKED is
 *		clear in both links.
 * WAIT		README.md describes it step by step. EINVAL, ESRCH, EBUSY, ETIMEDOUT, EFAULT;
 *		after each of them the caller is RUNNING and next_tid is unchanged. Never
 *		EINTR: a signal handler runs, and the wait goes on.
 * PREEMPT	Takes the address of a tid. A RUNNING worker becomes RUNNABLE and is pushed on
 *		its server's runnable_ptr, and the server is woken. A server that waits
 *		becomes RUNNING. For any other task nothing happens. ESRCH: no such task.
 * CURRENT	Replaces the tid of a server by the tid of the worker in its slot, or by 0.
 *		ESRCH: no such server.
 * STAT		Fills in &struct umcg_stat. ESRCH: no such server.
 * VERSION	Stores the module's UMCG_ABI_VERSION.
 * CHECK	0: the caller is registered. ESRCH: it is a worker whose server is gone.
 *		EINVAL: it is not registered.
 */
#define UMCG_IOC_REGISTER	_IOW('U', 1, struct umcg_register)
#define UMCG_IOC_UNREGISTER	_IOW('U', 2, __u64)
#define UMCG_IOC_WAIT		_IOW('U', 3, struct umcg_wait)
#define UMCG_IOC_PREEMPT	_IOW('U', 4, __u32)
#define UMCG_IOC_CURRENT	_IOWR('U', 5, __u32)
#define UMCG_IOC_STAT		_IOWR('U', 6, struct umcg_stat)
#define UMCG_IOC_VERSION	_IOR('U', 7, __u32)
#define UMCG_IOC_CHECK		_IO('U', 8)

#endif /* UMCG_UAPI_H */
