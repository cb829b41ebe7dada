#!/usr/bin/env bash
# The suites that depend on the server's behaviour, run against the server in ONCEWARD_TEST_POSTGRES_BIN.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo test -p onceward-migrations -p onceward -p onceward-testkit
