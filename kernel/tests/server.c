// SPDX-License-Identifier: GPL-2.0
/* Servers that go away, workers that come, and those that change their server. */
#include "harness.h"

#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int answers[3];
static int ends[2];

static void *orphan(void *argument)
{
	struct worker *w = argument;
	char c;

	w->task.server_tid = servers[0].task.tid;
	w->task.tid = own_tid();
	answers[w->id] = do_register(&w->task, UMCG_REG_WORKER);
	if (answers[w->id])
		return NULL;
	if (w->id == 0) {
		/* Blocked while the server dies. */
		CHECK(read(ends[0], &c, 1) == 1);
		CHECK(w->task.state == UMCG_RUNNING);
		CHECK(ioctl(device, UMCG_IOC_CHECK) == -1 && errno == ESRCH);
	}
	leave(&w->task);
	answers[w->id] = do_wait(0);
	CHECK(w->task.state == UMCG_RUNNING);
	CHECK(!do_unregister(&w->task));
	return NULL;
}

static void *mortal(void *argument)
{
	struct server *s = argument;
	int i;

	s->task.tid = s->task.server_tid = own_tid();
	CHECK(!do_register(&s->task, 0));
	for (i = 0; i < 3; i++) {
		workers[i].id = i;
		pthread_create(&workers[i].thread, NULL, orphan, &workers[i]);
		while (__atomic_load_n(&workers[i].task.state, __ATOMIC_SEQ_CST) != UMCG_RUNNABLE)
			usleep(100);
		if (i == 2)
			break;
		/* Twice: it runs, and blocks (0) or waits (1). */
		do {
			s->task.runnable_ptr = s->task.blocked_ptr = 0;
			workers[i].task.runnable_ptr = 0;
			leave(&s->task);
			s->task.next_tid = workers[i].task.tid;
			CHECK(!do_wait(0));
		} while (s->task.next_tid);
	}
	return NULL;	/* exits without UNREGISTER */
}

int test_server_death(int argc, char **argv)
{
	pthread_t thread;
	int i;

	(void)argc, (void)argv;
	worker_count = 3;
	CHECK(!pipe(ends));
	pthread_create(&thread, NULL, mortal, &servers[0]);
	pthread_join(thread, NULL);
	for (i = 1; i < 3; i++)
		pthread_join(workers[i].thread, NULL);
	CHECK(write(ends[1], "x", 1) == 1);
	pthread_join(workers[0].thread, NULL);
	for (i = 0; i < 3; i++)
		CHECK(answers[i] == -ESRCH);
	CHECK(do_stat(0).live == 0);
	printf("server death: blocked, waiting and unadmitted workers are free\n");
	return 0;
}

static void *reader(void *argument)
{
	struct worker *w = argument;
	char c;

	w->task.server_tid = servers[0].task.tid;
	w->task.tid = own_tid();
	CHECK(!do_register(&w->task, UMCG_REG_WORKER));
	CHECK(read(ends[0], &c, 1) == 1);
	CHECK(ioctl(device, UMCG_IOC_CHECK) == -1 && errno == ESRCH);
	CHECK(w->task.state == UMCG_RUNNING && !do_unregister(&w->task));
	return NULL;
}

static void drain(struct umcg_task *server)
{
	__atomic_exchange_n(&server->blocked_ptr, 0, __ATOMIC_SEQ_CST);
	__atomic_exchange_n(&server->runnable_ptr, 0, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 2; i++)
		workers[i].task.blocked_ptr = workers[i].task.runnable_ptr = 0;
}

/*
 * A server goes while its worker is asleep in a system call, and registers again, with
 * the same thread id: that is another server, and the worker an ordinary thread.
 */
int test_rebirth(int argc, char **argv)
{
	struct umcg_task *task = &servers[0].task;
	struct worker *w = &workers[0];
	int i;

	(void)argc, (void)argv;
	alarm(60);
	CHECK(!pipe(ends));
	for (i = 0; i < 20; i++) {
		task = &servers[i % 2].task;
		memset(task, 0, sizeof(*task));
		memset(&w->task, 0, sizeof(w->task));
		task->tid = task->server_tid = servers[0].task.tid = own_tid();
		CHECK(!do_register(task, 0));
		pthread_create(&w->thread, NULL, reader, w);
		while (w->task.state != UMCG_BLOCKED || w->task.blocked_ptr == 0) {
			leave(task);
			/* Half of the time the pick is all that it hears of its worker. */
			if (i % 4 < 2)
				drain(task);
			task->next_tid = w->task.state == UMCG_RUNNABLE ? w->task.tid : 0;
			do_wait(now_ns() + 1000000);
		}
		CHECK(!do_unregister(task));
		task = &servers[(i + 1) % 2].task;
		memset(task, 0, sizeof(*task));
		task->tid = task->server_tid = own_tid();
		CHECK(!do_register(task, 0));
		CHECK(write(ends[1], "x", 1) == 1);
		pthread_join(w->thread, NULL);
		CHECK(!do_unregister(task));
	}
	CHECK(do_stat(0).live == 0);
	printf("rebirth: %d times\n", i);
	return 0;
}

