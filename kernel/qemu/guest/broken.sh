# SPDX-License-Identifier: GPL-2.0
# One of the module's break_* switches is on: the tests must notice.
timeout -s KILL 20 /umcg-test blocks > /tmp/out 2>&1 &&
	timeout -s KILL 20 /umcg-test stress 5 16 2 s > /tmp/out 2>&1 &&
	{ echo "FAIL nobody noticed $(cat /insmod-arguments)"; exit 1; }
echo "ok   $(cat /insmod-arguments) noticed: $(tail -1 /tmp/out)"
