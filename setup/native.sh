#!/usr/bin/env bash
# setup/native.sh VENV: the native module, built in release mode when its sources have changed.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=$1

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: failed: %s\n' "$*" >&2; exit 1; }

stamp=$VENV/.native-stamp
sources() {
  find crates Cargo.toml Cargo.lock pyproject.toml -type f \
    ! -path '*/tests/*' ! -path '*/examples/*' ! -path '*/proptest-regressions/*' -print0 |
    sort -z | xargs -0 sha256sum
  rustc --version
  "$VENV/bin/python" --version
}
want=$(sources | sha256sum | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] &&
  "$VENV/bin/python" -c 'import flowferry._native' 2>/dev/null; then
  say "native module: up to date"
  exit 0
fi
say "native module: building (release)"
began=$SECONDS
log=$(mktemp)
if ! VIRTUAL_ENV=$PWD/$VENV "$VENV/bin/maturin" develop --release --quiet >"$log" 2>&1; then
  cat "$log" >&2
  rm -f "$log"
  fail "the native module does not build; look at the lines above"
fi
rm -f "$log"
"$VENV/bin/python" -c 'import flowferry._native' || fail "the native module does not load"
# Cargo may have completed Cargo.lock.
sources | sha256sum | cut -d' ' -f1 >"$stamp"
say "native module: built in $((SECONDS - began)) s"
