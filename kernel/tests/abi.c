// SPDX-License-Identifier: GPL-2.0
/* Hostile and merely wrong values are answered with an error. */
#include "harness.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void prepare(struct umcg_task *task)
{
	memset(task, 0, sizeof(*task));
	task->tid = own_tid();
	task->server_tid = task->tid;
}

static void expect(int got, int want, const char *what)
{
	if (got != want)
		FAIL("%s: %d, not %d", what, got, want);
}

static void waits_of_a_server(struct umcg_task *task)
{
	struct umcg_wait how = { 0 };

	expect(do_wait(0), 0, "wait while RUNNING");
	task->state = 0x12340000 | UMCG_RUNNABLE;
	expect(do_wait(1), -ETIMEDOUT, "a deadline in the past");
	expect(task->state, 0x12340000 | UMCG_RUNNING, "RUNNING, user bits kept");
	task->state = UMCG_RUNNABLE;
	expect(do_wait(now_ns() + 5000000), -ETIMEDOUT, "5 ms");
	task->state = UMCG_RUNNABLE;
	task->next_tid = 0x3ffffff0;
	expect(do_wait(0), -ESRCH, "no such task");
	expect(task->state, UMCG_RUNNING, "RUNNING after an error");
	expect(task->next_tid, 0x3ffffff0, "next_tid untouched");
	task->state = UMCG_RUNNABLE;
	task->next_tid = task->tid;
	expect(do_wait(1), -ETIMEDOUT, "its own target idles");
	task->next_tid = 0;
	task->state = UMCG_RUNNABLE;
	how.flags = 1;
	expect(ioctl(device, UMCG_IOC_WAIT, &how) ? -errno : 0, -EINVAL, "wait flags");
	expect(task->state, UMCG_RUNNING, "RUNNING after it");
	task->state = UMCG_RUNNABLE;
	expect(ioctl(device, UMCG_IOC_WAIT, 64) ? -errno : 0, -EFAULT, "wait, no argument");
	expect(task->state, UMCG_RUNNING, "RUNNING after that");
	task->state = UMCG_BLOCKED;
	expect(do_wait(0), -EINVAL, "wait while BLOCKED");
	task->state = 77;
	expect(do_wait(0), -EINVAL, "wait in no state");
	task->state = UMCG_RUNNABLE;
	expect(do_preempt(task->tid), 0, "wake itself");
	expect(task->state, UMCG_RUNNING, "a waiting server becomes RUNNING");
	expect(do_current(task->tid), 0, "an empty slot");
	expect(do_unregister(task + 1), -EINVAL, "unregister another task");
	task->state = UMCG_RUNNABLE;
	expect(do_unregister(task), -EBUSY, "unregister while RUNNABLE");
	task->state = 0x00050000 | UMCG_RUNNING;
	expect(do_unregister(task), 0, "unregister");
	expect(task->state, 0x00050000, "NONE, user bits kept");
}

static void *faulty_worker(void *argument)
{
	struct worker *w = argument;

	w->task.server_tid = servers[0].task.tid;
	w->task.tid = own_tid();
	CHECK(!do_register(&w->task, UMCG_REG_WORKER));
	leave(&w->task);
	expect(ioctl(device, UMCG_IOC_WAIT, 64) ? -errno : 0, -EFAULT, "a worker's wait");
	expect(w->task.state, UMCG_RUNNING, "it is RUNNING after that");
	expect(do_current(w->task.server_tid), w->task.tid, "in its slot");
	expect(do_unregister(&w->task), 0, "and may leave");
	w->finished = true;
	return NULL;
}

