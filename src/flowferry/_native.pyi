"""Types of the native module (crates/python)."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, Self, TypeAlias

# --- probe (crates/probe); the typed face is flowferry.probe ---

class Control:
    """What the owner of a running job sees and says; usable from any thread."""

    def __init__(self) -> None: ...
    def stop(self) -> None:
        """Ask the job to end in order and to report."""
    def request_dump(self) -> None:
        """Ask a job that can for a report in between."""
    @property
    def ready(self) -> bool:
        """The job's sockets are open."""
    @property
    def packets(self) -> int:
        """Packets handled so far."""
    def take_slowest(self) -> int:
        """The longest that a packet has taken to a sink since this was called last, ns."""

def probe_send(
    config: str, control: Control, progress: Callable[[int], object] | None = None
) -> str: ...
def probe_sink(
    config: str, control: Control, progress: Callable[[int], object] | None = None
) -> str: ...

# --- wire (crates/wire); the typed face is flowferry.wire ---

_WireWord: TypeAlias = tuple[int, int] | None
_WireMasked: TypeAlias = tuple[bytes, bytes] | None

WireMatch: TypeAlias = tuple[
    int, int | None, _WireMasked, _WireMasked, _WireWord, _WireWord, _WireWord, _WireWord
]
"""Family (0, 4, 6), protocol, masked source and destination, their ports, outer and inner VLAN."""

WireMessage: TypeAlias = tuple[int, int, int, int, int, int, int, list[tuple[int, Any]]]
"""Command, flags, handover, to, from, boot, sequence, TLVs by number."""

class WireError(Exception):
    """Something about a control frame."""

class WireMalformedError(WireError):
    """Bytes that are not a control frame of this version."""

class WireUnsendableError(WireError):
    """A message that must not be sent as it is."""

class WireRejectedError(WireError):
    """A frame that was not let in."""

    reason: str

class WirePartError(WireError):
    """Parts of a list that contradict each other."""

class WireKeyRingError(WireError):
    """A key that cannot be used, or a step of a rotation out of order."""

class WireKeyRing:
    """Keys by id, one of them to send with; secrets have 32 bytes at least."""

    def __init__(self, key_id: int, secret: bytes) -> None: ...
    def add(self, key_id: int, secret: bytes) -> None:
        """Accept frames made with another key."""
    def activate(self, key_id: int) -> None:
        """Send with this key from now on."""
    def retire(self, key_id: int) -> None:
        """Destroy a key and reject what still comes with its id."""
    @property
    def active(self) -> int:
        """Id of the key to send with."""
    @property
    def ids(self) -> list[int]:
        """Ids of the keys that are accepted, rising."""

class WireSealer:
    """Behind flowferry.wire.Sealer."""

    def __init__(self, sender: int, boot: int) -> None: ...
    def seal(
        self, keys: WireKeyRing, message: WireMessage, destination: bytes, source: bytes, mtu: int
    ) -> tuple[bytes, WireMessage]: ...
    def seal_payload(
        self, keys: WireKeyRing, message: WireMessage, mtu: int
    ) -> tuple[bytes, WireMessage]: ...

class WireOpener:
    """Behind flowferry.wire.Opener."""

    def __init__(self, own: int) -> None: ...
    def open(self, keys: WireKeyRing, frame: bytes) -> WireMessage: ...
    def open_payload(self, keys: WireKeyRing, payload: bytes) -> WireMessage: ...
    @property
    def accepted(self) -> int: ...
    @property
    def rejected(self) -> dict[str, int]: ...
    @property
    def positions(self) -> list[tuple[int, int, int]]: ...
    def resume(self, sender: int, boot: int, sequence: int) -> None: ...

class WireAssembler:
    """Behind flowferry.wire.Assembler."""

    def __init__(self) -> None: ...
    def add(self, message: WireMessage) -> WireMessage | None: ...
    def forget(self, handover: int) -> None: ...
    @property
    def pending(self) -> int: ...

def wire_encode(
    message: WireMessage, key_id: int, destination: bytes, source: bytes, mtu: int
) -> bytes: ...
def wire_decode(frame: bytes) -> WireMessage: ...
def wire_split(message: WireMessage, mtu: int, list: int) -> list[WireMessage]: ...
def wire_address_of(instance: int) -> bytes: ...
def wire_tables() -> dict[str, dict[str, int]]: ...

# --- handover support layer (crates/hsl) ---

def hsl_run(config: str) -> str: ...
def hsl_certificate_name(instance: int) -> str: ...
def hsl_certificate_problem(
    cert: _StrPath, key: _StrPath, ca: _StrPath, instance: int | None = None
) -> tuple[Literal["ca", "cert", "key"], str] | None: ...
def hsl_match(text: str) -> str: ...
def hsl_table() -> str: ...
def hsl_table_dot() -> str: ...
def hsl_handover_table() -> str: ...
def hsl_handover_table_dot() -> str: ...

