"""Every event: what is said inside a decision, and the messages that are stored.

Facts are past tense. Within `.vN` only fields with defaults are added; a change of meaning is `.vN+1` plus an upcaster.
Instants are integer milliseconds of broker time (`…_ms`); durations likewise.
"""

from typing import Any

import msgspec

from headrace.contracts.envelope import Message, Value
from headrace.contracts.failure import Failure


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """A fact inside a decision."""


# --- the run -----------------------------------------------------------------------------------------------------------


class RunCreated(Event, tag="io.headrace.run.created.v1"):
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
    traceparent: str = ""
    tracestate: str = ""
    durability: str = ""


class RunCompleted(Event, tag="io.headrace.run.completed.v1"):
    """Every reachable step is terminal and none failed the run."""

    outputs: Value


class RunFailed(Event, tag="io.headrace.run.failed.v1"):
    """A step failed the run, or its deadline passed."""

    failure: Failure
    path: str = ""


class RunCancelling(Event, tag="io.headrace.run.cancelling.v1"):
    """No further step starts; work in flight is stopped, children are asked to stop."""

    reason: str
    due_ms: int
    """Instant at which the run is cancelled whether or not its children have answered."""


class RunCancelled(Event, tag="io.headrace.run.cancelled.v1"):
    """The run ended because somebody asked for it."""

    reason: str


class RunPaused(Event, tag="io.headrace.run.paused.v1"):
    """Steps in flight finish, nothing new starts."""

    reason: str


class RunResumed(Event, tag="io.headrace.run.resumed.v1"):
    """Steps start again."""


class RunBlocked(Event, tag="io.headrace.run.blocked.v1"):
    """The run waits for something only a person can give."""

    reason: str
    path: str = ""


class RunStalled(Event, tag="io.headrace.run.stalled.v1"):
    """The engine cannot go on with this run and says why; its bytes are kept."""

    failure: Failure
    seq: int = 0


# --- steps -------------------------------------------------------------------------------------------------------------


class StepScheduled(Event, tag="io.headrace.step.scheduled.v1"):
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


class StepCompleted(Event, tag="io.headrace.step.completed.v1"):
    """A step instance ended well. `report` names the accepted report whose output it is; else `output` is here."""

    path: str
    attempt: int = 0
    report: str = ""
    output: Value | None = None
    degraded: bool = False


class StepFailed(Event, tag="io.headrace.step.failed.v1"):
    """A step instance ended badly: no further attempt follows."""

    path: str
    attempt: int
    failure: Failure
    tolerated: bool = False
    """The pipeline goes on all the same (`on_error`, `on_item_error`)."""


class StepSkipped(Event, tag="io.headrace.step.skipped.v1"):
    """A step instance does not run: its condition is false, or what it needs was skipped."""

    path: str
    reason: str


class StepCancelled(Event, tag="io.headrace.step.cancelled.v1"):
    """A step instance was stopped with its run."""

    path: str


class ForeachStarted(Event, tag="io.headrace.foreach.started.v1"):
    """The list of a `foreach` is known; items are scheduled from it through a window."""

    path: str
    items: Value
    count: int


class TimerSet(Event, tag="io.headrace.timer.set.v1"):
    """The step waits: `retry` after a failed attempt, `wait` for its own sake, `deferred` on an executor's word."""

    path: str
    timer: str
    due_ms: int
    attempt: int = 0
    delay_ms: int = 0
    jitter: float = 0.0
    """The draw from [0, 1) that the delay was made with."""
    failure: Failure | None = None


class TimerFired(Event, tag="io.headrace.timer.fired.v1"):
    """A timer's due instant has passed."""

    path: str
    timer: str


class ChildStarted(Event, tag="io.headrace.child.started.v1"):
    """A child run is to exist; its own first decision derives from this event."""

    path: str
    attempt: int
    child: str
    pipeline: str
    defdigest: str
    inputs: Value
    due_ms: int


class ChildEnded(Event, tag="io.headrace.child.ended.v1"):
    """The parent has taken note of how its child ended. `status`: completed, failed, cancelled."""

    path: str
    attempt: int
    child: str
    status: str
    outputs: Value | None = None
    failure: Failure | None = None


