# SPDX-License-Identifier: GPL-2.0
# The module's own tests, in the guest. SKIP: scenarios to leave out.
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
check abi
check memory
check compat
check blocks
check late
check held
check unregister
check fork
check exec
check exec-storm
check exit
check server-death
check rebirth
check steal
check admission
check close
check stress 6 64 2
check stress 6 64 2 s
check stress 6 64 2 t
check stress 10 64 2 k
check stress 10 64 2 kst
check stress 8 16 2 Ks
check stress 5 8 1
check stop
check ptrace
check freezer
check io_uring
check io_uring-gate
check io_uring-death
check hostile 6 64 2
check hostile 8 8 3
check kill
check hotplug

# In use: no removal. Then none is left, and it goes.
/umcg-test stress 3 8 2 > /tmp/out 2>&1 &
sleep 1
rmmod umcg 2> /dev/null && { echo "FAIL rmmod in use"; failed=1; }
wait $! || failed=1
remove() {
	for i in 1 2 3 4 5 6 7 8 9 10; do
		rmmod umcg 2> /tmp/out && return
		sleep 1
	done
	echo "FAIL rmmod $1: $(cat /tmp/out)"
	failed=1
}
remove "after use"
insmod /umcg.ko && rmmod umcg || { echo "FAIL insmod and rmmod again"; failed=1; }
echo "ok   rmmod refused in use, clean after"

# A process that scribbles over everything is killed in mid-flight, and leaves nothing behind.
insmod /umcg.ko
/umcg-test hostile 0 64 2 > /tmp/out 2>&1 &
hostile=$!
sleep 5
kill -9 $hostile
wait $hostile
[ $? = 137 ] || { echo "FAIL hostile ended by itself"; cat /tmp/out; failed=1; }
remove "after a hostile process"
echo "ok   rmmod after a hostile process was killed"
# Lockdep turns itself off at its first report, or when its tables are full.
if [ -e /proc/lockdep_stats ]; then
	grep -q 'debug_locks: *1$' /proc/lockdep_stats &&
		echo "ok   lockdep is still on" || { echo "FAIL lockdep is off"; failed=1; }
fi
exit $failed
