"""Looking at one run until it ends, and saying how it ended. Shared by `run`, `submit --wait` and `watch`."""

from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from headrace.cli.output import emit, failure_json, note, say, value_text
from headrace.cli.progress import progress_for, seconds
from headrace.client.client import Client
from headrace.client.history import RunView
from headrace.contracts import names
from headrace.runtime.clock import SystemClock

DURABILITY: Final = {
    "D0": "D0: survives kill -9; a power cut may lose the last 0.1 s",
    "D1": "D1: every event is on disk before it counts",
    "D2": "D2: every event is on three disks before it counts",
}
EXITS: Final[Mapping[str, int]] = {"completed": names.EXIT_OK}
DENIED: Final = frozenset({"path_denied"})
"""Failures of a run that mean that it asked for what it may not have: exit 77, as for any other denial."""


def durability_text(durability: str) -> str:
    """What a run's storage can promise."""
    return DURABILITY.get(durability, "durability: unknown, the services do not say")


async def watch_run(client: Client, view: RunView, *, as_json: bool) -> None:
    """Show what happens until the run has ended or can't go on; the view then has how."""
    progress = progress_for(SystemClock(), as_json=as_json)
    progress.begin(view)
    try:
        async with aclosing(client.follow(view)) as changes:
            async for change in changes:
                progress.update(change)
                if view.status == "stalled":
                    break
    finally:
        progress.end()


async def report_result(client: Client, view: RunView, *, workspace: Path | None, as_json: bool) -> int:
    """Say how the run ended; gives the exit code.

    Args:
        workspace: The run's files, where this machine has them.
    """
    outputs = None if view.outputs is None else await client.value(view.outputs)
    files = [str(workspace / kept.path) if workspace else kept.path for kept in view.artifacts]
    code = EXITS.get(view.status, names.EXIT_RUN_FAILED)
    if view.status == "failed" and view.failure is not None and view.failure.code in DENIED:
        code = names.EXIT_DENIED
    if as_json:
        emit(result_json(view, outputs, files))
        return code
    took = seconds(max(0, view.updated_ms - view.created_ms))
    if view.failure is not None:
        where = f"step `{view.failed_path}`: " if view.failed_path else ""
        note(f"{view.status} after {took}: {where}{view.failure.code}: {view.failure.message}")
        for cause in view.failure.causes:
            note(f"  caused by {cause}")
    else:
        note(f"{view.status} after {took}" + (f": {view.reason}" if view.reason else ""))
    if isinstance(outputs, dict):
        for name, value in outputs.items():
            say(f"{name}: {value_text(value)}")
    for file in files:
        say(f"file: {file}")
    return code


def result_json(view: RunView, outputs: Any, files: list[str]) -> dict[str, Any]:
    """The last line of `--json`."""
    shown: dict[str, Any] = {
        "event": "result",
        "run": view.run,
        "pipeline": view.pipeline,
        "status": view.status,
        "durability": view.durability,
        "took_ms": max(0, view.updated_ms - view.created_ms),
        "outputs": outputs,
        "files": files,
    }
    if view.failure is not None:
        shown["failure"] = failure_json(view.failure) | {"step": view.failed_path}
    return shown
