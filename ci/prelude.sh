# shellcheck shell=bash
# Functions and settings that the scripts beside this one share. Each script runs by hand from any
# folder:
#     ci/lint.sh
# Builds go to target/ or to CARGO_TARGET_DIR. Builds with other flags go to folders of their own
# below it, so that they do not replace each other.

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
root=$PWD
target=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR=$target
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

# say TEXT: prints a headline in the log.
say() {
    printf '\n==== %s\n' "$*"
}

# not_checked TEXT: says loudly that this machine cannot check something.
not_checked() {
    printf '\n!!!! NOT CHECKED HERE: %s\n' "$*"
}

# need COMMAND PACKAGE: installs the Debian package if the command is missing.
need() {
    command -v "$1" >/dev/null && return
    if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "this needs the command $1: install it (Debian: apt-get install $2)" >&2
        return 1
    fi
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$2" >/dev/null
}

# counted COMMAND...: runs tests, and then lists the tests that were skipped. The last summary of
# the test runner comes after that list, so that it ends the log. Fails if the tests fail, or if a
# test was skipped that ci/allowed-skips does not name.
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

# skip_log FOLDER: creates the file "skipped" there, to which tests append when they are skipped. It
# is writable for all, because some tests run as other users.
skip_log() {
    chmod 755 "$1"
    touch "$1/skipped"
    chmod 666 "$1/skipped"
}

# hold_back FILE: copies the output of a test run from stdin to stdout, but for its last summary,
# which goes to the file.
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

# skips LOG [all]: lists the tests that the log names, each once. Fails if one of them may not be
# skipped. With "all", each may be.
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
