#!/usr/bin/env bash
# Measures Onceward beside its ceilings: writes bench/results.json and bench/machine.json, and makes docs/performance.md of them.
#
#   scripts/bench.sh             W1 to W4 and W6, three repeats, about 15 minutes: short runs, and a backlog of 200,000 messages instead of 500,000
#   scripts/bench.sh full        everything, five repeats, at most two hours, in the background with a log; wants 60 GB of free disk
#   scripts/bench.sh guard       two minutes: is anything much slower than bench/results.json says? Writes nothing
#   scripts/bench.sh peers       W1 and W2 on Kafka beside other relays, and W1 with a network to Kafka, three repeats, in some 30 minutes; a Go peer runs where
#                                ONCEWARD_BENCH_OPEN_OUTBOX or ONCEWARD_BENCH_WATERMILL names its program. With more arguments, as they say
#   scripts/bench.sh ARGUMENTS   what they say, without a page: `--help` lists them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode=given
if [ "$#" = 0 ]; then
    mode=short
elif [ "$1" = full ]; then
    [ "$#" = 1 ] || { echo "bench: full takes no arguments" >&2; exit 2; }
    mode=full
elif [ "$1" = peers ]; then
    mode=peers
fi

# Where the servers write, as the testkit decides it.
scratch="${ONCEWARD_TESTKIT_DIR:-${TMPDIR:-/tmp}}"
wanted=60
if [ "$mode" = full ]; then
    free="$(df -B 1000000000 --output=avail "$scratch" | tail -n 1 | tr -d ' ')"
    if [ "$free" -lt "$wanted" ]; then
        echo "bench: everything wants $wanted GB of free disk at $scratch, and there are $free GB;" \
            "free some, or name another place in ONCEWARD_TESTKIT_DIR" >&2
        exit 1
    fi
fi

scripts/install-servers.sh build postgres nats kafka sqs
cargo build --release -p onceward-relay -p onceward-bench
if [ "$mode" = peers ]; then
    scripts/install-servers.sh debezium
    cargo build --release --locked --manifest-path bench/peers/outbox-core/Cargo.toml --target-dir target/peers
fi
bench=target/release/onceward-bench
case "$mode" in
    given) exec "$bench" "$@" ;;
    short)
        "$bench" --only W1,W2,W3,W4,W6 --repeats 3 --messages 200000 --seconds 2
        exec "$bench" report
        ;;
    peers)
        [ "$#" = 1 ] || exec "$bench" "$@"
        "$bench" peers --repeats 3 --messages 1000000 --seconds 20
        exec "$bench" report
        ;;
    full)
        log=target/bench-full.log
        # shellcheck disable=SC2016  # the inner shell expands it
        nohup bash -c '"$0" "$@" && exec "$0" report' "$bench" \
            --repeats 5 --messages 500000 --seconds 8 >"$log" 2>&1 </dev/null &
        echo "measuring in the background as process $!; its log is $log"
        ;;
esac
