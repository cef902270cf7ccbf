# SPDX-License-Identifier: GPL-2.0
# The module breaks itself on purpose (UMCG_DEBUG, break_*). With all switches off both scenarios
# must pass. Then each switch that /insmod-arguments names is turned on, and one of the scenarios
# must fail with the symptom of that switch.
parameters=/sys/module/umcg/parameters

# scenario SECONDS COMMAND...: runs the command and returns its status.
scenario() {
	timeout -s KILL "$@" > /tmp/out 2>&1
}

# noticed SWITCH STATUS: did the scenario that ended with this status fail with the symptom of the
# switch?
noticed() {
	case $1 in
	gate) grep -q violation /tmp/out ;;
	requeue_gate) grep -q -e violation -e 'queued twice' /tmp/out ;;
	wake) [ "$2" = 137 ] ;;	# no server is woken: the scenario hangs and is killed
	lock) false ;;		# lockdep reports it on the console
	esac
}

switches=$(sed 's/break_\([a-z_]*\)=[^ ]*/\1/g' /insmod-arguments)
for switch in $switches; do
	echo N > $parameters/break_"$switch"
done
scenario 60 /umcg-test blocks-are-reported || { echo "FAIL blocks-are-reported with all switches off"; cat /tmp/out; exit 1; }
scenario 60 /umcg-test stress 5 16 2 s || { echo "FAIL stress with all switches off"; cat /tmp/out; exit 1; }
echo "ok   all switches off: both scenarios pass"

failed=0
for switch in $switches; do
	echo Y > $parameters/break_"$switch"
	found=''
	for arguments in blocks-are-reported 'stress 5 16 2 s'; do
		# shellcheck disable=SC2086 # several words
		scenario 20 /umcg-test $arguments
		status=$?
		[ $status = 0 ] || ! noticed "$switch" $status || { found=$arguments; break; }
	done
	echo N > $parameters/break_"$switch"
	if [ -n "$found" ]; then
		echo "ok   break_$switch noticed by $found: $(grep -m1 -e violation -e 'queued twice' /tmp/out || echo "status $status")"
	else
		echo "FAIL no scenario noticed break_$switch (status $status): $(head -3 /tmp/out)"
		failed=1
	fi
done
exit $failed
