/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of the module share: the mail's server loop over a run queue
 * that all servers share, workers, and the one check that matters: user code of
 * a worker runs only while it is in its server's slot.
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
	struct umcg_task task;
	int id;
	void (*body)(struct worker *w);
	pthread_t thread;
	_Atomic(struct server *) host;	/* set by who dispatches it */
	_Atomic uint32_t offered;	/* yielded to the server with this tid */
	atomic_bool finished;		/* its body is done */
	atomic_bool gone;		/* and its server knows */
	atomic_bool waiting;		/* from its step to RUNNABLE to the end of WAIT */
	atomic_long rounds, blocked, runnable, signals;
	unsigned int random;
	struct worker *next;		/* run queue */
	bool queued;
};

struct server {
	struct umcg_task task;
	int id;
	pthread_t thread;
	_Atomic int slot;		/* id of the worker that may run, -1 = none */
	atomic_bool idle;
	int slice_ms;			/* 0 = no deadline */
	long switches, idles, timeouts;
};

extern int device;
extern struct worker workers[MAX_WORKERS];
extern struct server servers[MAX_SERVERS];
extern int worker_count, server_count;
extern atomic_int alive;		/* workers whose exit no server has seen */
extern atomic_long violations;
extern atomic_bool stop;
extern bool pin_servers;		/* each to the CPU of its number */
extern __thread struct worker *me;

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

/* The calls; -errno */
int do_register(struct umcg_task *task, uint32_t flags);
int do_unregister(struct umcg_task *task);
int do_wait(uint64_t deadline_ns);
int do_preempt(uint32_t tid);
int do_current(uint32_t server_tid);
struct umcg_stat do_stat(uint32_t tid);

/* First step out of RUNNING; repeated while a preemption comes first. */
void leave(struct umcg_task *task);

/* Counts a violation if the caller, a worker, should not be running. */
void may_run(void);
void yield_now(void);
unsigned int draw(struct worker *w);

/* Servers and workers of one scenario. */
void start(int server_total, int worker_total, void (*body)(struct worker *w),
	   int slice_ms);
void finish(void);
void report(const char *name);

/* Attaches to each thread of @child, at most 64; how many. */
int attach_all(pid_t child, pid_t *tids, long options);
/* Lets traced threads go on until @child has ended; *@exits: stops at an end. */
int wait_for_end(pid_t child, int *exits);

/* Scenarios; each returns 0 or dies. */
int test_blocks(int argc, char **argv);
int test_late(int argc, char **argv);
int test_held(int argc, char **argv);
int test_unregister(int argc, char **argv);
int test_stress(int argc, char **argv);
int test_hostile(int argc, char **argv);
int test_abi(int argc, char **argv);
int test_memory(int argc, char **argv);
int test_compat(int argc, char **argv);
int test_fork(int argc, char **argv);
int test_exec(int argc, char **argv);
int test_exec_storm(int argc, char **argv);
int test_exit(int argc, char **argv);
int test_server_death(int argc, char **argv);
int test_rebirth(int argc, char **argv);
int test_steal(int argc, char **argv);
int test_admission(int argc, char **argv);
int test_close(int argc, char **argv);
int test_stop(int argc, char **argv);
int test_ptrace(int argc, char **argv);
int test_freezer(int argc, char **argv);
int test_kill(int argc, char **argv);
int test_hotplug(int argc, char **argv);
int test_io_uring(int argc, char **argv);
int test_io_uring_gate(int argc, char **argv);
int test_io_uring_death(int argc, char **argv);
int bench(int argc, char **argv);

#endif /* HARNESS_H */