HslAction: TypeAlias = tuple[Any, ...]
"""What an instance wants done outside, by its first item:

    ("send", side, WireMessage)              a control frame; `side`: the interface to try first
    ("record", "host:port", behind, bytes)   to that agent, when `strays_taken` >= behind
    ("connect", "host:port")                 answer with `connected` or `unreachable`
    ("strays", hold, "host:port")            strays of this hold go there
    ("discard", hold)                        they go nowhere any more: lost, and counted
    ("hang_up", instance)                    end its streams to us; what is unread it counts
    ("flush", side, number)                  answer with `flushed` when all that was queued is read
    ("tell", json)                           a line for the function
    ("step", handover, phase, error | None)  for those who listen
"""

class HslInstance:
    """An instance without kernel, sockets and clock (crates/hsl/src/model), for simulations.

    Sides are 1 (upstream) and 2 (downstream), times nanoseconds of any clock that never steps back.
    Frames begin with their Ethernet header.
    """

    def __init__(
        self,
        own: int,
        *,
        name: str = "i",
        epoch: int = 1,
        buffer_bytes: int = ...,
        quiet_ns: int | None = None,
    ) -> None:
        """`quiet_ns`: the quiet time that ends a drain; None: the flush itself proves it."""
    def ingress(self, on: int, frame: bytes) -> bool:
        """A packet reaches the interface. True: it goes on to the function; False: captured."""
    def read(self, on: int, count: int, now: int) -> int:
        """Read captured packets into the agent; how many there were."""
    def follower(self, on: int, frame: bytes, now: int) -> None:
        """A stray has come from another agent."""
    def write(self, count: int, now: int) -> int:
        """Write released packets back; they reach the function by `second_pass`."""
    def second_pass(self, on: int) -> bytes | None:
        """Let the next released packet go on to the function; it."""
    def next_stray(self) -> tuple[int, int, bytes] | None:
        """Take the next packet that goes to another agent: hold, side, frame."""
    def settle(self, now: int) -> None:
        """Find flows that are free again, and holds that have ended."""
    def control(self, on: int, message: WireMessage, now: int) -> None:
        """A control frame has been let in."""
    def record(self, sender: int, record: bytes, now: int) -> None:
        """A record has come, behind the strays sent before it. Raises ValueError if it is none."""
    def connected(self, peer: str, now: int) -> None: ...
    def unreachable(self, peer: str, why: str, now: int) -> None: ...
    def gone(self, sender: int, now: int) -> None:
        """The stream from that instance has ended."""
    def flushed(self, flush: int, now: int, *, failed: bool = False) -> None: ...
    def function(self, line: str, now: int) -> None:
        """A line of the function's (the first is its hello). Raises ValueError if it is none."""
    def function_gone(self, now: int) -> None: ...
    def tick(self, now: int) -> None:
        """To be called when `next_due` has come."""
    def start_over(self, now: int) -> int:
        """The agent was stopped or killed: what it held is lost; how many packets that was."""
    def actions(self) -> list[HslAction]:
        """What is to be done outside, in order; empties the list."""
    @property
    def next_due(self) -> int | None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def strays_taken(self) -> int: ...
    @property
    def buffer_used(self) -> int: ...
    @property
    def overflowed(self) -> int:
        """Packets for which there was no room in the buffer."""
    @property
    def quiet(self) -> bool:
        """Nothing waits to be read, written, sent on or passed on."""
    @property
    def idle(self) -> bool:
        """Nothing is held and no part is under way."""
    def phase(self, handover: int) -> str | None: ...
    def owns(self, on: int, frame: bytes) -> bool: ...
    def describe(self) -> str: ...

# --- functions (crates/functions); the typed face is flowferry.functions.forwarder ---

def forwarder_run(
    config: str, control: Control, progress: Callable[[int], object] | None = None
) -> str: ...

# --- estate (crates/estate); the typed face is flowferry.estate ---

_StrPath: TypeAlias = str | os.PathLike[str]
_EstateTuple: TypeAlias = tuple[
    Any, list[EstateFound], tuple[str, ...], tuple[str, ...], bool, float | None
]

class _EstateCodec(Protocol):
    def encode(self, value: Any, /) -> bytes | str | int | float: ...
    def decode(self, value: Any, /) -> Any: ...

class EstateFound:
    """An item as an instance held it when it answered."""

    @property
    def key(self) -> str:
        """The key."""
    @property
    def node(self) -> str:
        """The node that holds it."""
    @property
    def value(self) -> Any:
        """What it holds: bytes, str, int or float."""
    @property
    def version(self) -> int:
        """When it was written, by the hybrid logical clock; later writes have greater ones."""
    @property
    def written(self) -> float:
        """When it was written, in seconds since 1970, as its node saw it."""
    @property
    def expires(self) -> float | None:
        """When it expires, in seconds since 1970."""
    @property
    def history(self) -> dict[str, int]:
        """What its writers had seen: the version of the last write of each node."""

class EstateItem:
    """One item, resolved once, for updates on the packet path."""

    @property
    def key(self) -> str:
        """The key."""
    def get(self) -> Any:
        """The value, or None."""
    def set(self, value: bytes | str | int | float) -> None:
        """Create or overwrite it."""
    def add(self, delta: int = 1) -> int:
        """Add to it, atomically; returns the new value."""
    def delete(self) -> bool:
        """Remove it; returns whether it was there. The handle can be used again."""

