// SPDX-License-Identifier: GPL-2.0
/*
 * Many workers that do a bit of everything, while other threads preempt them, send signals, or
 * write junk over all shared memory. Runs for a given time, or until it is killed.
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t end;
static int feed[2];
static bool tight;

static void one_round(struct worker *w)
{
	struct timespec time = { 0 };
	char c, *map;
	int ends[2], i;

	switch (draw(w) % 9) {
	case 0:
		time.tv_nsec = draw(w) * 60;
		nanosleep(&time, NULL);
		break;
	case 1: {
		struct pollfd poller = { .fd = feed[0], .events = POLLIN };

		if (poll(&poller, 1, draw(w) % 3) > 0 && read(feed[0], &c, 1) < 0)
			c = 0;
		break;
	}
	case 2:
		pthread_mutex_lock(&mutex);
		if (!(draw(w) % 4)) {
			time.tv_nsec = 50000;
			nanosleep(&time, NULL);
		}
		may_run();
		pthread_mutex_unlock(&mutex);
		break;
	case 3:
		map = mmap(NULL, 65536, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (map == MAP_FAILED)
			break;
		for (i = 0; i < 65536; i += 4096)
			map[i] = 1;
		munmap(map, 65536);
		break;
	case 4:
	case 5:
		yield_now();
		break;
	case 6:
		for (volatile int n = 0; n < (int)(draw(w) % 4000); n++)
			;
		break;
	case 7:
		sched_yield();
		break;
	default:
		if (pipe(ends))
			break;
		if (write(ends[1], "y", 1) == 1 && read(ends[0], &c, 1) != 1)
			FAIL("pipe");
		close(ends[0]);
		close(ends[1]);
	}
}

static void body(struct worker *w)
{
	while (now_ns() < end) {
		one_round(w);
		may_run();
		w->rounds++;
	}
}

static void on_signal(int signal)
{
	(void)signal;
	if (!me)
		return;
	/* A handler may run during an explicit WAIT, but never in the gate. */
	if (!me->waiting)
		may_run();
	me->signals++;
}

static void *send_signals(void *unused)
{
	unsigned int r = 1;

	while (alive > 0) {
		struct worker *w;

		r = r * 1103515245 + 12345;
		w = &workers[(r >> 16) % worker_count];
		if (!w->finished && w->task.tid)
			syscall(SYS_tgkill, getpid(), w->task.tid,
				(r >> 8) & 1 ? SIGUSR1 : SIGUSR2);
		if (!((r >> 20) & 3))
			kill(getpid(), SIGUSR1);
		usleep(300);
	}
	return unused;
}

static void *preempt_workers(void *unused)
{
	unsigned int r = (uintptr_t)&r;

	while (alive > 0) {
		r = r * 1103515245 + 12345;
		do_preempt(workers[(r >> 16) % worker_count].task.tid);
		if (!tight)
			usleep(500);
	}
	return unused;
}

static void *fill_pipe(void *unused)
{
	while (alive > 0) {
		if (write(feed[1], "x", 1) < 0 && errno != EAGAIN)
			FAIL("feed");
		usleep(400);
	}
	return unused;
}

static void report_stuck(void)
{
	int i;

	for (i = 0; i < worker_count; i++)
		fprintf(stderr, " w%d tid=%u state=%#x next=%u b=%#llx r=%#llx queued=%d offered=%u rounds=%ld host=%d finished=%d\n",
			i, workers[i].task.tid, workers[i].task.state,
			workers[i].task.next_tid,
			(unsigned long long)workers[i].task.blocked_ptr,
			(unsigned long long)workers[i].task.runnable_ptr,
			workers[i].queued, workers[i].offered, workers[i].rounds,
			workers[i].host ? workers[i].host->id : -1, workers[i].finished);
	for (i = 0; i < server_count; i++)
		fprintf(stderr, " s%d tid=%u state=%#x next=%u b=%#llx r=%#llx idle=%d slot=%d current=%d\n",
			i, servers[i].task.tid, servers[i].task.state,
			servers[i].task.next_tid,
			(unsigned long long)servers[i].task.blocked_ptr,
			(unsigned long long)servers[i].task.runnable_ptr,
			servers[i].idle, servers[i].slot, do_current(servers[i].task.tid));
	report("stuck");
	_Exit(3);
}

