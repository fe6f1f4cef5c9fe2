"""Facts from outside, as inputs of a run: what somebody asks, sends or answers, and what others have come to.

Facts are past tense. Within `.vN` only fields with defaults are added; a change of meaning is `.vN+1` plus an upcaster.
Instants are integer milliseconds of broker time (`…_ms`); durations likewise.
"""

import msgspec

from headrace.contracts.envelope import Message, Value
from headrace.contracts.failure import Failure


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why somebody asked."""

    reason: str = ""


class CancelRequested(Message, frozen=True, tag="io.headrace.cancel.requested.v1"):
    """Somebody asked to cancel the run."""

    data: Reason


class PauseRequested(Message, frozen=True, tag="io.headrace.pause.requested.v1"):
    """Somebody asked to pause the run."""

    data: Reason


class ResumeRequested(Message, frozen=True, tag="io.headrace.resume.requested.v1"):
    """Somebody asked to go on with the run."""

    data: Reason


class Signalled(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `signal-received`."""

    name: str
    payload: Value


class SignalReceived(Message, frozen=True, tag="io.headrace.signal.received.v1"):
    """A signal came from outside; the first step that waits for its name, or will, takes it."""

    data: Signalled


class GivenAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `approval-given`."""

    step: str
    """The step instance that asked."""
    hash: str
    """Of what was shown to whoever answers."""
    decision: str
    """`approve` or `reject`; of an outcome `retry`, `fail` or `complete`."""
    by: str
    at_ms: int
    """When the answer was taken in, by the broker's clock."""
    comment: str = ""
    attempt: int = 0
    """Of an outcome: that of this attempt."""
    value: Value | None = None
    """Of `complete`: what the call gave."""


class ApprovalGiven(Message, frozen=True, tag="io.headrace.approval.given.v1"):
    """A person has answered a step. One question has one subject, and that has one message: the first answer."""

    data: GivenAnswer


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `event-published`."""

    step: str
    event: str
    """Its id."""


class EventPublished(Message, frozen=True, tag="io.headrace.event.published.v1"):
    """The broker has stored the event that a step emits."""

    data: Published


class ChildResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `child-reported`."""

    child: str
    attempt: int
    status: str
    outputs: Value | None = None
    failure: Failure | None = None


class ChildReported(Message, frozen=True, tag="io.headrace.child.reported.v1"):
    """A child run's end, told to its parent by the owner of both."""

    data: ChildResult


class KeyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `key-answered`: whether the run may go on."""

    key: str
    granted: bool


class KeyAnswered(Message, frozen=True, tag="io.headrace.key.answered.v1"):
    """A run hears from its concurrency key."""

    data: KeyAnswer


class Raise(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `budget-raise-requested`: by how much."""

    usd_nanos: int = 0
    tokens: int = 0
    reason: str = ""


class BudgetRaiseRequested(Message, frozen=True, tag="io.headrace.budget-raise.requested.v1"):
    """Somebody allows the run to cost more: the budget that it waits for, else its own."""

    data: Raise
