#!/usr/bin/env bash
# Tests the way to servers in containers: with a Docker engine of its own, on images made of the servers on this machine.
#
#   scripts/test-containers.sh CARGO_ARGUMENT…      (features, as for the other tests, so that nothing is built again)
#
# Nothing is pulled. The engine listens on a socket in a directory of its own, publishes ports on loopback, leaves the machine's
# packet filter alone, and is stopped at the end. ONCEWARD_TEST_CONTAINERS=no leaves all of this out.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
servers="$root/.servers"
say() { printf '  %-15s %s\n' containers "$1"; }
die() { printf 'test-containers: %s\n' "$1" >&2; exit 1; }

if [ "${ONCEWARD_TEST_CONTAINERS:-yes}" = no ]; then
    say "left out, as ONCEWARD_TEST_CONTAINERS=no says"
    exit 0
fi
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
as_root true || die "a Docker engine needs root. As root, or with sudo, try again; or leave this out by ONCEWARD_TEST_CONTAINERS=no"
"$root/scripts/install-servers.sh" docker postgres nats

# A short path: a socket's name may have 107 bytes.
work="$(mktemp -d)"
export DOCKER_HOST="unix://$work/docker.sock"
# Where the tests look for what is published.
export TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1
bridge_was_there="$(ip -o link show docker0 2>/dev/null || true)"

stop() {
    # The engine's own id: what runs in the background here may be sudo.
    if [ -e "$work/dockerd.pid" ]; then as_root kill "$(cat "$work/dockerd.pid")" 2>/dev/null || true; fi
    wait
    if [ -z "$bridge_was_there" ]; then as_root ip link del docker0 2>/dev/null || true; fi
    # The engine mounts its data over itself, and leaves it so.
    as_root umount "$work/data" 2>/dev/null || true
    as_root rm -rf "$work"
}
trap stop EXIT

as_root dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" --host "$DOCKER_HOST" \
    --ip 127.0.0.1 --iptables=false --ip-forward=false >"$work/log" 2>&1 &
until docker version >/dev/null 2>&1; do
    if [ -z "$(jobs -r)" ] || [ "$SECONDS" -gt 120 ]; then break; fi
    sleep 0.2
done
if ! docker version >/dev/null 2>&1; then
    tail -n 20 "$work/log" >&2
    die "no Docker engine can be started on this machine (its last lines are above). ONCEWARD_TEST_CONTAINERS=no leaves these tests out"
fi
say "Docker $(docker version --format '{{.Server.Version}}')"

# copy FILE…: into the image's tree, at the same places, with the libraries that they need.
copy() {
    local file library
    for file in "$@"; do
        mkdir -p "$tree$(dirname "$file")"
        cp -aL "$file" "$tree$file"
        # A program that is linked statically, or a file that is none, needs nothing.
        { ldd "$file" 2>/dev/null | grep -o '/[^ ]*' || true; } | while read -r library; do
            [ -e "$tree$library" ] || { mkdir -p "$tree$(dirname "$library")"; cp -L "$library" "$tree$library"; }
        done
    done
}

image_postgres() {
    local bin share lib tree="$work/postgres" file
    bin="$("$root/scripts/install-servers.sh" postgres | awk '{ print $2 }')"
    share="$("$bin/pg_config" --sharedir)" lib="$("$bin/pg_config" --pkglibdir)"
    mkdir -p "$tree/usr/bin" "$tree/tmp" "$tree/etc" "$tree/var/run/postgresql" "$tree$share" "$tree/usr/share" "$tree/usr/lib/locale"
    for file in "$bin"/{postgres,initdb,pg_ctl} "$lib"/*.so; do copy "$file"; done
    for file in sh mkdir chown id setpriv; do
        copy "$(command -v "$file")"
    done
    [ -e "$tree/bin" ] || ln -s usr/bin "$tree/bin"
    cp -a "$share/." "$tree$share/"
    cp -aL /usr/share/zoneinfo "$tree/usr/share/"
    if [ -d /usr/lib/locale/C.utf8 ]; then cp -a /usr/lib/locale/C.utf8 "$tree/usr/lib/locale/"; fi
    printf 'root:x:0:0::/:/bin/sh\npostgres:x:999:999::/:/bin/sh\n' >"$tree/etc/passwd"
    printf 'root:x:0:\npostgres:x:999:\n' >"$tree/etc/group"
    chmod 1777 "$tree/tmp" "$tree/var/run/postgresql"
    cat >"$tree/usr/bin/docker-entrypoint.sh" <<'ENTRYPOINT'
#!/bin/sh
set -e
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown postgres "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb -D "$PGDATA" -U "${POSTGRES_USER:-postgres}" -A trust -E UTF8 --locale=C.UTF-8 --no-sync --no-instructions
    echo "host all all all trust" >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start
    pg_ctl -D "$PGDATA" -w -m fast stop
fi
exec "$@" -D "$PGDATA" -c listen_addresses='*'
ENTRYPOINT
    chmod 755 "$tree/usr/bin/docker-entrypoint.sh"
    tar -C "$tree" -c . | docker import --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["postgres"]' \
        --change 'EXPOSE 5432' --change "ENV PATH=$bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/data" - "postgres:$1" >/dev/null
}

image_nats() {
    local tree="$work/nats"
    mkdir -p "$tree/tmp"
    cp "$servers/nats/nats-server" "$tree/nats-server"
    tar -C "$tree" -c . | docker import --change 'ENTRYPOINT ["/nats-server"]' --change 'EXPOSE 4222' - "nats:$1" >/dev/null
}

# The tags that the testkit asks for; what is inside is what this machine has.
tag() { sed -n "s/^const $1_TAG: &str = \"\(.*\)\";/\1/p" "$root/integration-tests/src/containers.rs"; }
image_postgres "$(tag POSTGRES)"
image_nats "$(tag NATS)"
docker image ls --format '{{.Repository}}:{{.Tag}}, {{.Size}}' | while read -r image; do say "$image"; done

cd "$root"
# The servers must come from containers, from nowhere else.
env -u ONCEWARD_TEST_POSTGRES_URL -u ONCEWARD_TEST_POSTGRES_BIN -u ONCEWARD_TEST_NATS_URL \
    cargo test "$@" --test containers --test streams
