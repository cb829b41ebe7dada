#!/usr/bin/env bash
# Prints the directory of the newest PostgreSQL under .servers/, or fails if there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
found="$(find .servers -maxdepth 1 -type d -name 'postgres-*' 2>/dev/null | sort -V | tail -n 1)"
[ -n "$found" ] || exit 1
echo "$PWD/$found"
