"""Link rate, by a token bucket on a device's egress."""

from flowferry.testbed import links, namespace

#: Seconds a frame may wait in the queue of a full link; beyond that the link drops.
QUEUE = 0.05
#: Seconds of traffic that may pass at once. Above a timer tick (4 ms), or the rate is not reached.
BURST = 0.005


def limit(ns: str, dev: str, mbit: float, *, mtu: int, queue: float = QUEUE) -> None:
    """Hold a device to `mbit` Mbit/s of what it sends; a frame waits `queue` seconds at most."""
    rate = int(mbit * 1_000_000 / 8)
    burst = max(int(rate * BURST), 2 * (mtu + 22))
    most = burst + int(rate * queue)
    namespace.configure(
        ns,
        lambda ipr: ipr.tc("add", "tbf", links.index(ipr, dev), rate=rate, burst=burst, limit=most),
    )