/* After a wait that could not read its argument a worker runs on. */
static void wait_of_a_worker(void)
{
	struct umcg_task *task = &servers[0].task;
	struct worker *w = &workers[0];

	prepare(task);
	expect(do_register(task, 0), 0, "register for a worker");
	pthread_create(&w->thread, NULL, faulty_worker, w);
	do {
		task->runnable_ptr = task->blocked_ptr = 0;
		if (w->task.state != UMCG_BLOCKED)
			w->task.runnable_ptr = w->task.blocked_ptr = 0;
		leave(task);
		task->next_tid = w->task.state == UMCG_RUNNABLE ? w->task.tid : 0;
		do_wait(now_ns() + 10000000);
	} while (!w->finished);
	pthread_join(w->thread, NULL);
	task->next_tid = 0;
	expect(do_unregister(task), 0, "unregister after a worker");
}

int test_abi(int argc, char **argv)
{
	static struct umcg_task tasks[2];
	struct umcg_task *task = &tasks[0];
	struct umcg_register how = { .self = (uintptr_t)task, .pad = 1 };
	uint32_t version = 99;
	char *page;
	int file;

	(void)argc, (void)argv;
	expect(ioctl(device, UMCG_IOC_VERSION, &version), 0, "version");
	expect(version, UMCG_ABI_VERSION, "version");
	expect(ioctl(device, UMCG_IOC_CHECK) ? -errno : 0, -EINVAL, "check unregistered");
	expect(ioctl(device, _IO('U', 99)) ? -errno : 0, -ENOTTY, "unknown ioctl");
	expect(do_wait(0), -EINVAL, "wait unregistered");
	expect(do_preempt(1), -ESRCH, "preempt a stranger");
	expect(do_current(1), -ESRCH, "current of a stranger");

	prepare(task);
	expect(ioctl(device, UMCG_IOC_REGISTER, NULL) ? -errno : 0, -EFAULT, "no argument");
	expect(ioctl(device, UMCG_IOC_REGISTER, &how) ? -errno : 0, -EINVAL, "pad");
	expect(do_register(task, 2), -EINVAL, "unknown flag");
	expect(do_register(task, 1u << 24), -EINVAL, "unknown version");
	expect(do_register((void *)((char *)task + 32), 0), -EINVAL, "alignment");
	expect(do_register(NULL, 0), -EINVAL, "NULL");
	expect(do_register((void *)64, 0), -EFAULT, "no memory there");
	expect(do_register((void *)0xffff888000000000, 0), -EFAULT, "kernel memory");
	expect(do_register((void *)0xffffffffffffffc0, 0), -EFAULT, "the last line");

	page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	expect(do_register((void *)page, 0), -EFAULT, "read-only memory");
	munmap(page, 4096);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	prepare((void *)page);
	expect(do_register((void *)page, 0), -EINVAL, "shared memory");
	munmap(page, 4096);
	file = open("/tmp/umcg-test", O_RDWR | O_CREAT, 0600);
	CHECK(file >= 0 && !ftruncate(file, 4096));
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	CHECK(page != MAP_FAILED);
	prepare((void *)page);
	file = do_register((void *)page, 0);
	CHECK(file == -EINVAL || file == -EFAULT);	/* FOLL_LONGTERM may refuse */
	munmap(page, 4096);

	task->tid++;
	expect(do_register(task, 0), -EINVAL, "tid of another");
	prepare(task);
	task->state = UMCG_RUNNING;
	expect(do_register(task, 0), -EINVAL, "state not NONE");
	prepare(task);
	task->next_tid = 1;
	expect(do_register(task, 0), -EINVAL, "next_tid");
	prepare(task);
	task->server_tid = 1;
	expect(do_register(task, 0), -EINVAL, "server of another");
	expect(do_register(task, UMCG_REG_WORKER), -ESRCH, "no such server");
	prepare(task);
	expect(do_register(task, UMCG_REG_WORKER), -ESRCH, "worker of itself");

	expect(do_register(task, 0), 0, "register");
	expect(task->state, UMCG_RUNNING, "a server is RUNNING");
	expect(ioctl(device, UMCG_IOC_CHECK), 0, "check");
	expect(do_register(task, 0), -EINVAL, "twice");
	prepare(&tasks[1]);
	expect(do_register(&tasks[1], 0), -EINVAL, "twice, another task");
	waits_of_a_server(task);
	wait_of_a_worker();
	expect(do_stat(0).live, 0, "nobody is left");
	return 0;
}

