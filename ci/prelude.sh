# shellcheck shell=bash
# What the scripts beside this one share. Each of them runs by hand from anywhere:
#     ci/lint.sh
# Builds go to target/ or to CARGO_TARGET_DIR, and to folders of their own below it where other
# flags would throw away what is built there.

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
export CARGO_TARGET_DIR=$target
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

# say TEXT: a headline in the log.
say() {
    printf '\n==== %s\n' "$*"
}

# not_checked TEXT: something that this machine cannot check, so that nobody overlooks it.
not_checked() {
    printf '\n!!!! NOT CHECKED HERE: %s\n' "$*"
}

# need COMMAND PACKAGE: installs Debian's package if the command is missing.
need() {
    command -v "$1" >/dev/null && return
    if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "this needs the command $1: install it (Debian: apt-get install $2)" >&2
        return 1
    fi
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$2" >/dev/null
}

# counted COMMAND...: runs tests. What they skipped is listed after them, before the last summary
# of the test runner, which stays the end of the log. Fails with them, and also if one was
# skipped that ci/allowed-skips does not name.
counted() {
    local folder status=0
    folder=$(mktemp -d)
    skip_log "$folder"
    export UMCG_SKIP_LOG=$folder/skipped
    "$@" 2>&1 | hold_back "$folder/summary" || status=$?
    skips "$folder/skipped" || status=1
    cat "$folder/summary"
    rm -rf "$folder"
    return "$status"
}

# skip_log FOLDER: makes the file "skipped" there for what tests skip. They run as other users too,
# who may not make a file in a folder that is everybody's.
skip_log() {
    chmod 755 "$1"
    touch "$1/skipped"
    chmod 666 "$1/skipped"
}

# hold_back FILE: passes a test run on, line by line, but for its last summary and what belongs
# to it, which goes to the file.
hold_back() {
    local line held=
    while IFS= read -r line || [[ -n $line ]]; do
        case $line in
        'test result:'*)
            printf '%s' "$held"
            held=$line$'\n'
            ;;
        '' | 'all doctests ran'*)
            if [[ -n $held ]]; then held+=$line$'\n'; else printf '%s\n' "$line"; fi
            ;;
        *)
            printf '%s%s\n' "$held" "$line"
            held=
            ;;
        esac
    done
    printf '%s' "$held" > "$1"
}

# skips LOG [all]: what the tests wrote there, each test once. Fails if one is not allowed; with
# "all" each one is.
skips() {
    local allowed
    allowed=$(grep -v -e '^#' -e '^$' "$root/ci/allowed-skips")
    awk -v allowed="$allowed" -v all="${2:-}" '
        BEGIN { split(allowed, names, "\n"); for (i in names) may[names[i]] = 1 }
        {
            name = $2
            sub(/:$/, "", name)
            if (!(name in count)) order[++tests] = name
            count[name]++
            reason[name] = substr($0, index($0, $2) + length($2) + 1)
        }
        END {
            printf "\n==== tests skipped: %d\n", tests
            for (i = 1; i <= tests; i++) {
                name = order[i]
                if (all != "") may[name] = 1
                printf "%s (%d times): %s%s\n", name, count[name], reason[name],
                    (name in may) ? "" : "  <-- NOT ALLOWED, see ci/allowed-skips"
                if (!(name in may)) bad = 1
            }
            exit bad
        }
    ' "$1"
}