static atomic_bool let_go, left_slot;
static atomic_int waited = 1;

static void *first_server(void *argument)
{
	struct umcg_task *task = &servers[0].task, *w = &workers[0].task;

	(void)argument;
	task->server_tid = own_tid();
	task->tid = own_tid();
	CHECK(!do_register(task, 0));
	while (!workers[0].gone) {
		leave(task);
		drain(task);
		task->next_tid = w->state == UMCG_RUNNABLE && w->server_tid == task->tid &&
				 !left_slot ? w->tid : 0;
		do_wait(now_ns() + 5000000);
	}
	CHECK(!do_unregister(task));
	return NULL;
}

static void *stolen(void *argument)
{
	struct worker *w = argument;

	w->task.server_tid = servers[0].task.tid;
	w->task.tid = own_tid();
	CHECK(!do_register(&w->task, UMCG_REG_WORKER));
	leave(&w->task);
	left_slot = true;
	while (!let_go)
		;
	waited = do_wait(0);
	CHECK(w->task.state == UMCG_RUNNING && !do_unregister(&w->task));
	w->gone = true;
	return NULL;
}

static void *bystander(void *argument)
{
	struct worker *w = argument;

	w->task.server_tid = servers[0].task.tid;
	w->task.tid = own_tid();
	CHECK(!do_register(&w->task, UMCG_REG_WORKER));
	CHECK(ioctl(device, UMCG_IOC_CHECK) == -1 && errno == ESRCH);
	CHECK(!do_unregister(&w->task));
	return NULL;
}

/*
 * A worker that has left RUNNING is taken by another server before it comes to its WAIT.
 * @dies: that one is gone by then; the worker must not wait for it. Else it is armed with
 * another worker, and picked.
 */
static void steal(bool dies)
{
	struct umcg_task *task = &servers[1].task;
	struct worker *w = &workers[0], *other = &workers[1];
	pthread_t first;

	memset(workers, 0, 2 * sizeof(workers[0]));
	memset(servers, 0, 2 * sizeof(servers[0]));
	left_slot = let_go = false;
	waited = 1;
	task->tid = task->server_tid = own_tid();
	CHECK(!do_register(task, 0));
	pthread_create(&first, NULL, first_server, NULL);
	while (servers[0].task.state != UMCG_RUNNABLE)
		usleep(50);
	pthread_create(&other->thread, NULL, bystander, other);
	pthread_create(&w->thread, NULL, stolen, w);
	while (!left_slot || other->task.state != UMCG_RUNNABLE)
		usleep(50);
	w->task.server_tid = task->tid;
	if (dies) {
		CHECK(!do_unregister(task));
		let_go = true;
		pthread_join(w->thread, NULL);
		CHECK(waited == -ESRCH);
	} else {
		w->task.next_tid = other->task.tid;
		let_go = true;
		/* Until it is in its WAIT, the slot of the first server is not free. */
		while (do_current(servers[0].task.tid) == (int)w->task.tid)
			usleep(50);
		CHECK(!do_preempt(other->task.tid));
		do {
			leave(task);
			task->next_tid = w->task.tid;
			do_wait(now_ns() + 100000000);
		} while (task->next_tid);
		pthread_join(w->thread, NULL);
		CHECK(!waited && w->task.next_tid == other->task.tid);
		CHECK(!do_unregister(task));
	}
	pthread_join(first, NULL);
	pthread_join(other->thread, NULL);
	CHECK(do_stat(0).live == 0);
}

int test_steal(int argc, char **argv)
{
	(void)argc, (void)argv;
	alarm(60);
	for (int i = 0; i < 20; i++) {
		steal(true);
		steal(false);
	}
	printf("steal: ok\n");
	return 0;
}

static atomic_bool admitted;
static atomic_long early, handled;

