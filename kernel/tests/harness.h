/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The code that the module's tests share: the server loop of the design mail
 * (docs/traces.md) over one run queue for all servers, workers, and the check
 * that matters most: user code of a worker runs only while the worker is in the
 * slot of its server.
 */
#ifndef HARNESS_H
#define HARNESS_H

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#include "../umcg_uapi.h"

#define MAX_WORKERS	128
#define MAX_SERVERS	8

struct server;

struct worker {
	struct umcg_task task;		/* first: list entries are cast to a worker */
	int id;
	void (*body)(struct worker *w);
	pthread_t thread;
	_Atomic(struct server *) host;	/* set by the server that dispatches it */
	_Atomic uint32_t offered;	/* it yielded to the server with this tid */
	atomic_bool finished;		/* its body has returned */
	atomic_bool gone;		/* and a server has counted that */
	atomic_bool waiting;		/* from its step to RUNNABLE to the end of WAIT */
	atomic_long rounds, blocked, runnable, signals;
	unsigned int random;
	struct worker *next;		/* in the run queue */
	bool queued;			/* is in the run queue */
};

struct server {
	struct umcg_task task;
	int id;
	pthread_t thread;
	_Atomic int slot;		/* id of the worker that may run, -1 = none */
	atomic_bool idle;
	int slice_ms;			/* deadline of its waits, 0 = none */
	long switches, idles, timeouts;
};

extern int device;
extern struct worker workers[MAX_WORKERS];
extern struct server servers[MAX_SERVERS];
extern int worker_count, server_count;
extern atomic_int alive;		/* workers whose end no server has counted yet */
extern atomic_long violations;
extern bool pin_servers;		/* each server to the CPU of its id */
extern __thread struct worker *me;	/* the calling worker, NULL in other threads */

#define FAIL(...) do { \
	fprintf(stderr, "FAIL %s:%d: ", __FILE__, __LINE__); \
	fprintf(stderr, __VA_ARGS__); \
	fprintf(stderr, " (errno %d)\n", errno); \
	fflush(stderr); \
	_Exit(1); \
} while (0)

#define CHECK(condition) do { \
	if (!(condition)) \
		FAIL("%s", #condition); \
} while (0)

uint64_t now_ns(void);
uint32_t own_tid(void);
void open_device(void);
/* For a forked child: the parent's descriptor does not work there. */
void reopen_device(void);

/* The calls. Each returns 0 (do_current: a tid) or -errno. */
int do_register(struct umcg_task *task, uint32_t flags);
int do_unregister(struct umcg_task *task);
int do_wait(uint64_t deadline_ns);
int do_preempt(uint32_t tid);
int do_current(uint32_t server_tid);
struct umcg_stat do_stat(uint32_t tid);

/* The step from RUNNING to RUNNABLE, repeated while a preemption comes first. */
void leave(struct umcg_task *task);

/* Counts a violation if the caller is a worker that is not in its server's slot. */
void may_run(void);
void yield_now(void);
unsigned int draw(struct worker *w);

/* Runs servers and workers: the whole of most scenarios. */
void start(int server_total, int worker_total, void (*body)(struct worker *w),
	   int slice_ms);
void finish(void);
void report(const char *name);

/*
 * The parts of a server for scenarios that decide step by step what happens. The
 * calling thread becomes a server, or a worker of servers[0].
 */
void register_server(struct umcg_task *server);
void register_worker(struct worker *w);
/* Takes both lists of the server and unlinks every worker on them. */
void unlink_all(struct umcg_task *server);
/* Unlinks all, picks @w if it is RUNNABLE, and waits. Returns what WAIT returned. */
int turn(struct umcg_task *server, struct umcg_task *w, uint64_t deadline_ns);
/* Picks @w until the switch is made: @w was in the slot, and left it or woke the server. */
void run_once(struct umcg_task *server, struct umcg_task *w);

/* Attaches to at most 64 threads of @child. Returns how many they are. */
int attach_all(pid_t child, pid_t *tids, long options);
/* Lets traced threads continue until @child has ended. *@exits counts their exit stops. */
int wait_for_end(pid_t child, int *exits);

/* A scenario returns 0, or ends the process with a message. */
#define SCENARIO(name) \
	int test_##name(int argc __attribute__((unused)), char **argv __attribute__((unused)))

SCENARIO(arguments_are_checked);
SCENARIO(pages_are_accounted);
SCENARIO(32_bit_calls);
SCENARIO(blocks_are_reported);
SCENARIO(late_offer_wakes_server);
SCENARIO(pick_of_holder_is_kept);
SCENARIO(unregister_after_sleep);
SCENARIO(stress);
SCENARIO(hostile);
SCENARIO(forked_child_is_refused);
SCENARIO(exec_ends_registrations);
SCENARIO(exec_in_storm);
SCENARIO(after_exec);
SCENARIO(exit_releases_slot);
SCENARIO(server_exit_detaches);
SCENARIO(server_tid_reused);
SCENARIO(claim_before_wait);
SCENARIO(nothing_runs_before_admission);
SCENARIO(close_detaches);
SCENARIO(sigstop_in_storm);
SCENARIO(ptrace_in_storm);
SCENARIO(freezer_in_storm);
SCENARIO(fatal_signals_in_storm);
SCENARIO(cpu_hotplug_in_storm);
SCENARIO(io_uring);
SCENARIO(io_uring_completes_in_gate);
SCENARIO(io_uring_cancels_at_exit);
SCENARIO(bench);

#endif /* HARNESS_H */
