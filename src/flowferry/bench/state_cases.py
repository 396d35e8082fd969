"""Cases of the state store: two arms and a goal, or a figure with a goal of its own."""

from flowferry.bench.report import Case, Goal


def case(name: str, title: str, unit: str, arms: dict[str, list[float]], goal: Goal | None) -> Case:
    """The first arm is the yardstick; which way the goal counts it says itself."""
    baseline, candidate = arms
    return Case(name, title, unit, baseline, candidate, arms, goal)


def judged(name: str, title: str, unit: str, values: list[float], most: float) -> Case:
    """A figure with a goal of its own; the other arm is the goal."""
    arms = {"goal": [most] * len(values), "estate": values}
    return case(name, title, unit, arms, Goal(measure="value", most=most))
