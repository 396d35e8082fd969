"""Run an agent in this very process: what `flowferry hsl run` and a service manager need."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flowferry import _native
from flowferry.hsl.agent import Config
from flowferry.hsl.client import HslError


def run(config: Config) -> dict[str, Any]:
    """Run until SIGTERM, SIGINT or a `stop` command; the agent's last status.

    The native agent says `ready` on file descriptor 1; it appears on stderr here, since stdout
    belongs to the command's own answer. Main thread only. Raises `HslError`.
    """
    with _interrupts_left_to_the_agent(), _output_on_stderr():
        try:
            status = json.loads(_native.hsl_run(config.to_json()))
        except (RuntimeError, ValueError) as error:
            raise HslError(str(error)) from None
    assert isinstance(status, dict)
    return status


@contextmanager
def _interrupts_left_to_the_agent() -> Iterator[None]:
    # Its handler calls the one before it: Python's would raise once the agent has ended in order.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _output_on_stderr() -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
