#!/usr/bin/env bash
# Makes a fresh Debian 12 (root, git, make, Python >= 3.11, Rust) able to build and run everything.
# Idempotent: a step whose result is there already says so and costs nothing.
#
# FLOWFERRY_INSTALL=no   never install Debian packages; say what is missing instead
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=.venv
RUST_NEEDED=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: failed: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "this needs root; run it as root (sudo make ...)"

PYTHON=
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    PYTHON=$(command -v "$candidate")
    break
  fi
done
[ -n "$PYTHON" ] || fail "Python is missing or too old; install Python 3.11 or newer"
export PYTHON

# sudo may have dropped the user's own path.
command -v cargo >/dev/null || PATH="$PATH:$HOME/.cargo/bin"
for program in cargo rustc; do
  command -v "$program" >/dev/null ||
    fail "Rust is missing (no $program); install Rust $RUST_NEEDED or newer with rustup (https://rustup.rs)"
done
RUST_HAVE=$(rustc --version 2>/dev/null | cut -d' ' -f2) || RUST_HAVE=
[[ $RUST_HAVE =~ ^[0-9]+\.[0-9]+ ]] ||
  fail "rustc says no version, 'rustc --version' shows why; Rust $RUST_NEEDED or newer is needed (rustup default stable)"
[ "$(printf '%s\n' "$RUST_NEEDED" "$RUST_HAVE" | sort -V | head -1)" = "$RUST_NEEDED" ] ||
  fail "Rust $RUST_HAVE is too old; update to $RUST_NEEDED or newer (rustup update)"

setup/packages.sh
setup/python.sh "$VENV"
# Before the long build: whether this machine can run at all what is built.
PYTHONPATH=src "$VENV/bin/python" setup/machine.py
setup/native.sh "$VENV"
