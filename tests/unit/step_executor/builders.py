"""Valid orders, deliveries and tool calls with one thing overridden."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from headrace.contracts import codec, events, ids, subjects
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace_step_executor.decide import Received, received_order
from headrace_step_executor.tools.beneath import Workspace
from headrace_step_executor.tools.call import ToolCall

NOON_MS = 1_764_072_000_000


def order(**fields: Any) -> events.Order:
    """An order of `text.split`, scheduled at noon."""
    given: dict[str, Any] = {
        "path": "a", "attempt": 1, "offer": 1, "decision": "d1", "version": 2, "queue": "tool", "kind": "tool",
        "tool": "text.split", "timeout_ms": 1_000, "not_after_ms": NOON_MS + 600_000, "due_ms": NOON_MS + 60_000,
        "scheduled_ms": NOON_MS, "input": {},
    } | fields  # fmt: skip
    given["input"] = msgspec.Raw(codec.encode_value(given["input"]))
    return events.Order(**given)


def ordered(data: events.Order, run: str = "r1", tenant: str = "default") -> events.StepOrdered:
    """Its message."""
    return events.StepOrdered(
        specversion="1.0", id="o1", source="s", time="t", schemaver=1, tenant=tenant, pipeline="p", runid=run,
        stepid=data.path, attempt=data.attempt, data=data,
    )  # fmt: skip


def received(run: str = "r1", **fields: Any) -> Received:
    """An order as it came, at once and for the first time."""
    place: dict[str, Any] = {"stored_ms": NOON_MS, "seq": 10, "stream": "HR_RUNS_0", "deliveries": 1}
    for name in tuple(fields):
        if name in place:
            place[name] = fields.pop(name)
    subject = subjects.order(subjects.run_prefix("default", "p", run), "tool")
    return received_order(ordered(order(**fields), run), subject, **place)


@contextmanager
def tool_call(tool: str, root: Path, *, read_roots: tuple[Path, ...] = (), **args: Any) -> Iterator[ToolCall]:
    """A call with the schema's defaults applied; `from_` stands for `from`."""
    properties = BUILTIN_TOOLS[tool].args["properties"]
    defaults = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    given = {name.rstrip("_"): value for name, value in args.items()}
    with ThreadPoolExecutor(2) as threads:
        yield ToolCall(
            tool=tool, args=defaults | given, tenant="default", run="r1", path="a", attempt=1,
            key=ids.idempotency_key("r1", "a"), timeout_s=5, workspace=Workspace(root, read_roots), threads=threads,
        )  # fmt: skip
