"""What is said inside a decision of a run: the facts that its fold is made of.

Facts are past tense. Within `.vN` only fields with defaults are added; a change of meaning is `.vN+1` plus an upcaster.
Instants are integer milliseconds of broker time (`…_ms`); durations likewise.
"""

from typing import Any

import msgspec

from headrace.contracts.envelope import Part, Value
from headrace.contracts.failure import Failure
from headrace.contracts.money import Amount


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """A fact inside a decision."""


# --- the run -----------------------------------------------------------------------------------


class RunCreated(Event, frozen=True, tag="io.headrace.run.created.v1"):
    """A run exists, bound for ever to one definition."""

    defdigest: str
    inputs: Value
    deadline_ms: int
    """Instant at which the run fails unless it has ended."""
    request: str
    """Hash of what was asked; a second start under this id with another hash is refused as `key_reused`."""
    labels: dict[str, str] = {}
    parent: str = ""
    parent_path: str = ""
    depth: int = 1
    tools: dict[str, str] = {}
    """Versions of tools that its steps call as long as it lives, by name."""
    attempt: int = 1
    """Which try of the same work this run is: of a child run the attempt of the step that started it."""
    traceparent: str = ""
    tracestate: str = ""
    durability: str = ""
    event: Value | None = None
    """What triggered it; None where somebody, or another run, started it."""
    hops: int = 0
    """How many events of runs led to it, one from another."""
    key: str = ""
    """Its concurrency key, where the pipeline has one: no step starts before the key is granted."""


class Taken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a step of a run's own scope ended in the run that this one takes it over from."""

    path: str
    status: str
    """succeeded, skipped, or failed where the pipeline tolerates it."""
    attempt: int = 0
    output: Value | None = None
    """Held by the run that takes it over, so that it stays when the other run is gone."""
    failure: Failure | None = None
    usage: dict[str, Any] | None = None
    """As in the report that ended it. What it cost is the other run's."""
    degraded: bool = False


class RunForked(Event, frozen=True, tag="io.headrace.run.forked.v1"):
    """Always beside `run-created`: the run goes on from what had ended in another one. None of that is done again."""

    origin: str
    """The other run."""
    seq: int
    """The newest message of its history that was read."""
    version: int
    """Of its newest decision then."""
    step: str
    """The step from which everything is done anew."""
    taken: tuple[Taken, ...] = ()


class RunCompleted(Event, frozen=True, tag="io.headrace.run.completed.v1"):
    """Every reachable step is terminal and none failed the run."""

    outputs: Value
    degraded: bool = False
    """A step failed and was tolerated, or something stood in for it."""


class RunFailed(Event, frozen=True, tag="io.headrace.run.failed.v1"):
    """A step failed the run, or its deadline passed."""

    failure: Failure
    path: str = ""


class RunFailing(Event, frozen=True, tag="io.headrace.run.failing.v1"):
    """The run is to fail; what succeeded and can be undone is undone first, the last first."""

    failure: Failure
    path: str
    due_ms: int
    """Instant at which it fails whether or not all is undone."""


class RunCancelling(Event, frozen=True, tag="io.headrace.run.cancelling.v1"):
    """No further step starts; work in flight is stopped, children are asked to stop."""

    reason: str
    due_ms: int
    """Instant at which the run is cancelled whether or not its children have answered."""


class RunCancelled(Event, frozen=True, tag="io.headrace.run.cancelled.v1"):
    """The run ended because somebody asked for it."""

    reason: str


class RunPaused(Event, frozen=True, tag="io.headrace.run.paused.v1"):
    """Steps in flight finish, nothing new starts."""

    reason: str


class RunResumed(Event, frozen=True, tag="io.headrace.run.resumed.v1"):
    """Steps start again."""


class RunBlocked(Event, frozen=True, tag="io.headrace.run.blocked.v1"):
    """The run waits for something only a person can give."""

    reason: str
    path: str = ""
    budget: str | None = None
    """Whose budget has to be raised: empty for the run's, else the static path of the step. None: nobody's."""


