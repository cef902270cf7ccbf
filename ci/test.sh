#!/usr/bin/env bash
# Runs the tests, with the command that README.md names.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "tests"
with_events() {
    # The tests of the workspace come last, because their summary must end the log.
    timeout 300 cargo test -p umcg-tests --features tracing --test runtime events:: &&
        timeout 900 cargo test --workspace
}
RUST_BACKTRACE=1 counted with_events