DecisionEvent = (
    RunCreated
    | RunCompleted
    | RunFailed
    | RunCancelling
    | RunCancelled
    | RunPaused
    | RunResumed
    | RunBlocked
    | RunStalled
    | StepScheduled
    | StepCompleted
    | StepFailed
    | StepSkipped
    | StepCancelled
    | ForeachStarted
    | TimerSet
    | TimerFired
    | ChildStarted
    | ChildEnded
)


# --- orders ------------------------------------------------------------------------------------------------------------


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an executor needs to run one attempt.

    Either `input` is the rendered input, or `template` and `bindings` are given and the executor renders them itself:
    that is so where an expression reads a file or a value held by reference.
    """

    path: str
    attempt: int
    offer: int
    decision: str
    """Id of the decision this order derives from. Reports name it."""
    version: int
    queue: str
    kind: str
    """`tool`, `llm`, `transform` or `evaluate` (a condition or list that the scheduler may not evaluate itself)."""
    timeout_ms: int
    not_after_ms: int
    due_ms: int
    scheduled_ms: int
    """When the decision was taken; a much younger copy of the order is checked before it is run."""
    tool: str = ""
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    template: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    bindings: dict[str, Value] = {}
    """Dotted names (`inputs`, `item`, `steps.list.output`) → values."""
    effect: str = "idempotent"
    on_unknown: str = "fail"
    claim_seq: int = 0
    """Sequence of the previous attempt's claim, 0 if none: what this attempt's claim expects."""
    workspace: bool = False
    artifacts: tuple[str, ...] = ()


# --- stored messages ---------------------------------------------------------------------------------------------------


class Decided(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of a decision. The fold takes version n + 1 after n and nothing else."""

    version: int
    at_ms: int
    events: tuple[DecisionEvent, ...]
    order: Order | None = None
    """Present when exactly one step is scheduled: the decision then is its own order (with `decision` empty)."""


class RunDecided(Message, tag="io.headrace.run.decided.v1"):
    """One decision of a run: all its events, in one message."""

    data: Decided


class StepOrdered(Message, tag="io.headrace.step.ordered.v1"):
    """A work order, derived from its decision."""

    data: Order


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model call used, in tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    model: str = ""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file kept from the workspace. `path` is relative to it."""

    path: str
    ref: str
    size: int


class Succeeded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `attempt-succeeded`."""

    decision: str
    offer: int
    output: Value
    duration_ms: int = 0
    usage: Usage | None = None
    artifacts: tuple[Artifact, ...] = ()
    files: dict[str, str] = {}
    """Files that expressions read: path → sha256 of the text used."""


class AttemptSucceeded(Message, tag="io.headrace.attempt.succeeded.v1"):
    """An attempt gave a result."""

    data: Succeeded


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `attempt-failed`."""

    decision: str
    offer: int
    failure: Failure
    duration_ms: int = 0
    usage: Usage | None = None


class AttemptFailed(Message, tag="io.headrace.attempt.failed.v1"):
    """An attempt gave an error."""

    data: Failed


class Deferred(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `attempt-deferred`."""

    decision: str
    offer: int
    reason: str
    due_ms: int


class AttemptDeferred(Message, tag="io.headrace.attempt.deferred.v1"):
    """The order cannot run now; it is offered again when due, and no attempt is used up."""

    data: Deferred


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `attempt-started`: who claimed an at-most-once call."""

    decision: str
    offer: int
    token: str
    executor: str


class AttemptStarted(Message, tag="io.headrace.attempt.started.v1"):
    """An at-most-once call is claimed and may have happened from here on."""

    data: Claimed


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why somebody asked."""

    reason: str = ""


class CancelRequested(Message, tag="io.headrace.cancel.requested.v1"):
    """Somebody asked to cancel the run."""

    data: Reason


class PauseRequested(Message, tag="io.headrace.pause.requested.v1"):
    """Somebody asked to pause the run."""

    data: Reason


class ResumeRequested(Message, tag="io.headrace.resume.requested.v1"):
    """Somebody asked to go on with the run."""

    data: Reason


class ChildResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `child-reported`."""

    child: str
    attempt: int
    status: str
    outputs: Value | None = None
    failure: Failure | None = None


class ChildReported(Message, tag="io.headrace.child.reported.v1"):
    """A child run's end, told to its parent by the owner of both."""

    data: ChildResult