/* Fails if in two periods of 5 s in a row some worker made no progress. */
static void watch(void)
{
	long last[MAX_WORKERS] = { 0 };
	int i, rounds = 0;

	while (alive > 0) {
		bool none = false;

		for (i = 0; i < 50 && alive > 0; i++)
			usleep(100000);
		for (i = 0; i < worker_count; i++) {
			none |= !workers[i].gone && workers[i].rounds == last[i];
			last[i] = workers[i].rounds;
		}
		rounds = none && alive > 0 ? rounds + 1 : 0;
		if (rounds == 2)
			report_stuck();
	}
}

/*
 * stress SECONDS WORKERS SERVERS [p|P][s][t]: with p a thread preempts workers, with P two threads
 * do so as fast as they can; with s a thread sends signals; with t servers wait for 10 ms at most.
 */
SCENARIO(stress)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	int seconds = argc > 0 ? atoi(argv[0]) : 5;
	int total = argc > 1 ? atoi(argv[1]) : 16;
	int server_total = argc > 2 ? atoi(argv[2]) : 2;
	const char *options = argc > 3 ? argv[3] : "";
	pthread_t threads[4];
	int i, count = 0;
	sigset_t all;

	sigaction(SIGUSR1, &action, NULL);
	action.sa_flags = 0;
	sigaction(SIGUSR2, &action, NULL);
	CHECK(!pipe2(feed, O_NONBLOCK));
	end = seconds ? now_ns() + seconds * 1000000000ull : UINT64_MAX;
	start(server_total, total, body, strchr(options, 't') ? 10 : 0);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_create(&threads[count++], NULL, fill_pipe, NULL);
	tight = strchr(options, 'P');
	if (tight)
		pthread_create(&threads[count++], NULL, preempt_workers, NULL);
	if (tight || strchr(options, 'p'))
		pthread_create(&threads[count++], NULL, preempt_workers, NULL);
	if (strchr(options, 's'))
		pthread_create(&threads[count++], NULL, send_signals, NULL);
	watch();
	finish();
	for (i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	report("stress");
	CHECK(!violations);
	CHECK(do_stat(0).live == 0);
	return 0;
}

/* CURRENT must answer with a tid, or 0. A word out of freed memory is neither. */
static void check_current(struct server *s)
{
	int tid = do_current(s->task.tid);

	if (tid != -ESRCH && (tid < 0 || tid > 1 << 22))
		FAIL("the slot of server %d holds %#x", s->id, tid);
}

static unsigned int any(unsigned int *random, int count)
{
	*random = *random * 1103515245 + 12345;
	return (*random >> 16) % count;
}

/* Changes the heads as fast as it can: the kernel gives up pushes and repeats them unlocked. */
static void *hammer(void *unused)
{
	uint64_t junk = 0;
	int i;

	while (now_ns() < end)
		for (i = 0; i < 10000; i++)
			__atomic_store_n(&servers[i % server_count].task.runnable_ptr,
					 junk += 64, __ATOMIC_RELAXED);
	return unused;
}

static void *write_junk(void *unused)
{
	unsigned int r = own_tid();

	while (now_ns() < end) {
		struct umcg_task *server = &servers[any(&r, server_count)].task;
		struct umcg_task *victim = &workers[any(&r, worker_count)].task;

		__atomic_exchange_n(&server->blocked_ptr, 0x20, __ATOMIC_SEQ_CST);
		__atomic_exchange_n(&server->runnable_ptr, 0x40, __ATOMIC_SEQ_CST);
		__atomic_exchange_n(&server->state, now_ns() & 0xffff0003u, __ATOMIC_SEQ_CST);
		__atomic_exchange_n(&server->next_tid, now_ns() & 0xfff, __ATOMIC_SEQ_CST);
		__atomic_exchange_n(&victim->server_tid,
				    servers[any(&r, server_count)].task.tid, __ATOMIC_SEQ_CST);
		if (any(&r, 8))
			continue;
		__atomic_exchange_n(&victim->blocked_ptr, now_ns(), __ATOMIC_SEQ_CST);
		__atomic_exchange_n(&victim->runnable_ptr, 0, __ATOMIC_SEQ_CST);
		__atomic_exchange_n(&victim->state, now_ns() & 3, __ATOMIC_SEQ_CST);
		__atomic_exchange_n(&victim->next_tid,
				    workers[any(&r, worker_count)].task.tid, __ATOMIC_SEQ_CST);
	}
	return unused;
}

