// SPDX-License-Identifier: GPL-2.0
/* Workers with io_uring: its completions come as task_work, by TIF_NOTIFY_SIGNAL. */
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

		/* Half of them: the completion finds the worker elsewhere, or in its gate. */
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

int test_io_uring(int argc, char **argv)
{
	(void)argc, (void)argv;
	start(2, 8, body, 10);
	finish();
	report("io_uring");
	CHECK(!violations);
	return 0;
}

static struct ring shared;
static atomic_bool submitted;

static void enter(struct worker *w)
{
	w->task.server_tid = servers[0].task.tid;
	w->task.tid = own_tid();
	CHECK(!do_register(&w->task, UMCG_REG_WORKER));
}

static void *naps(void *argument)
{
	struct __kernel_timespec time = { .tv_nsec = 200000000 };
	struct worker *w = argument;

	enter(w);
	submit(&shared, timeout(&time));
	submitted = true;
	usleep(1000);
	CHECK(!do_unregister(&w->task));
	return NULL;
}

/* The calling thread becomes a server with one worker that waits to be picked. */
static void serve_one(void *(*worker)(void *))
{
	struct umcg_task *task = &servers[0].task;

	task->tid = task->server_tid = own_tid();
	CHECK(!do_register(task, 0));
	pthread_create(&workers[0].thread, NULL, worker, &workers[0]);
	while (!__atomic_load_n(&task->runnable_ptr, __ATOMIC_SEQ_CST))
		usleep(100);
}

/* Until the worker was in the slot, and left it or woke us. */
static void run_once(void)
{
	struct umcg_task *task = &servers[0].task, *w = &workers[0].task;

	do {
		task->runnable_ptr = task->blocked_ptr = 0;
		w->runnable_ptr = w->blocked_ptr = 0;
		leave(task);
		task->next_tid = w->tid;
		CHECK(!do_wait(0));
	} while (task->next_tid);
}

/* Others see a completion while the worker that asked for it waits to be picked. */
int test_io_uring_gate(int argc, char **argv)
{
	struct umcg_task *w = &workers[0].task;
	int i;

	(void)argc, (void)argv;
	open_ring(&shared);
	serve_one(naps);
	do {
		while (__atomic_load_n(&w->state, __ATOMIC_SEQ_CST) != UMCG_RUNNABLE)
			usleep(100);
		if (!submitted)
			run_once();
	} while (!submitted || w->state != UMCG_RUNNABLE);
	for (i = 0; !__atomic_load_n(shared.cq_tail, __ATOMIC_ACQUIRE); i++) {
		CHECK(i < 5000);
		usleep(1000);
	}
	CHECK(w->state == UMCG_RUNNABLE);
	run_once();
	pthread_join(workers[0].thread, NULL);
	printf("io_uring-gate: told after %d ms\n", i);
	return 0;
}

/*
 * Dies with a request that io_uring cancels in its exit, on another ring: to do so
 * it runs the thread's task_work, between a debugger's stop and PF_EXITING.
 */
static void *polls(void *argument)
{
	struct worker *w = argument;
	static struct ring own;

	enter(w);
	open_ring(&own);
	submit(&own, (struct io_uring_sqe){ .opcode = IORING_OP_POLL_ADD, .fd = shared.fd,
					    .poll_events = POLLIN });
	submitted = true;
	for (;;)
		do_preempt(w->task.server_tid);
	return NULL;
}

enum { BY_SIGKILL, BY_COREDUMP, BY_EXEC, WAYS };

/* The server, in a child: with its worker in the slot it says so and waits. */
static void die(int way, int to_parent, int from_parent)
{
	char *again[] = { "umcg-test", "after-exec", NULL };
	char c = 0;

	close(device);
	open_device();
	open_ring(&shared);
	serve_one(polls);
	do {
		while (workers[0].task.state == UMCG_BLOCKED)
			usleep(100);
		run_once();
	} while (!submitted || do_current(servers[0].task.tid) != (int)workers[0].task.tid);
	CHECK(write(to_parent, &c, 1) == 1 && read(from_parent, &c, 1) == 1);
	if (way == BY_EXEC)
		execv("/proc/self/exe", again);
	raise(way == BY_SIGKILL ? SIGKILL : SIGQUIT);
}

/* A worker that dies does not stop in its gate: nobody waits for its end in vain. */
int test_io_uring_death(int argc, char **argv)
{
	static const int ended_by[WAYS] = { SIGKILL, SIGQUIT, 0 };
	int round, way, status, to[2], from[2];
	pid_t child, tids[64];
	char c = 0;

	(void)argc, (void)argv;
	alarm(50);
	for (round = 0; round < 4 * WAYS; round++) {
		way = round / 2 % WAYS;
		CHECK(!pipe2(to, O_CLOEXEC) && !pipe2(from, O_CLOEXEC));
		child = fork();
		if (!child)
			die(way, from[1], to[0]);
		CHECK(read(from[0], &c, 1) == 1);
		/* Every second time each thread stops at its end. */
		if (round & 1)
			CHECK(attach_all(child, tids, PTRACE_O_TRACEEXIT) > 1);
		CHECK(write(to[1], &c, 1) == 1);
		status = wait_for_end(child, NULL);
		CHECK((status & 0x7f) == ended_by[way]);
		close(to[0]), close(to[1]), close(from[0]), close(from[1]);
	}
	printf("io_uring-death: %d processes\n", round);
	return 0;
}
