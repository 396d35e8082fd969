#!/usr/bin/env bash
# Installs the Debian packages that are missing, without starting or enabling any service.
set -euo pipefail
cd "$(dirname "$0")/.."
POLICY=/usr/sbin/policy-rc.d
SERVICES=(openvswitch-switch ovs-vswitchd ovsdb-server ovs-record-hostname redis-server)

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: failed: %s\n' "$*" >&2; exit 1; }

missing=()
while read -r package probe; do
  case $package in '' | '#'*) continue ;; esac
  (eval "$probe") >/dev/null 2>&1 </dev/null || missing+=("$package")
done <setup/packages

if [ ${#missing[@]} = 0 ]; then
  say "Debian packages: all there"
  exit 0
fi

explain() {
  case " ${missing[*]} " in
    *" openvswitch-switch "*) fail "Open vSwitch is missing ($1); install openvswitch-switch" ;;
  esac
  fail "packages are missing ($1); install ${missing[*]}"
}

[ "${FLOWFERRY_INSTALL:-yes}" != no ] || explain "installing was declined by FLOWFERRY_INSTALL=no"
command -v apt-get >/dev/null || explain "there is no apt-get here"

# While this file says 101, no maintainer script starts, stops or restarts a service. An existing one
# is kept aside and comes back in any case.
KEPT=
restore() {
  rm -f "$POLICY"
  [ -z "$KEPT" ] || mv "$KEPT" "$POLICY"
}
trap restore EXIT
trap 'exit 130' INT TERM HUP
if [ -e "$POLICY" ]; then
  KEPT=$POLICY.before-flowferry
  mv "$POLICY" "$KEPT"
fi
printf '#!/bin/sh\nexit 101\n' >"$POLICY"
chmod 755 "$POLICY"

say "Debian packages: installing ${missing[*]}"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } \
  >"$log" 2>&1 </dev/null; then
  tail -5 "$log" >&2
  explain "apt-get failed, see $log"
fi
rm -f "$log"

# What came with these packages is not to start at the next boot either. Services of packages that
# were here before are left as they are.
for service in "${SERVICES[@]}"; do
  case " ${missing[*]} " in
    *" openvswitch-switch "*) ;;
    *) case $service in ovs* | openvswitch*) continue ;; esac ;;
  esac
  case " ${missing[*]} " in
    *" redis-server "*) ;;
    *) case $service in redis*) continue ;; esac ;;
  esac
  deb-systemd-helper disable "$service.service" >/dev/null 2>&1 || true
  [ ! -e "/etc/init.d/$service" ] || update-rc.d "$service" disable >/dev/null 2>&1 || true
done
say "Debian packages: installed, no service started or enabled"
