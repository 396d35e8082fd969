"""Bodies of requests and answers, for checking the ones and describing both (OpenAPI)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Match = Annotated[
    str,
    Field(
        max_length=2000,
        description="Open vSwitch flow syntax, read from upstream; `*` is everything",
        examples=["udp,nw_src=10.0.0.1,tp_src=24242"],
    ),
]
Priority = Annotated[int, Field(ge=1, le=16_000, description="of the rule; higher ones win")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
OpenFlowPort = Annotated[int, Field(ge=1, le=0xFFFFFF00)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class NewRule(_Body):
    """A rule: what matches goes through an instance."""

    match: Match
    to: Annotated[str, Field(min_length=1, max_length=64)]
    """an instance's name, a MAC address of it, or its port on the upstream switch"""
    priority: Priority | None = None
    """without one: that of the rule with this match, or above all rules that it overlaps"""
    one_way: bool = False
    """only the way from upstream"""
    group: Name | None = None
    """may be left out when `to` or there being one group tells it"""


class Move(NewRule):
    """A request for a handover."""

    strategy: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    """how; the controller's own choice without it"""
    settling_ms: Annotated[int, Field(ge=1, le=600_000)] | None = None
    """milliseconds to wait for flows that show no packet; the controller's own without it"""


class NewInstance(_Body):
    """An instance that joins a group."""

    name: Name
    id: Annotated[int, Field(ge=1, le=0xFFFFFFFF)]
    """its number in control frames"""
    group: Name | None = None
    """may be left out when there is only one"""
    upstream_port: OpenFlowPort
    downstream_port: OpenFlowPort
    peer: Annotated[str, Field(max_length=300)] | None = None
    """HOST:PORT where its support layer takes strays"""
    macs: list[Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$")]] = []


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class HandoverPart(_Answer):
    """Flows with one source and one destination."""

    number: int
    match: str
    excepts: list[str]
    """what of the match belongs to higher rules"""
    source: str
    destination: str
    sides: list[Literal["upstream", "downstream"]]
    priority: int
    state: str | None
    """of its machine (docs/direct.md); null before it has begun"""


class Moment(_Answer):
    """A line of a timeline."""

    at_ms: float
    """since the request"""
    text: str


class Handover(_Answer):
    """A handover as it stands."""

    id: int
    state: Literal["preparing", "turning", "fencing", "moving", "done", "aborted", "failed"]
    strategy: str
    group: str
    match: str
    to: str | None
    """the instance's name; null for the removal of a rule"""
    priority: int | None
    """of its rule; null until it is planned"""
    one_way: bool
    rule: int | None
    """its rule's id; null until it is planned"""
    asked: float
    """when; Unix time, seconds"""
    flows: int
    duration_ms: float | None
    """from the request to the end; null while under way"""
    fence_ms: float | None
    """longest time from a flow's first packet at its new instance to its fence"""
    transfer_ms: float | None
    """longest time that state took"""
    captured_packets: int
    captured_bytes_peak: int
    stray_packets: int
    lost_packets: int
    controller_packets: int
    """data packets that came to the controller"""
    markers: int
    """markers sent down old paths"""
    flags: list[str]
    """what could not be promised: `unfenced`, `drain_unproven`, `state_lost`"""
    error: str | None
    parts: list[HandoverPart]
    timeline: list[Moment] = []
    """what happened when; not in lists and events"""


class Handovers(_Answer):
    """Handovers, latest first."""

    handovers: list[Handover]


class Rule(_Answer):
    """A rule in force."""

    id: int
    group: str
    match: str
    priority: int
    to: str
    one_way: bool


class Rules(_Answer):
    """Rules, highest first."""

    rules: list[Rule]


class Instance(_Answer):
    """An instance."""

    name: str
    id: int
    group: str
    state: str


class Instances(_Answer):
    """All instances."""

    instances: list[Instance]


class Flows(_Answer):
    """Flows that the instances serve."""

    flows: list[dict[str, object]]
    total: int


class Where(_Answer):
    """Who serves a flow."""

    flow: str
    instance: str | None
    rule: int | None


class Problem(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
