"""The demonstration: live flows through one function, captured and released again and again.

`play` builds a testbed with one instance, puts the handover support layer in front of it, sends
UDP, TCP and ping through it, holds and releases parts of that traffic, and says what became of
every packet. Nothing is left behind, whatever happens.
"""

from flowferry.demo.cues import Cue, plan
from flowferry.demo.stage import Demo, play
from flowferry.demo.verdict import Outcome

__all__ = ["Cue", "Demo", "Outcome", "plan", "play"]