/* Retries until no junk comes in between. False if the time is over before that. */
static bool force_in(struct umcg_task *task, unsigned int flags, unsigned int *random)
{
	while (now_ns() < end) {
		task->tid = own_tid();
		task->server_tid = flags ? servers[any(random, server_count)].task.tid : task->tid;
		task->next_tid = task->state = 0;
		if (flags)
			task->blocked_ptr = task->runnable_ptr = 0;
		if (!do_register(task, flags))
			return true;
		usleep(50);
	}
	return false;
}

static void *hostile_worker(void *argument)
{
	struct worker *w = argument;
	int naps;

	if (!force_in(&w->task, UMCG_REG_WORKER, &w->random))
		return NULL;
	for (naps = any(&w->random, 50); naps; naps--) {
		usleep(10);
		w->rounds++;
	}
	if (any(&w->random, 2))
		do_unregister(&w->task);
	return NULL;
}

static void *hostile_server(void *argument)
{
	struct server *s = argument;
	unsigned int r = own_tid();
	uint64_t until = now_ns() + 20000000 + r % 16 * 2000000;

	if (!force_in(&s->task, 0, &r))
		return NULL;
	while (now_ns() < until) {
		s->task.state = UMCG_RUNNABLE;
		s->task.next_tid = workers[any(&r, worker_count)].task.tid;
		do_wait(now_ns() + 1000000);
		do_preempt(workers[any(&r, worker_count)].task.tid);
		check_current(s);
		check_current(&servers[any(&r, server_count)]);
		s->switches++;
	}
	if (r & 1)
		do_unregister(&s->task);
	return NULL;
}

/* Threads that register one after the other; most end without UNREGISTER. */
static void *hostile_workers(void *argument)
{
	pthread_t thread;

	while (now_ns() < end) {
		CHECK(!pthread_create(&thread, NULL, hostile_worker, argument));
		pthread_join(thread, NULL);
	}
	return NULL;
}

static void *hostile_servers(void *argument)
{
	pthread_t thread;

	while (now_ns() < end) {
		CHECK(!pthread_create(&thread, NULL, hostile_server, argument));
		pthread_join(thread, NULL);
	}
	return NULL;
}

/*
 * hostile SECONDS WORKERS SERVERS: junk is written over every shared word while servers and workers
 * come and go. Checks only that the kernel survives, that it shows no freed memory, and that
 * SIGKILL works. With 0 seconds it runs until killed.
 */
SCENARIO(hostile)
{
	int seconds = argc > 0 ? atoi(argv[0]) : 5;
	pthread_t thread;
	int i;

	worker_count = argc > 1 ? atoi(argv[1]) : 16;
	server_count = argc > 2 ? atoi(argv[2]) : 2;
	end = seconds ? now_ns() + seconds * 1000000000ull : UINT64_MAX;
	for (i = 0; i < server_count; i++) {
		servers[i].id = i;
		pthread_create(&thread, NULL, hostile_servers, &servers[i]);
	}
	for (i = 0; i < worker_count; i++) {
		workers[i].id = workers[i].random = i;
		pthread_create(&thread, NULL, hostile_workers, &workers[i]);
	}
	pthread_create(&thread, NULL, hammer, NULL);
	pthread_create(&thread, NULL, write_junk, NULL);
	while (now_ns() < end)
		usleep(100000);
	report("hostile");
	CHECK(do_stat(0).gates > 0);
	_exit(0);
}