static void on_signal(int number)
{
	(void)number;
	early += !admitted;
	handled++;
}

static void *applicant(void *argument)
{
	struct worker *w = argument;

	w->task.server_tid = servers[0].task.tid;
	w->task.tid = own_tid();
	CHECK(!do_register(&w->task, UMCG_REG_WORKER));
	CHECK(admitted && w->task.state == UMCG_RUNNING);
	w->finished = true;
	CHECK(!do_unregister(&w->task));
	return NULL;
}

/* A worker that waits to be admitted runs nothing, not even a handler, before it is picked. */
int test_admission(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct umcg_task *task = &servers[0].task;
	struct worker *w = &workers[0];
	sigset_t mask;
	int i, round;

	(void)argc, (void)argv;
	alarm(60);
	sigaction(SIGUSR1, &action, NULL);
	action.sa_flags = 0;
	sigaction(SIGUSR2, &action, NULL);
	task->tid = task->server_tid = own_tid();
	CHECK(!do_register(task, 0));
	/* Signals of the process are for the worker alone. */
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGUSR2);
	for (round = 0; round < 50; round++) {
		memset(&w->task, 0, sizeof(w->task));
		w->finished = admitted = false;
		handled = 0;
		pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
		pthread_create(&w->thread, NULL, applicant, w);
		pthread_sigmask(SIG_BLOCK, &mask, NULL);
		while (__atomic_load_n(&w->task.state, __ATOMIC_SEQ_CST) != UMCG_RUNNABLE)
			usleep(50);
		for (i = 0; i < 10; i++) {
			int number = i % 2 ? SIGUSR1 : SIGUSR2;

			CHECK(!(i % 3 ? pthread_kill(w->thread, number) :
					kill(getpid(), number)));
			usleep(round % 5 * 200);
		}
		CHECK(w->task.state == UMCG_RUNNABLE);
		leave(task);
		task->runnable_ptr = w->task.runnable_ptr = 0;
		admitted = true;
		task->next_tid = w->task.tid;
		while (!w->finished) {
			do_wait(now_ns() + 10000000);
			leave(task);
			if (__atomic_exchange_n(&task->runnable_ptr, 0, __ATOMIC_SEQ_CST))
				w->task.runnable_ptr = 0;
			if (__atomic_exchange_n(&task->blocked_ptr, 0, __ATOMIC_SEQ_CST))
				w->task.blocked_ptr = 0;
			if (w->task.state == UMCG_RUNNABLE)
				task->next_tid = w->task.tid;
		}
		do_wait(now_ns());
		pthread_join(w->thread, NULL);
		CHECK(handled > 0);
	}
	printf("admission: handlers before the pick %ld, user_returns %llu\n", (long)early,
	       (unsigned long long)do_stat(0).user_returns);
	CHECK(!early);
	return 0;
}

static atomic_bool asleep_in_gate;

static void *gated(void *argument)
{
	struct worker *w = argument;

	w->task.server_tid = servers[0].task.tid;
	w->task.tid = own_tid();
	CHECK(!do_register(&w->task, UMCG_REG_WORKER));
	usleep(20000);
	asleep_in_gate = true;		/* not before the file is closed */
	CHECK(w->task.state == UMCG_RUNNING);
	return NULL;
}

/* The file is closed over a worker in the gate and one that runs. */
int test_close(int argc, char **argv)
{
	struct umcg_task *task = &servers[0].task;
	static struct umcg_task again;
	pthread_t thread;

	(void)argc, (void)argv;
	task->tid = task->server_tid = own_tid();
	CHECK(!do_register(task, 0));
	pthread_create(&thread, NULL, gated, &workers[0]);
	while (!__atomic_load_n(&task->runnable_ptr, __ATOMIC_SEQ_CST))
		usleep(100);
	task->runnable_ptr = workers[0].task.runnable_ptr = 0;
	do {				/* an event may come first */
		leave(task);
		task->next_tid = workers[0].task.tid;
		CHECK(!do_wait(0));	/* until it naps */
	} while (task->next_tid);
	usleep(100000);
	CHECK(!asleep_in_gate && workers[0].task.state == UMCG_RUNNABLE);
	close(device);
	pthread_join(thread, NULL);
	open_device();
	again.tid = again.server_tid = own_tid();
	CHECK(!do_register(&again, 0));	/* the old registration is forgotten */
	CHECK(!do_unregister(&again));
	printf("close: ok\n");
	return 0;
}
