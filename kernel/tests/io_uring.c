// SPDX-License-Identifier: GPL-2.0
/* Workers with io_uring: its completions come as task_work, by TIF_NOTIFY_SIGNAL. */
#include "harness.h"

#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <string.h>
#include <sys/mman.h>
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

static void body(struct worker *w)
{
	struct __kernel_timespec time = { .tv_nsec = 300000 };
	struct ring ring;
	int round;

	open_ring(&ring);
	for (round = 0; round < 100; round++) {
		unsigned int i = *ring.sq_tail & *ring.sq_mask;
		struct io_uring_sqe *sqe = &ring.sqes[i];
		unsigned int head = *ring.cq_head;

		memset(sqe, 0, sizeof(*sqe));
		sqe->opcode = IORING_OP_TIMEOUT;
		sqe->addr = (uintptr_t)&time;
		sqe->len = 1;
		ring.sq_array[i] = i;
		__atomic_store_n(ring.sq_tail, *ring.sq_tail + 1, __ATOMIC_RELEASE);
		/* Half of them: the completion finds the worker elsewhere, or in its gate. */
		CHECK(syscall(SYS_io_uring_enter, ring.fd, 1, 0, 0, NULL, 0) == 1);
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
