#!/usr/bin/env bash
# Runs tests as `cargo test` does, but two of their programs at a time, and the end-to-end suite after all others.
#
#   scripts/run-tests.sh CARGO_ARGUMENT…      (packages, features, `--test NAME`; nothing behind `--`)
#
# Most tests wait for a server, a lease or a deadline: one program at a time leaves half of two cores idle. The end-to-end suite needs all
# of them. What a program prints is shown once it has ended. Documentation's examples are not run: `cargo test --doc` does that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v jq >/dev/null; then
    echo "run-tests: jq is missing: scripts/install-servers.sh runner" >&2
    exit 1
fi
work="$(mktemp -d)"
export work
touch "$work/failed"
# Of a program that was interrupted, the last lines: they say what it was at.
show_the_rest() {
    find "$work" -name '*.log' -exec tail -v -n 50 {} + >&2
    rm -rf "$work"
}
trap show_the_rest EXIT

# run_one NAME DIRECTORY PROGRAM
run_one() {
    local log code=0
    log="$(mktemp -p "$work" "$1.XXXXXX.log")"
    SECONDS=0
    (cd "$2" && "$3") >"$log" 2>&1 || code=1
    {
        flock 9
        printf '\n--- %s in %s: %s s\n' "$1" "$2" "$SECONDS"
        cat "$log"
    } 9>"$work/shown"
    rm -f "$log"
    if [ "$code" != 0 ]; then echo "$1 in $2" >>"$work/failed"; fi
    return "$code"
}
export -f run_one

# run_all AT_A_TIME CONDITION: those test programs for which jq says so. Each of those that run side by side has a slot of its own.
run_all() {
    jq -r "select(.executable and .profile.test and ($2)) | .target.name, (.manifest_path | rtrimstr(\"/Cargo.toml\")), .executable" "$work/built" |
        xargs -r -d '\n' -n 3 -P "$1" --process-slot-var=ONCEWARD_TEST_SLOT bash -c 'run_one "$@"' run_one
}

cargo test --no-run --message-format=json-render-diagnostics "$@" >"$work/built"
if ! jq -se 'any(.executable and .profile.test)' "$work/built" >/dev/null; then
    echo "run-tests: there are no such tests" >&2
    exit 1
fi
first=0
last=0
run_all 2 '.target.name != "e2e"' || first="$?"
run_all 1 '.target.name == "e2e"' || last="$?"

if [ "$first" != 0 ] || [ "$last" != 0 ]; then
    printf '\nTests failed in:\n' >&2
    cat "$work/failed" >&2
    # What xargs says of programs that have only failed.
    for status in "$first" "$last"; do
        case "$status" in 0 | 123) ;; *) echo "run-tests: a program was killed, and others were not run (status $status)" >&2 ;; esac
    done
    exit 1
fi
