"""State that really moves: an adapter beside each instance copies bytes by two shell hooks.

The function of the demo carries no state of its own. What goes from instance to instance with a
move is a file of random bytes, of a set size and at a set rate; its hash is checked on arrival.
"""

import hashlib
import random
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from flowferry.demo.cues import MOST_STATE
from flowferry.testbed import Testbed

#: Mbit/s: ten megabytes take a fifth of a second.
RATE = 400
PORT = 7200


class State:
    """The adapters of a testbed's instances; a context manager that ends them."""

    def __init__(self, bed: Testbed, scratch: Path, key_id: int, key_file: Path) -> None:
        """`scratch`: a directory for what is sent and what has come."""
        self._bed, self._scratch = bed, scratch
        self._key = f"{key_id}:{key_file}"
        self._blob = random.Random(0).randbytes(MOST_STATE)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start them; return when each has greeted its agent."""
        (self._scratch / "blob").write_bytes(self._blob)
        self.announce(0)
        where = shlex.quote(str(self._scratch))
        export = f'head -c "$(cat {where}/size)" {where}/blob'
        taken = f"{where}/got-$FLOWFERRY_HANDOVER"
        take = f"sha256sum > {taken}.part && mv {taken}.part {taken}"
        try:
            for instance in self._bed.instances:
                socket = self._bed.owner.directory / f"fn-{instance.name}.sock"
                adapter = self._bed.popen(
                    instance.name,
                    [
                        *(sys.executable, "-c", "from flowferry.cli import main; main()"),
                        *("hsl", "adapter", "--socket", str(socket), "--key", self._key),
                        *("--listen", f"{instance.mgmt_ip}:{PORT}", "--rate", str(RATE)),
                        *("--export", export, "--import", take, "--staging", str(self._scratch)),
                    ],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                self._stack.callback(_end, adapter)
                assert adapter.stderr is not None
                said = adapter.stderr.readline().strip()
                if said != "ready":
                    raise RuntimeError(f"the adapter of {instance.name} did not start: {said}")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them."""
        self._stack.close()

    def announce(self, size: int) -> None:
        """Say how many bytes the next move carries."""
        part = self._scratch / "size.part"
        part.write_text(f"{size}\n")
        part.rename(self._scratch / "size")

    def arrived(self, handover: int, size: int) -> Sequence[bool]:
        """For each part of a handover whose state has come: whether it is what was sent."""
        wanted = hashlib.sha256(self._blob[:size]).hexdigest()
        found = [
            path
            for path in self._scratch.glob("got-*")
            if path.suffix != ".part" and int(path.name.removeprefix("got-")) >> 8 == handover
        ]
        return [path.read_text().split()[0] == wanted for path in found]


def _end(adapter: "subprocess.Popen[str]") -> None:
    adapter.terminate()
    adapter.wait(10)
    assert adapter.stderr is not None
    adapter.stderr.close()
