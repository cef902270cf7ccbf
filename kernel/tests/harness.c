// SPDX-License-Identifier: GPL-2.0
#include "harness.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int device = -1;
struct worker workers[MAX_WORKERS];
struct server servers[MAX_SERVERS];
int worker_count, server_count;
atomic_int alive;
atomic_long violations;
bool pin_servers;
__thread struct worker *me;

static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static struct worker *queue_head, **queue_tail = &queue_head;
static int queue_length;
static atomic_bool open_for_work;

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

uint32_t own_tid(void)
{
	return syscall(SYS_gettid);
}

void open_device(void)
{
	device = open("/dev/umcg", O_RDWR | O_CLOEXEC);
	if (device < 0)
		FAIL("open /dev/umcg");
}

void reopen_device(void)
{
	close(device);
	open_device();
}

static int call(unsigned long request, void *argument)
{
	return ioctl(device, request, argument) < 0 ? -errno : 0;
}

int do_register(struct umcg_task *task, uint32_t flags)
{
	struct umcg_register how = { .self = (uintptr_t)task, .flags = flags };

	return call(UMCG_IOC_REGISTER, &how);
}

int do_unregister(struct umcg_task *task)
{
	uint64_t self = (uintptr_t)task;

	return call(UMCG_IOC_UNREGISTER, &self);
}

int do_wait(uint64_t deadline_ns)
{
	struct umcg_wait how = { .deadline_ns = deadline_ns };

	return call(UMCG_IOC_WAIT, &how);
}

int do_preempt(uint32_t tid)
{
	return call(UMCG_IOC_PREEMPT, &tid);
}

int do_current(uint32_t server_tid)
{
	int ret = call(UMCG_IOC_CURRENT, &server_tid);

	return ret ? ret : (int)server_tid;
}

struct umcg_stat do_stat(uint32_t tid)
{
	struct umcg_stat stat = { .tid = tid };

	call(UMCG_IOC_STAT, &stat);
	return stat;
}

