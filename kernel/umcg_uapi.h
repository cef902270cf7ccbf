/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef UMCG_UAPI_H
#define UMCG_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: User Managed Concurrency Groups, the interface of /dev/umcg
 *
 * One open file is one group of tasks: threads of the process that opened it.
 * A call from another process (a forked child, somebody who was sent the
 * descriptor) is answered with ESRCH. When the file is closed all workers
 * become ordinary threads; a call in progress holds it open, a worker that is
 * stopped on its way back to user mode does not.
 *
 * All shared state is in &struct umcg_task, in user memory. What the kernel
 * keeps beside it is who holds the slot of which server.
 */

/* Bits 0 to 7 of umcg_task.state */
#define UMCG_NONE		0	/* not registered */
#define UMCG_RUNNING		1	/* may use its CPU */
#define UMCG_RUNNABLE		2	/* waits to be picked; server: waits for events */
#define UMCG_BLOCKED		3	/* worker: sleeps in the kernel, its server was told */

#define UMCG_STATE_MASK		0x000000ffU
#define UMCG_FLAG_MASK		0x0000ff00U	/* reserved, 0 */
#define UMCG_USER_MASK		0xffff0000U	/* the application's; never touched */

/*
 * Bit 0 of a worker's blocked_ptr and runnable_ptr: it is on that list. Set by
 * the kernel before it pushes. The server that unlinks the worker stores 0 in
 * the whole link, before it reads the worker's state. While a link is not 0
 * there is no second push: the event is pending. List heads never carry it.
 */
#define UMCG_LINKED		1ULL

/**
 * struct umcg_task - what a task shares with the kernel
 * @state: see above. Every transition keeps the bits of the others.
 * @server_tid: the server whose lists get this worker; a server's own tid
 * @next_tid: whom to switch to when leaving RUNNING, 0 = my server. Cleared by
 *	the kernel when, and only when, that switch is made, or none is needed: a
 *	server named the worker that runs in its slot.
 * @tid: the own thread id
 * @blocked_ptr: server: head of the list of workers that blocked; worker: link
 * @runnable_ptr: the same for workers that became runnable
 *
 * In private (anonymous) memory: the page is pinned while the task is
 * registered, and for a page of a file or of shared memory that would stop
 * write-back, truncation and its other users. 64-byte alignment, so that it
 * never straddles a page.
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
 * @tid: in: a server, or 0 for the group's counters alone
 * @live: registered tasks of the group
 * @dispatches: workers that were given the server's slot
 * @blocks: workers that blocked in the slot
 * @preempted: preemptions that took effect
 * @longest_block_ns: the longest time from a block to the end of it
 * @gates: group: times that a worker was stopped on its way to user mode
 * @requeues: group: of these, times that a signal interrupted the stop
 * @user_returns: group: of these, times that the last resort was needed
 * @deferred: group: list pushes given up because user space kept changing the
 *	head, and done later
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
 * REGISTER	the caller becomes a task. A server is RUNNING and the call
 *		returns at once. A worker is pushed on its server's
 *		runnable_ptr, RUNNABLE; nothing of it runs, not even a signal
 *		handler, before it is picked. If its server goes away first it is an ordinary thread
 *		then, the call says 0 and CHECK says ESRCH.
 *		EINVAL: flags, version, alignment, not anonymous memory,
 *		registered already, tid not the caller's, state not NONE,
 *		next_tid not 0, a server whose server_tid is not its own, a
 *		worker whose links are not 0.
 *		ESRCH: no such server. EFAULT,
 *		ENOMEM (also RLIMIT_MEMLOCK).
 * UNREGISTER	takes the address of a __u64 that holds the address of the
 *		registered task. EINVAL: not that one. EBUSY: not RUNNING; also a
 *		worker that slept for a page of the argument: it was picked since,
 *		is RUNNING, and calls again.
 *		The worker may still be on a list: its memory must stay until
 *		UMCG_LINKED is clear in both links.
 * WAIT		see Documentation in README.md. EINVAL, ESRCH, EBUSY,
 *		ETIMEDOUT, EFAULT; after each the caller is RUNNING and next_tid
 *		untouched. Never EINTR: a handler runs and the wait goes on.
 * PREEMPT	takes the address of a tid. A RUNNING worker becomes RUNNABLE,
 *		goes on its server's runnable_ptr, and the server is woken; a
 *		server that waits becomes RUNNING. Anything else: nothing
 *		happens. ESRCH.
 * CURRENT	replaces the tid of a server by that of the worker in its slot,
 *		0 = none. ESRCH.
 * STAT		ESRCH: no such server.
 * VERSION	stores UMCG_ABI_VERSION of the module.
 * CHECK	0: the caller is registered. ESRCH: it is a worker whose server
 *		is gone. EINVAL: not registered.
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
