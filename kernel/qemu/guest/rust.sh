# SPDX-License-Identifier: GPL-2.0
# The test binaries in /t, one test at a time, on the device. Then the programs in /e. A test
# that cannot run here fails: the guest has all that they need.
export UMCG_PROVIDER=device UMCG_REQUIRE_ALL=1
failed=0
run() {
	from=$(cut -d' ' -f1 /proc/uptime)
	if timeout -s KILL ${LIMIT:-240} "$@" > /tmp/out 2>&1; then
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
# Programs that do not say what they run on are told to, and end with an error if they cannot.
for program in /e/hello /e/threadpool_dropin; do
	run "$program"
	cat /tmp/out
done
# The others take it by themselves, and say so.
unset UMCG_PROVIDER
for program in /e/*; do
	case $program in
	*/tree_hash) run "$program" /t ;;
	*/bad_neighbour) run "$program" --seconds 3 ;;
	*) continue ;;
	esac
	cat /tmp/out
	grep -q 'auto took device' /tmp/out || { echo "FAIL $program took another"; failed=1; }
done
exit $failed
