# SPDX-License-Identifier: GPL-2.0
# Runs the module's own tests in the guest. SKIP lists scenarios to leave out.
failed=0
check() {
	case " $SKIP " in *" $1 "*) echo "skip $*"; return ;; esac
	from=$(cut -d' ' -f1 /proc/uptime)
	if timeout -s KILL 120 /umcg-test "$@" > /tmp/out 2>&1; then
		echo "ok   $* ($from to $(cut -d' ' -f1 /proc/uptime) s): $(tail -1 /tmp/out)"
	else
		echo "FAIL $* (status $?)"
		cat /tmp/out
		failed=1
	fi
}
check arguments-are-checked
check pages-are-accounted
check 32-bit-calls
check blocks-are-reported
check late-offer-wakes-server
check pick-of-holder-is-kept
check unregister-after-sleep
check forked-child-is-refused
check exec-ends-registrations
check exec-in-storm
check exit-releases-slot
check server-exit-detaches
check server-tid-reused
check claim-before-wait
check nothing-runs-before-admission
check close-detaches
check stress 6 64 2
check stress 6 64 2 s
check stress 6 64 2 t
check stress 10 64 2 p
check stress 10 64 2 pst
check stress 8 16 2 Ps
check stress 5 8 1
check sigstop-in-storm
check ptrace-in-storm
check freezer-in-storm
check io_uring
check io_uring-completes-in-gate
check io_uring-cancels-at-exit
check hostile 6 64 2
check hostile 8 8 3
check fatal-signals-in-storm
check cpu-hotplug-in-storm

# While the module is in use, rmmod must fail. When no process uses it, rmmod must succeed.
/umcg-test stress 3 8 2 > /tmp/out 2>&1 &
sleep 1
rmmod umcg 2> /dev/null && { echo "FAIL rmmod in use"; failed=1; }
wait $! || failed=1
remove() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		rmmod umcg 2> /tmp/out && return
		sleep 1
	done
	echo "FAIL rmmod $1: $(cat /tmp/out)"
	failed=1
}
remove "after use"
if ! insmod /umcg.ko || ! rmmod umcg; then
	echo "FAIL insmod and rmmod again"
	failed=1
fi
echo "ok   rmmod refused in use, clean after"

# A process that writes junk over all shared memory is killed at a random moment. Nothing may be
# left of it: rmmod must succeed.
insmod /umcg.ko
/umcg-test hostile 0 64 2 > /tmp/out 2>&1 &
hostile=$!
sleep 5
kill -9 $hostile
wait $hostile
[ $? = 137 ] || { echo "FAIL hostile ended by itself"; cat /tmp/out; failed=1; }
remove "after a hostile process"
echo "ok   rmmod after a hostile process was killed"
# Lockdep turns itself off after its first report, and when its tables are full.
if [ -e /proc/lockdep_stats ]; then
	if grep -q 'debug_locks: *1$' /proc/lockdep_stats; then
		echo "ok   lockdep is still on"
	else
		echo "FAIL lockdep is off"
		failed=1
	fi
fi
exit $failed