class BudgetRaised(Event, frozen=True, tag="io.headrace.budget.raised.v1"):
    """A budget has become larger; what waits for it goes on."""

    budget: str
    """As `run-blocked` names it."""
    usd_nanos: int = 0
    tokens: int = 0
    reason: str = ""


class RunStalled(Event, frozen=True, tag="io.headrace.run.stalled.v1"):
    """The engine cannot go on with this run and says why; its bytes are kept."""

    failure: Failure
    seq: int = 0


# --- steps -------------------------------------------------------------------------------------


class StepScheduled(Event, frozen=True, tag="io.headrace.step.scheduled.v1"):
    """One attempt of a step instance may run. The order derives from it."""

    path: str
    attempt: int
    queue: str
    input_sha: str
    """blake2b-128 of the order's input or template and bindings: deriving again must give the same."""
    not_after_ms: int
    """Instant after which nobody may begin the attempt."""
    due_ms: int
    """Instant at which the attempt is over for the engine, reported or not."""
    reserved: Amount | None = None
    """The most that it may cost, set aside in every budget that it is under; None where there is none."""
    cache_key: str = ""
    """Digest of the key under which a result may be used again."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a result that is used again comes from: a step of an earlier run, and the hash of what it gave."""

    run: str
    path: str
    report: str
    at_ms: int
    """When it was kept, by the broker's clock."""
    sha256: str
    """Of the value's JSON bytes."""


class StepCompleted(Event, frozen=True, tag="io.headrace.step.completed.v1"):
    """A step instance ended well. `report` names the accepted report whose output it is; else `output` is here."""

    path: str
    attempt: int = 0
    report: str = ""
    output: Value | None = None
    degraded: bool = False
    cached: Origin | None = None
    """It was not executed: `output` is an earlier result with the same key."""


class StepFailed(Event, frozen=True, tag="io.headrace.step.failed.v1"):
    """A step instance ended badly: no further attempt follows."""

    path: str
    attempt: int
    failure: Failure
    tolerated: bool = False
    """The pipeline goes on all the same (`on_error`, `on_item_error`)."""


class StepSkipped(Event, frozen=True, tag="io.headrace.step.skipped.v1"):
    """A step instance does not run: its condition is false, or what it needs was skipped."""

    path: str
    reason: str


class StepCancelled(Event, frozen=True, tag="io.headrace.step.cancelled.v1"):
    """A step instance was stopped with its run."""

    path: str


class ForeachStarted(Event, frozen=True, tag="io.headrace.foreach.started.v1"):
    """The list of a `foreach` is known; items are scheduled from it through a window."""

    path: str
    items: Value
    count: int


class ItemsStored(Event, frozen=True, tag="io.headrace.items.stored.v1"):
    """Of a long `foreach`, the items from `first` on have all ended, and their results lie in a blob: an array of
    `ItemResult`."""

    path: str
    first: int
    results: Part


class LoopStarted(Event, frozen=True, tag="io.headrace.loop.started.v1"):
    """A `while` or `until` begins; its iterations are `<path>(0)`, `<path>(1)` …, one at a time."""

    path: str
    carry: Value
    """What the first iteration is given."""


class ScopeStarted(Event, frozen=True, tag="io.headrace.scope.started.v1"):
    """One attempt of a group begins, or the chosen case of a switch: its steps exist from here on."""

    path: str
    attempt: int
    due_ms: int
    """Instant at which the attempt is over."""
    case: int = 0
    """Which of the switch's cases, from 0."""


class FallbackStarted(Event, frozen=True, tag="io.headrace.fallback.started.v1"):
    """A step has failed for good, and its fallback stands in: another step of its scope, or a value."""

    path: str
    attempt: int
    failure: Failure


class CompensationStarted(Event, frozen=True, tag="io.headrace.compensation.started.v1"):
    """A step that had succeeded is undone, by the step beside it that its definition names."""

    path: str
    """Of the step that is undone."""


class SignalAwaited(Event, frozen=True, tag="io.headrace.signal.awaited.v1"):
    """A step waits for a signal of this name."""

    path: str
    name: str
    due_ms: int
    """Instant after which it waits no longer."""


