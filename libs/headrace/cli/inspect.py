"""`runs`, `show`, `events`, `export`, `watch`, `services`: a run is read from its log, lists come from the monitor."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from headrace.cli.approving import request_lines
from headrace.cli.connection import Connection, connected
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import UsageError, counted, emit, failure_json, note, say, table, value_text
from headrace.cli.pricing import attempt_costs_json, run_cost_json, run_cost_lines, step_costs
from headrace.cli.progress import detail, seconds
from headrace.cli.watching import durability_text, report_result, watch_run
from headrace.client.history import ENDED, RUN_STATUSES, RunView, StepView
from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.live import Empty, ListRuns, RunList, RunRow, ServiceList, ServiceRow
from headrace.local.files import workspace_of
from headrace.runtime.api import call
from headrace.runtime.clock import rfc3339
from headrace.runtime.eventlog import Stored


def nothing_left() -> None:
    """Reading can be interrupted at any time."""


def runs_command(data_dir: Path | None, *, pipeline: str, status: str, limit: int, as_json: bool) -> int:
    """The newest runs."""
    if status and status not in RUN_STATUSES:
        msg = f"--status {status[:60]}: expected one of {', '.join(sorted(RUN_STATUSES))}"
        raise UsageError(msg)

    async def work() -> int:
        async with connected(data_dir) as link:
            ask = ListRuns(pipeline=pipeline, status=status, limit=limit)
            found = await _asked(link, "runs", ask, RunList)
            if as_json:
                for row in found.runs:
                    emit(msgspec.to_builtins(row))
            else:
                table(("RUN", "STATUS", "CREATED", "TOOK", "PIPELINE", "STEPS"), [_run_row(row) for row in found.runs])
            return names.EXIT_OK

    return run_interruptible(work(), detached=nothing_left)


def _run_row(row: RunRow) -> tuple[str, ...]:
    steps = " ".join(f"{count} {status}" for status, count in row.steps.items())
    why = f" ({row.failure.code})" if row.failure is not None else ""
    took = seconds(row.updated_ms - row.created_ms) if row.status in ENDED else ""
    return (row.run, row.status + why, rfc3339(row.created_ms)[:19] + "Z", took, row.pipeline, steps)


def services_command(data_dir: Path | None, *, as_json: bool) -> int:
    """Every process that was heard lately."""

    async def work() -> int:
        async with connected(data_dir) as link:
            found = await _asked(link, "services", Empty(), ServiceList)
            if as_json:
                for row in found.services:
                    emit(msgspec.to_builtins(row))
                return names.EXIT_OK
            rows = [
                (
                    row.service,
                    "ready" if row.ready else "not ready",
                    seconds(row.silent_ms),
                    _holds(row),
                    row.instance,
                )
                for row in found.services
            ]
            table(("SERVICE", "STATE", "SILENT", "HOLDS", "INSTANCE"), rows)
            return names.EXIT_OK

    return run_interruptible(work(), detached=nothing_left)


def _holds(row: ServiceRow) -> str:
    """Only schedulers hold partitions, only executors take orders."""
    if row.queues:
        return f"{counted(row.held, 'order')} in hand"
    return counted(len(row.partitions), "partition") if row.partitions else "–"


async def _asked(link: Connection, verb: str, ask: Any, answer: type[Any]) -> Any:
    tenant, request_id = link.settings.tenant, link.client.new_id()
    return await call(link.broker, "monitor", verb, ask, answer, tenant=tenant, request_id=request_id)


def show_command(data_dir: Path | None, run: str, *, as_json: bool) -> int:
    """One run: its steps, and what came of it."""

    async def work() -> int:
        async with connected(data_dir) as link:
            view = await link.client.view(run)
            if as_json:
                emit(await _view_json(link, view))
            else:
                await _show(link, view)
            return names.EXIT_OK

    return run_interruptible(work(), detached=nothing_left)


async def _show(link: Connection, view: RunView) -> None:
    say(f"run {view.run}")
    say(f"pipeline {view.pipeline}  digest {view.defdigest[:12]}")
    about = f": {view.reason}" if view.reason else ""
    end_ms = view.updated_ms if view.ended else link.clock.now_ms()
    say(f"status {view.status}{about}  {seconds(max(0, end_ms - view.created_ms))}")
    say(f"created {rfc3339(view.created_ms)[:19]}Z  {durability_text(view.durability)}")
    if view.origin:
        say(f"goes on from run {view.origin} at `{view.origin_step}`")
    for name, label in sorted(view.labels.items()):
        say(f"label {name}: {label}")
    say()
    costs = step_costs(view)
    rows = [
        (
            step.path,
            step.status,
            str(step.attempt or ""),
            *([costs.get(step.path, "")] if costs else []),
            detail(step, now_ms=0 if step.ended else end_ms),
        )
        for step in view.steps.values()
    ]
    table(("STEP", "STATUS", "ATTEMPTS", *(["COST"] if costs else []), "DETAIL"), rows)
    for line in run_cost_lines(view):
        say(line)
    for asked in (step.asked for step in view.steps.values() if step.asked is not None and step.status == "waiting"):
        say()
        for line in request_lines(asked, await link.client.value(asked.shown)):
            say(line)
    if view.failure is not None:
        say()
        say(f"failure: {view.failure.code}: {view.failure.message}")
    if view.outputs is not None:
        say()
        outputs = await link.client.value(view.outputs)
        for name, value in outputs.items():
            say(f"{name}: {value_text(value)}")
    for kept in view.artifacts:
        say(f"file: {workspace_of(link.settings.data_dir, link.settings.tenant, view.run) / kept.path}")


async def _view_json(link: Connection, view: RunView) -> dict[str, Any]:
    client = link.client
    return {
        "run": view.run,
        "pipeline": view.pipeline,
        "digest": view.defdigest,
        "status": view.status,
        "reason": view.reason,
        "created_ms": view.created_ms,
        "updated_ms": view.updated_ms,
        "durability": view.durability,
        "labels": view.labels,
        "origin": {"run": view.origin, "step": view.origin_step} if view.origin else None,
        "inputs": None if view.inputs is None else await client.value(view.inputs),
        "outputs": None if view.outputs is None else await client.value(view.outputs),
        "failure": None if view.failure is None else failure_json(view.failure) | {"step": view.failed_path},
        "cost": run_cost_json(view),
        "steps": [await _step_json(link, view, step) for step in view.steps.values()],
    }


async def _step_json(link: Connection, view: RunView, step: StepView) -> dict[str, Any]:
    return {
        "path": step.path,
        "status": step.status,
        "attempts": step.attempt,
        "began_ms": step.began_ms,
        "ended_ms": step.ended_ms,
        "output": None if step.output is None else await link.client.value(step.output),
        "failure": None if step.failure is None else failure_json(step.failure),
        "reason": step.reason,
        "child": step.child,
        "asks": None if step.asked is None or step.status != "waiting" else await _asked_json(link, step.asked),
        "taken": step.taken,
        "artifacts": [msgspec.to_builtins(kept) for kept in step.artifacts],
        "usage": None if step.usage is None else msgspec.to_builtins(step.usage),
        "spent": attempt_costs_json(view, step.path),
    }


async def _asked_json(link: Connection, asked: ev.ApprovalRequested) -> dict[str, Any]:
    shown = await link.client.value(asked.shown)
    return {"shown": shown, "hash": asked.hash, "by": list(asked.by), "due_ms": asked.due_ms}


def events_command(data_dir: Path | None, run: str, *, follow: bool, as_json: bool) -> int:
    """Every message of a run: as stored with `--json`, one line each without."""

    async def work() -> int:
        async with connected(data_dir) as link, aclosing(link.client.events(run, follow=follow)) as messages:
            async for stored, message in messages:
                if as_json:
                    emit(msgspec.json.decode(stored.body))
                else:
                    say(_event_line(stored, message))
        return names.EXIT_OK

    return run_interruptible(work(), detached=nothing_left)


def _event_line(stored: Stored, message: ev.StoredMessage) -> str:
    clock = rfc3339(stored.time_ms)[11:23]
    if not isinstance(message, ev.RunDecided):
        kind = type(message).__struct_config__.tag
        assert isinstance(kind, str)
        return f"{stored.seq}  {clock}  {_short(kind)}  {getattr(message, 'stepid', '')}".rstrip()
    said = []
    for event in message.data.events:
        kind = type(event).__struct_config__.tag
        assert isinstance(kind, str)
        said.append(" ".join(filter(None, (_short(kind), getattr(event, "path", "")))))
    return f"{stored.seq}  {clock}  decision {message.data.version}: {', '.join(said)}"


def _short(kind: str) -> str:
    return kind.removeprefix("io.headrace.").rpartition(".v")[0]


def export_command(data_dir: Path | None, run: str) -> int:
    """The messages of a run and of its child runs as stored, one JSON object a line."""

    async def work() -> int:
        async with connected(data_dir) as link, aclosing(_tree(link, run)) as messages:
            async for stored in messages:
                emit(stored_json(stored))
        return names.EXIT_OK

    return run_interruptible(work(), detached=nothing_left)


async def _tree(link: Connection, run: str) -> AsyncGenerator[Stored, None]:
    pending = [run]
    while pending:
        async for stored, message in link.client.events(pending.pop(0)):
            yield stored
            if isinstance(message, ev.RunDecided):
                started = (event for event in message.data.events if isinstance(event, ev.ChildStarted))
                pending += [event.child for event in started]


def stored_json(stored: Stored) -> dict[str, Any]:
    """A message as a line of an export. `body` is the text as stored, byte for byte."""
    return {
        "stream": stored.stream,
        "seq": stored.seq,
        "time_ms": stored.time_ms,
        "subject": stored.subject,
        "body": stored.body.decode("utf-8"),
    }


def watch_command(data_dir: Path | None, run: str, *, as_json: bool) -> int:
    """Show a run until it ends; the exit code is that of the run. A restart of the system is only a pause."""

    async def work() -> int:
        async with connected(data_dir) as link:
            view = await link.client.view(run)
            if not as_json:
                done = sum(step.status == "completed" for step in view.steps.values())
                note(f"run {view.run}  {view.status}, {counted(done, 'step')} completed")
            await watch_run(link.client, view, as_json=as_json)
            workspace = workspace_of(link.settings.data_dir, link.settings.tenant, run)
            return await report_result(
                link.client, view, workspace=workspace if workspace.is_dir() else None, as_json=as_json
            )

    return run_interruptible(work(), detached=lambda: note(f"detached from run {run}, which goes on"))