static long pinned_kib(void)
{
	char line[128];
	long kib = -1;
	FILE *status = fopen("/proc/self/status", "r");

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "VmPin: %ld", &kib) == 1)
			break;
	fclose(status);
	return kib;
}

static pthread_barrier_t barrier;
static int results[8];

static void *one_server(void *task)
{
	long i = ((struct umcg_task *)task)->next_tid;

	prepare(task);
	results[i] = do_register(task, 0);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	if (!results[i])
		CHECK(!do_unregister(task));
	return NULL;
}

/* Eight servers, @stride apart; returns how many could register. */
static int eight(size_t stride, long *kib)
{
	pthread_t threads[8];
	char *memory = mmap(NULL, 8 * stride, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int i, good = 0;

	pthread_barrier_init(&barrier, NULL, 9);
	for (i = 0; i < 8; i++) {
		struct umcg_task *task = (void *)(memory + i * stride);

		task->next_tid = i;
		pthread_create(&threads[i], NULL, one_server, task);
	}
	pthread_barrier_wait(&barrier);
	*kib = pinned_kib();
	pthread_barrier_wait(&barrier);
	for (i = 0; i < 8; i++) {
		pthread_join(threads[i], NULL);
		CHECK(!results[i] || results[i] == -ENOMEM);
		good += !results[i];
	}
	munmap(memory, 8 * stride);
	return good;
}

/* Pages are given back a grace period after the last task in them. */
static void wait_unpinned(void)
{
	int i;

	for (i = 0; i < 5000 && pinned_kib(); i++)
		usleep(1000);
	CHECK(pinned_kib() == 0);
}

/* Pages are accounted once each, given back, and limited without CAP_IPC_LOCK. */
int test_memory(int argc, char **argv)
{
	struct rlimit limit = { 4 * 4096, 4 * 4096 };
	long kib;

	(void)argc, (void)argv;
	CHECK(eight(64, &kib) == 8);
	CHECK(kib == 4);
	wait_unpinned();
	CHECK(eight(4096, &kib) == 8);
	CHECK(kib == 32);
	wait_unpinned();
	CHECK(!setrlimit(RLIMIT_MEMLOCK, &limit));
	CHECK(!setgid(65534) && !setuid(65534));
	CHECK(eight(4096, &kib) == 4);
	CHECK(kib == 16);
	printf("memory: accounted, given back, limited\n");
	return 0;
}

static long call32(long number, long a, long b, long c)
{
	long ret;

	asm volatile("int $0x80" : "=a"(ret) : "a"(number), "b"(a), "c"(b), "d"(c)
		     : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

/* The 32-bit entry, from a 64-bit process: the layouts are the same. */
int test_compat(int argc, char **argv)
{
	struct {
		struct umcg_task task;
		struct umcg_register reg;
		struct umcg_wait wait;
		uint64_t self;
		uint32_t tid;
	} *low;

	(void)argc, (void)argv;
	low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	CHECK(low != MAP_FAILED);
	prepare(&low->task);
	low->reg.self = low->self = (uintptr_t)&low->task;
	CHECK(!call32(54, device, UMCG_IOC_REGISTER, (long)&low->reg));
	CHECK(low->task.state == UMCG_RUNNING);
	low->task.state = UMCG_RUNNABLE;
	low->wait.deadline_ns = now_ns() + 1000000;
	CHECK(call32(54, device, UMCG_IOC_WAIT, (long)&low->wait) == -ETIMEDOUT);
	low->tid = low->task.tid;
	CHECK(!call32(54, device, UMCG_IOC_CURRENT, (long)&low->tid) && !low->tid);
	CHECK(!call32(54, device, UMCG_IOC_UNREGISTER, (long)&low->self));
	CHECK(low->task.state == UMCG_NONE);
	printf("compat: ok\n");
	return 0;
}
