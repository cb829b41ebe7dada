#!/usr/bin/env bash
# The suites that depend on the server's behaviour, run against the server in ONCEWARD_TEST_POSTGRES_BIN.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Fewer kills than the first time: what is looked for is what differs between servers.
export ONCEWARD_KILL_CYCLES="${ONCEWARD_KILL_CYCLES:-10}"
cargo test -p onceward-migrations -p onceward -p onceward-testkit
