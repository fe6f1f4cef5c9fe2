"""What a tool is given, and how it says that it failed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from headrace.contracts.errors import AttemptError
from headrace_step_executor.tools.beneath import Workspace


class Stop:
    """Set when the call is over for the engine: work in threads looks at it between two steps."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        """From now on."""
        self.is_set = True


@dataclass(slots=True, frozen=True)
class ToolCall:
    """One call: arguments that fit the tool's schema, defaults applied, and the place where it may work."""

    tool: str
    args: Mapping[str, Any]
    tenant: str
    run: str
    path: str
    attempt: int
    key: str
    """The idempotency key, the same for all attempts of the step."""
    timeout_s: float
    """What is left of the attempt. The caller cancels at the end of it; a tool need not watch it."""
    workspace: Workspace
    threads: Executor
    """For calls that block; bounded."""
    stop: Stop = field(default_factory=Stop)


ToolFunction = Callable[[ToolCall], Awaitable[Any]]


def refuse(code: str, message: str) -> AttemptError:
    """An error that the same call would meet again."""
    return AttemptError(code, message, retryable=False)


def try_later(code: str, message: str, *, retry_after_ms: int = 0) -> AttemptError:
    """An error that may be gone at the next attempt."""
    return AttemptError(code, message, retryable=True, retry_after_ms=retry_after_ms)


async def in_thread(call: ToolCall, work: Callable[[], Any]) -> Any:
    """What blocking work gives. When the wait for it is cut short, `stop` tells the work, which ends soon."""
    try:
        return await asyncio.get_running_loop().run_in_executor(call.threads, work)
    finally:
        call.stop.set()


def go_on(call: ToolCall) -> None:
    """Raise when the call is over for the engine; work in threads calls it between two steps."""
    if call.stop.is_set:
        msg = "timeout"
        raise try_later(msg, f"{call.tool}: stopped")
