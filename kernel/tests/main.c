// SPDX-License-Identifier: GPL-2.0
/* umcg-test SCENARIO [ARGUMENT...] */
#include "harness.h"

#include <signal.h>
#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} tests[] = {
	{ "arguments-are-checked", test_arguments_are_checked },
	{ "pages-are-accounted", test_pages_are_accounted },
	{ "32-bit-calls", test_32_bit_calls },
	{ "blocks-are-reported", test_blocks_are_reported },
	{ "late-offer-wakes-server", test_late_offer_wakes_server },
	{ "pick-of-holder-is-kept", test_pick_of_holder_is_kept },
	{ "unregister-after-sleep", test_unregister_after_sleep },
	{ "stress", test_stress },
	{ "hostile", test_hostile },
	{ "forked-child-is-refused", test_forked_child_is_refused },
	{ "exec-ends-registrations", test_exec_ends_registrations },
	{ "exec-in-storm", test_exec_in_storm },
	{ "after-exec", test_after_exec },
	{ "exit-releases-slot", test_exit_releases_slot },
	{ "server-exit-detaches", test_server_exit_detaches },
	{ "server-tid-reused", test_server_tid_reused },
	{ "claim-before-wait", test_claim_before_wait },
	{ "nothing-runs-before-admission", test_nothing_runs_before_admission },
	{ "close-detaches", test_close_detaches },
	{ "sigstop-in-storm", test_sigstop_in_storm },
	{ "ptrace-in-storm", test_ptrace_in_storm },
	{ "freezer-in-storm", test_freezer_in_storm },
	{ "fatal-signals-in-storm", test_fatal_signals_in_storm },
	{ "cpu-hotplug-in-storm", test_cpu_hotplug_in_storm },
	{ "io_uring", test_io_uring },
	{ "io_uring-completes-in-gate", test_io_uring_completes_in_gate },
	{ "io_uring-cancels-at-exit", test_io_uring_cancels_at_exit },
	{ "bench", test_bench },
};

int main(int argc, char **argv)
{
	unsigned int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* A shell starts background jobs with these two ignored. */
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	open_device();
	for (i = 0; argc > 1 && i < sizeof(tests) / sizeof(tests[0]); i++)
		if (!strcmp(argv[1], tests[i].name))
			return tests[i].run(argc - 2, argv + 2);
	fprintf(stderr, "usage: umcg-test SCENARIO [ARGUMENT...]; scenarios:");
	for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		fprintf(stderr, " %s", tests[i].name);
	fprintf(stderr, "\n");
	return 2;
}
