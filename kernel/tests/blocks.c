// SPDX-License-Identifier: GPL-2.0
/* Every kind of sleep is reported, and each worker then waits until its server picks it. */
#include "harness.h"

#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS	20
#define PAGE	4096

static int pipe_ends[2], faults;
static int word;
static char *pages;

static void spin(struct worker *w)
{
	while (alive > 1) {
		for (volatile int i = 0; i < 20000; i++)
			;
		w->rounds++;
		yield_now();
		bool others = false;

		for (int i = 1; i < worker_count; i++)
			others |= !workers[i].finished;
		if (!others)
			break;
	}
}

static void nap(struct worker *w)
{
	struct timespec time = { .tv_nsec = 3000000 };

	(void)w;
	nanosleep(&time, NULL);
}

static void read_from_pipe(struct worker *w)
{
	char c;

	(void)w;
	CHECK(read(pipe_ends[0], &c, 1) == 1);
}

static void wait_futex(struct worker *w)
{
	(void)w;
	while (!__atomic_exchange_n(&word, 0, __ATOMIC_SEQ_CST)) {
		syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
		may_run();
	}
}

static void touch_page(struct worker *w)
{
	pages[w->rounds * PAGE] = 1;
}

static void (*const kinds[])(struct worker *) = {
	NULL, nap, read_from_pipe, wait_futex, touch_page,
};
static const char *const names[] = { "spin and yield", "nanosleep", "pipe", "futex", "page fault" };

static void body(struct worker *w)
{
	if (!kinds[w->id]) {
		spin(w);
		return;
	}
	for (int i = 0; i < ROUNDS; i++) {
		kinds[w->id](w);
		may_run();
		w->rounds++;
	}
}

/* Returns when the worker is in this round and the kernel has seen that it sleeps. */
static void wait_until_blocked(struct worker *w, long round)
{
	while (w->rounds != round ||
	       __atomic_load_n(&w->task.state, __ATOMIC_SEQ_CST) != UMCG_BLOCKED)
		usleep(200);
}

static void *feed_pipe(void *unused)
{
	for (int i = 0; i < ROUNDS; i++) {
		wait_until_blocked(&workers[2], i);
		CHECK(write(pipe_ends[1], "x", 1) == 1);
	}
	return unused;
}

static void *feed_futex(void *unused)
{
	for (int i = 0; i < ROUNDS; i++) {
		wait_until_blocked(&workers[3], i);
		__atomic_store_n(&word, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	return unused;
}

static void *feed_pages(void *unused)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct uffdio_zeropage zero = { .range.len = PAGE };
		struct uffd_msg message;

		CHECK(read(faults, &message, sizeof(message)) == sizeof(message));
		usleep(4000);
		zero.range.start = message.arg.pagefault.address & ~(PAGE - 1ull);
		CHECK(!ioctl(faults, UFFDIO_ZEROPAGE, &zero));
	}
	return unused;
}

