"""The kernel's receive queues, one a CPU, which all virtual devices of the machine share."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowferry.testbed import Testbed, namespace

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


def dropped_on_the_way(bed: Testbed) -> int:
    """Packets that full queues in front of a testbed's own devices have cost, since it was built.

    Hosts', instances' and switches' devices: receive queues of the kernel, which others may have
    filled, and those of AF_XDP ports, whose switch did not get a CPU in time.
    """
    devices = [(one.namespace, one.dev) for one in bed.hosts.values()]
    devices += [(one.namespace, dev) for one in bed.instances for dev in (one.up, one.down)]
    for switch in bed.switches.values():
        devices += [(bed.namespaces[switch.role], port) for port in switch.ports]
    found = {space: namespace.call(space, _dropped) for space in {space for space, _ in devices}}
    return sum(found[space][dev] for space, dev in devices)


def _dropped() -> dict[str, int]:
    """By device of the present namespace: the fourth figure of those received."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    named = (line.partition(":") for line in lines)
    return {dev.strip(): int(figures.split()[3]) for dev, _, figures in named}
