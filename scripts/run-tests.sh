#!/usr/bin/env bash
# Runs tests as `cargo test` does, but two of their programs at a time, and the end-to-end suite after all others.
#
#   scripts/run-tests.sh CARGO_ARGUMENT…      (which tests, features)
#
# Most tests wait for a server, a lease or a deadline: one program at a time leaves half of two cores idle. The end-to-end suite needs all
# of them. What a program prints is shown once it has ended. Documentation's examples are not run: `cargo test --doc` does that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work="$(mktemp -d)"
export work
trap 'rm -rf "$work"' EXIT
touch "$work/failed"

# run_one NAME DIRECTORY PROGRAM
run_one() {
    local log
    log="$(mktemp -p "$work")"
    SECONDS=0
    if ! (cd "$2" && "$3") >"$log" 2>&1; then echo "$1 in $2" >>"$work/failed"; fi
    {
        flock 9
        printf '\n--- %s in %s: %s s\n' "$1" "$2" "$SECONDS"
        cat "$log"
    } 9>"$work/shown"
}
export -f run_one

# run_all AT_A_TIME CONDITION: those test programs for which jq says so.
run_all() {
    jq -r "select(.executable and .profile.test and ($2)) | .target.name, (.manifest_path | rtrimstr(\"/Cargo.toml\")), .executable" "$work/built" |
        xargs -r -d '\n' -n 3 -P "$1" bash -c 'run_one "$@"' run_one
}

cargo test --no-run --message-format=json-render-diagnostics "$@" >"$work/built"
run_all 2 '.target.name != "e2e"'
run_all 1 '.target.name == "e2e"'

if [ -s "$work/failed" ]; then
    printf '\nTests failed in:\n' >&2
    cat "$work/failed" >&2
    exit 1
fi
