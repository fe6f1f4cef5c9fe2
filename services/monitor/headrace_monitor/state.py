"""The run list: a fold of all decisions. Pure: no clock, no random source, no IO.

Updated in place by its one owner, because copying 100,000 rows per event would be quadratic. The same
decisions in the same order give the same board, evictions included, so a rebuild from zero has the same
hash.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from headrace.contracts.canonical import canonical_json, sha256_hex
from headrace.contracts.envelope import Value
from headrace.contracts.events import (
    ApprovalRequested,
    ChildEnded,
    ChildStarted,
    DecisionEvent,
    EmitStarted,
    ForeachStarted,
    LoopStarted,
    RunBlocked,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunCreated,
    RunDecided,
    RunFailed,
    RunFailing,
    RunPaused,
    RunResumed,
    RunStalled,
    ScopeStarted,
    SignalAwaited,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepScheduled,
    StepSkipped,
    TimerFired,
    TimerSet,
)
from headrace.contracts.failure import Failure
from headrace.contracts.live import RunRow

RUNS_MAX: Final = 100_000
"""Rows kept: about 100 MB. Ended runs are dropped first, in the order they ended; their history stays in
the log."""
ENDED: Final = frozenset({"completed", "failed", "cancelled"})


@dataclass(slots=True)
class Run:
    """A run as far as its decisions were read."""

    run: str
    tenant: str
    pipeline: str
    created_ms: int
    updated_ms: int
    version: int = 0
    status: str = "running"
    parent: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    failure: Failure | None = None
    defdigest: str = ""
    inputs_sha: str = ""
    durability: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    """Step instances by status."""
    open_steps: dict[str, str] = field(default_factory=dict)
    """Status of the instances that have not ended; those that have are only counted."""


@dataclass(slots=True)
class Board:
    """All runs, in the order they were created."""

    runs_max: int = RUNS_MAX
    runs: OrderedDict[str, Run] = field(default_factory=OrderedDict)
    ended: OrderedDict[str, None] = field(default_factory=OrderedDict)
    evicted: int = 0
    ignored: int = 0
    """Decisions out of line: lost races, or of runs that were evicted."""


def evolve(board: Board, message: RunDecided) -> None:
    """Take one decision. Only version n + 1 after n counts, as everywhere."""
    run = board.runs.get(message.runid)
    decided = message.data
    if run is None and decided.version == 1:
        run = Run(
            run=message.runid,
            tenant=message.tenant,
            pipeline=message.pipeline,
            created_ms=decided.at_ms,
            updated_ms=decided.at_ms,
        )
        board.runs[message.runid] = run
    if run is None or decided.version != run.version + 1 or run.status in ENDED:
        board.ignored += 1
        return
    run.version, run.updated_ms = decided.version, decided.at_ms
    if run.status == "blocked" and decided.events:
        run.status = "running"  # it moved, so what it waited for has come
    for event in decided.events:
        _take(run, event)
    if run.status in ENDED:
        run.open_steps.clear()
        board.ended[run.run] = None
    _evict(board)


def _evict(board: Board) -> None:
    while len(board.runs) > board.runs_max:
        run, _ = board.ended.popitem(last=False) if board.ended else next(iter(board.runs.items()))
        del board.runs[run]
        board.evicted += 1


def _take(run: Run, event: DecisionEvent) -> None:
    match event:
        case RunCreated():
            run.parent, run.labels = event.parent, dict(event.labels)
            run.defdigest, run.durability = event.defdigest, event.durability
            run.inputs_sha = inputs_sha(event.inputs)
        case RunFailed(failure=failure):
            run.status, run.failure = "failed", failure
        case RunStalled(failure=failure):
            run.status, run.failure = "stalled", failure
        case (
            RunCompleted() | RunFailing() | RunCancelling() | RunCancelled() | RunPaused() | RunResumed() | RunBlocked()
        ):
            run.status = _STATUS[type(event)]
        case _:
            step = _step(event)
            if step is not None:
                _move(run, *step)


_STATUS: Final[dict[type, str]] = {
    RunCompleted: "completed",
    RunFailing: "failing",
    RunCancelling: "cancelling",
    RunCancelled: "cancelled",
    RunPaused: "paused",
    RunResumed: "running",
    RunBlocked: "blocked",
}


def _step(event: DecisionEvent) -> tuple[str, str] | None:
    """Path and new status of the step instance that an event is about, or None."""
    match event:
        case StepScheduled(path=path):
            return path, "scheduled"
        case TimerSet(path=path, timer=timer):
            return path, "retrying" if timer == "retry" else "waiting"
        case SignalAwaited(path=path) | ApprovalRequested(path=path) | EmitStarted(path=path):
            return path, "waiting"
        case ForeachStarted(path=path) | LoopStarted(path=path) | ScopeStarted(path=path) | ChildStarted(path=path):
            return path, "running"
        case StepCompleted(path=path):
            return path, "completed"
        case StepFailed(path=path):
            return path, "failed"
        case StepSkipped(path=path):
            return path, "skipped"
        case StepCancelled(path=path):
            return path, "cancelled"
        case TimerFired() | ChildEnded():
            return None  # what follows from it is an event of its own
        case _:
            return None


_STEP_ENDED: Final = frozenset({"completed", "failed", "skipped", "cancelled"})


def _move(run: Run, path: str, status: str) -> None:
    before = run.open_steps.pop(path, None)
    if before is not None:
        run.counts[before] -= 1
        if not run.counts[before]:
            del run.counts[before]
    run.counts[status] = run.counts.get(status, 0) + 1
    if status not in _STEP_ENDED:
        run.open_steps[path] = status


def inputs_sha(inputs: Value) -> str:
    """sha256 of the canonical inputs; where they are held by reference, the reference's own hash."""
    if isinstance(inputs.json, msgspec.UnsetType):
        return inputs.ref.rpartition("/")[2]
    return sha256_hex(canonical_json(msgspec.json.decode(inputs.json)))


def row(run: Run) -> RunRow:
    """The run as the list shows it."""
    return RunRow(
        run=run.run,
        tenant=run.tenant,
        pipeline=run.pipeline,
        status=run.status,
        created_ms=run.created_ms,
        updated_ms=run.updated_ms,
        steps=dict(sorted(run.counts.items())),
        parent=run.parent,
        labels=run.labels,
        failure=run.failure,
        defdigest=run.defdigest,
        inputs_sha=run.inputs_sha,
        durability=run.durability,
    )


def newest(board: Board, *, tenant: str, pipeline: str = "", status: str = "") -> Iterator[RunRow]:
    """A tenant's runs, newest first; with a pipeline or a status only those."""
    for run in reversed(board.runs.values()):
        if run.tenant != tenant or (pipeline and run.pipeline != pipeline) or (status and run.status != status):
            continue
        yield row(run)


def board_hash(board: Board) -> str:
    """sha256 over all rows by run id: the same in every process that has read the same decisions."""
    rows = (canonical_json(msgspec.to_builtins(row(board.runs[run]))) for run in sorted(board.runs))
    return sha256_hex(b"\n".join(rows))