RunMessage = (
    RunDecided
    | StepOrdered
    | AttemptSucceeded
    | AttemptFailed
    | AttemptDeferred
    | AttemptStarted
    | CancelRequested
    | PauseRequested
    | ResumeRequested
    | ChildReported
)


# --- outcomes, definitions, tools, sessions, system, dead letters -------------------------------------------------------


class Accepted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `command-accepted`."""

    command: str
    runid: str = ""


class CommandAccepted(Message, tag="io.headrace.command.accepted.v1"):
    """A command's event is stored: what was asked will happen."""

    data: Accepted


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `command-refused`: every reason, not just the first."""

    command: str
    reasons: tuple[Failure, ...]


class CommandRefused(Message, tag="io.headrace.command.refused.v1"):
    """A command changed nothing."""

    data: Refused


class TriggerSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An armed event trigger of a definition; `when` and `inputs` are expressions over `event`."""

    event: str
    when: str = ""
    inputs: dict[str, Any] = {}


class Definition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `definition-registered`. The document is the blob `definitions/<digest>`."""

    digest: str
    size: int
    triggers: tuple[TriggerSpec, ...] = ()


class DefinitionRegistered(Message, tag="io.headrace.definition.registered.v1"):
    """A pipeline has a definition; the newest is what a start by name gets."""

    data: Definition


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that steps may call.

    `effect`: pure, idempotent or at_most_once. `risk`: read, write, outbound or exec. `endpoint`: `builtin`, or where the
    tool answers. `workspace`: it touches the run's files and runs only where they are.
    """

    tool: str
    version: str
    description: str
    args: dict[str, Any]
    result: dict[str, Any] = {}
    effect: str = "idempotent"
    risk: str = "read"
    timeout_ms: int = 60_000
    result_bytes_max: int = 64 * 1024 * 1024
    endpoint: str = "builtin"
    workspace: bool = False


class ToolRegistered(Message, tag="io.headrace.tool.registered.v1"):
    """A tool, or a version of one, may be called."""

    data: ToolSpec


class ToolName(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `tool-disabled`."""

    tool: str
    version: str
    reason: str = ""


class ToolDisabled(Message, tag="io.headrace.tool.disabled.v1"):
    """A version of a tool may no longer be called."""

    data: ToolName


class SessionOpening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `session-opened`."""

    session: str
    version: int = 0
    labels: dict[str, str] = {}


class SessionOpened(Message, tag="io.headrace.session.opened.v1"):
    """A conversation exists."""

    data: SessionOpening


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `turn-appended`. `version` counts from 1 and has no gaps."""

    session: str
    version: int
    role: str
    content: msgspec.Raw
    request: str = ""
    """The caller's request id: the same id again is the same append."""


class TurnAppended(Message, tag="io.headrace.session.appended.v1"):
    """A conversation has one turn more."""

    data: Turn


class SessionClosing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `session-closed`."""

    session: str
    version: int
    reason: str = ""


class SessionClosed(Message, tag="io.headrace.session.closed.v1"):
    """A conversation takes no more turns."""

    data: SessionClosing


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `alert-raised` and `alert-cleared`."""

    rule: str
    about: str
    failure: Failure | None = None


class AlertRaised(Message, tag="io.headrace.alert.raised.v1"):
    """Somebody must look."""

    data: Alert


class AlertCleared(Message, tag="io.headrace.alert.cleared.v1"):
    """What the alert was about is over."""

    data: Alert


class Parked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `message-parked`: the original, byte for byte (base64 on the wire), and why it was set aside."""

    stream: str
    subject: str
    seq: int
    body: bytes
    headers: dict[str, str] = {}
    failure: Failure
    deliveries: int = 1
    stack: str = ""


class MessageParked(Message, tag="io.headrace.message.parked.v1"):
    """A message that could not be handled is set aside."""

    data: Parked


StoredMessage = (
    RunMessage
    | CommandAccepted
    | CommandRefused
    | DefinitionRegistered
    | ToolRegistered
    | ToolDisabled
    | SessionOpened
    | TurnAppended
    | SessionClosed
    | AlertRaised
    | AlertCleared
    | MessageParked
)
