#!/usr/bin/env bash
# The documentation builds, and no link in it leads nowhere.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "rustdoc"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features \
    -p umcg -p umcg-sys -p umcg-macros