void leave(struct umcg_task *task)
{
	uint32_t old = UMCG_RUNNING;

	while (!__atomic_compare_exchange_n(&task->state, &old, UMCG_RUNNABLE, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		old = UMCG_RUNNING;
}

void may_run(void)
{
	struct server *host;
	int tries;

	if (!me)
		return;
	/* Between two dispatches host may be read before the server changes it. */
	for (tries = 0; tries < 4; tries++) {
		host = me->host;
		if (host && host->slot == me->id)
			return;
	}
	if (violations++ < 8)
		fprintf(stderr, "violation: worker %d tid %u state %#x server_tid %u host %d slot %d current %d waiting %d signals %ld rounds %ld caller %p\n",
			me->id, me->task.tid, me->task.state, me->task.server_tid,
			host ? host->id : -1, host ? host->slot : -1,
			host ? do_current(host->task.tid) : -1, me->waiting,
			me->signals, me->rounds, __builtin_return_address(0));
}

void yield_now(void)
{
	int ret;

	me->waiting = true;
	leave(&me->task);
	me->task.next_tid = 0;
	me->offered = me->task.server_tid;
	ret = do_wait(0);
	me->waiting = false;
	if (ret)
		FAIL("wait of worker %d: %d", me->id, ret);
	may_run();
}

unsigned int draw(struct worker *w)
{
	w->random = w->random * 1103515245 + 12345;
	return (w->random >> 16) & 0x7fff;
}

static void enqueue(struct worker *w, bool first)
{
	pthread_mutex_lock(&queue_lock);
	if (w->queued)
		FAIL("worker %d is queued twice", w->id);
	w->queued = true;
	queue_length++;
	if (first) {
		w->next = queue_head;
		if (!queue_head)
			queue_tail = &w->next;
		queue_head = w;
	} else {
		w->next = NULL;
		*queue_tail = w;
		queue_tail = &w->next;
	}
	pthread_mutex_unlock(&queue_lock);
}

static struct worker *dequeue(void)
{
	struct worker *w;

	pthread_mutex_lock(&queue_lock);
	w = queue_head;
	if (w) {
		queue_head = w->next;
		if (!queue_head)
			queue_tail = &queue_head;
		w->queued = false;
		queue_length--;
	}
	pthread_mutex_unlock(&queue_lock);
	return w;
}

/* Unlinks the next worker of a list that was taken. Its state is read only after that. */
static struct worker *unlink_next(uint64_t *list, uint64_t *(*link)(struct worker *))
{
	struct worker *w = (struct worker *)(uintptr_t)*list;

	if (!w)
		return NULL;
	*list = *link(w) & ~UMCG_LINKED;
	__atomic_store_n(link(w), 0, __ATOMIC_SEQ_CST);
	return w;
}

static uint64_t *blocked_link(struct worker *w)
{
	return (uint64_t *)&w->task.blocked_ptr;
}

static uint64_t *runnable_link(struct worker *w)
{
	return (uint64_t *)&w->task.runnable_ptr;
}

void unlink_all(struct umcg_task *server)
{
	uint64_t runnable = __atomic_exchange_n(&server->runnable_ptr, 0, __ATOMIC_SEQ_CST);
	uint64_t blocked = __atomic_exchange_n(&server->blocked_ptr, 0, __ATOMIC_SEQ_CST);

	while (unlink_next(&blocked, blocked_link))
		;
	while (unlink_next(&runnable, runnable_link))
		;
}

int turn(struct umcg_task *server, struct umcg_task *w, uint64_t deadline_ns)
{
	leave(server);
	unlink_all(server);
	server->next_tid = w->state == UMCG_RUNNABLE ? w->tid : 0;
	return do_wait(deadline_ns);
}

void run_once(struct umcg_task *server, struct umcg_task *w)
{
	do {
		unlink_all(server);
		leave(server);
		server->next_tid = w->tid;
		CHECK(!do_wait(0));
	} while (server->next_tid);
}

static void drain(struct server *s)
{
	struct worker *w, *order[MAX_WORKERS];
	uint64_t runnable, blocked;
	int i, count = 0;
	uint32_t old = UMCG_RUNNING;

	__atomic_compare_exchange_n(&s->task.state, &old, UMCG_RUNNABLE, false,
				    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	s->task.next_tid = 0;
	/* Take the runnable list first, but process the blocked list first. */
	runnable = __atomic_exchange_n(&s->task.runnable_ptr, 0, __ATOMIC_SEQ_CST);
	blocked = __atomic_exchange_n(&s->task.blocked_ptr, 0, __ATOMIC_SEQ_CST);
	while ((w = unlink_next(&blocked, blocked_link)))
		w->blocked++;
	while ((w = unlink_next(&runnable, runnable_link))) {
		w->runnable++;
		order[count++] = w;
	}
	while (count--)
		enqueue(order[count], false);
	for (i = 0; i < worker_count; i++) {
		uint32_t tid = s->task.tid;

		if (workers[i].offered == tid &&
		    atomic_compare_exchange_strong(&workers[i].offered, &tid, 0))
			enqueue(&workers[i], false);
	}
}

static void wake_others(struct server *s, bool all)
{
	int i;

	for (i = 0; i < server_count; i++)
		if (&servers[i] != s && (all || servers[i].idle))
			do_preempt(servers[i].task.tid);
}

static void count_finished(void)
{
	int i;

	for (i = 0; i < worker_count; i++)
		if (workers[i].finished && !atomic_exchange(&workers[i].gone, true))
			atomic_fetch_sub(&alive, 1);
}

static void serve(struct server *s)
{
	struct worker *w, *holder = NULL;
	int ret, current;

	for (;;) {
		drain(s);
		count_finished();
		w = holder ? NULL : dequeue();
		if (!w && !holder && !alive)
			break;
		if (w) {
			if (queue_length)
				wake_others(s, false);
			w->task.server_tid = s->task.tid;
			w->host = s;
			s->slot = w->id;
			s->task.next_tid = w->task.tid;
		}
		s->idle = !w;
		s->idles += !w;
		ret = do_wait(s->slice_ms ? now_ns() + s->slice_ms * 1000000ull : 0);
		s->idle = false;
		if (s->task.state != UMCG_RUNNING)
			FAIL("server RUNNING after wait: %d, state %#x", ret, s->task.state);
		if (ret && ret != -ETIMEDOUT)
			FAIL("wait of server %d: %d", s->id, ret);
		s->timeouts += ret == -ETIMEDOUT;
		if (w && s->task.next_tid) {
			s->slot = -1;
			enqueue(w, true);
		} else if (w) {
			s->switches++;
			holder = w;
		}
		if (!holder)
			continue;
		current = do_current(s->task.tid);
		if (current == (int)holder->task.tid) {
			if (ret)
				do_preempt(current);
		} else {
			s->slot = -1;
			holder = NULL;
		}
	}
	wake_others(s, true);
}

void register_server(struct umcg_task *server)
{
	server->server_tid = own_tid();
	__atomic_store_n(&server->tid, server->server_tid, __ATOMIC_SEQ_CST);
	if (do_register(server, 0))
		FAIL("register server %u", server->tid);
}

static void register_with(struct worker *w, const struct server *s)
{
	w->task.server_tid = s->task.tid;
	__atomic_store_n(&w->task.tid, own_tid(), __ATOMIC_SEQ_CST);
	if (do_register(&w->task, UMCG_REG_WORKER))
		FAIL("register worker %d", w->id);
}

void register_worker(struct worker *w)
{
	register_with(w, &servers[0]);
}

static void *server_main(void *argument)
{
	struct server *s = argument;
	cpu_set_t one;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	if (pin_servers) {
		CPU_ZERO(&one);
		CPU_SET(s->id, &one);
		CHECK(!sched_setaffinity(0, sizeof(one), &one));
	}
	s->slot = -1;
	register_server(&s->task);
	while (!open_for_work)
		usleep(200);
	serve(s);
	s->task.state = UMCG_RUNNING;	/* the last drain was not followed by a WAIT */
	if (do_unregister(&s->task))
		FAIL("unregister server %d", s->id);
	return NULL;
}

static void *worker_main(void *argument)
{
	struct worker *w = argument;

	register_with(w, &servers[w->id % server_count]);
	me = w;
	may_run();
	w->body(w);
	may_run();
	/* A signal handler may still run here, but checks nothing any more. */
	me = NULL;
	w->finished = true;
	if (do_unregister(&w->task))
		FAIL("unregister worker %d", w->id);
	return NULL;
}

void start(int server_total, int worker_total, void (*body)(struct worker *w),
	   int slice_ms)
{
	int i;

	server_count = server_total;
	worker_count = worker_total;
	alive = worker_total;
	for (i = 0; i < server_count; i++) {
		servers[i].id = i;
		servers[i].slice_ms = slice_ms;
		pthread_create(&servers[i].thread, NULL, server_main, &servers[i]);
	}
	for (i = 0; i < server_count; i++)
		while (__atomic_load_n(&servers[i].task.state, __ATOMIC_SEQ_CST) == UMCG_NONE)
			usleep(100);
	for (i = 0; i < worker_count; i++) {
		workers[i].id = i;
		workers[i].random = i * 7919 + 1;
		workers[i].body = body;
		pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
	}
	open_for_work = true;
}

void finish(void)
{
	int i;

	for (i = 0; i < worker_count; i++)
		pthread_join(workers[i].thread, NULL);
	for (i = 0; i < server_count; i++)
		pthread_join(servers[i].thread, NULL);
}

void report(const char *name)
{
	long rounds = 0, blocked = 0, runnable = 0, signals = 0;
	long switches = 0, idles = 0, timeouts = 0;
	struct umcg_stat stat = do_stat(0);
	int i;

	for (i = 0; i < worker_count; i++) {
		rounds += workers[i].rounds;
		blocked += workers[i].blocked;
		runnable += workers[i].runnable;
		signals += workers[i].signals;
	}
	for (i = 0; i < server_count; i++) {
		switches += servers[i].switches;
		idles += servers[i].idles;
		timeouts += servers[i].timeouts;
	}
	printf("%s: rounds=%ld blocked=%ld runnable=%ld signals=%ld switches=%ld idles=%ld timeouts=%ld gates=%llu requeues=%llu user_returns=%llu deferred=%llu live=%u violations=%ld\n",
	       name, rounds, blocked, runnable, signals, switches, idles, timeouts,
	       (unsigned long long)stat.gates, (unsigned long long)stat.requeues,
	       (unsigned long long)stat.user_returns,
	       (unsigned long long)stat.deferred, stat.live, (long)violations);
	fflush(stdout);
}
