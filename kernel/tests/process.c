// SPDX-License-Identifier: GPL-2.0
/* fork, exec, exit, stops, debuggers, the freezer, fatal signals, CPU hotplug. */
#include "harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void nap_a_little(struct worker *w)
{
	for (int i = 0; i < 20; i++) {
		usleep(3000);
		may_run();
		w->rounds++;
	}
}

static void fork_or_nap(struct worker *w)
{
	struct umcg_task other = { 0 };
	int i, status;
	pid_t child;

	if (w->id) {
		nap_a_little(w);
		return;
	}
	for (i = 0; i < 5; i++) {
		child = fork();
		if (!child) {
			int got[3] = { do_wait(0), do_unregister(&w->task),
				       do_register(&other, 0) };

			usleep(3000);
			_exit(got[0] == -ESRCH && got[1] == -ESRCH && got[2] == -ESRCH ? 0 : 9);
		}
		CHECK(waitpid(child, &status, 0) == child);
		may_run();
		CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
		w->rounds++;
	}
}

SCENARIO(forked_child_is_refused)
{
	start(1, 2, fork_or_nap, 0);
	finish();
	report("fork");
	CHECK(!violations);
	return 0;
}

static void exec_or_spin(struct worker *w)
{
	char *again[] = { "umcg-test", "after-exec", NULL };

	if (w->id == 0) {
		usleep(10000);
		execv("/proc/self/exe", again);
		FAIL("exec");
	}
	for (;;) {
		for (volatile int n = 0; n < 50000; n++)
			;
		if (w->id == 1)
			usleep(500);
		yield_now();
	}
}

/* exec ends all registrations: after-exec checks this in the new image. */
SCENARIO(exec_ends_registrations)
{
	start(1, 4, exec_or_spin, 10);
	finish();
	FAIL("a process that called exec is still there");
}

SCENARIO(after_exec)
{
	static struct umcg_task task;

	usleep(20000);
	register_server(&task);
	CHECK(do_stat(0).live == 1);
	printf("after exec: no task is left\n");
	return 0;
}

static void exit_raw(struct worker *w)
{
	if (w->id)
		nap_a_little(w);
	if (w->id == 0) {
		usleep(2000);
		may_run();
		w->finished = true;
		syscall(SYS_exit, 0);
	}
}

/* A worker whose thread just ends releases its slot. */
SCENARIO(exit_releases_slot)
{
	int i;

	start(1, 3, exit_raw, 0);
	for (i = 1; i < 3; i++)
		pthread_join(workers[i].thread, NULL);
	pthread_join(servers[0].thread, NULL);
	report("exit");
	CHECK(do_stat(0).live == 0 && !violations);
	return 0;
}

/* Runs the stress scenario in a child. */
static pid_t storm(char *seconds, char *total, char *server_total, char *options)
{
	char *arguments[] = { seconds, total, server_total, options };
	pid_t child = fork();

	if (!child) {
		reopen_device();
		exit(test_stress(4, arguments));
	}
	return child;
}

SCENARIO(sigstop_in_storm)
{
	pid_t child = storm("4", "8", "1", "s");
	uint64_t from, longest = 0;
	int i, status;

	for (i = 0; i < 10; i++) {
		usleep(200000);
		kill(child, SIGSTOP);
		from = now_ns();
		CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
		if (now_ns() - from > longest)
			longest = now_ns() - from;
		kill(child, SIGCONT);
	}
	CHECK(waitpid(child, &status, 0) == child);
	printf("SIGSTOP: slowest of 10 %.1f ms, then %#x\n", longest / 1e6, status);
	return status != 0;
}

int attach_all(pid_t child, pid_t *tids, long options)
{
	char path[64];
	struct dirent *entry;
	int count = 0;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/task", child);
	directory = opendir(path);
	while (directory && (entry = readdir(directory)) && count < 64) {
		tids[count] = atoi(entry->d_name);
		if (tids[count] > 0 && !ptrace(PTRACE_SEIZE, tids[count], 0, options))
			count++;
	}
	if (directory)
		closedir(directory);
	return count;
}

int wait_for_end(pid_t child, int *exits)
{
	int status;
	pid_t who;

	for (;;) {
		who = waitpid(-1, &status, __WALL);
		CHECK(who > 0);
		if (WIFSTOPPED(status)) {
			if (exits && status >> 16 == PTRACE_EVENT_EXIT)
				(*exits)++;
			ptrace(PTRACE_CONT, who, 0, status >> 16 ? 0 : WSTOPSIG(status));
		} else if (who == child) {
			return status;
		}
	}
}

/* Waits until @tid is in the stop that PTRACE_INTERRUPT requested. Signals are passed on. */
static bool wait_for_stop(pid_t tid)
{
	uint64_t from = now_ns();
	int status;

	while (now_ns() - from < 10000000000ull) {
		pid_t who = waitpid(tid, &status, __WALL | WNOHANG);

		if (who < 0)
			return true;	/* the thread has ended */
		if (who == tid && WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP)
			return true;
		if (who == tid && WIFSTOPPED(status))
			ptrace(PTRACE_CONT, tid, 0, WSTOPSIG(status));
		else if (who == tid)
			return true;
		usleep(500);
	}
	return false;
}

