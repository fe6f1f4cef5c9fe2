"""A run as people look at it: the fold of its history into steps, with attempts, durations, errors and outputs. Pure.

As everywhere, decision n + 1 is taken after n and nothing else, so a lost race shows nowhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from headrace.client.spending import Spending
from headrace.contracts import events as ev
from headrace.contracts.envelope import Value
from headrace.contracts.failure import Failure

ENDED: Final = frozenset({"completed", "failed", "cancelled"})
RUN_STATUSES: Final = ENDED | {"running", "paused", "blocked", "stalled", "cancelling"}
STEP_ENDED: Final = frozenset({"completed", "failed", "skipped", "cancelled"})


@dataclass(slots=True)
class StepView:
    """A step instance. Instants are broker time in milliseconds, 0 while unknown."""

    path: str
    status: str = "scheduled"
    attempt: int = 0
    began_ms: int = 0
    ended_ms: int = 0
    count: int = -1
    """Items of a `foreach`, iterations so far of a loop; −1 for other steps."""
    done: int = 0
    """Items that have ended."""
    failed: int = 0
    """Items that ended badly."""
    output: Value | None = None
    failure: Failure | None = None
    """Of the last attempt that failed, also when a later one succeeded."""
    reason: str = ""
    child: str = ""
    due_ms: int = 0
    """Instant of the timer it waits for."""
    asked: ev.ApprovalRequested | None = None
    """What it asks a person, or has asked."""
    artifacts: tuple[ev.Artifact, ...] = ()
    usage: ev.Usage | None = None
    taken: str = ""
    """The run in which it ended; nothing of it was done here."""

    @property
    def ended(self) -> bool:
        """Nothing more will happen to it."""
        return self.status in STEP_ENDED

    @property
    def item_of(self) -> str:
        """The step that it is an item or an iteration of; empty for others."""
        if self.path[-1] not in "])":
            return ""
        return self.path.rpartition("[" if self.path[-1] == "]" else "(")[0]


@dataclass(slots=True)
class RunView:
    """A run as far as its history was read. `take` each message in order."""

    run: str
    tenant: str = ""
    pipeline: str = ""
    status: str = "unknown"
    version: int = 0
    seq: int = 0
    """Stream sequence of the last message read."""
    created_ms: int = 0
    updated_ms: int = 0
    defdigest: str = ""
    durability: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    inputs: Value | None = None
    outputs: Value | None = None
    failure: Failure | None = None
    failed_path: str = ""
    reason: str = ""
    origin: str = ""
    """The run that it goes on from; `origin_step` is where."""
    origin_step: str = ""
    steps: dict[str, StepView] = field(default_factory=dict)
    """By path, in the order in which they began."""
    spending: Spending = field(default_factory=Spending)
    _reports: dict[str, ev.AttemptSucceeded] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Nothing more will happen."""
        return self.status in ENDED

    @property
    def artifacts(self) -> tuple[ev.Artifact, ...]:
        """Files that its steps kept, each path once: the newest."""
        kept = {artifact.path: artifact for step in self.steps.values() for artifact in step.artifacts}
        return tuple(kept[path] for path in sorted(kept))

    def top(self) -> Iterator[StepView]:
        """Its steps without items and iterations, which their steps count."""
        return (step for step in self.steps.values() if not step.item_of)

    def take(self, message: ev.StoredMessage, *, seq: int = 0) -> list[ev.DecisionEvent]:
        """Fold a message in; gives the events that are news by it."""
        self.seq = max(self.seq, seq)
        match message:
            case ev.AttemptSucceeded():
                self._reports[message.id] = message
                self.spending.reported(message)
            case ev.AttemptFailed():
                self.spending.reported(message)
                step = self.steps.get(message.stepid)
                if step is not None and step.attempt == message.attempt:
                    step.failure = message.data.failure
            case ev.RunDecided() if message.data.version == self.version + 1:
                self.version, self.updated_ms = message.data.version, message.data.at_ms
                self.tenant, self.pipeline = message.tenant, message.pipeline
                for event in message.data.events:
                    self._evolve(event, message.data.at_ms)
                self.spending.decided(message.id, message.data.events)
                return list(message.data.events)
        return []

    def _evolve(self, event: ev.DecisionEvent, at_ms: int) -> None:
        match event:
            case ev.RunCreated():
                self.status, self.created_ms = "running", at_ms
                self.defdigest, self.durability = event.defdigest, event.durability
                self.inputs, self.labels = event.inputs, dict(event.labels)
            case ev.RunForked():
                self._take_over(event, at_ms)
            case ev.RunCompleted(outputs=outputs):
                self.status, self.outputs = "completed", outputs
            case ev.RunFailed(failure=failure, path=path):
                self.status, self.failure, self.failed_path = "failed", failure, path
            case ev.RunFailing(failure=failure, path=path):
                self.status, self.failure, self.failed_path = "failing", failure, path
            case ev.RunStalled(failure=failure):
                self.status, self.failure = "stalled", failure
            case ev.RunCancelling(reason=reason):
                self.status, self.reason = "cancelling", reason
            case ev.RunCancelled(reason=reason):
                self.status, self.reason = "cancelled", reason
            case ev.RunPaused(reason=reason) | ev.RunBlocked(reason=reason):
                self.status, self.reason = "paused" if isinstance(event, ev.RunPaused) else "blocked", reason
            case ev.RunResumed():
                self.status, self.reason = "running", ""
            case ev.BudgetRaised():
                pass  # what waited for it is resumed in the same decision
            case ev.ItemsStored():
                pass  # where results lie; their items have told them
            case _:
                if "?" not in event.path:  # an evaluation that an executor does for the scheduler is no step
                    self._step_event(event, at_ms)

    def _take_over(self, event: ev.RunForked, at_ms: int) -> None:
        self.origin, self.origin_step = event.origin, event.step
        for one in event.taken:
            status = "completed" if one.status == "succeeded" else one.status
            step = self.steps[one.path] = StepView(one.path, status, one.attempt, at_ms, at_ms, taken=event.origin)
            step.output, step.failure = one.output, one.failure

    def _step_event(self, event: "_StepEvent", at_ms: int) -> None:
        if self.status == "blocked" and isinstance(event, ev.StepScheduled):
            self.status = "running"
        step = self._step(event.path, at_ms)
        match event:
            case ev.StepScheduled(attempt=attempt) | ev.ScopeStarted(attempt=attempt):
                scheduled = isinstance(event, ev.StepScheduled)
                step.status, step.attempt, step.due_ms = "scheduled" if scheduled else "running", attempt, 0
            case ev.ForeachStarted(count=count):
                step.status, step.count = "running", count
            case ev.LoopStarted():
                step.status, step.count = "running", 0
            case ev.TimerSet() | ev.SignalAwaited() | ev.ApprovalRequested() | ev.EmitStarted():
                _wait(step, event)
            case ev.TimerFired() | ev.SignalTaken() | ev.ApprovalGranted() | ev.ApprovalDenied() | ev.OutcomeSettled():
                step.due_ms, step.reason = 0, _answer(event)
            case ev.ChildStarted(child=child, attempt=attempt):
                step.status, step.child, step.attempt = "running", child, attempt
            case ev.ChildEnded(failure=failure) | ev.FallbackStarted(failure=failure):
                step.failure = failure or step.failure
            case ev.StepCompleted(report=report, output=output, cached=origin):
                self._end(step, "completed", at_ms)
                step.reason = step.reason if origin is None else f"the result of run {origin.run}"
                accepted = self._reports.pop(report, None)
                step.output = output if accepted is None else accepted.data.output
                if accepted is not None:
                    step.artifacts, step.usage = accepted.data.artifacts, accepted.data.usage
            case ev.StepFailed(failure=failure):
                self._end(step, "failed", at_ms)
                step.failure = failure
            case ev.StepSkipped(reason=reason):
                self._end(step, "skipped", at_ms)
                step.reason = reason
            case ev.StepCancelled():
                self._end(step, "cancelled", at_ms)

    def _step(self, path: str, at_ms: int) -> StepView:
        step = self.steps.get(path)
        if step is None:
            step = self.steps[path] = StepView(path, began_ms=at_ms)
        return step

    def _end(self, step: StepView, status: str, at_ms: int) -> None:
        step.status, step.ended_ms, step.due_ms = status, at_ms, 0
        parent = self.steps.get(step.item_of) if step.item_of else None
        if parent is not None:
            parent.done += 1
            parent.count = max(parent.count, parent.done)  # nobody knows how many iterations come
            parent.failed += status == "failed"


