"""The kernel's receive queues, one a CPU, which all virtual devices of the machine share."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: How many frames a CPU's queue takes.
LIMIT = Path("/proc/sys/net/core/netdev_max_backlog")
#: What docs/hsl.md recommends; the kernel's own default is 1,000.
RECOMMENDED = 10_000

#: Raises the limit $2 to $1 until its standard input ends, as it also does when we are killed.
KEEPER = """
frames=$1 file=$2 before=$(cat "$2")
if [ "$before" -lt "$frames" ]; then
    trap 'echo "$before" > "$file"' EXIT
    echo "$frames" > "$file"
fi
echo raised
read -r _ || true
"""


@contextmanager
def room(frames: int = RECOMMENDED) -> Iterator[None]:
    """Let the queues take at least `frames`, then put the limit back, whatever happens to us.

    The limit is the machine's; a lock on its file keeps two of us from restoring each other's.
    """
    keeper = subprocess.Popen(
        ["flock", str(LIMIT), "sh", "-c", KEEPER, "keeper", str(frames), str(LIMIT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us
    )
    raised = False
    try:
        assert keeper.stdout is not None
        raised = keeper.stdout.readline() == "raised\n"
        assert raised
        assert int(LIMIT.read_text()) >= frames
        yield
    finally:
        if not raised:  # it may still wait for the lock
            keeper.terminate()
        keeper.communicate()


def drops() -> int:
    """Packets dropped because a CPU's queue was full, all CPUs, since the machine started."""
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)