class EstateWatch:
    """Changes of matching items."""

    def next(self, timeout: float | None = None) -> tuple[str, str, EstateFound | None] | None: ...
    @property
    def ended(self) -> bool: ...
    def close(self) -> None: ...

class EstateCore:
    """The native half of flowferry.estate.Estate."""

    def __new__(
        cls,
        *,
        cluster: str,
        node: str,
        backend: str = "p2p",
        listen: list[str] = ...,
        peers: list[str] = ...,
        scouting: bool = False,
        relay: bool = False,
        tls: tuple[_StrPath, _StrPath, _StrPath] | None = None,
        memory_limit: int | None = None,
        failure_after: float = 1.0,
        timeout: float = 1.0,
    ) -> Self: ...
    @property
    def cluster(self) -> str:
        """The name of the cluster."""
    @property
    def node(self) -> str:
        """The name of this instance."""
    @property
    def backend(self) -> str:
        """How state is kept."""
    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        codec: _EstateCodec | None = None,
        after: Iterable[EstateFound] | None = None,
    ) -> None:
        """Create or overwrite an item of this instance.

        Args:
            key: 1 to 1,024 bytes of UTF-8; every character is legal.
            value: bytes, str, int (64 bits with sign) or float; anything else with a codec.
            ttl: Seconds after which the item expires; such items may also be evicted.
            codec: Turns other objects into values, see `JSON` and `PICKLE`.
            after: Items that the writer has seen (`view.items`), for the reducer `causal`.
        """
    def get(self, key: str, default: Any = None, *, codec: _EstateCodec | None = None) -> Any:
        """The value of this instance's item, or `default`."""
    def get_item(self, key: str) -> EstateFound | None:
        """This instance's item with version and expiry, or None."""
    def delete(self, key: str) -> bool:
        """Remove this instance's item; returns whether it was there."""
    def add(self, key: str, delta: int = 1) -> int:
        """Add to a counter, atomically; one that is not there begins at 0. The new value."""
    def keys(self, match: str = "*", *, pattern: str | None = "glob") -> list[str]:
        """Keys of this instance's items that match, in no order."""
    def item(self, key: str) -> EstateItem:
        """An item resolved once, for updates on the packet path."""
    def joint(
        self,
        joint_id: int,
        members: Sequence[str],
        *,
        set: dict[str, bytes | str | int | float] | None = None,
        add: dict[str, int] | None = None,
        delete: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Write here while other members write their part, all at one instant.

        Every member that takes part calls this with the same id and the names of the others. A
        `Snapshot` sees all parts or none; `Live` may see some. With `p2p` only.

        Args:
            joint_id: The same at all who take part, and never used before.
            members: The others who take part.
            set: Keys and what they are set to.
            add: Counters and what is added to them.
            delete: Keys that are deleted.
            timeout: Seconds to wait for the others.

        Raises:
            NotJoined: Not all of them did in time: nothing is written anywhere.
        """
    def abort_take(self, move_id: int) -> bool:
        """Give up a move to here that waits in another thread; that one gets `MoveAborted`.

        Does not wait.

        Returns:
            True if it takes place nowhere now. False if there is no such move under way, or if its
            source has been asked to decide it and it is too late. Always False with servers, where
            nothing is ever under way.
        """
    def declare_dead(self, node: str) -> int:
        """Vouch that the process of a member that has gone has ended, and its memory with it.

        For when a member's host is lost for good with its address while a `take` waits for its
        word: nothing else will ever prove that it is dead. The items are this instance's then. If
        the member lives after all, both own the items until they hear of each other, and what one
        of them has written is lost then. With `p2p` only.

        Returns:
            How many moves waited for it.

        Raises:
            OptionInvalid: It is a live member.
            NoMember: None of that name has gone.
        """
    def members(self) -> list[str]:
        """Names of the live members, this one included, in order."""
    def statistics(self) -> dict[str, int]:
        """Figures: items and bytes kept, evicted, expired; and those of the backend."""
    def close(self) -> None:
        """Leave the cluster."""
    def check(self) -> None:
        """Raise `Closed` or `Forked` if calls cannot go ahead."""
    def global_value(
        self,
        text: str,
        kind: str | None,
        reducer: str,
        level: int,
        max_age: float,
        timeout: float | None,
        require: str | int,
    ) -> Any: ...
    def global_view(
        self,
        text: str,
        kind: str | None,
        reducer: str,
        level: int,
        max_age: float,
        timeout: float | None,
        require: str | int,
        insist: bool,
    ) -> _EstateTuple: ...
    def take_from(
        self, flows: list[str] | None, keys: list[str] | None, source: str, move_id: int
    ) -> int: ...
    def watch_for(self, text: str, kind: str | None) -> EstateWatch: ...
    def hook_global_reads(self, hook: Callable[[str, str], object]) -> None: ...

def estate_flow(native: tuple[Any, ...]) -> str: ...
