"""Ctrl-C: once, and what runs is left in order; twice, and the process ends at once."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from headrace.contracts import names
from headrace.runtime.loop import run

TERMINATED: Final = 128 + signal.SIGTERM


def run_interruptible(work: Coroutine[Any, Any, int], *, detached: Callable[[], int | None]) -> int:
    """The exit code of `work`, or 130 (143 for SIGTERM) after it was interrupted and has cleaned up.

    Args:
        detached: Called after an interruption; says what is left, and may give another exit code.
    """
    return run(_interruptible(work, detached))


async def _interruptible(work: Coroutine[Any, Any, int], detached: Callable[[], int | None]) -> int:
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    asked: list[int] = []

    def on_signal(number: int, code: int) -> None:
        if asked:
            sys.stderr.flush()
            os._exit(code)
        asked.append(code)
        me.cancel()

    loop.add_signal_handler(signal.SIGINT, on_signal, signal.SIGINT, names.EXIT_DETACHED)
    loop.add_signal_handler(signal.SIGTERM, on_signal, signal.SIGTERM, TERMINATED)
    try:
        return await work
    except asyncio.CancelledError:
        if not asked:
            raise
        me.uncancel()  # it was ours, and everything below has cleaned up
        code = detached()
        return asked[0] if code is None else code
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
