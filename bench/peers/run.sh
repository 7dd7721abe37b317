#!/bin/sh
# Installs the servers that are compared, builds this program, and measures, on a
# Debian machine as root with two cores or more. Arguments go to the benchmark.
set -eu
cd "$(dirname "$0")/../.."

missing=
for package in gdnsd knot knot-module-geoip pdns-server pdns-backend-bind pdns-backend-geoip iproute2 util-linux; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    # The benchmark starts its own servers; the packages must not start theirs.
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    apt-get update -q
    # shellcheck disable=SC2086 -- names of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    rm -f /usr/sbin/policy-rc.d
    trap - EXIT
fi

go build -o coredns-dnslb .
go build -o dist/peers ./bench/peers
# Processes end with the namespace, and all addresses are local in it. Both sides
# have the same priority, above what else runs: in a session of their own, since with
# automatic groups (sched(7)) nice values count only within a session.
exec setsid --wait unshare --net --pid --fork --kill-child --mount-proc nice -n -15 sh -euc '
    [ ! -e /proc/self/autogroup ] || echo -15 >/proc/self/autogroup
    ip link set lo up
    ip route add local 0.0.0.0/0 dev lo
    ip -6 route add local ::/0 dev lo
    exec taskset -c 1 dist/peers "$@"' sh "$@"
