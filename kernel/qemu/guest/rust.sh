# SPDX-License-Identifier: GPL-2.0
# Runs the test binaries in /t on the device, one test at a time, and then the programs in /e. A
# test that skips fails here: the guest has everything that the tests need.
export UMCG_PROVIDER=device UMCG_REQUIRE_ALL=1
failed=0
run() {
	from=$(cut -d' ' -f1 /proc/uptime)
	if timeout -s KILL "${LIMIT:-600}" "$@" > /tmp/out 2>&1; then
		echo "ok   $(basename "$1") ($from to $(cut -d' ' -f1 /proc/uptime) s): $(grep 'test result' /tmp/out || tail -1 /tmp/out)"
	else
		echo "FAIL $(basename "$1") (status $?)"
		grep -v '\.\.\. ok$' /tmp/out | tail -80
		failed=1
	fi
}
for test in /t/*; do
	[ ! -e "$test" ] || run "$test" --test-threads=1
done
# These programs do not print their provider. UMCG_PROVIDER makes them use the device, or fail.
for program in /e/hello /e/threadpool_dropin; do
	run "$program"
	cat /tmp/out
done
# These programs choose the device themselves and print that.
unset UMCG_PROVIDER
for program in /e/*; do
	case $program in
	*/tree_hash) run "$program" /t ;;
	*/bad_neighbour) run "$program" --seconds 3 ;;
	*) continue ;;
	esac
	cat /tmp/out
	grep -q 'auto took device' /tmp/out || { echo "FAIL $program did not choose the device"; failed=1; }
done
exit $failed
