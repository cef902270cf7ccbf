// SPDX-License-Identifier: GPL-2.0
/* Every kind of sleep is seen; each worker stops behind its server's choice. */
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

static void read_pipe(struct worker *w)
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

static void (*const kinds[])(struct worker *) = { NULL, nap, read_pipe, wait_futex, touch_page };
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

static void *feed_pipe(void *unused)
{
	for (int i = 0; i < ROUNDS; i++) {
		usleep(5000);
		CHECK(write(pipe_ends[1], "x", 1) == 1);
	}
	return unused;
}

static void *feed_futex(void *unused)
{
	for (int i = 0; i < ROUNDS; i++) {
		usleep(5000);
		while (__atomic_load_n(&word, __ATOMIC_SEQ_CST))
			usleep(100);
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

int test_blocks(int argc, char **argv)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	pthread_t feeders[3];
	int i;

	(void)argc, (void)argv;
	CHECK(!pipe(pipe_ends));
	faults = syscall(SYS_userfaultfd, 0);
	CHECK(faults >= 0 && !ioctl(faults, UFFDIO_API, &api));
	pages = mmap(NULL, ROUNDS * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	range.range.start = (uintptr_t)pages;
	range.range.len = ROUNDS * PAGE;
	CHECK(!ioctl(faults, UFFDIO_REGISTER, &range));
	pthread_create(&feeders[0], NULL, feed_pipe, NULL);
	pthread_create(&feeders[1], NULL, feed_futex, NULL);
	pthread_create(&feeders[2], NULL, feed_pages, NULL);
	start(1, 5, body, 0);
	finish();
	for (i = 0; i < 5; i++)
		printf("  %-15s rounds=%ld blocked=%ld runnable=%ld\n", names[i],
		       workers[i].rounds, workers[i].blocked, workers[i].runnable);
	report("blocks");
	/*
	 * What is waited for may be there before the worker sleeps: then there is no
	 * block, the more of these the busier the host.
	 */
	CHECK(workers[1].blocked > ROUNDS / 2 && workers[4].blocked > ROUNDS / 2);
	for (i = 1; i < 5; i++)
		CHECK(workers[i].rounds == ROUNDS && workers[i].blocked > 0);
	for (i = 0; i < 3; i++)
		pthread_join(feeders[i], NULL);
	CHECK(!violations);
	return 0;
}
