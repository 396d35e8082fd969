"""Members of a cluster that are processes of their own, as instances are.

Each is a Python program that fills its store and answers; it is told what to hold or to write on
its standard input, and says when it does.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flowferry import estate
from flowferry.estate import Estate

#: Seconds until all members see each other, or one has filled its store.
PATIENCE = 60.0

MEMBER = """
import sys
import time
from flowferry import estate
cluster, node, *peers = sys.argv[1:]

def write(keys):
    # Until an addition is refused, or a counter begins anew; says when the last was before that.
    last, wanted = None, 1
    while True:
        wanted += 1
        for key in keys:
            try:
                if es.add(key) < wanted:
                    return last
            except estate.Frozen:
                return last
            last = time.monotonic()

with estate.open(cluster=cluster, node=node, listen="127.0.0.1:0", peers=peers) as es:
    print("ready", flush=True)
    for line in sys.stdin:
        prefix, count, kind = line.split()
        keys = [prefix % number for number in range(int(count))]
        if kind == "write":
            print("writing", flush=True)
            print(write(keys), flush=True)
            continue
        for key in keys:
            es.set(key, 1 if kind == "int" else bytes(int(kind)))
        print("filled", flush=True)
"""


class Members:
    """An estate in this process, and the processes around it."""

    def __init__(
        self, es: Estate, cluster: str, place: str, processes: list["subprocess.Popen[str]"]
    ) -> None:
        """Use `members`."""
        self.es = es
        #: Its name, and where it can be joined.
        self.cluster, self.place = cluster, place
        self._processes = processes

    def fill(self, prefix: str, count: int, kind: str, *, which: slice = slice(None)) -> None:
        """Have members set `count` keys, `prefix` % number, to an int or to so many bytes."""
        for process in self._processes[which]:
            assert process.stdin is not None
            process.stdin.write(f"{prefix} {count} {kind}\n")
            process.stdin.flush()
        for process in self._processes[which]:
            _expect(process, "filled")

    def write(self, prefix: str, count: int) -> None:
        """Have the first member add to these counters, which are 1, in turn until they go."""
        first = self._processes[0]
        assert first.stdin is not None
        first.stdin.write(f"{prefix} {count} write\n")
        first.stdin.flush()
        _expect(first, "writing")

    def last_write(self) -> float:
        """When its last write succeeded, by `time.monotonic`."""
        stdout = self._processes[0].stdout
        assert stdout is not None
        return float(stdout.readline())

    @contextmanager
    def one_stopped(self) -> Iterator[None]:
        """The last member says nothing for the length of a block; all see each other after it."""
        last, count = self._processes[-1], len(self._processes) + 1
        last.send_signal(signal.SIGSTOP)
        os.waitpid(last.pid, os.WUNTRACED)
        try:
            yield
        finally:
            last.send_signal(signal.SIGCONT)
            _all_see_all(self.es, count)

    def kill_one(self) -> None:
        """End the last member as `kill -9` does."""
        self._processes[-1].kill()
        self._processes[-1].wait()

    def idle_percent(self, seconds: float) -> float:
        """CPU of one member that nobody asks anything, in percent of one CPU."""
        before, began = self._cpu(), time.monotonic()
        time.sleep(seconds)  # a measurement over this time
        used = self._cpu() - before
        return 100 * used / (time.monotonic() - began) / len(self._processes)

    def _cpu(self) -> float:
        ticks = 0
        for process in self._processes:
            with open(f"/proc/{process.pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != word:
        raise RuntimeError("a member has ended; see its words above")


def _all_see_all(es: Estate, count: int) -> None:
    until = time.monotonic() + PATIENCE
    while len(es.members()) < count:
        if time.monotonic() > until:
            raise RuntimeError(f"only {es.members()} of {count} instances found each other")
        time.sleep(0.01)


@contextmanager
def members(count: int, *, failure_after: float = 1.0) -> Iterator[Members]:
    """`count` instances, this process one of them, for the length of a block."""
    cluster = f"bench-{secrets.token_hex(4)}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    with ExitStack() as stack:
        options: dict[str, Any] = {"cluster": cluster, "node": "asker", "listen": place}
        options |= {"timeout": 10.0, "failure_after": failure_after}
        es = stack.enter_context(estate.open(**options))
        processes = []
        for number in range(count - 1):
            argv = [sys.executable, "-c", MEMBER, cluster, f"m{number:02}", place]
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            _expect(process, "ready")
        _all_see_all(es, count)
        yield Members(es, cluster, place, processes)
