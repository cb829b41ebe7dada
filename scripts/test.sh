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

# Where a Docker engine answers, the servers that tests share come from containers.
features=()
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then features=(--features onceward-testkit/containers); fi

stage setup scripts/install-servers.sh
stage format cargo fmt --all -- --check
stage clippy cargo clippy --workspace --all-targets --all-features -- -D warnings
stage documentation env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace
stage "no faults in the binary" scripts/check-no-faults.sh
stage tests cargo test --workspace --no-fail-fast "${features[@]}"
if newer="$(scripts/newer-postgres.sh)"; then
    stage "tests on PostgreSQL ${newer##*-}" env "ONCEWARD_TEST_POSTGRES_BIN=$newer/bin" scripts/test-newer-postgres.sh
else
    echo "=== no newer PostgreSQL found: run scripts/install-servers.sh postgres-newer" >&2
    exit 1
fi
printf '\nAll checks passed in %s s.\n' "$SECONDS"
