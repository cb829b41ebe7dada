#!/usr/bin/env bash
# Counts the instructions of the hot functions and compares them with bench/instructions.json.
#
#   scripts/count-instructions.sh            fails when a function takes a tenth more than the table says
#   scripts/count-instructions.sh --renew    writes the table anew
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-servers.sh build valgrind
cargo build --release -p onceward-instructions
exec target/release/onceward-instructions "$@"