SCENARIO(ptrace_in_storm)
{
	pid_t child = storm("5", "8", "1", "s"), tids[64];
	int i, round, count, status, stops = 0;

	usleep(300000);
	for (round = 0; round < 6; round++) {
		count = attach_all(child, tids, 0);
		for (i = 0; i < count; i++)
			ptrace(PTRACE_INTERRUPT, tids[i], 0, 0);
		for (i = 0; i < count; i++, stops++)
			CHECK(wait_for_stop(tids[i]));
		for (i = 0; i < count; i++)
			ptrace(PTRACE_DETACH, tids[i], 0, 0);
		usleep(200000);
	}
	CHECK(waitpid(child, &status, 0) == child);
	printf("ptrace: %d stops, then %#x\n", stops, status);
	return status != 0;
}

static void *stress_until_exec(void *unused)
{
	char *arguments[] = { "0", "16", "2", "ps" };

	test_stress(4, arguments);
	return unused;
}

/* In a child, a server calls exec in the middle of a storm over the workers of other servers. */
static pid_t exec_in_storm(useconds_t after)
{
	char *again[] = { "umcg-test", "after-exec", NULL };
	static struct umcg_task task;
	pthread_t thread;
	pid_t child = fork();
	sigset_t all;

	if (child)
		return child;
	reopen_device();
	register_server(&task);
	pthread_create(&thread, NULL, stress_until_exec, NULL);
	/* The new image has no signal handlers. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	usleep(after);
	execv("/proc/self/exe", again);
	FAIL("exec");
}

/* In every second round a debugger stops each thread at its exit. */
SCENARIO(exec_in_storm)
{
	int i, stops = 0;
	pid_t child, tids[64];

	alarm(100);
	for (i = 0; i < 6; i++) {
		child = exec_in_storm(1000000 + i * 31000);
		usleep(300000);
		if (i & 1)
			attach_all(child, tids, PTRACE_O_TRACEEXIT);
		CHECK(!wait_for_end(child, &stops));
	}
	printf("exec in a storm: %d processes, %d threads stopped at their end\n", i, stops);
	CHECK(stops > 0);
	return 0;
}

static void write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		FAIL("%s", path);
	close(file);
}

static bool frozen(void)
{
	char text[256] = { 0 };
	int file = open("/sys/fs/cgroup/umcg/cgroup.events", O_RDONLY);

	CHECK(file >= 0 && read(file, text, sizeof(text) - 1) > 0);
	close(file);
	return strstr(text, "frozen 1");
}

SCENARIO(freezer_in_storm)
{
	char text[32];
	uint64_t from, longest = 0;
	pid_t child;
	int i, status;

	if (mkdir("/sys/fs/cgroup/umcg", 0755) && errno != EEXIST)
		FAIL("mkdir in the cgroup file system");
	child = storm("5", "8", "1", "s");
	snprintf(text, sizeof(text), "%d", child);
	write_file("/sys/fs/cgroup/umcg/cgroup.procs", text);
	for (i = 0; i < 4; i++) {
		usleep(300000);
		write_file("/sys/fs/cgroup/umcg/cgroup.freeze", "1");
		from = now_ns();
		while (!frozen()) {
			CHECK(now_ns() - from < 10000000000ull);
			usleep(1000);
		}
		if (now_ns() - from > longest)
			longest = now_ns() - from;
		write_file("/sys/fs/cgroup/umcg/cgroup.freeze", "0");
	}
	CHECK(waitpid(child, &status, 0) == child);
	printf("freezer: slowest of 4 %.1f ms, then %#x\n", longest / 1e6, status);
	return status != 0;
}

/* Each fatal signal ends the process, at different moments of a storm. */
SCENARIO(fatal_signals_in_storm)
{
	static const int signals[] = { SIGTERM, SIGSEGV, SIGQUIT, SIGINT, SIGKILL, SIGHUP };
	unsigned int i, round;
	int status;
	pid_t child;

	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		signal(signals[i], SIG_DFL);
		for (round = 0; round < 2; round++) {
			child = storm("0", "32", "2", "ps");
			usleep(400000 + round * 53000);
			kill(child, signals[i]);
			CHECK(waitpid(child, &status, 0) == child);
			CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signals[i]);
		}
	}
	printf("fatal signals: 12 processes\n");
	return 0;
}

/* The CPU of a pinned server goes offline and comes back in a storm. */
SCENARIO(cpu_hotplug_in_storm)
{
	static const char path[] = "/sys/devices/system/cpu/cpu1/online";
	int i, status;
	pid_t child;

	if (access(path, W_OK))
		FAIL("no CPU that can be taken offline");
	pin_servers = true;
	child = storm("6", "16", "2", "ps");
	for (i = 0; i < 5; i++) {
		usleep(400000);
		write_file(path, "0");
		usleep(300000);
		write_file(path, "1");
	}
	CHECK(waitpid(child, &status, 0) == child);
	printf("hotplug: 5 rounds, then %#x\n", status);
	return status != 0;
}
