#!/usr/bin/env bash
# Random wrong verdicts: once while all integration tests run, at a mild rate, and then while some
# of the runtime's do, over and over for STRESS_SECONDS (default 60), each round at another rate of
# STRESS_PERIODS, microseconds.
#     STRESS_ALL=1 STRESS_PERIODS="300 50" ci/stress.sh     all of them in each round
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

export CARGO_TARGET_DIR=$target/stress RUST_BACKTRACE=1
suite=(-p umcg-tests -p umcg --features umcg-tests/fault-injection --test '*')
cargo test "${suite[@]}" --no-run

# Nearly all scenarios that need an undisturbed moment get one at this rate. Those that do not give
# up, and are listed with the tests that faults make meaningless.
mild=3000
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
skip_log "$folder"
say "the whole suite: a wrong verdict about every $mild us"
if ! UMCG_FAULT=verdicts:$mild UMCG_SKIP_LOG=$folder/skipped timeout 300 \
    cargo test "${suite[@]}" --no-fail-fast -- --show-output &> "$folder/log"; then
    cat "$folder/log"
    exit 1
fi
grep -E '^ *Running |^test result:' "$folder/log"
# A scenario that gave up says so in what its test prints, which is shown under the test's name.
awk '
    /^ *Running / { binary = $2; gsub(/^.*\/|\.rs$/, "", binary) }
    /^---- .* stdout ----$/ { test = $2 }
    /^SKIPPED: / { print "SKIPPED", binary "::" test substr($0, 8) }
' "$folder/log" >> "$folder/skipped"
skips "$folder/skipped" all

seconds=${STRESS_SECONDS:-60}
say "stress for $seconds s"
# Others take long at these rates: their scenarios wait 15 s for an undisturbed moment.
tests=(
    -p umcg-tests --features umcg-tests/fault-injection
    --test stress --test runtime_block --test runtime_tasks --test runtime_std
)
[[ -z ${STRESS_ALL:-} ]] || tests=("${suite[@]}")
end=$((SECONDS + seconds))
round=0
# By hand down to 50: scenarios that need an undisturbed moment do not get it then.
read -ra periods <<<"${STRESS_PERIODS:-3000 1000}"
while ((SECONDS < end)); do
    period=${periods[round % ${#periods[@]}]}
    say "round $round: a wrong verdict about every $period us"
    # A round that is under way is given the time to end: what hangs is found by this limit.
    UMCG_FAULT=verdicts:$period timeout 300 cargo test --quiet "${tests[@]}"
    round=$((round + 1))
done
echo "$round rounds"
