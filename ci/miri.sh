#!/usr/bin/env bash
# The unit tests of the task layer under miri, if a toolchain with miri is installed.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "miri"
toolchain=
for candidate in "" +nightly; do
    # shellcheck disable=SC2086 # nothing, or one word
    if cargo $candidate miri --version >/dev/null 2>&1; then
        toolchain=$candidate
        break
    fi
    toolchain=none
done
if [[ $toolchain == none ]]; then
    not_checked "the task layer under miri: no toolchain with miri here"
    exit 0
fi
# shellcheck disable=SC2086 # nothing, or one word
CARGO_TARGET_DIR=$target/miri MIRIFLAGS="-Zmiri-strict-provenance" \
    timeout 900 cargo $toolchain miri test -p umcg --lib task
