#!/usr/bin/env bash
# Runs tests while random wrong verdicts are injected. First all integration tests run once, at a
# mild rate. Then some tests of the runtime run again and again for STRESS_SECONDS (default 60), and
# each round takes the next period from STRESS_PERIODS, in microseconds.
#     STRESS_ALL=1 STRESS_PERIODS="300 50" ci/stress.sh     all integration tests in each round
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

export CARGO_TARGET_DIR=$target/stress RUST_BACKTRACE=1
suite=(-p umcg-tests --features fault-injection --test '*')
cargo test "${suite[@]}" --no-run

# At this rate nearly every scenario that needs an undisturbed moment gets one. A scenario that gets
# none gives up, and is listed with the tests that cannot run with wrong verdicts.
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
# A scenario that gave up says so in the output of its test, which is shown under the test's name.
# The program's name is in the path of the line "Running tests/... (target/.../name-hash)".
awk '
    /^ *Running / { binary = $NF; gsub(/^.*\/|-[0-9a-f]*\)$/, "", binary) }
    /^---- .* stdout ----$/ { test = $2 }
    /^SKIPPED: / { print "SKIPPED", binary "::" test substr($0, 8) }
' "$folder/log" >> "$folder/skipped"
skips "$folder/skipped" all

seconds=${STRESS_SECONDS:-60}
say "stress for $seconds s"
# Not the conformance tests, which take long at these rates: their scenarios wait 15 s for an
# undisturbed moment. Of the tests of the runtime only those that take a few seconds together, so
# that each period gets its rounds.
tests=(
    -p umcg-tests --features fault-injection --test stress --test managed_stress --test runtime --
    everything_at_once managed_calls_of_all_kinds_at_once
    block:: std_types:: tasks:: thread_pool:: threads:: time:: tokio_types::
)
[[ -z ${STRESS_ALL:-} ]] || tests=("${suite[@]}")
end=$((SECONDS + seconds))
round=0
# Periods down to 50 are for runs by hand: scenarios that need an undisturbed moment get none then.
read -ra periods <<<"${STRESS_PERIODS:-3000 1000}"
while ((SECONDS < end)); do
    period=${periods[round % ${#periods[@]}]}
    say "round $round: a wrong verdict about every $period us"
    # A round that has begun may end even if STRESS_SECONDS are over. This limit finds a hang.
    UMCG_FAULT=verdicts:$period timeout 300 cargo test --quiet "${tests[@]}"
    round=$((round + 1))
done
echo "$round rounds"
