// SPDX-License-Identifier: GPL-2.0
/* Fork, exec, exits, stops, debuggers, the freezer, signals that kill, CPUs that go. */
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

int test_fork(int argc, char **argv)
{
	(void)argc, (void)argv;
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

/* The new image, in a process that was full of tasks, is an ordinary one. */
int test_exec(int argc, char **argv)
{
	static struct umcg_task task;

	(void)argv;
	if (argc >= 0) {
		start(1, 4, exec_or_spin, 10);
		finish();
		return 1;
	}
	usleep(20000);
	task.tid = task.server_tid = own_tid();
	CHECK(!do_register(&task, 0));
	CHECK(do_stat(0).live == 1);
	printf("exec: ok\n");
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

/* A worker's thread that just ends gives its slot back. */
int test_exit(int argc, char **argv)
{
	int i;

	(void)argc, (void)argv;
	start(1, 3, exit_raw, 0);
	for (i = 1; i < 3; i++)
		pthread_join(workers[i].thread, NULL);
	pthread_join(servers[0].thread, NULL);
	report("exit");
	CHECK(do_stat(0).live == 0 && !violations);
	return 0;
}

/* In a child: a signal storm over eight workers. */
static pid_t storm(const char *seconds, const char *total)
{
	pid_t child = fork();

	if (!child) {
		char *arguments[] = { (char *)seconds, (char *)total, "1", "s" };

		close(device);
		open_device();
		exit(test_stress(4, arguments));
	}
	return child;
}

int test_stop(int argc, char **argv)
{
	pid_t child = storm("4", "8");
	uint64_t from, longest = 0;
	int i, status;

	(void)argc, (void)argv;
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
	printf("stop: slowest of 10 %.1f ms, then %#x\n", longest / 1e6, status);
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

/* Until @tid is in the stop that PTRACE_INTERRUPT asked for; signals pass. */
static bool wait_for_stop(pid_t tid)
{
	uint64_t from = now_ns();
	int status;

	while (now_ns() - from < 10000000000ull) {
		pid_t who = waitpid(tid, &status, __WALL | WNOHANG);

		if (who < 0)
			return true;	/* gone */
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

int test_ptrace(int argc, char **argv)
{
	pid_t child = storm("5", "8"), tids[64];
	int i, round, count, status, stops = 0;

	(void)argc, (void)argv;
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

static void *stress_main(void *unused)
{
	char *arguments[] = { "0", "16", "2", "ks" };

	test_stress(4, arguments);
	return unused;
}

/* In a child: a server calls exec in a signal storm over other servers' workers. */
static pid_t exec_in_storm(useconds_t after)
{
	char *again[] = { "umcg-test", "after-exec", NULL };
	static struct umcg_task task;
	pthread_t thread;
	pid_t child = fork();
	sigset_t all;

	if (child)
		return child;
	close(device);
	open_device();
	task.tid = task.server_tid = own_tid();
	CHECK(!do_register(&task, 0));
	pthread_create(&thread, NULL, stress_main, NULL);
	/* The new image has no handlers. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	usleep(after);
	execv("/proc/self/exe", again);
	FAIL("exec");
}

/* Every second time a debugger stops each thread at its end. */
int test_exec_storm(int argc, char **argv)
{
	int i, stops = 0;
	pid_t child, tids[64];

	(void)argc, (void)argv;
	alarm(100);
	for (i = 0; i < 6; i++) {
		child = exec_in_storm(1000000 + i * 31000);
		usleep(300000);
		if (i & 1)
			attach_all(child, tids, PTRACE_O_TRACEEXIT);
		CHECK(!wait_for_end(child, &stops));
	}
	printf("exec-storm: %d processes, %d threads stopped at their end\n", i, stops);
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

int test_freezer(int argc, char **argv)
{
	char text[32];
	uint64_t from, longest = 0;
	pid_t child;
	int i, status;

	(void)argc, (void)argv;
	if (mkdir("/sys/fs/cgroup/umcg", 0755) && errno != EEXIST)
		FAIL("mkdir in the cgroup file system");
	child = storm("5", "8");
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

/* Each signal that kills, at different moments of a storm with kicks. */
int test_kill(int argc, char **argv)
{
	static const int signals[] = { SIGTERM, SIGSEGV, SIGQUIT, SIGINT, SIGKILL, SIGHUP };
	char *arguments[] = { "0", "32", "2", "ks" };
	unsigned int i, round;
	int status;
	pid_t child;

	(void)argc, (void)argv;
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		for (round = 0; round < 2; round++) {
			child = fork();
			if (!child) {
				close(device);
				open_device();
				signal(signals[i], SIG_DFL);
				exit(test_stress(4, arguments));
			}
			usleep(400000 + round * 53000);
			kill(child, signals[i]);
			CHECK(waitpid(child, &status, 0) == child);
			CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signals[i]);
		}
	}
	printf("kill: 12 processes in mid-flight\n");
	return 0;
}

/* The CPU of a server comes and goes under a storm. */
int test_hotplug(int argc, char **argv)
{
	static const char path[] = "/sys/devices/system/cpu/cpu1/online";
	char *arguments[] = { "6", "16", "2", "ks" };
	int i, status;
	pid_t child;

	(void)argc, (void)argv;
	if (access(path, W_OK))
		FAIL("no CPU that can be taken offline");
	child = fork();
	if (!child) {
		close(device);
		open_device();
		pin_servers = true;
		exit(test_stress(4, arguments));
	}
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
