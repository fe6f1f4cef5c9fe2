"""The messages that are stored, and the bodies they carry; the facts inside a decision are in `decisions.py`.

Facts are past tense. Within `.vN` only fields with defaults are added; a change of meaning is `.vN+1` plus an upcaster.
Instants are integer milliseconds of broker time (`…_ms`); durations likewise.
"""

from typing import Any

import msgspec

from headrace.contracts.conversations import SessionClosed as SessionClosed
from headrace.contracts.conversations import SessionClosing as SessionClosing
from headrace.contracts.conversations import SessionOpened as SessionOpened
from headrace.contracts.conversations import SessionOpening as SessionOpening
from headrace.contracts.conversations import Turn as Turn
from headrace.contracts.conversations import TurnAppended as TurnAppended
from headrace.contracts.decisions import ApprovalDenied as ApprovalDenied
from headrace.contracts.decisions import ApprovalGranted as ApprovalGranted
from headrace.contracts.decisions import ApprovalRequested as ApprovalRequested
from headrace.contracts.decisions import BudgetRaised as BudgetRaised
from headrace.contracts.decisions import ChildEnded as ChildEnded
from headrace.contracts.decisions import ChildStarted as ChildStarted
from headrace.contracts.decisions import CompensationStarted as CompensationStarted
from headrace.contracts.decisions import DecisionEvent as DecisionEvent
from headrace.contracts.decisions import EmitStarted as EmitStarted
from headrace.contracts.decisions import Event as Event
from headrace.contracts.decisions import FallbackStarted as FallbackStarted
from headrace.contracts.decisions import ForeachStarted as ForeachStarted
from headrace.contracts.decisions import ItemsStored as ItemsStored
from headrace.contracts.decisions import LoopStarted as LoopStarted
from headrace.contracts.decisions import OutcomeSettled as OutcomeSettled
from headrace.contracts.decisions import RunBlocked as RunBlocked
from headrace.contracts.decisions import RunCancelled as RunCancelled
from headrace.contracts.decisions import RunCancelling as RunCancelling
from headrace.contracts.decisions import RunCompleted as RunCompleted
from headrace.contracts.decisions import RunCreated as RunCreated
from headrace.contracts.decisions import RunFailed as RunFailed
from headrace.contracts.decisions import RunFailing as RunFailing
from headrace.contracts.decisions import RunForked as RunForked
from headrace.contracts.decisions import RunPaused as RunPaused
from headrace.contracts.decisions import RunResumed as RunResumed
from headrace.contracts.decisions import RunStalled as RunStalled
from headrace.contracts.decisions import ScopeStarted as ScopeStarted
from headrace.contracts.decisions import SignalAwaited as SignalAwaited
from headrace.contracts.decisions import SignalTaken as SignalTaken
from headrace.contracts.decisions import StepCancelled as StepCancelled
from headrace.contracts.decisions import StepCompleted as StepCompleted
from headrace.contracts.decisions import StepFailed as StepFailed
from headrace.contracts.decisions import StepScheduled as StepScheduled
from headrace.contracts.decisions import StepSkipped as StepSkipped
from headrace.contracts.decisions import Taken as Taken
from headrace.contracts.decisions import TimerFired as TimerFired
from headrace.contracts.decisions import TimerSet as TimerSet
from headrace.contracts.envelope import Message, Value
from headrace.contracts.failure import Failure
from headrace.contracts.money import Amount
from headrace.contracts.money import Cost as Cost
from headrace.contracts.money import Usage as Usage
from headrace.contracts.pseudo import CronSpec, PseudoMessage
from headrace.contracts.rounds import RoundMessage
from headrace.contracts.run_inputs import ApprovalGiven as ApprovalGiven
from headrace.contracts.run_inputs import BudgetRaiseRequested as BudgetRaiseRequested
from headrace.contracts.run_inputs import CancelRequested as CancelRequested
from headrace.contracts.run_inputs import ChildReported as ChildReported
from headrace.contracts.run_inputs import ChildResult as ChildResult
from headrace.contracts.run_inputs import EventPublished as EventPublished
from headrace.contracts.run_inputs import GivenAnswer as GivenAnswer
from headrace.contracts.run_inputs import KeyAnswer as KeyAnswer
from headrace.contracts.run_inputs import KeyAnswered as KeyAnswered
from headrace.contracts.run_inputs import PauseRequested as PauseRequested
from headrace.contracts.run_inputs import Published as Published
from headrace.contracts.run_inputs import Raise as Raise
from headrace.contracts.run_inputs import Reason as Reason
from headrace.contracts.run_inputs import ResumeRequested as ResumeRequested
from headrace.contracts.run_inputs import Signalled as Signalled
from headrace.contracts.run_inputs import SignalReceived as SignalReceived
from headrace.contracts.system import Alert as Alert
from headrace.contracts.system import AlertCleared as AlertCleared
from headrace.contracts.system import AlertRaised as AlertRaised
from headrace.contracts.system import Breaker as Breaker
from headrace.contracts.system import BreakerClosed as BreakerClosed
from headrace.contracts.system import BreakerMessage as BreakerMessage
from headrace.contracts.system import BreakerOpened as BreakerOpened
from headrace.contracts.system import BreakerProbed as BreakerProbed
from headrace.contracts.system import SystemMessage
from headrace.contracts.tools import ToolChanged as ToolChanged
from headrace.contracts.tools import ToolDisabled as ToolDisabled
from headrace.contracts.tools import ToolName as ToolName
from headrace.contracts.tools import ToolRegistered as ToolRegistered
from headrace.contracts.tools import ToolSpec as ToolSpec

