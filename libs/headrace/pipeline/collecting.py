"""Lists that `map` and `filter` make, collected outside of CEL.

The library appends by copying: 9,000 items take 2.7 s, in the scheduler's own loop. `all` is linear, so the two
macros are rewritten to it (`scanner.with_collected_lists`) and the items are pushed into a frame here. Frames are a
stack with numbers, because macros nest; an item that fails leaves its frame behind, and taking the one below drops it.
State is per thread, because an evaluation runs in one, and is cleared before each.
"""

import threading
from typing import Any

from headrace.contracts import names
from headrace.pipeline.functions import ordered


class _Frames(threading.local):
    def __init__(self) -> None:
        self.stack: list[tuple[int, list[Any]]] = []
        self.bytes_left = 0


_frames = _Frames()


def begin() -> None:
    """Forget an earlier evaluation, which may have ended by an error."""
    _frames.stack.clear()
    _frames.bytes_left = names.VALUE_BYTES_MAX


def mark(value: Any, number: int) -> list[Any]:
    """Open a frame; gives what the macro runs over: a list as it is, a map's keys sorted."""
    _frames.stack.append((number, []))
    return ordered(value)


def push(number: int, item: Any) -> bool:
    """Add an item to the frame, whose inner frames have all been taken or have failed. Always true."""
    frames = _frames.stack
    while frames[-1][0] != number:
        frames.pop()
    _frames.bytes_left -= _size(item)
    if _frames.bytes_left < 0:
        message = f"{OVER_BUDGET}: the lists it makes are larger than {names.VALUE_BYTES_MAX} bytes"
        raise ValueError(message)
    frames[-1][1].append(item)
    return True


def take(_: bool, number: int) -> list[Any]:
    """The items of the frame, which is closed."""
    frames = _frames.stack
    while frames[-1][0] != number:
        frames.pop()
    return frames.pop()[1]


OVER_BUDGET = "budget exceeded"


def _size(value: Any) -> int:
    """About how many bytes a value takes as JSON."""
    match value:
        case str():
            return len(value) + 2
        case list():
            return 2 + sum(map(_size, value))
        case dict():
            return 2 + sum(len(key) + 4 + _size(inner) for key, inner in value.items() if isinstance(key, str))
    return 8
