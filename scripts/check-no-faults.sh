#!/usr/bin/env bash
# The planted bugs and failpoints of the tests live behind a feature `faults`. The released binary must have none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
features="$(cargo tree --locked -p onceward-relay --edges normal,features --format '{p} {f}' --prefix none)"
if grep -E '^onceward' <<<"$features" | grep -nw faults; then
    echo "the binary would be built with the feature \`faults\`" >&2
    exit 1
fi
echo "no crate of the binary has the feature \`faults\`"
