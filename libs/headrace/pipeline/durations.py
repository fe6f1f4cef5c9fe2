"""Durations and instants as people write them."""

import datetime
import functools
import re
from typing import Any, Final

from headrace.contracts import names
from headrace.contracts.errors import ExpressionError
from headrace.pipeline.problems import shown

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WHOLE = re.compile(r"(?:\d{1,12}(?:ms|[smhd]))+", re.ASCII)
_PART = re.compile(r"(\d+)(ms|[smhd])", re.ASCII)
_FRACTION = re.compile(r"(\d{1,12})\.(\d{1,6})s", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_ENDLESS: Final = {"inf", "infinite", "infinity", "never", "none", "forever", "unlimited", ".inf"}
BOUNDS: Final = "1ms to 30d"
_HINT: Final = f"write a number and ms, s, m, h or d, such as `10m` or `1h30m`, from {BOUNDS}"


class DurationError(ExpressionError):
    """Text that is no duration or instant, or outside the bounds. `hint` says what to write."""

    def __init__(self, text: str, hint: str) -> None:
        self.text, self.hint = text, hint
        super().__init__(f"{text}; {hint}", code="type_mismatch")


def parse_duration_ms(value: Any) -> int:
    """Milliseconds of `10m`, `1h30m`, `250ms`, or of a CEL duration (`1.5s`).

    Raises:
        DurationError: something else, or outside 1 ms to 30 d.
    """
    return _parsed_ms(value) if isinstance(value, str) else _refused(value)


def _refused(value: Any) -> int:
    if value == float("inf"):
        msg = f"{shown(value)}: infinite is not available"
        raise DurationError(msg, f"write a duration from {BOUNDS}")
    msg = f"expected a duration, got {shown(value)}"
    raise DurationError(msg, _HINT)


@functools.lru_cache(maxsize=1024)  # a file says the same few durations again and again
def _parsed_ms(value: str) -> int:
    if value.strip().lower() in _ENDLESS:
        msg = f"{shown(value)}: infinite is not available"
        raise DurationError(msg, f"write a duration from {BOUNDS}")
    text = value.strip()
    fraction = _FRACTION.fullmatch(text)
    if fraction:
        total_ms = int(fraction[1]) * 1000 + int(fraction[2].ljust(6, "0")) // 1000
    elif _WHOLE.fullmatch(text):
        total_ms = sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text))
    else:
        msg = f"expected a duration, got {shown(value)}"
        raise DurationError(msg, _HINT)
    if not names.DURATION_MS_MIN <= total_ms <= names.DURATION_MS_MAX:
        msg = f"a duration of {shown(value)} is outside the bounds"
        raise DurationError(msg, f"write one from {BOUNDS}")
    return total_ms


def instant_ms(value: Any) -> int:
    """Unix milliseconds of an RFC 3339 instant such as `2026-01-31T06:00:00Z`; a time zone is required.

    Raises:
        DurationError: something else.
    """
    hint = "write it as `2026-01-31T06:00:00Z`"
    if not isinstance(value, str) or not _INSTANT.fullmatch(value.strip()):
        msg = f"expected an instant with a time zone, got {shown(value)}"
        raise DurationError(msg, hint)
    try:
        parsed = datetime.datetime.fromisoformat(value.strip())
    except ValueError as error:
        msg = f"{shown(value)} is no instant ({error})"
        raise DurationError(msg, hint) from error
    return (parsed - datetime.datetime.fromtimestamp(0, datetime.UTC)) // datetime.timedelta(milliseconds=1)
