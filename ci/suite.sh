#!/usr/bin/env bash
# The integration tests again: as a user without privileges, and with 1, 2 and 5 servers,
# whatever the number of CPUs is.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "build of the integration tests"
mapfile -t binaries < <(
    cargo test -p umcg-tests -p umcg -p umcg-sys --test '*' --no-run 2>&1 | tee -a /dev/stderr |
        sed -n 's/^ *Executable tests.*(\(.*\))$/\1/p'
)
[[ ${#binaries[@]} -gt 0 ]] || { echo "no integration tests found" >&2; exit 1; }

# Another user may not be allowed into this checkout.
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
chmod 755 "$place"
mkdir -m 1777 "$place/home"
cp -- "${binaries[@]}" "$place"

as_nobody=()
if [[ $EUID == 0 ]]; then
    need setpriv util-linux
    # A user of its own: RLIMIT_NPROC, which some tests lower, counts all threads of a user.
    user=$((61184 + $$ % 4000))
    as_nobody=(setpriv "--reuid=$user" "--regid=$user" --clear-groups --no-new-privs)
else
    echo "not root: the tests run as $(id -un)"
fi

failed=()
everywhere() {
    local servers binary name
    for servers in 1 2 5; do
        for binary in "${binaries[@]}"; do
            name=$(basename -- "$binary")
            say "UMCG_SERVERS=$servers, without privileges: ${name%-*}"
            (
                cd "$place/home"
                HOME=$PWD TMPDIR=$PWD UMCG_SERVERS=$servers RUST_BACKTRACE=1 \
                    timeout 300 "${as_nobody[@]}" "../$name" --quiet
            ) || failed+=("UMCG_SERVERS=$servers ${name%-*}")
        done
    done
    if [[ ${#failed[@]} -gt 0 ]]; then
        printf 'FAILED: %s\n' "${failed[@]}" >&2
        return 1
    fi
}
counted everywhere
