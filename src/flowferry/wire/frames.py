"""Frames out of messages and messages out of frames."""

from __future__ import annotations

from flowferry import _native
from flowferry._native import WireKeyRing as KeyRing
from flowferry.wire.native import from_native, to_native
from flowferry.wire.values import DEFAULT_MTU, Message


class Sealer:
    """Numbers and signs the messages of one sender.

    ``boot`` must be greater at every start of the sender: receivers reject older boots for ever.
    """

    def __init__(self, keys: KeyRing, *, sender: int, boot: int) -> None:
        """Begin at sequence number 0; ``keys`` may be shared and is read at every call."""
        self._keys = keys
        self._sealer = _native.WireSealer(sender, boot)

    def seal(
        self, message: Message, *, destination: bytes, source: bytes, mtu: int = DEFAULT_MTU
    ) -> tuple[bytes, Message]:
        """Give the signed Ethernet frame and the message as it was sent.

        Args:
            message: its ``sender``, ``boot`` and ``sequence`` are replaced.
            destination: Ethernet address, 6 bytes, not covered by the signature.
            source: likewise.
            mtu: bytes allowed after the EtherType.

        Raises:
            UnsendableError: says what is wrong with the message; no number is used up.
        """
        frame, sent = self._sealer.seal(self._keys, to_native(message), destination, source, mtu)
        return frame, from_native(sent)

    def seal_payload(self, message: Message, *, mtu: int = DEFAULT_MTU) -> tuple[bytes, Message]:
        """Like :meth:`seal`, but without the Ethernet header.

        For a marker that must wear the headers of a flow.
        """
        payload, sent = self._sealer.seal_payload(self._keys, to_native(message), mtu)
        return payload, from_native(sent)


class Opener:
    """Lets in what is authentic, new and meant for instance ``own``, and counts what is not."""

    def __init__(self, keys: KeyRing, *, own: int) -> None:
        """Know no sender yet; ``keys`` may be shared and is read at every call."""
        self._keys = keys
        self._opener = _native.WireOpener(own)

    def open(self, frame: bytes) -> Message:
        """Give the message in an Ethernet frame.

        Raises:
            RejectedError: ``reason`` is one of the keys of :attr:`rejected`.
        """
        return from_native(self._opener.open(self._keys, frame))

    def open_payload(self, payload: bytes) -> Message:
        """Like :meth:`open`, for a control payload behind other headers than Ethernet's."""
        return from_native(self._opener.open_payload(self._keys, payload))

    @property
    def accepted(self) -> int:
        """Frames let in."""
        return self._opener.accepted

    @property
    def rejected(self) -> dict[str, int]:
        """Frames kept out, by reason."""
        return self._opener.rejected

    @property
    def positions(self) -> list[tuple[int, int, int]]:
        """Sender, boot id and greatest sequence number: what to keep across a restart."""
        return self._opener.positions

    def resume(self, sender: int, boot: int, sequence: int) -> None:
        """Take over a position from before a restart, so that frames recorded then stay out."""
        self._opener.resume(sender, boot, sequence)


class Assembler:
    """Joins the parts of lists that took several frames, in any order of arrival."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._assembler = _native.WireAssembler()

    def add(self, message: Message) -> Message | None:
        """Take in a message; give it whole once every part is there.

        A message without ``part`` comes back at once.

        Raises:
            PartError: the part contradicts the others and was dropped.
        """
        whole = self._assembler.add(to_native(message))
        return None if whole is None else from_native(whole)

    def forget(self, handover: int) -> None:
        """Drop what has been joined for a handover that is over."""
        self._assembler.forget(handover)

    @property
    def pending(self) -> int:
        """Lists begun and not complete."""
        return self._assembler.pending


def split(message: Message, *, mtu: int = DEFAULT_MTU, list_number: int) -> list[Message]:
    """Split the flow list and the overriding matches over as many messages as ``mtu`` demands.

    ``list_number`` must rise whenever the contents change; see :class:`~flowferry.wire.Part`.

    Raises:
        UnsendableError: not even one list entry a part would fit, or 4,096 parts are not enough.
    """
    return [from_native(part) for part in _native.wire_split(to_native(message), mtu, list_number)]


def decode(frame: bytes) -> Message:
    """Read a frame, whoever sent it: for tools and tests, never to act upon.

    Raises:
        MalformedError: says where and why.
    """
    return from_native(_native.wire_decode(frame))


def encode(
    message: Message,
    *,
    destination: bytes,
    source: bytes,
    key_id: int = 0,
    mtu: int = DEFAULT_MTU,
) -> bytes:
    """Give a frame with a tag of zeros: for tools and tests, no receiver lets it in.

    Raises:
        UnsendableError: says what is wrong with the message.
    """
    return _native.wire_encode(to_native(message), key_id, destination, source, mtu)
