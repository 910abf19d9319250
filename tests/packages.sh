#!/bin/sh
# packages.sh [--no-services] PACKAGE…: install those of Debian's packages that are missing. Says what to do where it cannot.
# With --no-services none of them is started, now or at the next boot: tests start what they need, where they need it.
set -eu
services=yes
if [ "${1:-}" = --no-services ]; then
    services=no
    shift
fi
missing=
for package; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get > /dev/null; then
    echo "install what these Debian packages hold:$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "packages are missing: sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
if [ "$services" = no ] && [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing > /dev/null
if [ "$services" = no ]; then
    for package in $missing; do
        case $package in
        haproxy) systemctl disable --quiet haproxy.service 2> /dev/null || true ;;
        nginx) systemctl disable --quiet nginx.service 2> /dev/null || true ;;
        etcd-server) systemctl disable --quiet etcd.service 2> /dev/null || true ;;
        esac
    done
fi
