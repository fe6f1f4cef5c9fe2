"""Tools of the chaos tests: they take a known time, and write each call to a ledger before and after it."""

import asyncio
import os
from typing import Any

from headrace.contracts.events import ToolSpec
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace_step_executor.tools.call import ToolCall

ARGS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"ms": {"type": "integer", "default": 0}, "value": {"default": 0}},
}
CATALOGUE = dict(BUILTIN_TOOLS) | {
    "chaos.work": ToolSpec(tool="chaos.work", version="1", description="Takes time.", args=ARGS),
    "chaos.once": ToolSpec(
        tool="chaos.once", version="1", description="Must not happen twice.", args=ARGS, effect="at_most_once"
    ),
}


async def work(call: ToolCall) -> dict[str, Any]:
    """Wait `ms`, give `value` + 1."""
    write(f"{call.key}\n")
    await asyncio.sleep(call.args.get("ms", 0) / 1000)
    return {"value": call.args.get("value", 0) + 1}


def write(line: str) -> None:
    """One line to the ledger, whole or not at all: the process may be killed at any instant."""
    path = os.environ.get("CHAOS_LEDGER")
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


TOOLS = {"chaos.work": work, "chaos.once": work}
