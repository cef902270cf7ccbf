// SPDX-License-Identifier: GPL-2.0
/* umcg-test SCENARIO [ARGUMENT...] */
#include "harness.h"

#include <signal.h>
#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} tests[] = {
	{ "abi", test_abi },
	{ "memory", test_memory },
	{ "compat", test_compat },
	{ "blocks", test_blocks },
	{ "late", test_late },
	{ "held", test_held },
	{ "unregister", test_unregister },
	{ "stress", test_stress },
	{ "hostile", test_hostile },
	{ "fork", test_fork },
	{ "exec", test_exec },
	{ "exec-storm", test_exec_storm },
	{ "exit", test_exit },
	{ "server-death", test_server_death },
	{ "rebirth", test_rebirth },
	{ "steal", test_steal },
	{ "admission", test_admission },
	{ "close", test_close },
	{ "stop", test_stop },
	{ "ptrace", test_ptrace },
	{ "freezer", test_freezer },
	{ "kill", test_kill },
	{ "hotplug", test_hotplug },
	{ "io_uring", test_io_uring },
	{ "io_uring-gate", test_io_uring_gate },
	{ "io_uring-death", test_io_uring_death },
	{ "bench", bench },
};

int main(int argc, char **argv)
{
	unsigned int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* A shell has background jobs ignore these two. */
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	open_device();
	if (argc == 2 && !strcmp(argv[1], "after-exec"))
		return test_exec(-1, NULL);
	for (i = 0; argc > 1 && i < sizeof(tests) / sizeof(tests[0]); i++)
		if (!strcmp(argv[1], tests[i].name))
			return tests[i].run(argc - 2, argv + 2);
	fprintf(stderr, "usage: umcg-test SCENARIO [ARGUMENT...]; scenarios:");
	for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		fprintf(stderr, " %s", tests[i].name);
	fprintf(stderr, "\n");
	return 2;
}
