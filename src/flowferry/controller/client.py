"""Talk to a controller: its REST interface (docs/controller.md) as plain calls."""

import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from typing import Any, Self

#: Seconds that the controller has for an answer, beyond what it is asked to wait for.
ANSWER = 30.0
#: Seconds that one request waits for a handover's end; `wait` asks again.
WAIT = 20.0
#: States of a handover that is over.
OVER = frozenset({"done", "aborted", "failed"})


class ControllerError(Exception):
    """The controller cannot be reached, or refused; one line that says what to do."""


class Client:
    """A controller by its URL, for instance `http://127.0.0.1:6680`.

    Handovers, rules and so on are dictionaries as in the JSON of docs/controller.md. Calls raise
    `ControllerError`.
    """

    def __init__(self, url: str, token: str | None = None, *, ca: str | None = None) -> None:
        """`token`: the bearer token it wants; `ca`: PEM file of who signed its certificate."""
        if not url.startswith(("http://", "https://")):
            raise ControllerError(f"{url!r} is no URL; write http://HOST:PORT")
        self.url = url.rstrip("/")
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        try:
            context = ssl.create_default_context(cafile=ca) if url.startswith("https") else None
        except OSError as error:
            raise ControllerError(
                f"{ca} holds no certificates ({error.strerror or error}); name the PEM file of who "
                "signed the controller's"
            ) from None
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def __enter__(self) -> Self:
        """The client itself; it keeps nothing open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is to be closed."""

    # -- handovers -----------------------------------------------------------------------------

    def move(
        self,
        match: str,
        to: str | int,
        *,
        priority: int | None = None,
        strategy: str | None = None,
        one_way: bool = False,
        settling_ms: int | None = None,
        group: str | None = None,
        wait: bool = False,
        timeout: float = 60.0,
    ) -> dict[str, Any]:
        """Move all flows that match to an instance, named by name, MAC or port; the handover.

        It is under way when this returns, or over with `wait` (at most `timeout` seconds).
        """
        body = {
            "match": match,
            "to": str(to),
            "priority": priority,
            "strategy": strategy,
            "one_way": one_way,
            "settling_ms": settling_ms,
            "group": group,
        }
        begun = self._call("POST", "/handovers", body)
        return self.wait(begun["id"], timeout) if wait else begun

    def handovers(self) -> list[dict[str, Any]]:
        """All handovers, the latest first."""
        return list(self._call("GET", "/handovers")["handovers"])

    def handover(self, number: int) -> dict[str, Any]:
        """One handover as it stands, with its timeline."""
        return self._call("GET", f"/handovers/{number}")

    def wait(self, number: int, timeout: float = 60.0) -> dict[str, Any]:
        """The handover when it is over, in at most `timeout` seconds, or `ControllerError`."""
        deadline = time.monotonic() + timeout
        while True:
            left = min(WAIT, max(0.0, deadline - time.monotonic()))
            found = self._call("GET", f"/handovers/{number}?wait={left:.3f}", patience=left)
            if found["state"] in OVER:
                return found
            if time.monotonic() >= deadline:
                raise ControllerError(
                    f"handover {number} is still {found['state']} after {timeout:g} s; "
                    f"'flowferry handovers show {number}' tells what it waits for"
                )

    def abort(self, number: int) -> dict[str, Any]:
        """Call a handover off; the handover, which goes back. Too late: `ControllerError`."""
        return self._call("POST", f"/handovers/{number}/abort", {})

    # -- rules, instances, flows ---------------------------------------------------------------

    def rules(self) -> list[dict[str, Any]]:
        """All rules in force, highest first."""
        return list(self._call("GET", "/rules")["rules"])

    def add_rule(
        self,
        match: str,
        to: str | int,
        *,
        priority: int | None = None,
        one_way: bool = False,
        group: str | None = None,
        wait: bool = False,
        timeout: float = 60.0,
    ) -> dict[str, Any]:
        """Add a rule; its flows move, so what comes back is a handover."""
        body = {
            "match": match, "to": str(to), "priority": priority, "one_way": one_way, "group": group,
        }  # fmt: skip
        begun = self._call("POST", "/rules", body)
        return self.wait(begun["id"], timeout) if wait else begun

    def remove_rule(
        self, number: int, *, wait: bool = False, timeout: float = 60.0
    ) -> dict[str, Any]:
        """Remove a rule; its flows go where the next lower rules say: a handover."""
        begun = self._call("DELETE", f"/rules/{number}")
        return self.wait(begun["id"], timeout) if wait else begun

    def instances(self) -> list[dict[str, Any]]:
        """All instances of all groups."""
        return list(self._call("GET", "/instances")["instances"])

    def add_instance(self, **fields: Any) -> dict[str, Any]:
        """Add an instance: `name, id, group, upstream_port, downstream_port, peer, macs`."""
        return self._call("POST", "/instances", fields)

    def drain_instance(
        self, name: str, *, wait: bool = False, timeout: float = 60.0
    ) -> list[dict[str, Any]]:
        """Move everything off an instance; the handovers."""
        begun = self._call("POST", f"/instances/{_quoted(name)}/drain", {})["handovers"]
        return [self.wait(each["id"], timeout) if wait else each for each in begun]

    def remove_instance(self, name: str) -> None:
        """Forget an instance that nothing leads to any more."""
        self._call("DELETE", f"/instances/{_quoted(name)}")

    def flows(self, limit: int = 1000) -> dict[str, Any]:
        """`flows` (each with its instance) and `total`."""
        return self._call("GET", f"/flows?limit={limit}")

    def where(self, flow: str) -> dict[str, Any]:
        """`flow`, the `instance` that serves it, and the `rule` that says so."""
        return self._call("GET", f"/flows/where?flow={_quoted(flow)}")

    # -- the controller itself -----------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Name, version, and how much of everything there is."""
        return self._call("GET", "/status")

    def switches(self) -> list[dict[str, Any]]:
        """The switches, connected or not."""
        return list(self._call("GET", "/switches")["switches"])

    def groups(self) -> list[dict[str, Any]]:
        """The groups."""
        return list(self._call("GET", "/groups")["groups"])

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event from now on: its data, and its name as `event`.

        Raises `ControllerError` when the controller ends. What happens before the next call is
        not told again: read `handovers` and the others then.
        """
        with self._open("GET", "/events", None, None) as answer:
            name, data = "", ""
            with suppress(OSError, HTTPException):  # it broke off: an end like any other
                for raw in answer:
                    line = raw.decode().rstrip("\r\n")
                    if line.startswith("event:"):
                        name = line[6:].strip()
                    elif line.startswith("data:"):
                        data += line[5:].strip()
                    elif not line and data:
                        yield {"event": name, **json.loads(data)}
                        name, data = "", ""
        raise ControllerError(
            f"the controller on {self.url} has ended the events; see whether it runs, and ask again"
        )

    # -- how -----------------------------------------------------------------------------------

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, patience: float = 0.0
    ) -> dict[str, Any]:
        with self._open(method, path, body, patience + ANSWER) as answer:
            try:
                text = answer.read()
            except (OSError, HTTPException) as error:
                raise self._silent(error) from None
        try:
            found = json.loads(text or b"{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ControllerError(f"{self.url} is no Flowferry controller; look at the URL")
        return found

    def _open(
        self, method: str, path: str, body: dict[str, Any] | None, timeout: float | None
    ) -> HTTPResponse:
        data = None
        headers = dict(self._headers)
        if body is not None:
            data = json.dumps({k: v for k, v in body.items() if v is not None}).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(
            f"{self.url}/v1{path}", data=data, headers=headers, method=method
        )
        try:
            answer = self._opener.open(request, timeout=timeout)
            assert isinstance(answer, HTTPResponse)
            return answer
        except urllib.error.HTTPError as error:
            raise ControllerError(_said(error)) from None
        except (urllib.error.URLError, OSError, HTTPException) as error:
            raise self._silent(getattr(error, "reason", error)) from None

    def _silent(self, why: object) -> ControllerError:
        return ControllerError(
            f"no controller answers on {self.url} ({why}); start one with "
            "'flowferry controller run', or give its --controller URL"
        )


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _said(error: urllib.error.HTTPError) -> str:
    """What a problem document (RFC 9457) says, in one line."""
    try:
        problem = json.loads(error.read())
        return str(problem.get("detail") or problem["title"])
    except (ValueError, KeyError, AttributeError, OSError, HTTPException):
        return f"the controller answered {error.code} {error.reason}"
