"""Talk to a running agent: one JSON object a line over its UNIX socket (docs/hsl.md)."""

import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

Side = Literal["upstream", "downstream"]
Role = Literal["capture", "arm", "stray"]
BOTH: tuple[Side, Side] = ("upstream", "downstream")


class HslError(Exception):
    """The agent cannot be reached, or refused a command; the text says what to do."""


class Client:
    """A connection to one agent. Commands are methods; each raises `HslError` when refused.

    Packets are counted as captured: a super-packet (GSO) is one.
    """

    def __init__(self, path: Path | str, timeout: float = 30.0) -> None:
        """Connect to the agent's socket. `timeout`: seconds to wait for any one answer."""
        self.path = Path(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(self.path))
        except PermissionError:
            self._socket.close()
            raise HslError(
                f"the agent's socket {self.path} is its owner's alone; run this as root (sudo)"
            ) from None
        except OSError as error:
            self._socket.close()
            raise HslError(
                f"no agent answers on {self.path} ({error.strerror}); "
                "start one with 'flowferry hsl run', or give its --socket"
            ) from None
        self._lines = self._socket.makefile("r", encoding="utf-8")

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; holds stay as they are."""
        self._lines.close()
        self._socket.close()

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send one command and return its answer."""
        request = {key: value for key, value in fields.items() if value is not None}
        try:
            self._socket.sendall(json.dumps({"op": op, **request}).encode() + b"\n")
        except OSError as error:
            raise HslError(f"the agent on {self.path} has gone ({error.strerror})") from None
        answer = self._line(op)
        if not answer.pop("ok", False):
            raise HslError(str(answer.get("error", "the agent gave no reason")))
        return answer

    def _line(self, op: str) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise HslError(f"the agent on {self.path} did not answer {op!r} in time") from None
        except OSError as error:
            raise HslError(f"the agent on {self.path} has gone ({error.strerror})") from None
        if not line:
            raise HslError(f"the agent on {self.path} ended before it answered {op!r}")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def status(self) -> dict[str, Any]:
        """Everything at a glance: buffer, flows, holds, counters, losses."""
        return self.call("status")

    def hold(
        self,
        match: str = "*",
        *,
        role: Role = "capture",
        hold: int | None = None,
        except_: Sequence[str] = (),
        sides: Sequence[Side] = BOTH,
        peer: str | None = None,
    ) -> int:
        """Begin to hold every flow that matches; returns the hold's id.

        `capture` keeps the packets, `arm` those of flows not served here already, `stray` sends
        them to the agent at `peer` (`host:port`).
        """
        answer = self.call(
            "hold",
            id=hold,
            role=role,
            match=match,
            sides=list(sides),
            peer=peer,
            **{"except": list(except_)},
        )
        return int(answer["id"])

    def turn(self, hold: int, role: Role, peer: str | None = None) -> None:
        """Give a hold another role; what it keeps goes to `peer` first when it turns to `stray`."""
        self.call("turn", id=hold, role=role, peer=peer)

    def release(self, hold: int, flow: str | None = None) -> None:
        """Let a hold's packets go in order; or those of one flow only."""
        self.call("release", id=hold, flow=flow)

    def abort(self, hold: int, why: str | None = None) -> None:
        """As `release`; the hold ends as aborted."""
        self.call("abort", id=hold, why=why)

    def wait(self, hold: int, timeout: float = 10.0) -> dict[str, Any]:
        """Wait until a hold has ended, at most `timeout` seconds; its figures."""
        return self.call("wait", id=hold, timeout_ms=int(timeout * 1e3))

    def holds(self) -> list[dict[str, Any]]:
        """All holds with their figures, those that have ended included."""
        return list(self.call("holds")["holds"])

    def forget_ended(self) -> None:
        """Forget the holds that have ended."""
        self.call("forget_ended")

    def flows(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Flows that have gone on to the function, busiest first."""
        return list(self.call("flows", limit=limit)["flows"])

    def disown(self, flow: str) -> None:
        """Forget that a flow was served here."""
        self.call("disown", flow=flow)

    def alias(self, upstream: str, downstream: str) -> None:
        """Say that a flow has other headers downstream than upstream (NAT)."""
        self.call("alias", upstream=upstream, downstream=downstream)

    def unalias(self, upstream: str) -> None:
        """Take an alias back."""
        self.call("unalias", upstream=upstream)

    def flush(self, side: Side) -> dict[str, Any]:
        """Wait until all that was queued on every CPU has come through: `cpus`, `duration_us`."""
        return self.call("flush", side=side)

    def stop(self, *, detach: bool = False) -> None:
        """Have everything released in order and the agent end."""
        self.call("stop", detach=detach)

    def await_end(self) -> None:
        """Return when the agent has ended. Raises `HslError` if it has not within the time-out."""
        try:
            while self._lines.readline():
                pass  # what it still tells whoever listens
        except TimeoutError:
            raise HslError(f"the agent on {self.path} has not ended in time") from None
        except ConnectionError:
            return

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event from now on, as it happens; the connection is for nothing else then."""
        self.call("events")
        self._socket.settimeout(None)  # nothing happening for long is no failure
        return self._told()

    def _told(self) -> Iterator[dict[str, Any]]:
        while True:
            yield self._line("events")
