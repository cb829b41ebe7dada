#!/usr/bin/env bash
# Measures Onceward beside its ceilings and writes bench/results.json. Arguments go to the program: --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-servers.sh build postgres nats kafka sqs
cargo build --release -p onceward-relay -p onceward-bench
exec target/release/onceward-bench "$@"
