"""Old messages, read as new ones: one pure function per retired type, chained, applied when a message is decoded.

Rules: within `.vN` fields are only added, with defaults. Anything else is `.vN+1` and an entry here, which takes and
gives the decoded JSON object (a dict) of one message or inner event. History itself is never rewritten. There is no
entry yet because no release has been tagged; `tests/contracts/test_upcasts.py` holds the mechanism with its own table.
"""

from collections.abc import Callable, Mapping
from typing import Any

Upcast = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTS: Mapping[str, Upcast] = {}


def upcast(raw: dict[str, Any], table: Mapping[str, Upcast] = UPCASTS) -> dict[str, Any]:
    """The newest form of a message, its inner events included. An untouched message comes back equal."""
    while (step := table.get(str(raw.get("type")))) is not None:
        raw = step(raw)
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("events"), list):
        events = [upcast(event, table) if isinstance(event, dict) else event for event in data["events"]]
        raw = {**raw, "data": {**data, "events": events}}
    return raw
