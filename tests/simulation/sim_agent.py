"""An instance: the real cores of its agent (`HslInstance`), and around them what a shell does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sim_clock import MS, US, Clock
from sim_function import Function
from sim_ledger import Ledger, Packet
from sim_network import Port
from sim_stream import Stream

from flowferry import _native
from flowferry.wire import KeyRing, RejectedError, Side

HEARTBEAT_TIMEOUT = 60 * MS
"""After this the programs know that the agent is gone, and pass everything."""
_BLANK = bytes(6)


class Agent:
    """See the module's head."""

    def __init__(
        self,
        clock: Clock,
        number: int,
        keys: KeyRing,
        ledger: Ledger,
        ports: dict[Side, Port],
        out: Callable[[int, int, int, bytes], None],
        buffer_bytes: int,
    ) -> None:
        """`out(instance, to, side, frame)` brings a control frame to that side's switch."""
        self._clock, self.number, self._keys, self._ledger = clock, number, keys, ledger
        self.ports = ports
        self._out = out
        self.core = _native.HslInstance(number, buffer_bytes=buffer_bytes)
        self._opener = _native.WireOpener(number)
        self._sealer = _native.WireSealer(number, 1)
        self.function: Function | None = None
        #: By the address that PREPARE names, and those to us by instance; filled by the world.
        self.streams: dict[str, Stream] = {}
        self.taken: dict[int, Stream] = {}
        #: The process is there and may run.
        self.runs = True
        self.open_since: int | None = None
        """The programs pass everything since then: the agent is gone, or was for too long."""
        self._life = 0
        self._working = False
        self._passing = False
        self._timer = 0
        self._peer_of: dict[int, str] = {}
        self._records: deque[tuple[int, str, bytes]] = deque()
        #: What has come while the process was stopped, and what of it on streams.
        self._waiting: list[Callable[[], None]] = []
        self._unread: list[tuple[int, int | None, bytes]] = []
        self._stopped = False
        #: Told of each step that a part takes here.
        self.on_step: Callable[[str], None] = lambda _phase: None
        #: Planted fault: flushes are answered without looking at any queue.
        self.hasty = False

    @property
    def address(self) -> str:
        """Where its stream listens."""
        return f"192.0.2.{self.number}:7000"

    # --- packets ---

    def on_packet(self, packet: Packet) -> None:
        """A packet is handled on its CPU."""
        frame = packet.frame
        if self._fails_open or self.core.ingress(packet.side, frame):
            self._process(frame)
        else:
            self.wake()

    @property
    def _fails_open(self) -> bool:
        return self.open_since is not None and self._clock.now >= self.open_since

    def _process(self, frame: bytes) -> None:
        flow = self._ledger.process(self.number, frame, self._clock.now)
        if self.function is not None:
            self.function.process(flow)

    def wake(self) -> None:
        """Something has happened that the agent should look at."""
        if not self._working:
            self._working = True
            self._clock.after(self._clock.between(5 * US, 80 * US), self._work)

    def _work(self) -> None:
        self._working = False
        if not self.runs:
            return
        now, core, random = self._clock.now, self.core, self._clock.random
        for side in (1, 2):
            core.read(side, random.randint(1, 64), now)
        core.write(random.randint(1, 32), now)
        self._send_strays()
        core.settle(now)
        self._act()
        if not core.quiet:
            if not self._passing:
                self._passing = True
                self._clock.after(self._clock.between(2 * US, 100 * US), self._second_pass)
            self.wake()

    def _second_pass(self) -> None:
        self._passing = False
        for side in (1, 2):
            while (frame := self.core.second_pass(side)) is not None:
                self._process(frame)
        self.wake()

    def _send_strays(self) -> None:
        while self.runs:
            while self._records and self._records[0][0] <= self.core.strays_taken:
                _, peer, record = self._records.popleft()
                self.streams[peer].send(record)
            stray = self.core.next_stray()
            if stray is None:
                return
            hold, side, frame = stray
            if hold in self._peer_of:
                self.streams[self._peer_of[hold]].send((side, frame))
            else:
                self._ledger.said_lost += 1

    def lose_on_stream(self, item: tuple[int, bytes] | bytes) -> None:
        """The stream has taken a packet with it; what was not acknowledged counts as lost."""
        if isinstance(item, tuple):
            self._ledger.said_lost += 1

    # --- what comes in ---

    def on_frame(self, side: Side, frame: bytes) -> None:
        """A control frame is handled on some CPU."""
        if self._stopped:
            self._waiting.append(lambda: self.on_frame(side, frame))
        if not self.runs:
            return
        try:
            message = self._opener.open(self._keys, frame)
        except RejectedError:
            return
        self.core.control(side, message, self._clock.now)
        self._after_input()

    def on_stray(self, side: int, frame: bytes) -> None:
        """A packet of another agent's."""
        if self._stopped:
            self._unread.append((side, None, frame))
            return
        if not self.runs:
            self._ledger.said_lost += 1
            return
        self.core.follower(side, frame, self._clock.now)
        self._after_input()

    def on_record(self, sender: int, record: bytes) -> None:
        """A record of another agent's."""
        if self._stopped:
            self._unread.append((0, sender, record))
        if self.runs:
            self.core.record(sender, record, self._clock.now)
            self._after_input()

    def on_connected(self, peer: Agent) -> None:
        """The stream to a peer is there."""
        if self.runs:
            self.core.connected(peer.address, self._clock.now)
            self._after_input()

    def on_unreachable(self, peer: Agent, why: str) -> None:
        """The stream to a peer is gone."""
        if self.runs:
            self.core.unreachable(peer.address, why, self._clock.now)
            self._after_input()

    def on_gone(self, sender: int) -> None:
        """A peer's stream has ended."""
        if self.runs:
            self.core.gone(sender, self._clock.now)
            self._after_input()

    def on_line(self, line: str) -> None:
        """The function says something."""
        if self._stopped:
            self._waiting.append(lambda: self.on_line(line))
        if self.runs:
            self.core.function(line, self._clock.now)
            self._after_input()

    def _flushed(self, side: int, flush: int, life: int) -> None:
        if self._stopped:
            self._waiting.append(lambda: self._flushed(side, flush, life))
        if not self.runs or life != self._life:
            return
        # Before it is answered, what was written before the flush is through, and what was captured
        # has been read.
        if not self.hasty:
            while (frame := self.core.second_pass(side)) is not None:
                self._process(frame)
            while self.core.read(side, 1_000, self._clock.now):
                pass
        self.core.flushed(flush, self._clock.now)
        self._after_input()

    def _tick(self, at: int) -> None:
        if at == self._timer and self.runs:
            self._timer = 0
            self.core.tick(self._clock.now)
            self._after_input()

    def _after_input(self) -> None:
        self._act()
        self.wake()

    # --- what goes out ---

    def _act(self) -> None:
        for action in self.core.actions():
            match action:
                case ("send", side, message):
                    frame, sent = self._sealer.seal(self._keys, message, _BLANK, _BLANK, 1500)
                    self._out(self.number, sent[3], side, frame)  # [3]: its addressee
                case ("record", peer, behind, record):
                    self._records.append((behind, peer, record))
                case ("connect", peer):
                    self.streams[peer].connect()
                case ("hang_up", instance):
                    self.hang_up(instance)
                case ("strays", hold, peer):
                    self._peer_of[hold] = peer
                case ("discard", hold):
                    del self._peer_of[hold]
                case ("flush", side, flush):
                    self._flush(side, flush)
                case ("tell", line) if self.function is not None:
                    self.function.tell(line)
                case ("step", handover, phase, error):
                    self.on_step(phase)
                    self._clock.note(f"instance {self.number}: {handover} {phase} {error or ''}")
        self._send_strays()
        due = self.core.next_due
        if due is not None and due != self._timer:
            self._timer = due
            self._clock.at(due, self._tick, due)

    def hang_up(self, instance: int) -> None:
        """End a stream to us, unread."""
        self.taken[instance].hang_up()

    def _flush(self, side: int, flush: int) -> None:
        if self.hasty:
            self._clock.after(1 * US, self._flushed, side, flush, self._life)
        else:
            self.ports[Side(side)].flush(self._flushed, side, flush, self._life)

    # --- faults ---

    def stop(self) -> None:
        """SIGSTOP: the programs pass everything once the heartbeat is too old."""
        self._clock.note(f"instance {self.number}: stopped")
        self.runs, self._stopped = False, True
        self.open_since = self._clock.now + HEARTBEAT_TIMEOUT

    def resume(self) -> None:
        """SIGCONT. What was held while packets overtook it is thrown away and counted."""
        self._clock.note(f"instance {self.number}: resumed")
        self.runs, self._stopped, self._timer = True, False, 0
        if self._fails_open:
            self._life += 1
            self._start_over()
        self.open_since = None
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
        unread, self._unread = self._unread, []
        for side, sender, data in unread:
            if sender is None:
                self.on_stray(side, data)
            else:
                self.on_record(sender, data)
        self._after_input()

    def kill(self) -> None:
        """SIGKILL: its TAPs go with it, so everything passes at once; streams break."""
        self._clock.note(f"instance {self.number}: killed")
        self.runs = False
        self._life += 1
        self.open_since = self._clock.now
        self._start_over()
        for stream in self.streams.values():
            stream.cut(up=True)

    def restart(self) -> None:
        """A new process: it takes over the maps, and knows no handover."""
        self._clock.note(f"instance {self.number}: restarted")
        self.runs, self._timer = True, 0
        self.open_since = None
        boot = self._clock.now
        self._sealer = _native.WireSealer(self.number, boot)
        self._opener = _native.WireOpener(self.number)
        self._after_input()

    def _start_over(self) -> None:
        self._records.clear()
        # Their streams end unread, and their senders count them.
        self._ledger.said_lost += sum(sender is None for _, sender, _ in self._unread)
        self._unread.clear()
        for stream in self.taken.values():
            stream.hang_up()
        self._ledger.said_lost += self.core.start_over(self._clock.now)
        self.core.actions()
