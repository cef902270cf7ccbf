// SPDX-License-Identifier: GPL-2.0
/* Servers that go away, workers that are admitted, and workers that change their server. */
#include "harness.h"

#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int answers[3];
static int ends[2];

static void *worker_of_dead_server(void *argument)
{
	struct worker *w = argument;
	char c;

	w->task.server_tid = servers[0].task.tid;
	w->task.tid = own_tid();
	answers[w->id] = do_register(&w->task, UMCG_REG_WORKER);
	if (answers[w->id])
		return NULL;
	if (w->id == 0) {
		/* This worker is blocked while the server exits. */
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

static void *server_that_exits(void *argument)
{
	struct server *s = argument;
	int i;

	register_server(&s->task);
	for (i = 0; i < 3; i++) {
		workers[i].id = i;
		pthread_create(&workers[i].thread, NULL, worker_of_dead_server, &workers[i]);
		while (__atomic_load_n(&workers[i].task.state, __ATOMIC_SEQ_CST) != UMCG_RUNNABLE)
			usleep(100);
		if (i == 2)
			break;
		/* Worker 0 runs and blocks, worker 1 runs and waits to be picked. */
		run_once(&s->task, &workers[i].task);
	}
	return NULL;	/* exits without UNREGISTER */
}

SCENARIO(server_exit_detaches)
{
	pthread_t thread;
	int i;

	worker_count = 3;
	CHECK(!pipe(ends));
	pthread_create(&thread, NULL, server_that_exits, &servers[0]);
	pthread_join(thread, NULL);
	for (i = 1; i < 3; i++)
		pthread_join(workers[i].thread, NULL);
	CHECK(write(ends[1], "x", 1) == 1);
	pthread_join(workers[0].thread, NULL);
	for (i = 0; i < 3; i++)
		CHECK(answers[i] == -ESRCH);
	CHECK(do_stat(0).live == 0);
	printf("server exit: blocked, waiting and unadmitted workers are detached\n");
	return 0;
}

static void *reader_of_pipe(void *argument)
{
	struct worker *w = argument;
	char c;

	register_worker(w);
	CHECK(read(ends[0], &c, 1) == 1);
	CHECK(ioctl(device, UMCG_IOC_CHECK) == -1 && errno == ESRCH);
	CHECK(w->task.state == UMCG_RUNNING && !do_unregister(&w->task));
	return NULL;
}

/*
 * A server unregisters while its worker is asleep in a system call, and its thread registers again,
 * with the same tid. That is another server; the worker is detached.
 */
SCENARIO(server_tid_reused)
{
	struct umcg_task *task = &servers[0].task;
	struct worker *w = &workers[0];
	int i;

	alarm(60);
	CHECK(!pipe(ends));
	for (i = 0; i < 20; i++) {
		task = &servers[i % 2].task;
		memset(task, 0, sizeof(*task));
		memset(&w->task, 0, sizeof(w->task));
		servers[0].task.tid = own_tid();	/* the worker reads it there */
		register_server(task);
		pthread_create(&w->thread, NULL, reader_of_pipe, w);
		while (w->task.state != UMCG_BLOCKED || w->task.blocked_ptr == 0) {
			leave(task);
			/* In half of the rounds only the pick tells the server of its worker. */
			if (i % 4 < 2)
				unlink_all(task);
			task->next_tid = w->task.state == UMCG_RUNNABLE ? w->task.tid : 0;
			do_wait(now_ns() + 1000000);
		}
		CHECK(!do_unregister(task));
		task = &servers[(i + 1) % 2].task;
		memset(task, 0, sizeof(*task));
		register_server(task);
		CHECK(write(ends[1], "x", 1) == 1);
		pthread_join(w->thread, NULL);
		CHECK(!do_unregister(task));
	}
	CHECK(do_stat(0).live == 0);
	printf("tid of a server reused: %d times\n", i);
	return 0;
}

static atomic_bool let_go, left_slot;
static atomic_int waited = 1;

static void *first_server(void *argument)
{
	struct umcg_task *task = &servers[0].task, *w = &workers[0].task;

	(void)argument;
	register_server(task);
	while (!workers[0].gone) {
		leave(task);
		unlink_all(task);
		task->next_tid = w->state == UMCG_RUNNABLE && w->server_tid == task->tid &&
				 !left_slot ? w->tid : 0;
		do_wait(now_ns() + 5000000);
	}
	CHECK(!do_unregister(task));
	return NULL;
}

static void *claimed_worker(void *argument)
{
	struct worker *w = argument;

	register_worker(w);
	leave(&w->task);
	left_slot = true;
	while (!let_go)
		;
	waited = do_wait(0);
	CHECK(w->task.state == UMCG_RUNNING && !do_unregister(&w->task));
	w->gone = true;
	return NULL;
}

static void *idle_worker(void *argument)
{
	struct worker *w = argument;

	register_worker(w);
	CHECK(ioctl(device, UMCG_IOC_CHECK) == -1 && errno == ESRCH);
	CHECK(!do_unregister(&w->task));
	return NULL;
}

/*
 * A worker that has left RUNNING changes to another server before it calls WAIT. With @dies that
 * server is gone by then, and the worker must not wait for it. Otherwise the server arms it with
 * a spare and picks it.
 */
static void claim_before_wait(bool dies)
{
	struct umcg_task *task = &servers[1].task;
	struct worker *w = &workers[0], *other = &workers[1];
	pthread_t first;

	memset(workers, 0, 2 * sizeof(workers[0]));
	memset(servers, 0, 2 * sizeof(servers[0]));
	left_slot = let_go = false;
	waited = 1;
	register_server(task);
	pthread_create(&first, NULL, first_server, NULL);
	while (servers[0].task.state != UMCG_RUNNABLE)
		usleep(50);
	pthread_create(&other->thread, NULL, idle_worker, other);
	pthread_create(&w->thread, NULL, claimed_worker, w);
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
		/* The first server has its slot back only when the worker is in its WAIT. */
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

SCENARIO(claim_before_wait)
{
	alarm(60);
	for (int i = 0; i < 20; i++) {
		claim_before_wait(true);
		claim_before_wait(false);
	}
	printf("claim before WAIT: ok\n");
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

static void *admitted_worker(void *argument)
{
	struct worker *w = argument;

	register_worker(w);
	CHECK(admitted && w->task.state == UMCG_RUNNING);
	w->finished = true;
	CHECK(!do_unregister(&w->task));
	return NULL;
}

/* Before a server picks it, a new worker runs nothing, not even a signal handler. */
SCENARIO(nothing_runs_before_admission)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct umcg_task *task = &servers[0].task;
	struct worker *w = &workers[0];
	sigset_t mask;
	int i, round;

	alarm(60);
	sigaction(SIGUSR1, &action, NULL);
	action.sa_flags = 0;
	sigaction(SIGUSR2, &action, NULL);
	register_server(task);
	/* Only the worker takes signals that are sent to the process. */
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGUSR2);
	for (round = 0; round < 50; round++) {
		memset(&w->task, 0, sizeof(w->task));
		w->finished = admitted = false;
		handled = 0;
		pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
		pthread_create(&w->thread, NULL, admitted_worker, w);
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
		admitted = true;
		while (!w->finished)
			turn(task, &w->task, now_ns() + 10000000);
		pthread_join(w->thread, NULL);
		CHECK(handled > 0);
	}
	printf("admission: handlers before the pick %ld, user_returns %llu\n", (long)early,
	       (unsigned long long)do_stat(0).user_returns);
	CHECK(!early);
	return 0;
}

static atomic_bool past_gate;

static void *gate_sleeper(void *argument)
{
	struct worker *w = argument;
	char c;

	register_worker(w);
	CHECK(read(ends[0], &c, 1) == 1);
	past_gate = true;		/* must not be reached before the file is closed */
	CHECK(w->task.state == UMCG_RUNNING);
	return NULL;
}

/* Closing the file detaches a worker in the gate. */
SCENARIO(close_detaches)
{
	struct umcg_task *task = &servers[0].task;
	static struct umcg_task again;
	pthread_t thread;

	CHECK(!pipe(ends));
	register_server(task);
	pthread_create(&thread, NULL, gate_sleeper, &workers[0]);
	while (!__atomic_load_n(&task->runnable_ptr, __ATOMIC_SEQ_CST))
		usleep(100);
	run_once(task, &workers[0].task);	/* until it blocks */
	CHECK(write(ends[1], "x", 1) == 1);
	while (__atomic_load_n(&workers[0].task.state, __ATOMIC_SEQ_CST) != UMCG_RUNNABLE)
		usleep(100);
	usleep(100000);
	CHECK(!past_gate && workers[0].task.state == UMCG_RUNNABLE);
	close(device);
	pthread_join(thread, NULL);
	open_device();
	register_server(&again);	/* the old registration is forgotten */
	CHECK(!do_unregister(&again));
	printf("close: ok\n");
	return 0;
}