/* A thread that touches one of the pages sleeps until another thread handles the fault. */
static void open_pages(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	faults = syscall(SYS_userfaultfd, 0);
	CHECK(faults >= 0 && !ioctl(faults, UFFDIO_API, &api));
	pages = mmap(NULL, ROUNDS * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	range.range.start = (uintptr_t)pages;
	range.range.len = ROUNDS * PAGE;
	CHECK(!ioctl(faults, UFFDIO_REGISTER, &range));
}

SCENARIO(blocks_are_reported)
{
	pthread_t feeders[3];
	int i;

	alarm(100);	/* the limit, should a sleep not be reported */
	CHECK(!pipe(pipe_ends));
	open_pages();
	pthread_create(&feeders[0], NULL, feed_pipe, NULL);
	pthread_create(&feeders[1], NULL, feed_futex, NULL);
	pthread_create(&feeders[2], NULL, feed_pages, NULL);
	start(1, 5, body, 0);
	finish();
	for (i = 0; i < 5; i++)
		printf("  %-15s rounds=%ld blocked=%ld runnable=%ld\n", names[i],
		       workers[i].rounds, workers[i].blocked, workers[i].runnable);
	report("blocks");
	/* On a busy host the time may be over before the sleep begins. */
	CHECK(workers[1].blocked > ROUNDS / 2 && workers[4].blocked > ROUNDS / 2);
	CHECK(workers[2].blocked >= ROUNDS && workers[3].blocked >= ROUNDS);
	for (i = 1; i < 5; i++)
		CHECK(workers[i].rounds == ROUNDS);
	for (i = 0; i < 3; i++)
		pthread_join(feeders[i], NULL);
	CHECK(!violations);
	return 0;
}

static atomic_bool offered, idling;

/* Loses its slot by a sleep after the step to RUNNABLE, and offers itself only then. */
static void *worker_that_offers_late(void *argument)
{
	struct worker *w = argument;

	register_worker(w);
	for (int i = 0; i < ROUNDS; i++) {
		leave(&w->task);
		do
			usleep(1000);
		while (!idling || servers[0].task.state != UMCG_RUNNABLE);
		usleep(5000);
		offered = true;
		CHECK(!do_wait(0));
		w->rounds++;
	}
	w->finished = true;
	CHECK(!do_unregister(&w->task));
	return NULL;
}

/* A server without deadlines that has gone idle finds a worker that offers itself late. */
SCENARIO(late_offer_wakes_server)
{
	struct umcg_task *task = &servers[0].task;
	struct worker *w = &workers[0];
	int picks = 0;

	alarm(60);	/* the limit, should nobody wake the idle server */
	register_server(task);
	pthread_create(&w->thread, NULL, worker_that_offers_late, w);
	while (!w->finished) {
		uint32_t state = UMCG_RUNNING;

		__atomic_compare_exchange_n(&task->state, &state, UMCG_RUNNABLE, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		task->next_tid = 0;
		if (__atomic_exchange_n(&task->runnable_ptr, 0, __ATOMIC_SEQ_CST)) {
			w->task.runnable_ptr = 0;
			offered = true;
		}
		if (offered && !do_current(task->tid)) {
			offered = false;
			picks++;
			task->next_tid = w->task.tid;
		}
		idling = !task->next_tid;
		if (w->finished)
			break;
		CHECK(!do_wait(0));
		idling = false;
		if (task->next_tid) {	/* an event came first, the pick was not dispatched */
			picks--;
			offered = true;
		}
	}
	pthread_join(w->thread, NULL);
	printf("late offers: picked %d times in %d rounds\n", picks, ROUNDS);
	CHECK(picks == ROUNDS + 1);
	return 0;
}

static atomic_bool offer_made;
static atomic_int ready, step;

/*
 * Leaves RUNNING and offers itself, but calls WAIT only after the server is in its own WAIT,
 * with this worker as its pick.
 */
static void *worker_that_leaves_late(void *argument)
{
	struct umcg_task *server = &servers[0].task;
	struct worker *w = argument;
	uint64_t from;

	register_worker(w);
	for (int i = 0; i < ROUNDS; i++) {
		ready++;
		CHECK(!do_preempt(server->tid));
		while (step == i)
			;
		leave(&w->task);
		offer_made = true;
		while (__atomic_load_n(&server->state, __ATOMIC_SEQ_CST) != UMCG_RUNNABLE)
			;
		for (from = now_ns(); now_ns() - from < 2000000; )
			;
		CHECK(!do_wait(0));
	}
	w->finished = true;
	CHECK(!do_unregister(&w->task));
	return NULL;
}

/*
 * A server picks the worker that is in its slot. If the worker runs, it is where it should be. If
 * it has offered itself it belongs to the server, and the pick stays in next_tid.
 */
SCENARIO(pick_of_holder_is_kept)
{
	struct umcg_task *task = &servers[0].task;
	struct worker *w = &workers[0];
	int i, kept = 0;

	alarm(60);
	register_server(task);
	pthread_create(&w->thread, NULL, worker_that_leaves_late, w);
	for (i = 0; i < ROUNDS; i++) {
		do
			turn(task, &w->task, now_ns() + 10000000);
		while (ready == i || do_current(task->tid) != (int)w->task.tid);
		leave(task);
		task->next_tid = w->task.tid;
		if (do_wait(now_ns() + 2000000) == -ETIMEDOUT)
			CHECK(!task->next_tid);
		offer_made = false;
		step++;
		while (!offer_made)
			usleep(100);
		leave(task);
		task->next_tid = w->task.tid;
		CHECK(!do_wait(0));
		/* A worker that is not RUNNING would be in no queue if the pick were cleared. */
		CHECK(task->next_tid || w->task.state == UMCG_RUNNING);
		kept += task->next_tid == w->task.tid;
	}
	while (!w->finished)
		turn(task, &w->task, now_ns() + 10000000);
	pthread_join(w->thread, NULL);
	printf("picks of the holder: kept the pick in %d of %d rounds\n", kept, ROUNDS);
	CHECK(kept > ROUNDS / 2);
	return 0;
}

/* Calls UNREGISTER with an argument whose page is not there yet. */
static void *unregister_with_late_argument(void *argument)
{
	struct worker *w = argument;
	int ret;

	register_worker(w);
	ret = ioctl(device, UMCG_IOC_UNREGISTER, pages);
	CHECK(ret == -1 && errno == EBUSY && w->task.state == UMCG_RUNNING);
	CHECK(!ioctl(device, UMCG_IOC_UNREGISTER, pages));
	CHECK(w->task.state == UMCG_NONE);
	w->finished = true;
	return NULL;
}

/* A worker that slept in UNREGISTER is picked, gets EBUSY, and succeeds at the second call. */
SCENARIO(unregister_after_sleep)
{
	struct umcg_task *task = &servers[0].task;
	struct worker *w = &workers[0];
	static uint64_t self[PAGE / 8];
	struct uffdio_copy copy = { .src = (uintptr_t)self, .len = PAGE };
	bool copied = false;

	alarm(60);
	open_pages();
	self[0] = (uintptr_t)&w->task;
	copy.dst = (uintptr_t)pages;
	register_server(task);
	pthread_create(&w->thread, NULL, unregister_with_late_argument, w);
	while (!w->finished) {
		struct pollfd poller = { .fd = faults, .events = POLLIN };

		turn(task, &w->task, now_ns() + 10000000);
		if (copied || w->task.state != UMCG_BLOCKED || poll(&poller, 1, 0) <= 0)
			continue;
		CHECK(!ioctl(faults, UFFDIO_COPY, &copy));
		copied = true;
	}
	pthread_join(w->thread, NULL);
	CHECK(copied);
	printf("unregister: refused after the sleep, then done\n");
	return 0;
}
