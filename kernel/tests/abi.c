// SPDX-License-Identifier: GPL-2.0
/* Hostile and merely wrong arguments get an error. */
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

static void check_server_waits(struct umcg_task *task)
{
	struct umcg_wait how = { 0 };

	expect(do_wait(0), 0, "WAIT while RUNNING");
	task->state = 0x12340000 | UMCG_RUNNABLE;
	expect(do_wait(1), -ETIMEDOUT, "a deadline in the past");
	expect(task->state, 0x12340000 | UMCG_RUNNING, "RUNNING, user bits kept");
	task->state = UMCG_RUNNABLE;
	expect(do_wait(now_ns() + 5000000), -ETIMEDOUT, "a deadline in 5 ms");
	task->state = UMCG_RUNNABLE;
	task->next_tid = 0x3ffffff0;
	expect(do_wait(0), -ESRCH, "a target that does not exist");
	expect(task->state, UMCG_RUNNING, "state after ESRCH");
	expect(task->next_tid, 0x3ffffff0, "next_tid after an error");
	task->state = UMCG_RUNNABLE;
	task->next_tid = task->tid;
	expect(do_wait(1), -ETIMEDOUT, "a server as its own target idles");
	task->next_tid = 0;
	task->state = UMCG_RUNNABLE;
	how.flags = 1;
	expect(ioctl(device, UMCG_IOC_WAIT, &how) ? -errno : 0, -EINVAL, "WAIT with flags");
	expect(task->state, UMCG_RUNNING, "state after bad flags");
	task->state = UMCG_RUNNABLE;
	expect(ioctl(device, UMCG_IOC_WAIT, 64) ? -errno : 0, -EFAULT,
	       "WAIT with an unreadable argument");
	expect(task->state, UMCG_RUNNING, "state after an unreadable argument");
	task->state = UMCG_BLOCKED;
	expect(do_wait(0), -EINVAL, "WAIT while BLOCKED");
	task->state = 77;
	expect(do_wait(0), -EINVAL, "WAIT in an unknown state");
	task->state = UMCG_RUNNABLE;
	expect(do_preempt(task->tid), 0, "a server wakes itself");
	expect(task->state, UMCG_RUNNING, "state of a waiting server after PREEMPT");
	expect(do_current(task->tid), 0, "CURRENT of an empty slot");
	expect(do_unregister(task + 1), -EINVAL, "UNREGISTER of another task");
	task->state = UMCG_RUNNABLE;
	expect(do_unregister(task), -EBUSY, "UNREGISTER while RUNNABLE");
	task->state = 0x00050000 | UMCG_RUNNING;
	expect(do_unregister(task), 0, "UNREGISTER");
	expect(task->state, 0x00050000, "NONE, user bits kept");
}

static void *worker_with_bad_argument(void *argument)
{
	struct worker *w = argument;

	register_worker(w);
	leave(&w->task);
	expect(ioctl(device, UMCG_IOC_WAIT, 64) ? -errno : 0, -EFAULT,
	       "a worker's WAIT with an unreadable argument");
	expect(w->task.state, UMCG_RUNNING, "state of the worker after it");
	expect(do_current(w->task.server_tid), w->task.tid, "the worker is still in the slot");
	expect(do_unregister(&w->task), 0, "UNREGISTER of the worker");
	w->finished = true;
	return NULL;
}

/* A worker whose WAIT could not read its argument runs on in its slot. */
static void check_worker_wait(void)
{
	struct umcg_task *task = &servers[0].task;
	struct worker *w = &workers[0];

	register_server(task);
	pthread_create(&w->thread, NULL, worker_with_bad_argument, w);
	do
		turn(task, &w->task, now_ns() + 10000000);
	while (!w->finished);
	pthread_join(w->thread, NULL);
	task->next_tid = 0;
	expect(do_unregister(task), 0, "UNREGISTER of its server");
}

