"""`headrace breakers`: which providers are not asked at the moment, why, and when they are asked again."""

from pathlib import Path
from typing import Any

import msgspec

from headrace.cli.connection import connected
from headrace.cli.inspect import nothing_left
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import emit, say, table
from headrace.cli.progress import seconds
from headrace.contracts import codec, names, subjects
from headrace.contracts.events import BreakerClosed, BreakerMessage, BreakerOpened
from headrace.runtime.clock import rfc3339
from headrace.runtime.eventlog import Stored


def breakers_command(data_dir: Path | None, *, as_json: bool) -> int:
    """The newest change of each breaker; the process that said so decides by its own."""

    async def work() -> int:
        async with connected(data_dir) as link:
            found = []
            async for stored in link.broker.read(subjects.SYSTEM, (subjects.BREAKERS_ALL,)):
                message = codec.decode(stored.body)
                if isinstance(message, BreakerMessage):
                    found.append((stored, message))
            if as_json:
                for stored, message in found:
                    emit(_json(stored, message))
            elif not found:
                say("no breaker has ever opened")
            else:
                now_ms = link.clock.now_ms()
                rows = [_row(stored, message, now_ms) for stored, message in found]
                table(("BREAKER", "STATE", "SINCE", "NEXT PROBE", "CAUSE", "OF"), rows)
            return names.EXIT_OK

    return run_interruptible(work(), detached=nothing_left)


def state_of(message: BreakerMessage) -> str:
    """open, half-open or closed."""
    if isinstance(message, BreakerOpened):
        return "open"
    return "closed" if isinstance(message, BreakerClosed) else "half-open"


def _json(stored: Stored, message: BreakerMessage) -> dict[str, Any]:
    return {"state": state_of(message), "since_ms": stored.time_ms, **msgspec.to_builtins(message.data)}


def _row(stored: Stored, message: BreakerMessage, now_ms: int) -> tuple[str, ...]:
    data, probe = message.data, ""
    if isinstance(message, BreakerOpened):
        left_ms = data.due_ms - now_ms
        probe = f"in {seconds(left_ms)}" if left_ms > 0 else "with the next call"
    since = rfc3339(stored.time_ms)[:19] + "Z"
    return (data.name, state_of(message), since, probe, data.cause.partition("\n")[0], data.instance)
