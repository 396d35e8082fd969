"""A UDP flow from h1 to h2 beside the probe's, which begins when a test wants it."""

import socket
from contextlib import ExitStack
from functools import partial

from flowferry.testbed import Testbed, namespace

PORT = 9999


class NewFlow:
    """Its packets are numbered; `got` are those that have come."""

    def __init__(self, bed: Testbed, stack: ExitStack) -> None:
        """Nothing has been sent; the sockets go with `stack`."""
        h1, h2 = bed.hosts["h1"], bed.hosts["h2"]
        end = partial(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self._sender = stack.enter_context(namespace.call(h1.namespace, end))
        self._sink = stack.enter_context(namespace.call(h2.namespace, end))
        self._to = (h2.ip4, PORT)
        self._sink.bind(self._to)
        self.sent = 0
        self.got: list[int] = []

    def send(self, packets: int) -> None:
        """The next packets."""
        for _ in range(packets):
            self._sender.sendto(b"%d" % self.sent, self._to)
            self.sent += 1

    def receive(self, packets: int) -> None:
        """So many come, each within 20 s."""
        self._sink.settimeout(20)
        for _ in range(packets):
            self.got.append(int(self._sink.recv(100)))

    def receive_all(self, seconds: float = 1.0) -> None:
        """Whatever still comes, until nothing has come for so long."""
        self._sink.settimeout(seconds)
        while True:
            try:
                self.got.append(int(self._sink.recv(100)))
            except TimeoutError:
                return
