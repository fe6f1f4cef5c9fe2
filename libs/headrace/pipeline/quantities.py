"""Counts and shares of conversations as people write them."""

import re
from typing import Any, Final

from headrace.pipeline.problems import shown

_COUNT = re.compile(r"(\d{1,15})(k|M|G)", re.ASCII)
_UNITS: Final = {"k": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_INCLUDE = re.compile(r"(summary\+)?last ([1-9]\d{0,4})", re.ASCII)
INCLUDE_HINT: Final = "write `last 20` or `summary+last 10`"


class QuantityError(ValueError):
    """Text that is no quantity. `hint` says what to write."""

    def __init__(self, text: str, hint: str) -> None:
        self.hint = hint
        super().__init__(text)


def parse_count(value: Any) -> int:
    """The number that `2M`, `500k` or an integer is.

    Raises:
        QuantityError: something else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _COUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        msg = f"expected a count, got {shown(value)}"
        raise QuantityError(msg, "write a whole number, or one with k, M or G, such as `500k`")
    return int(match[1]) * _UNITS[match[2]]


def parse_include(value: Any) -> tuple[bool, int]:
    """Whether a summary is wanted, and how many of the last turns.

    Raises:
        QuantityError: something else.
    """
    match = _INCLUDE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        msg = f"expected a part of a conversation, got {shown(value)}"
        raise QuantityError(msg, INCLUDE_HINT)
    return bool(match[1]), int(match[2])
