"""Cycles among steps that wait for each other."""

from collections.abc import Mapping


def find_cycle(start: str, after: Mapping[str, list[str]], done: set[str]) -> list[str]:
    """A cycle reachable from a step, as `a, b, c, a` in the order of waiting; empty when there is none."""
    if start in done:
        return []
    trail = [start]
    open_ = [iter(after[start])]
    on_trail = {start}
    while trail:
        following = next(open_[-1], None)
        if following is None:
            done.add(trail[-1])
            on_trail.discard(trail.pop())
            open_.pop()
        elif following in on_trail:
            done.update(trail)
            return [*trail[trail.index(following) :], following]
        elif following not in done and following in after:
            trail.append(following)
            on_trail.add(following)
            open_.append(iter(after[following]))
    return []