def _wait(step: StepView, event: ev.TimerSet | ev.SignalAwaited | ev.ApprovalRequested | ev.EmitStarted) -> None:
    step.status = "waiting"
    if isinstance(event, ev.EmitStarted):
        return
    step.due_ms = event.due_ms
    if isinstance(event, ev.SignalAwaited):
        step.reason = f"for signal `{event.name}`"
        return
    if isinstance(event, ev.ApprovalRequested):
        step.reason, step.asked = f"for an answer of {', '.join(event.by) or 'a person'}", event
        return
    step.failure = event.failure or step.failure
    if event.timer == "retry":
        step.status = "retrying"
    elif event.timer == "deferred" and event.failure is not None:
        step.reason = f"{event.failure.code}: {event.failure.message}"


def _answer(
    event: ev.TimerFired | ev.SignalTaken | ev.ApprovalGranted | ev.ApprovalDenied | ev.OutcomeSettled,
) -> str:
    if isinstance(event, ev.TimerFired | ev.SignalTaken):
        return ""
    said = event.decision if isinstance(event, ev.OutcomeSettled) else "rejected"
    if isinstance(event, ev.ApprovalGranted):
        said = "approved"
    return f"{said} by {event.by}" + (f": {event.comment}" if event.comment else "")


_StepEvent = (
    ev.StepScheduled
    | ev.StepCompleted
    | ev.StepFailed
    | ev.StepSkipped
    | ev.StepCancelled
    | ev.ForeachStarted
    | ev.LoopStarted
    | ev.ScopeStarted
    | ev.FallbackStarted
    | ev.CompensationStarted
    | ev.SignalAwaited
    | ev.SignalTaken
    | ev.ApprovalRequested
    | ev.ApprovalGranted
    | ev.ApprovalDenied
    | ev.OutcomeSettled
    | ev.EmitStarted
    | ev.TimerSet
    | ev.TimerFired
    | ev.ChildStarted
    | ev.ChildEnded
)
