# shellcheck shell=bash
# What every script shares: where things are, and how they tell what they do.
#
# Everything the scripts install or build lies in CACHE_DIR and is safe to delete: the next run
# makes it again. Nothing else of the machine is touched, Debian packages apart.

# shellcheck disable=SC2034 # used by those who source this
REPO_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/openduck
export CARGO_TARGET_DIR=$CACHE_DIR/target

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# step TITLE COMMAND…: runs a part of the work under a heading, and tells how long it took. A part
# that fails ends the script.
step() {
    local title=$1 started=$SECONDS
    shift
    say "== $title"
    "$@"
    say "   done in $((SECONDS - started)) s"
}

# quietly COMMAND…: shows what the command prints only where it fails.
quietly() {
    local output
    if ! output=$("$@" 2>&1); then
        say "$output"
        die "this failed: $*"
    fi
}

# in_turn COMMAND…: two scripts at once must not write into the cache at once.
in_turn() {
    mkdir -p "$CACHE_DIR"
    local lock
    exec {lock}>"$CACHE_DIR/lock"
    if ! flock --nonblock "$lock"; then
        say "   another script is setting up in $CACHE_DIR; waiting for it"
        flock "$lock"
    fi
    "$@"
    flock --unlock "$lock"
    exec {lock}>&-
}
