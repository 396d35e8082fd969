#!/usr/bin/env bash
# setup/python.sh VENV: the virtual environment and its packages, renewed when pyproject.toml changes.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=$1

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: failed: %s\n' "$*" >&2; exit 1; }

if [ ! -x "$VENV/bin/python" ]; then
  say "Python: making $VENV"
  "${PYTHON:-python3}" -m venv "$VENV" || fail "$VENV could not be made; install python3-venv"
fi

stamp=$VENV/.packages-stamp
want=$(sha256sum pyproject.toml | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
  say "Python packages: all there"
  exit 0
fi
say "Python packages: installing"
# The package itself comes with the native module; here only what it and its tests need.
"$VENV/bin/python" - <<'PY' >"$VENV/.requirements"
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["dev"], sep="\n")
PY
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$VENV/.requirements" ||
  fail "Python packages could not be installed; look at the lines above"
echo "$want" >"$stamp"
