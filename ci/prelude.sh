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
