"""Events: whoever listens hears all of them; who is too slow loses the oldest and delays nobody."""

import asyncio

from flowferry.controller.events import BACKLOG, Events


def test_a_slow_listener_loses_the_oldest_and_holds_up_nobody() -> None:
    async def case() -> None:
        events = Events()
        slow, quick = events.subscribe(), events.subscribe()
        waiting = [asyncio.ensure_future(anext(each)) for each in (slow, quick)]
        await asyncio.sleep(0)  # they listen from here on
        assert events.heard
        events.publish("rule", {"n": 0})
        assert [await each for each in waiting] == [("rule", {"n": 0})] * 2
        for n in range(1, BACKLOG + 3):
            events.publish("rule", {"n": n})
            assert await anext(quick) == ("rule", {"n": n})
        assert await anext(slow) == ("rule", {"n": 3})
        for each in (slow, quick):
            await each.aclose()
        assert not events.heard

    asyncio.run(case())