# --- orders ------------------------------------------------------------------------------------


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
    tool_version: str = ""
    """Which version of the tool; the newest where none is pinned."""
    secrets: tuple[str, ...] = ()
    """Names of secrets that the template reads: the executor has their values, and nobody else."""
    reserved: Amount | None = None
    """The most that the attempt may cost; None where nothing bounds it."""


# --- stored messages ---------------------------------------------------------------------------


class Decided(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of a decision. The fold takes version n + 1 after n and nothing else."""

    version: int
    at_ms: int
    events: tuple[DecisionEvent, ...]
    order: Order | None = None
    """Present when exactly one step is scheduled: the decision then is its own order (with `decision` empty)."""


class RunDecided(Message, frozen=True, tag="io.headrace.run.decided.v1"):
    """One decision of a run: all its events, in one message."""

    data: Decided


class StepOrdered(Message, frozen=True, tag="io.headrace.step.ordered.v1"):
    """A work order, derived from its decision."""

    data: Order


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
    cost: Cost | None = None
    artifacts: tuple[Artifact, ...] = ()
    files: dict[str, str] = {}
    """Files that expressions read: path → sha256 of the text used."""


class AttemptSucceeded(Message, frozen=True, tag="io.headrace.attempt.succeeded.v1"):
    """An attempt gave a result."""

    data: Succeeded


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `attempt-failed`."""

    decision: str
    offer: int
    failure: Failure
    duration_ms: int = 0
    usage: Usage | None = None
    cost: Cost | None = None


class AttemptFailed(Message, frozen=True, tag="io.headrace.attempt.failed.v1"):
    """An attempt gave an error."""

    data: Failed


class Deferred(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `attempt-deferred`."""

    decision: str
    offer: int
    reason: str
    due_ms: int
    detail: str = ""


class AttemptDeferred(Message, frozen=True, tag="io.headrace.attempt.deferred.v1"):
    """The order cannot run now; it is offered again when due, and no attempt is used up."""

    data: Deferred


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `attempt-started`: who claimed an at-most-once call."""

    decision: str
    offer: int
    token: str
    executor: str


class AttemptStarted(Message, frozen=True, tag="io.headrace.attempt.started.v1"):
    """An at-most-once call is claimed and may have happened from here on."""

    data: Claimed


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
    | SignalReceived
    | BudgetRaiseRequested
    | ApprovalGiven
    | EventPublished
    | ChildReported
    | KeyAnswered
    | RoundMessage
)


# --- outcomes, definitions, tools, sessions, system, dead letters ------------------------------


class Accepted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `command-accepted`."""

    command: str
    runid: str = ""


class CommandAccepted(Message, frozen=True, tag="io.headrace.command.accepted.v1"):
    """A command's event is stored: what was asked will happen."""

    data: Accepted


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `command-refused`: every reason, not just the first."""

    command: str
    reasons: tuple[Failure, ...]


class CommandRefused(Message, frozen=True, tag="io.headrace.command.refused.v1"):
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
    armed: bool = False
    """Its triggers and schedules replace those armed before; else those stay, with the definition they came with."""
    armed_ms: int = 0
    crons: tuple[CronSpec, ...] = ()


class DefinitionRegistered(Message, frozen=True, tag="io.headrace.definition.registered.v1"):
    """A pipeline has a definition; the newest is what a start by name gets."""

    data: Definition


class DefinitionRetired(Message, frozen=True, tag="io.headrace.definition.retired.v1"):
    """The pipeline has no definition any more: no start by name, no trigger, no schedule. Its runs go on."""

    data: Reason


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


class MessageParked(Message, frozen=True, tag="io.headrace.message.parked.v1"):
    """A message that could not be handled is set aside."""

    data: Parked


StoredMessage = (
    RunMessage
    | PseudoMessage
    | CommandAccepted
    | CommandRefused
    | DefinitionRegistered
    | DefinitionRetired
    | ToolRegistered
    | ToolDisabled
    | ToolChanged
    | SessionOpened
    | TurnAppended
    | SessionClosed
    | SystemMessage
    | MessageParked
)
