# SPDX-License-Identifier: GPL-2.0
# What the calls cost. With boot.sh --icount the nanoseconds are guest instructions. Kernels test
# their ciphers for a while after boot, which takes half of the one CPU.
#
# Fails if a round or a switch costs more than the goal: that of a futex on 6.1, a tenth more on
# newer kernels. With PREEMPT_RT there is no stepping aside (umcg_step_aside()), and no goal but not
# to get worse.
while pidof cryptomgr_test > /dev/null; do
	sleep 1
done
/umcg-test bench 2000 > /tmp/out 2>&1
status=$?
cat /tmp/out
[ $status = 0 ] || exit $status
case $(uname -r) in
*-rt-*) limit=1.3 ;;
6.1.*) limit=1.0 ;;
*) limit=1.1 ;;
esac
awk -v limit=$limit '
	{ for (i = 2; $i !~ /^[0-9.]+$/ && i < NF; i++) name = (i == 2 ? $i : name " " $i); cost[name] = $i }
	END {
		if (!cost["futex"]) { print "FAIL no count for the futex"; exit 1 }
		split("server round,direct switch", goals, ",")
		for (i = 1; i <= 2; i++) {
			ratio = cost[goals[i]] / cost["futex"]
			good = cost[goals[i]] > 0 && ratio <= limit
			bad += !good
			printf "%s %s: %.2f of a futex round, at most %s\n", good ? "ok  " : "FAIL", goals[i], ratio, limit
		}
		exit bad > 0
	}' /tmp/out
