"""Types of the native module (crates/python)."""

from collections.abc import Callable
from typing import Any, TypeAlias

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
def wire_tables() -> dict[str, dict[str, int]]: ...

# --- handover support layer (crates/hsl) ---

def hsl_run(config: str) -> str: ...
def hsl_match(text: str) -> str: ...
def hsl_table() -> str: ...
def hsl_table_dot() -> str: ...

# --- functions (crates/functions); the typed face is flowferry.functions.forwarder ---

def forwarder_run(
    config: str, control: Control, progress: Callable[[int], object] | None = None
) -> str: ...
