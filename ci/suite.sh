#!/usr/bin/env bash
# Runs the integration tests again on two CPUs: as root and as an unprivileged user, and those that
# let the environment choose the number of servers with 1, 2 and 5 of them.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

# The test programs with tests whose runtime has as many servers as UMCG_SERVERS says. The tests of
# the others choose the number themselves, so these programs run once for each user. They run with
# a value that the runtime refuses: a test that begins to read the variable fails until its program
# is listed here.
read_servers=(faults runtime)
not_read=unread-see-ci/suite.sh

say "build of the integration tests"
mapfile -t binaries < <(
    cargo test -p umcg-tests -p umcg-sys --test '*' --no-run 2>&1 | tee -a /dev/stderr |
        sed -n 's/^ *Executable tests.*(\(.*\))$/\1/p'
)
[[ ${#binaries[@]} -gt 0 ]] || { echo "no integration tests found" >&2; exit 1; }

# The unprivileged user may have no access to this checkout.
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
chmod 755 "$place"
mkdir -m 1777 "$place/home"
cp -- "${binaries[@]}" "$place"

on_two_cpus=()
if [[ $(nproc) -gt 2 ]]; then
    need taskset util-linux
    # The first two CPUs that this process may use, from a list like 0-3,8.
    two=$(taskset -cp $$ | sed 's/.*: //' | tr ',' '\n' |
        awk -F- '{ for (cpu = $1; cpu <= $NF && n < 2; cpu++) print cpu, n++ }' |
        cut -d' ' -f1 | paste -sd,)
    on_two_cpus=(taskset -c "$two")
elif [[ $(nproc) -lt 2 ]]; then
    not_checked "anything on two CPUs: there is one"
fi

as_user=()
users=("root" "without privileges")
if [[ $EUID == 0 ]]; then
    need setpriv util-linux
    # A user that nobody else is: RLIMIT_NPROC, which some tests lower, counts all threads of a
    # user.
    user=$((61184 + $$ % 4000))
    as_user=(setpriv "--reuid=$user" "--regid=$user" --clear-groups --no-new-privs)
else
    not_checked "the integration tests as root: they run as $(id -un)"
    users=("without privileges")
fi

failed=()
# run USER SERVERS BINARY NAME
run() {
    local as=()
    [[ $1 == root ]] || as=("${as_user[@]}")
    say "$4, $1, UMCG_SERVERS=$2"
    (
        cd "$place/home"
        HOME=$PWD TMPDIR=$PWD UMCG_SERVERS=$2 RUST_BACKTRACE=1 \
            timeout 300 "${on_two_cpus[@]}" "${as[@]}" "../$(basename -- "$3")" --quiet
    ) || failed+=("$4, $1, UMCG_SERVERS=$2")
}

everywhere() {
    local user servers binary name
    for user in "${users[@]}"; do
        for binary in "${binaries[@]}"; do
            name=$(basename -- "$binary")
            name=${name%-*}
            if [[ " ${read_servers[*]} " == *" $name "* ]]; then
                for servers in 1 2 5; do
                    run "$user" "$servers" "$binary" "$name"
                done
            else
                run "$user" "$not_read" "$binary" "$name"
            fi
        done
    done
    if [[ ${#failed[@]} -gt 0 ]]; then
        printf 'FAILED: %s\n' "${failed[@]}" >&2
        return 1
    fi
}
counted everywhere
