"""A function with state: for each flow, how many packets it has had. It must never be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable

from sim_clock import MS, Clock
from sim_ledger import Flow, Ledger


class Function:
    """The function of one instance, and its adapter."""

    def __init__(
        self,
        clock: Clock,
        instance: int,
        ledger: Ledger,
        blobs: dict[tuple[int, int], dict[Flow, int]],
        say: Callable[[str], None],
    ) -> None:
        """`blobs` travel between adapters, by handover and taker; `say` goes to the agent."""
        self._clock, self._instance, self._ledger, self._blobs = clock, instance, ledger, blobs
        self._say = say
        self.state: dict[Flow, int] = {}
        self._frozen: set[Flow] = set()
        #: Flows whose state may be wrong by rights: it was lost, and that was said.
        self.excused: set[Flow] = set()
        self.fails: set[str] = set()
        #: Nanoseconds that giving and taking state costs at most, when flows move ...
        self.slow = 5 * MS
        #: ... and when the state of new ones comes back.
        self.quick = 5 * MS
        self._roles: dict[int, str] = {}
        #: The last export or import of a handover: the one before it is given up.
        self._turns: dict[int, int] = {}

    def process(self, flow: Flow) -> None:
        """A packet; the books have it already."""
        had = self._ledger.processed(flow) - 1
        count = self.state.get(flow, 0)
        if count != had and flow not in self.excused:
            self._ledger.wrong.append(
                f"flow {flow.index} at instance {self._instance}: "
                f"state of {count} packets after {had}"
            )
            self.excused.add(flow)
        if flow in self._frozen and flow not in self.excused:
            self._ledger.wrong.append(f"flow {flow.index} served while its state is frozen")
        self.state[flow] = had + 1

    def tell(self, line: str) -> None:
        """The agent says something."""
        event = json.loads(line)
        handover = event.get("handover", 0)
        part = [flow for flow in self._ledger.flows if flow.part == handover & 0xFF]
        turn = self._turns[handover] = self._turns.get(handover, 0) + 1
        forth = self._roles.get(handover)
        match event["event"], event.get("role"):
            case "prepare", role:
                self._roles[handover] = role
            case "freeze", _:
                self._frozen |= set(part)
            case "export", _:
                listed = [flow for flow in part if flow.name in event["flows"]]
                if forth == "source":
                    self._check_list(part, listed)
                slow = self.slow if forth == "source" else self.quick
                to = (handover, event["peer"]["instance"])
                self._clock.after(self._clock.between(0, slow), self._export, to, listed, turn)
            case "import", _:
                slow = self.slow if forth == "destination" else self.quick
                self._clock.after(
                    self._clock.between(0, slow), self._import, handover, event["flows"], turn
                )
            case "released", "destination":
                self._frozen -= set(part)
            case "released", "source":
                for flow in part:
                    self.state.pop(flow, None)
                self._frozen -= set(part)
            case "aborted", "source":
                self._frozen -= set(part)
            case "aborted", "destination":
                self._blobs.pop((handover, self._instance), None)
                for flow in part:
                    self.state.pop(flow, None)
                self._frozen -= set(part)
            case _:
                pass

    def _check_list(self, part: list[Flow], listed: list[Flow]) -> None:
        """What it has state of is to be given away, however long it has been quiet."""
        for flow in self.state.keys() & set(part) - set(listed) - self.excused:
            self._ledger.wrong.append(
                f"flow {flow.index} at instance {self._instance}: its state is left behind"
            )

    def _export(self, to: tuple[int, int], part: list[Flow], turn: int) -> None:
        handover, _ = to
        if turn != self._turns[handover]:
            return
        back = self._roles.get(handover) == "destination"
        if ("return" if back else "export") in self.fails:
            self._say(json.dumps({"failed": "export", "handover": handover, "error": "no"}))
            return
        self._blobs[to] = {f: self.state[f] for f in part if f in self.state}
        self._say(json.dumps({"done": "export", "handover": handover, "bytes": 1}))

    def _import(self, handover: int, listed: list[str], turn: int) -> None:
        if turn != self._turns[handover]:
            return
        if "import" in self.fails:
            self._say(json.dumps({"failed": "import", "handover": handover, "error": "no"}))
            return
        blob = self._blobs.pop((handover, self._instance), {})
        self.state |= {flow: count for flow, count in blob.items() if flow.name in listed}
        self._say(json.dumps({"done": "import", "handover": handover, "bytes": 1}))
