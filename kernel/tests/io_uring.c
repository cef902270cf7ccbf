// SPDX-License-Identifier: GPL-2.0
/* Workers that use io_uring. It delivers completions as task_work, with TIF_NOTIFY_SIGNAL. */
#include "harness.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static void open_ring(struct ring *r)
{
	struct io_uring_params p = { 0 };
	char *sq, *cq;

	r->fd = syscall(SYS_io_uring_setup, 8, &p);
	if (r->fd < 0)
		FAIL("io_uring_setup");
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
		  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe),
		       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	CHECK(sq != MAP_FAILED && cq != MAP_FAILED && r->sqes != MAP_FAILED);
	r->sq_tail = (void *)(sq + p.sq_off.tail);
	r->sq_mask = (void *)(sq + p.sq_off.ring_mask);
	r->sq_array = (void *)(sq + p.sq_off.array);
	r->cq_head = (void *)(cq + p.cq_off.head);
	r->cq_tail = (void *)(cq + p.cq_off.tail);
	r->cq_mask = (void *)(cq + p.cq_off.ring_mask);
	r->cqes = (void *)(cq + p.cq_off.cqes);
}

static void submit(struct ring *r, struct io_uring_sqe request)
{
	unsigned int i = *r->sq_tail & *r->sq_mask;

	r->sqes[i] = request;
	r->sq_array[i] = i;
	__atomic_store_n(r->sq_tail, *r->sq_tail + 1, __ATOMIC_RELEASE);
	CHECK(syscall(SYS_io_uring_enter, r->fd, 1, 0, 0, NULL, 0) == 1);
}

static struct io_uring_sqe timeout(struct __kernel_timespec *time)
{
	return (struct io_uring_sqe){ .opcode = IORING_OP_TIMEOUT,
				      .addr = (uintptr_t)time, .len = 1 };
}

static void body(struct worker *w)
{
	struct __kernel_timespec time = { .tv_nsec = 300000 };
	struct ring ring;
	int round;

	open_ring(&ring);
	for (round = 0; round < 100; round++) {
		unsigned int head = *ring.cq_head;

		/*
		 * The completion finds the worker in a sleep in half of the rounds, in the gate
		 * or running in the other half.
		 */
		submit(&ring, timeout(&time));
		may_run();
		if (round & 1)
			usleep(250);
		else
			yield_now();
		may_run();
		while (__atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) == head) {
			syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
			may_run();
		}
		CHECK(ring.cqes[head & *ring.cq_mask].res == -ETIME);
		__atomic_store_n(ring.cq_head, head + 1, __ATOMIC_RELEASE);
		w->rounds++;
	}
	close(ring.fd);
}

SCENARIO(io_uring)
{
	start(2, 8, body, 10);
	finish();
	report("io_uring");
	CHECK(!violations);
	return 0;
}

static struct ring shared;
static atomic_bool submitted;
static int ends[2];

static void *submit_and_block(void *argument)
{
	struct __kernel_timespec time = { .tv_nsec = 200000000 };
	struct worker *w = argument;
	char c;

	register_worker(w);
	submit(&shared, timeout(&time));
	submitted = true;
	CHECK(read(ends[0], &c, 1) == 1);
	CHECK(!do_unregister(&w->task));
	w->finished = true;
	return NULL;
}

/* Makes the calling thread a server with one worker, which waits to be picked. */
static void start_one_worker(void *(*worker)(void *))
{
	struct umcg_task *task = &servers[0].task;

	register_server(task);
	pthread_create(&workers[0].thread, NULL, worker, &workers[0]);
	while (!__atomic_load_n(&task->runnable_ptr, __ATOMIC_SEQ_CST))
		usleep(100);
}

/* Other threads see a completion while the worker that submitted waits to be picked. */
SCENARIO(io_uring_completes_in_gate)
{
	struct umcg_task *task = &servers[0].task, *w = &workers[0].task;
	int i;

	alarm(60);
	CHECK(!pipe(ends));
	open_ring(&shared);
	start_one_worker(submit_and_block);
	do {
		while (__atomic_load_n(&w->state, __ATOMIC_SEQ_CST) != UMCG_RUNNABLE)
			usleep(100);
		run_once(task, w);
	} while (!submitted);
	/* It has lost the slot, so it comes to the gate as soon as nothing blocks it. */
	CHECK(write(ends[1], "x", 1) == 1);
	while (__atomic_load_n(&w->state, __ATOMIC_SEQ_CST) != UMCG_RUNNABLE)
		usleep(100);
	for (i = 0; !__atomic_load_n(shared.cq_tail, __ATOMIC_ACQUIRE); i++) {
		CHECK(i < 5000);
		usleep(1000);
	}
	CHECK(w->state == UMCG_RUNNABLE);
	while (!workers[0].finished)
		turn(task, w, now_ns() + 10000000);
	pthread_join(workers[0].thread, NULL);
	printf("io_uring in the gate: completed after %d ms\n", i);
	return 0;
}

/*
 * Dies with a request pending that io_uring cancels at exit, on another ring. To cancel it,
 * io_uring runs the thread's task_work, after a debugger's exit stop and before PF_EXITING.
 */
static void *poll_and_preempt(void *argument)
{
	struct worker *w = argument;
	static struct ring own;

	register_worker(w);
	open_ring(&own);
	submit(&own, (struct io_uring_sqe){ .opcode = IORING_OP_POLL_ADD, .fd = shared.fd,
					    .poll_events = POLLIN });
	submitted = true;
	for (;;)
		do_preempt(w->task.server_tid);
	return NULL;
}

enum { BY_SIGKILL, BY_COREDUMP, BY_EXEC, WAYS };

/* The server, in a child. It tells the parent when its worker is in the slot, and waits. */
static void die(int way, int to_parent, int from_parent)
{
	char *again[] = { "umcg-test", "after-exec", NULL };
	char c = 0;

	reopen_device();
	open_ring(&shared);
	start_one_worker(poll_and_preempt);
	do {
		while (workers[0].task.state == UMCG_BLOCKED)
			usleep(100);
		run_once(&servers[0].task, &workers[0].task);
	} while (!submitted || do_current(servers[0].task.tid) != (int)workers[0].task.tid);
	CHECK(write(to_parent, &c, 1) == 1 && read(from_parent, &c, 1) == 1);
	if (way == BY_EXEC)
		execv("/proc/self/exe", again);
	raise(way == BY_SIGKILL ? SIGKILL : SIGQUIT);
}

/* A worker that dies does not sleep in the gate, where it would hold up the end of the process. */
SCENARIO(io_uring_cancels_at_exit)
{
	static const int ended_by[WAYS] = { SIGKILL, SIGQUIT, 0 };
	int round, way, status, to[2], from[2];
	pid_t child, tids[64];
	char c = 0;

	alarm(50);
	for (round = 0; round < 4 * WAYS; round++) {
		way = round / 2 % WAYS;
		CHECK(!pipe2(to, O_CLOEXEC) && !pipe2(from, O_CLOEXEC));
		child = fork();
		if (!child)
			die(way, from[1], to[0]);
		CHECK(read(from[0], &c, 1) == 1);
		/* In every second round a debugger stops each thread at its exit. */
		if (round & 1)
			CHECK(attach_all(child, tids, PTRACE_O_TRACEEXIT) > 1);
		CHECK(write(to[1], &c, 1) == 1);
		status = wait_for_end(child, NULL);
		CHECK((status & 0x7f) == ended_by[way]);
		close(to[0]), close(to[1]), close(from[0]), close(from[1]);
	}
	printf("io_uring at exit: %d processes\n", round);
	return 0;
}
