# SPDX-License-Identifier: GPL-2.0
# Measures the cost of the calls. With boot.sh --icount the nanoseconds are guest instructions. A
# kernel tests its ciphers for a while after boot, which takes half of the one CPU, so this script
# waits for the end of that first.
#
# Fails if a server round or a direct switch costs more than a futex round does on 6.1, or more than
# 1.1 futex rounds on newer kernels. With PREEMPT_RT umcg_step_aside() has no effect, and the limit
# only guards against getting worse.
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
