"""A delay line: a forwarder that holds every frame for a fixed time, in a namespace of its own.

The kernels we run on need not have netem, so a link with delay is two links with this between them.
"""

from flowferry.testbed import links
from flowferry.testbed.functions import forwarder
from flowferry.testbed.links import End
from flowferry.testbed.run import Run


def line(run: Run, role: str, one: End, other: End, *, milliseconds: float, mtu: int) -> str:
    """Join two ends by a link that delays both directions; return the line's namespace.

    Raises `TestbedError` if the forwarder does not start.
    """
    ns = run.namespace(role)
    links.veth(one, End(ns, "a"), mtu=mtu)
    links.veth(other, End(ns, "b"), mtu=mtu)
    hold = f"{milliseconds * 1000:.0f}us"
    forwarder.start(run, ns, "a", "b", "--delay", hold, log=f"delay-{role}")
    run.step(f"delay line {role}")
    return ns
