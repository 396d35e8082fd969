"""The kernel's receive queues: one a CPU, which all virtual devices share, and those of sockets."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowferry.testbed import Testbed, namespace
from handover_missing import BACK, THERE

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


def dropped_on_the_way(bed: Testbed) -> dict[str, int]:
    """Packets that full queues in front of a testbed's own devices have cost, since it was built.

    By the way they were on: the kernel's receive queues at hosts, instances and switches, which
    others may have filled, and the sockets of `system` ports. What the full ring of an AF_XDP port
    drops is nobody's figure: it stays unexplained.
    """
    hosts, ingress, egress = bed.hosts, bed.switches["ingress"], bed.switches["egress"]
    takes_in = {
        THERE: [(bed.namespaces[ingress.role], "h1"), (hosts["h2"].namespace, hosts["h2"].dev)],
        BACK: [(bed.namespaces[egress.role], "h2"), (hosts["h1"].namespace, hosts["h1"].dev)],
    }
    for one in bed.instances:
        takes_in[THERE] += [
            (one.namespace, one.up), (bed.namespaces[egress.role], f"{one.name}-down")
        ]  # fmt: skip
        takes_in[BACK] += [
            (one.namespace, one.down), (bed.namespaces[ingress.role], f"{one.name}-up")
        ]  # fmt: skip
    spaces = {space for devices in takes_in.values() for space, _ in devices}
    found = {space: namespace.call(space, _dropped) for space in spaces}
    sockets = dropped_at_ports(bed)
    return {
        way: sum(found[space][dev] + sockets.get(dev, 0) for space, dev in devices)
        for way, devices in takes_in.items()
    }


def dropped_at_ports(bed: Testbed) -> dict[str, int]:
    """By port: frames that found a switch's packet socket full, since the switch began.

    Empty where the switches take their ports otherwise.
    """
    lines = [
        line
        for role in {switch.role for switch in bed.switches.values()}
        for line in bed.run(role, ["ss", "-0anmpHO"]).stdout.splitlines()
    ]
    dropped: Counter[str] = Counter()
    socket = re.compile(r"\*:(\S+).*ovs-vswitchd.*skmem:\(.*,d(\d+)\)")
    for found in filter(None, map(socket.search, lines)):
        dropped[found[1]] += int(found[2])
    return dropped


def _dropped() -> dict[str, int]:
    """By device of the present namespace: the fourth figure of those received."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    named = (line.partition(":") for line in lines)
    return {dev.strip(): int(figures.split()[3]) for dev, _, figures in named}
