#!/usr/bin/env bash
# The demo: an order service, two relays and two billing consumers under load, with kills; then the ledger.
#
#   scripts/demo.sh [nats|kafka|sqs] [--json] [--rate N] [--seconds N]
#
# Installs and builds what is missing, with progress. Everything that it starts ends with it, also on Ctrl-C. What the
# last run has printed stays in .demo/. Ends with 0 if the ledger is green, 1 if not, 130 after Ctrl-C.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

broker=nats
case "${1:-}" in
    nats | kafka | sqs) broker="$1"; shift ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    '' | --*) ;;
    *) echo "demo: unknown broker \"$1\": nats, kafka or sqs" >&2; exit 2 ;;
esac

begin="$SECONDS"
step() { printf '\n%s\n' "$1" >&2; }

command -v cargo >/dev/null || { echo "demo: Rust is needed and cargo was not found: see https://rustup.rs" >&2; exit 1; }

step "1. What it needs: a compiler, PostgreSQL and $broker"
scripts/install-servers.sh build postgres "$broker" >&2

step "2. The programs, as cargo builds them (the first time takes some minutes)"
cargo build --locked -p onceward-relay -p order-service -p billing -p onceward-demo --bins
target="${CARGO_TARGET_DIR:-target}/debug"

# The servers' files: in .demo/, unless their user may not go there or a socket's path would be too long.
mkdir -p .demo
servers="$PWD/.demo/servers"
scratch=
enter() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=nobody --clear-groups -- test -x "$1"; else test -x "$1"; fi; }
if [ "${#servers}" -gt 50 ] || ! enter "$PWD/.demo" 2>/dev/null; then
    scratch="$(mktemp -d)"
    chmod 755 "$scratch"
    servers="$scratch"
fi
# What the servers wrote is removed in any case; a moment later, as they may still be on their way out.
clean() { for _ in 1 2 3 4 5; do rm -rf "$PWD/.demo/servers" ${scratch:+"$scratch"} 2>/dev/null && break; sleep 0.2; done; }
trap clean EXIT
step "3. The demo (prepared in $((SECONDS - begin)) s)"
ONCEWARD_TESTKIT_DIR="$servers" "$target/onceward-demo" --broker "$broker" "$@" &
demo=$!
# The demo ends what it has started; this shell only passes the request on and waits.
trap 'kill -TERM "$demo" 2>/dev/null || :' INT TERM HUP
code=0
wait "$demo" || code=$?
while kill -0 "$demo" 2>/dev/null; do
    code=0
    wait "$demo" || code=$?
done
exit "$code"
