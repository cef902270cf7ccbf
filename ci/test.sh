#!/usr/bin/env bash
# Runs the tests, with the command that README.md names.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "tests"
both_ways() {
    # Without managed calls. In the other runs they are on.
    UMCG_MANAGED_CALLS=0 UMCG_STRESS_SECONDS=5 timeout 300 cargo test -p umcg-tests \
        --test managed --test managed_order --test managed_stress || return
    # The tests of the workspace come last, because their summary must end the log.
    timeout 900 cargo test --workspace
}
RUST_BACKTRACE=1 counted both_ways
