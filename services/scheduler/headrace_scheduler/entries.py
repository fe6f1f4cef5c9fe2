"""What the owner of a partition holds: its runs, decisions under way, and what all partitions of a process share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.contracts import events as ev
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Plan
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Broker
from headrace.runtime.supervisor import Supervisor
from headrace_scheduler.decide import Decision
from headrace_scheduler.plans import Plans
from headrace_scheduler.records import Run
from headrace_scheduler.reuse import Found
from headrace_scheduler.room import Room
from headrace_scheduler.schedules import Schedules
from headrace_scheduler.tool_versions import ToolVersions


@dataclass(slots=True)
class InFlight:
    """A decision that was sent and has not been seen in the log."""

    id: str
    body: bytes
    message: ev.RunDecided
    decision: Decision
    seq: int = 0
    """Where it is stored, once the broker has said so."""


@dataclass(slots=True, frozen=True)
class Stall:
    """Why a run must stop, and the sequence of the message that showed it."""

    failure: Failure
    seq: int

    def decision(self, version: int, now_ms: int) -> Decision:
        """What its history shall say."""
        return Decision(
            version=version,
            at_ms=now_ms,
            events=(ev.RunStalled(failure=self.failure, seq=self.seq),),
            headline="run-stalled",
            orders={},
            order=None,
            blobs=[],
        )


@dataclass(slots=True)
class Entry:
    """A run in this owner's hands."""

    run: Run
    plan: Plan
    in_flight: InFlight | None = None
    counted: dict[str, int] = field(default_factory=dict)
    """Orders in flight by queue as Room knows them, those of a decision in flight included."""
    published: dict[tuple[str, int, int], float] = field(default_factory=dict)
    """(path, attempt, offer) → when this process last published the order."""
    asks: int = 0
    """How often this process has asked the run's concurrency key."""
    due_ms: int | None = None
    lost: set[str] = field(default_factory=set)
    reused: dict[str, Found | None] = field(default_factory=dict)
    """Earlier results that were looked for, by digest of their key."""
    looked_up: set[str] = field(default_factory=set)
    """Digests that are being looked for."""
    stall: Stall | None = None
    """It must stop, and its history does not say so yet."""

    def count(self, room: Room) -> None:
        """Tell Room what is out; a decision in flight has been counted when it was sent."""
        if self.in_flight is not None:
            return
        out = {} if self.run.ended else dict(self.run.out)
        if out != self.counted:
            room.count(self.run.tenant, self.counted, out)
            self.counted = out


@dataclass(slots=True)
class Shared:
    """What all partitions of a scheduler share."""

    broker: Broker
    clock: Clock
    supervisor: Supervisor
    plans: Plans
    room: Room
    source: str
    run_streams: int
    may_decide: Callable[[int], bool]
    definitions: dict[str, dict[str, str]]
    """tenant → pipeline → newest digest."""
    schedules: Schedules
    tool_versions: ToolVersions
    snapshots_on: bool = True
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Held while a value of any size is in memory: of those there is one at a time."""