SCENARIO(arguments_are_checked)
{
	static struct umcg_task tasks[2];
	struct umcg_task *task = &tasks[0];
	struct umcg_register how = { .self = (uintptr_t)task, .pad = 1 };
	uint32_t version = 99;
	char *page;
	int file;

	expect(ioctl(device, UMCG_IOC_VERSION, &version), 0, "VERSION");
	expect(version, UMCG_ABI_VERSION, "the version");
	expect(ioctl(device, UMCG_IOC_CHECK) ? -errno : 0, -EINVAL, "CHECK while unregistered");
	expect(ioctl(device, _IO('U', 99)) ? -errno : 0, -ENOTTY, "an unknown ioctl");
	expect(do_wait(0), -EINVAL, "WAIT while unregistered");
	expect(do_preempt(1), -ESRCH, "PREEMPT of an unregistered tid");
	expect(do_current(1), -ESRCH, "CURRENT of an unregistered tid");

	prepare(task);
	expect(ioctl(device, UMCG_IOC_REGISTER, NULL) ? -errno : 0, -EFAULT,
	       "REGISTER without an argument");
	expect(ioctl(device, UMCG_IOC_REGISTER, &how) ? -errno : 0, -EINVAL, "pad not 0");
	expect(do_register(task, 2), -EINVAL, "an unknown flag");
	expect(do_register(task, 1u << 24), -EINVAL, "an unknown version");
	expect(do_register((void *)((char *)task + 32), 0), -EINVAL, "a misaligned address");
	expect(do_register(NULL, 0), -EINVAL, "a NULL address");
	expect(do_register((void *)64, 0), -EFAULT, "an unmapped address");
	expect(do_register((void *)0xffff888000000000, 0), -EFAULT, "a kernel address");
	expect(do_register((void *)0xffffffffffffffc0, 0), -EFAULT,
	       "the last 64 bytes of the address space");

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
	/* EFAULT: newer kernels refuse to pin such a page. */
	CHECK(file == -EINVAL || file == -EFAULT);
	munmap(page, 4096);

	task->tid++;
	expect(do_register(task, 0), -EINVAL, "the tid of another thread");
	prepare(task);
	task->state = UMCG_RUNNING;
	expect(do_register(task, 0), -EINVAL, "a state that is not NONE");
	prepare(task);
	task->next_tid = 1;
	expect(do_register(task, 0), -EINVAL, "a next_tid that is not 0");
	prepare(task);
	task->server_tid = 1;
	expect(do_register(task, 0), -EINVAL, "a server with another server_tid");
	expect(do_register(task, UMCG_REG_WORKER), -ESRCH, "a worker without a server");
	prepare(task);
	expect(do_register(task, UMCG_REG_WORKER), -ESRCH, "a worker as its own server");

	expect(do_register(task, 0), 0, "REGISTER");
	expect(task->state, UMCG_RUNNING, "state of a new server");
	expect(ioctl(device, UMCG_IOC_CHECK), 0, "CHECK");
	expect(do_register(task, 0), -EINVAL, "REGISTER twice");
	prepare(&tasks[1]);
	expect(do_register(&tasks[1], 0), -EINVAL, "REGISTER with a second task");
	check_server_waits(task);
	check_worker_wait();
	expect(do_stat(0).live, 0, "registered tasks at the end");
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

static void *register_and_stay(void *task)
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

/* Registers eight servers, @stride bytes apart. Returns how many succeeded. */
static int register_eight(size_t stride, long *kib)
{
	pthread_t threads[8];
	char *memory = mmap(NULL, 8 * stride, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int i, good = 0;

	pthread_barrier_init(&barrier, NULL, 9);
	for (i = 0; i < 8; i++) {
		struct umcg_task *task = (void *)(memory + i * stride);

		task->next_tid = i;
		pthread_create(&threads[i], NULL, register_and_stay, task);
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

/* A page is unpinned a grace period after the last task in it has gone. */
static void wait_unpinned(void)
{
	int i;

	for (i = 0; i < 5000 && pinned_kib(); i++)
		usleep(1000);
	CHECK(pinned_kib() == 0);
}

/* A page is accounted once, is given back, and is refused over the limit without CAP_IPC_LOCK. */
SCENARIO(pages_are_accounted)
{
	struct rlimit limit = { 4 * 4096, 4 * 4096 };
	long kib;

	CHECK(register_eight(64, &kib) == 8);
	CHECK(kib == 4);
	wait_unpinned();
	CHECK(register_eight(4096, &kib) == 8);
	CHECK(kib == 32);
	wait_unpinned();
	CHECK(!setrlimit(RLIMIT_MEMLOCK, &limit));
	CHECK(!setgid(65534) && !setuid(65534));
	CHECK(register_eight(4096, &kib) == 4);
	CHECK(kib == 16);
	printf("pages: accounted, given back, limited\n");
	return 0;
}

static long call32(long number, long a, long b, long c)
{
	long ret;

	asm volatile("int $0x80" : "=a"(ret) : "a"(number), "b"(a), "c"(b), "d"(c)
		     : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

/* The calls by the 32-bit entry, from a 64-bit process: the layouts are the same. */
SCENARIO(32_bit_calls)
{
	struct {
		struct umcg_task task;
		struct umcg_register reg;
		struct umcg_wait wait;
		uint64_t self;
		uint32_t tid;
	} *low;

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
	printf("32-bit calls: ok\n");
	return 0;
}
