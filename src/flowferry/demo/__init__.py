"""The demonstration: live flows move between two running functions, again and again.

`play` builds a testbed with two instances, an agent in front of each and a controller, sends UDP,
TCP and ping through them, moves parts of that traffic to and fro with up to ten megabytes of state,
and says what became of every packet. Nothing is left behind, whatever happens.
"""

from flowferry.demo.cues import Cue, plan
from flowferry.demo.stage import Demo, play
from flowferry.demo.verdict import Outcome

__all__ = ["Cue", "Demo", "Outcome", "plan", "play"]
