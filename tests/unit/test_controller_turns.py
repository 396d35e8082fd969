"""Whose turn it is of what agents have said."""

from flowferry.controller.strategies.base import Received
from flowferry.controller.turns import MOST_PASSED, Turns
from flowferry.wire import Command, Message


def said(number: int, command: Command) -> Received:
    return Received(number, Message(command=command, handover=1 << 8 | 1))


def test_what_packets_wait_for_goes_first_each_kind_in_order() -> None:
    turns = Turns()
    commands = (Command.IMPORTED, Command.SEEN, Command.ACK, Command.FENCED, Command.SEEN)
    for number, command in enumerate(commands):
        turns.put(said(number, command))
    assert [turns.take().instance for _ in range(len(turns))] == [1, 3, 4, 0, 2]
    assert not turns


def test_nobody_waits_for_ever() -> None:
    turns = Turns()
    turns.put(said(1, Command.IMPORTED))
    turns.put(said(2, Command.ACK))
    taken = []
    for number in range(100, 100 + 3 * MOST_PASSED):
        turns.put(said(number, Command.SEEN))
        taken.append(turns.take().instance)
    assert taken.index(1) == MOST_PASSED
    assert taken.index(2) == 2 * MOST_PASSED + 1
