"""Check before a long build whether this machine can run the result (see testbed/preflight.py)."""

import sys

from flowferry.testbed import TestbedError, preflight

try:
    preflight.require(without=("native module",))
except TestbedError as error:
    print(f"setup: failed: {error}", file=sys.stderr)
    sys.exit(1)
print("setup: machine: tun, namespaces, BPF and Open vSwitch are there")
