#!/usr/bin/env bash
# Random wrong verdicts while the integration tests run, over and over for STRESS_SECONDS
# (default 60). Each round judges at another rate of STRESS_PERIODS, microseconds.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

seconds=${STRESS_SECONDS:-60}
say "stress for $seconds s"
features=(-p umcg-tests --features umcg-tests/fault-injection)
# The runtime's tests; STRESS_ALL=1 takes the conformance suite too, by hand: its scenarios that
# need an undisturbed moment wait 15 s for one, and say so if it does not come.
tests=(--test stress --test runtime_block --test runtime_tasks --test runtime_std)
[[ -z ${STRESS_ALL:-} ]] || tests=(--tests)
CARGO_TARGET_DIR=$target/stress cargo test "${features[@]}" "${tests[@]}" --no-run

end=$((SECONDS + seconds))
round=0
# By hand down to 50: scenarios that need an undisturbed moment do not get it then.
read -ra periods <<<"${STRESS_PERIODS:-3000 1000}"
while ((SECONDS < end)); do
    period=${periods[round % ${#periods[@]}]}
    say "round $round: a wrong verdict about every $period us"
    # A round that is under way is given the time to end: what hangs is found by this limit.
    CARGO_TARGET_DIR=$target/stress UMCG_FAULT=verdicts:$period RUST_BACKTRACE=1 \
        timeout 300 cargo test --quiet "${features[@]}" "${tests[@]}"
    round=$((round + 1))
done
echo "$round rounds"
