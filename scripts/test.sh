#!/usr/bin/env bash
# Everything that must hold before a change lands. `make test` and .ci/run call this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# stage NAME COMMAND…: runs it under a header, and says how long it took.
stage() {
    local name="$1" begin="$SECONDS"
    shift
    printf '\n=== %s\n' "$name"
    if ! "$@"; then
        printf '=== %s: FAILED after %s s\n' "$name" "$((SECONDS - begin))" >&2
        exit 1
    fi
    printf '=== %s: %s s\n' "$name" "$((SECONDS - begin))"
}

# Planted bugs and failpoints are compiled in for the tests that need them; nothing is planted unless a test says so. The servers
# that tests share come from containers where a Docker engine answers. Not all features: those of TLS have no code of their own, and
# would build OpenSSL.
features=onceward/faults,onceward-relay/faults,onceward-consumer/faults,onceward-testkit/containers
# Many tests of a program wait for a server, a lease or a deadline: one for each core would leave a third of the machine idle, also with two
# programs at a time. Some start servers of their own.
cores="$(nproc)"
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((cores < 4 ? 2 * cores : 8))}"

# What servers write goes into memory where there is room: a database for each test makes some hundred files, and removes them again.
# Copies of the server's programs may lie there too: so not where nothing may be executed.
in_memory() {
    [ -z "${ONCEWARD_TESTKIT_DIR:-}${ONCEWARD_TESTKIT_KEEP:-}" ] || return 1
    [[ "$(findmnt -no FSTYPE,OPTIONS /dev/shm)" == tmpfs* && "$(findmnt -no OPTIONS /dev/shm)" != *noexec* ]] || return 1
    local room memory
    room="$(df --output=avail -k /dev/shm | tail -n 1)"
    memory="$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)"
    [ "$room" -ge 8000000 ] && [ "$memory" -ge 12000000 ]
}
if in_memory; then export ONCEWARD_TESTKIT_DIR="/dev/shm/onceward-testkit-$(id -u)"; fi

# What servers are missing is fetched while the compiler works.
fetched="$(mktemp)"
fetching=
let_it_end() {
    # An installer of packages is not to be stopped in the middle, and the next run would wait for it without a word.
    if [ -n "$fetching" ]; then
        if kill -0 "$fetching" 2>/dev/null; then echo "waiting for scripts/install-servers.sh to end" >&2; fi
        wait "$fetching" || cat "$fetched" >&2
    fi
    rm -f "$fetched"
}
trap let_it_end EXIT
what_was_fetched() {
    local code=0
    wait "$fetching" || code="$?"
    fetching=
    cat "$fetched"
    return "$code"
}

stage setup scripts/install-servers.sh build
{ scripts/install-servers.sh && scripts/install-servers.sh valgrind; } >"$fetched" 2>&1 &
fetching=$!
stage format cargo fmt --all -- --check
stage clippy cargo clippy --workspace --all-targets --features "$features" -- -D warnings
stage documentation env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace
stage "no faults in the binary" scripts/check-no-faults.sh
stage servers what_was_fetched
stage tests scripts/run-tests.sh --workspace --features "$features"
stage "examples of the documentation" cargo test --doc --no-fail-fast --workspace --features "$features"
stage "servers in containers" scripts/test-containers.sh --workspace --features "$features"
# Last but for another server: it makes a release build of its own.
stage "instructions" scripts/count-instructions.sh
if newer="$(scripts/newer-postgres.sh)"; then
    # Fewer kills than the first time where their number can be chosen: what is looked for is what differs between servers. The same features: nothing is built again.
    stage "tests on PostgreSQL ${newer##*-}" env "ONCEWARD_TEST_POSTGRES_BIN=$newer/bin" "ONCEWARD_KILL_CYCLES=${ONCEWARD_KILL_CYCLES:-10}" \
        scripts/run-tests.sh --workspace --features "$features" --test postgres --test log --test enqueue --test inspect --test ledger --test e2e
    stage "plan of the read on PostgreSQL ${newer##*-}" env "ONCEWARD_TEST_POSTGRES_BIN=$newer/bin" \
        cargo test --workspace --features "$features" --lib -- log::plan::
else
    echo "=== no newer PostgreSQL found: run scripts/install-servers.sh postgres-newer" >&2
    exit 1
fi
printf '\nAll checks passed in %s s.\n' "$SECONDS"
