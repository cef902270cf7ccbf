#!/usr/bin/env bash
# Breaks the rules of the protocols one at a time, and fails unless the check that is named for each
# notices. The patches are in ci/broken-rules/; the README there describes their format.
#     ci/broken-rules.sh                 all patches
#     ci/broken-rules.sh --quick         those that are marked quick
#     ci/broken-rules.sh NAME...         these: names of patches, without ".patch"
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

patches=$root/ci/broken-rules
work=$target/broken-rules
tree=$work/tree

quick=no
names=()
for argument; do
    case $argument in
    --quick) quick=yes ;;
    -*) echo "unknown option: $argument" >&2 && exit 2 ;;
    *) names+=("$(basename -- "$argument" .patch)") ;;
    esac
done
if [[ ${#names[@]} -eq 0 ]]; then
    for file in "$patches"/*.patch; do
        names+=("$(basename -- "$file" .patch)")
    done
fi

# The copy that the patches are applied to. All its files get new times: cargo rebuilds what
# differs from an earlier run, even if that was interrupted between a patch and its reversal.
rm -rf "$tree"
mkdir -p "$tree" "$work/logs"
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
        if [[ -f $file ]]; then printf '%s\0' "$file"; fi
    done | xargs -0 cp --parents -t "$tree" --
# git, in the copy, must not find the repository around it.
export GIT_CEILING_DIRECTORIES=$work

# header NAME KEY: the values of a patch's header lines "# KEY: value", one a line.
header() {
    sed -n -e '/^\(diff\|---\) /q' -e "s/^# $2: *//p" "$patches/$1.patch"
}

# run NAME CHECK [ARGUMENT...]: the command of a check, with further arguments for cargo.
run() {
    local name=$1 kind crate filter preemptions arguments
    read -r kind arguments <<<"$2"
    shift 2
    case $kind in
    model)
        read -r crate filter <<<"$arguments"
        preemptions=$(header "$name" preemptions)
        # The same bounds as in ci/model.sh.
        [[ $crate == umcg ]] || preemptions=${preemptions:-2}
        RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$target/loom CARGO_INCREMENTAL=1 \
            LOOM_MAX_PREEMPTIONS=${preemptions:-4} \
            cargo test --quiet --release -p "$crate" --lib "$@" "$filter"
        ;;
    test)
        # shellcheck disable=SC2086 # several words
        CARGO_TARGET_DIR=$work/build cargo test --quiet "$@" $arguments
        ;;
    *)
        echo "$name: a check begins with 'model' or 'test', not '$kind'" >&2
        return 2
        ;;
    esac
}

# in_time NAME CHECK SECONDS: runs the check. The status is that of `timeout`: 124, or 137 if the
# check did not end by itself then, says that it took longer.
in_time() (
    cd "$tree"
    export -f run header
    export patches work target
    # shellcheck disable=SC2016 # expanded by the inner shell
    timeout -k 5 "$3" bash -c 'run "$1" "$2"' run "$1" "$2"
)

# broken NAME: does one patch. Says what is wrong, and fails, unless each check fails.
broken() {
    local name=$1 limit check status began=$SECONDS log=$work/logs/$1.log
    local -a checks
    : >"$log"
    mapfile -t checks < <(header "$name" check)
    if [[ -z $(header "$name" rule) || ${#checks[@]} -eq 0 ]]; then
        echo "NO HEADER    $name: it needs '# rule:' and '# check:'"
        return 1
    fi
    limit=$(header "$name" seconds)
    if ! (cd "$tree" && git apply "$patches/$name.patch") >>"$log" 2>&1; then
        echo "NOT APPLIED  $name: renew the patch"
        cat "$log"
        return 1
    fi
    local result=0
    for check in "${checks[@]}"; do
        if ! (cd "$tree" && run "$name" "$check" --no-run) >>"$log" 2>&1; then
            echo "NOT COMPILED $name: $check"
            tail -n 40 "$log"
            result=1
            continue
        fi
        status=0
        in_time "$name" "$check" "${limit:-120}" >>"$log" 2>&1 || status=$?
        if [[ $status == 0 ]]; then
            echo "NOT NOTICED  $name: $check"
            tail -n 20 "$log"
            result=1
        elif [[ $status == 124 || $status == 137 ]] && [[ $(header "$name" hang) != yes ]]; then
            echo "TIMED OUT    $name: $check, after ${limit:-120} s"
            tail -n 20 "$log"
            result=1
        fi
    done
    (cd "$tree" && git apply --reverse "$patches/$name.patch")
    [[ $result != 0 ]] ||
        printf 'noticed %4d s  %s: %s\n' $((SECONDS - began)) "$name" "$(header "$name" rule)"
    return "$result"
}

say "broken rules"
failed=()
done=0
for name in "${names[@]}"; do
    [[ -e $patches/$name.patch ]] || { echo "no such patch: $name" >&2 && exit 2; }
    [[ $quick == no || $(header "$name" quick) == yes ]] || continue
    broken "$name" || failed+=("$name")
    done=$((done + 1))
done
echo "$done rules broken, ${#failed[@]} of them not as they should"
if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
[[ $done -gt 0 ]] || { echo "nothing was checked" >&2 && exit 1; }
