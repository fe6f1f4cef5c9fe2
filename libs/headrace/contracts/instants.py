"""Instants as text. Pure: the instant is an argument."""

import functools
from datetime import UTC, datetime


def rfc3339(now_ms: int) -> str:
    """`2026-11-25T04:30:00.123000Z`, for people."""
    return f"{_whole_second(now_ms // 1000)}.{now_ms % 1000:03d}000Z"


@functools.lru_cache(maxsize=16)  # formatting costs 20 µs, and thousands of events share a second
def _whole_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
