// SPDX-License-Identifier: GPL-2.0
/* The cost of the calls, compared with a futex. With -icount 1 ns is 1 instruction of the guest. */
#include "harness.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long rounds = 20000;
static int words[2];

static void pin(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/*
 * kernel/qemu/profile.py counts the instructions between two marks. If it runs, UMCG_MARK names
 * a serial line, and it answers each mark there.
 */
static void mark(const char *what, long count)
{
	const char *path = getenv("UMCG_MARK");
	int line;
	char c;

	if (!path)
		return;
	line = open(path, O_RDWR);
	CHECK(line >= 0 && dprintf(line, "%ld %s\n", count, what) > 0 &&
	      read(line, &c, 1) == 1);
	close(line);
}

static uint64_t begin(const char *what, long count)
{
	mark(what, count);
	return now_ns();
}

static void say(const char *what, uint64_t from, long count)
{
	static struct rusage last;
	struct rusage now;
	uint64_t time = now_ns() - from;

	mark("end", 0);
	getrusage(RUSAGE_SELF, &now);
	printf("bench: %-34s %8.1f ns  (voluntary %.2f, involuntary %.2f)\n", what,
	       (double)time / count, (double)(now.ru_nvcsw - last.ru_nvcsw) / count,
	       (double)(now.ru_nivcsw - last.ru_nivcsw) / count);
	fflush(stdout);
	last = now;
}

static void futex_wait(int *word)
{
	while (!__atomic_load_n(word, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	*word = 0;
}

static void futex_wake(int *word)
{
	__atomic_store_n(word, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *pong(void *unused)
{
	long i;

	pin();
	for (i = 0; i < rounds; i++) {
		futex_wait(&words[1]);
		futex_wake(&words[0]);
	}
	return unused;
}

static void *partner(void *argument)
{
	struct worker *w = argument, *other = &workers[1 - w->id];
	long i;

	pin();
	register_worker(w);
	if (!w->id) {		/* both workers are here: switch back and forth */
		uint64_t from = begin("direct switch", rounds);

		for (i = 0; i < rounds; i++) {
			leave(&w->task);
			w->task.next_tid = other->task.tid;
			CHECK(!do_wait(0));
		}
		say("direct switch", from, rounds);
		from = begin("server round", rounds);
		for (i = 0; i < rounds; i++) {
			leave(&w->task);
			CHECK(!do_wait(0));
		}
		say("server round", from, rounds);
		from = begin("nanosleep of a worker", rounds / 10);
		for (i = 0; i < rounds / 10; i++)
			nanosleep(&(struct timespec){ .tv_nsec = 1 }, NULL);
		say("nanosleep of a worker", from, rounds / 10);
		_exit(0);
	}
	for (;;) {
		leave(&w->task);
		w->task.next_tid = other->task.tid;
		CHECK(!do_wait(0));
	}
	return NULL;
}

/* The server loop of the design mail (docs/traces.md), with one worker to run. */
static void serve(struct umcg_task *task, struct worker *w)
{
	for (;;) {
		leave(task);
		task->next_tid = 0;
		if (__atomic_exchange_n(&task->runnable_ptr, 0, __ATOMIC_SEQ_CST))
			w->task.runnable_ptr = 0;
		if (__atomic_exchange_n(&task->blocked_ptr, 0, __ATOMIC_SEQ_CST))
			w->task.blocked_ptr = 0;
		if (w->task.state == UMCG_RUNNABLE)
			task->next_tid = w->task.tid;
		CHECK(!do_wait(0));
	}
}

SCENARIO(bench)
{
	struct umcg_task *task = &servers[0].task;
	pthread_t thread;
	uint64_t from;
	uint32_t version;
	long i;

	if (argc > 0)
		rounds = atol(argv[0]);
	pin();
	from = begin("getppid", rounds);
	for (i = 0; i < rounds; i++)
		syscall(SYS_getppid);
	say("getppid", from, rounds);
	from = begin("ioctl", rounds);
	for (i = 0; i < rounds; i++)
		ioctl(device, UMCG_IOC_VERSION, &version);
	say("ioctl", from, rounds);
	pthread_create(&thread, NULL, pong, NULL);
	from = begin("futex", rounds);
	for (i = 0; i < rounds; i++) {
		futex_wake(&words[1]);
		futex_wait(&words[0]);
	}
	say("futex", from, rounds);
	pthread_join(thread, NULL);
	from = begin("nanosleep", rounds / 10);
	for (i = 0; i < rounds / 10; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1 }, NULL);
	say("nanosleep", from, rounds / 10);

	register_server(task);
	for (i = 1; i >= 0; i--) {
		workers[i].id = i;
		pthread_create(&workers[i].thread, NULL, partner, &workers[i]);
		while (workers[i].task.state != UMCG_RUNNABLE || !task->runnable_ptr)
			usleep(100);
		task->runnable_ptr = workers[i].task.runnable_ptr = 0;
	}
	serve(task, &workers[0]);
	return 0;
}