class SignalTaken(Event, frozen=True, tag="io.headrace.signal.taken.v1"):
    """A step has got its signal; the step's own end follows in the same decision."""

    path: str
    name: str
    signal: str
    """Id of the message that brought it."""


class ApprovalRequested(Event, frozen=True, tag="io.headrace.approval.requested.v1"):
    """A step asks a person. An answer names the hash of what was shown."""

    path: str
    shown: Value
    """`{message}`, rendered: all that the answer is about."""
    hash: str
    """sha256 over RFC 8785 JSON of `shown`, lower-case hex."""
    due_ms: int
    """Instant after which no answer is taken."""
    by: tuple[str, ...] = ()
    """Who may answer; empty: whoever may send the command."""
    attempt: int = 0
    unknown: Failure | None = None
    """Set where what is asked is the outcome of that attempt, which made a call that may happen once only: the answer
    is `retry`, `fail` or `complete`."""


class ApprovalGranted(Event, frozen=True, tag="io.headrace.approval.granted.v1"):
    """A person has approved exactly what was shown; the step's own end follows in the same decision."""

    path: str
    answer: str
    """Id of the message that brought it."""
    by: str
    comment: str = ""


class ApprovalDenied(Event, frozen=True, tag="io.headrace.approval.denied.v1"):
    """A person has rejected what was shown: the step fails, in the same decision."""

    path: str
    answer: str
    by: str
    comment: str = ""


class OutcomeSettled(Event, frozen=True, tag="io.headrace.outcome.settled.v1"):
    """A person has said what became of a call: it is made again, or the step's end follows in the same decision."""

    path: str
    attempt: int
    answer: str
    """Id of the message that brought it."""
    decision: str
    """`retry`, `fail` or `complete`."""
    by: str
    comment: str = ""


class EmitStarted(Event, frozen=True, tag="io.headrace.emit.started.v1"):
    """An event is to be published to `hr.trig.<tenant>.<name>`; the message derives from this fact."""

    path: str
    name: str
    event: str
    """The id of the event: the same however often it is published, so whoever listens acts once."""
    data: Value
    hops: int
    """How many events led here, one from another, this one included."""


class TimerSet(Event, frozen=True, tag="io.headrace.timer.set.v1"):
    """The step waits: `retry` after a failed attempt, `wait` for its own sake, `deferred` on an executor's word."""

    path: str
    timer: str
    due_ms: int
    attempt: int = 0
    delay_ms: int = 0
    jitter: float = 0.0
    """The draw from [0, 1) that the delay was made with."""
    claim_seq: int = 0
    """For `retry`: the claim of an at-most-once call that the next attempt may follow, because it is over."""
    failure: Failure | None = None


class TimerFired(Event, frozen=True, tag="io.headrace.timer.fired.v1"):
    """A timer's due instant has passed."""

    path: str
    timer: str


class ChildStarted(Event, frozen=True, tag="io.headrace.child.started.v1"):
    """A child run is to exist; its own first decision derives from this event."""

    path: str
    attempt: int
    child: str
    pipeline: str
    defdigest: str
    inputs: Value
    due_ms: int


class ChildEnded(Event, frozen=True, tag="io.headrace.child.ended.v1"):
    """The parent has taken note of how its child ended. `status`: completed, failed, cancelled."""

    path: str
    attempt: int
    child: str
    status: str
    outputs: Value | None = None
    failure: Failure | None = None


DecisionEvent = (
    RunCreated
    | RunForked
    | RunCompleted
    | RunFailed
    | RunFailing
    | RunCancelling
    | RunCancelled
    | RunPaused
    | RunResumed
    | RunBlocked
    | BudgetRaised
    | RunStalled
    | StepScheduled
    | StepCompleted
    | StepFailed
    | StepSkipped
    | StepCancelled
    | ForeachStarted
    | ItemsStored
    | LoopStarted
    | ScopeStarted
    | FallbackStarted
    | CompensationStarted
    | SignalAwaited
    | SignalTaken
    | ApprovalRequested
    | ApprovalGranted
    | ApprovalDenied
    | OutcomeSettled
    | EmitStarted
    | TimerSet
    | TimerFired
    | ChildStarted
    | ChildEnded
)
