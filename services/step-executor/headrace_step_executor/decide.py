"""What an executor decides: whether to run an order, what its reports say, what its beats say.

Pure: no clock, no random source, no IO.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import ids, names, subjects
from headrace.contracts.canonical import blake2b_hex
from headrace.contracts.codec import encode, encode_value
from headrace.contracts.envelope import SPECVERSION, Message
from headrace.contracts.errors import MalformedMessageError
from headrace.contracts.failure import Failure
from headrace.contracts.instants import rfc3339
from headrace.contracts.live import Beat
from headrace_step_executor.state import AttemptKey, EndedRuns, Hands, Revoked

SERVICE: Final = "step-executor"


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it came."""

    order: ev.Order
    """`decision` is always set."""
    message: Message
    """The envelope it came in."""
    stored_ms: int
    seq: int
    stream: str
    deliveries: int
    prefix: str
    """Subjects of the run's history start so."""

    @property
    def key(self) -> AttemptKey:
        """The attempt that it is for."""
        return (self.message.runid, self.order.path, self.order.attempt)


class Admission(Enum):
    """What to do with an order."""

    RUN = "run"
    CHECK = "check"
    """Ask the owner first: it may be stale."""
    DROP = "drop"
    """Acknowledge it without running it: it is over for the engine."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What this process knows at the moment an order is received."""

    now_ms: int
    ended: EndedRuns
    revoked: Revoked
    ends_known_from_seq: int
    """Ends of runs are known from this sequence of the order's stream on: what was stored before may have
    ended unseen."""
    reconnected_s_ago: float | None
    """None when the connection is still the first one."""


def received_order(
    message: ev.StoredMessage, subject: str, *, stored_ms: int, seq: int, stream: str, deliveries: int
) -> Received:
    """The order in a message of a queue.

    Raises:
        MalformedMessageError: it holds none, or contradicts the subject it came on.
    """
    match message:
        case ev.StepOrdered(data=order):
            pass
        case ev.RunDecided(data=decided) if decided.order is not None:
            order = decided.order
            if not order.decision:
                order = msgspec.structs.replace(order, decision=message.id)
        case _:
            msg = f"a {type(message).__name__} without an order on a work queue"
            raise MalformedMessageError(msg)
    place = subjects.parse_run_subject(subject)
    said = (message.tenant, message.pipeline, message.runid)
    if place is None or said != (place.tenant, place.pipeline, place.run):
        msg = f"{'/'.join(said)[:200]} on subject {subject[:200]}"
        raise MalformedMessageError(msg)
    if place.part != ids.partition_of(message.runid) or not ids.RUN_RE.fullmatch(message.runid):
        msg = f"run {message.runid[:100]!r} does not belong on {subject[:200]}"
        raise MalformedMessageError(msg)
    if (order.template is msgspec.UNSET) == (order.input is msgspec.UNSET):
        msg = "an order has either `input` or `template`"
        raise MalformedMessageError(msg)
    return Received(
        order=order,
        message=message,
        stored_ms=stored_ms,
        seq=seq,
        stream=stream,
        deliveries=deliveries,
        prefix=subject[: -len(f".{place.kind}.{place.rest}")],
    )


def admit(received: Received, now: Situation) -> Admission:
    """Whether to run an order, ask about it, or let it go."""
    order = received.order
    if received.message.runid in now.ended or now.revoked.covers(received.key, order.offer):
        return Admission.DROP
    if now.now_ms >= order.not_after_ms or now.now_ms >= order.due_ms:
        return Admission.DROP
    is_stale = (
        received.deliveries > 1
        or received.stored_ms - order.scheduled_ms > names.ORDER_FRESH_S * 1000
        or received.seq < now.ends_known_from_seq
        or (now.reconnected_s_ago is not None and now.reconnected_s_ago < names.RECONNECT_CAUTION_S)
    )
    return Admission.CHECK if is_stale else Admission.RUN


# --- reports ------------------------------------------------------------------------------------------------


class Outgoing(NamedTuple):
    """A message ready to be appended."""

    subject: str
    body: bytes
    id: str


_SUCCEEDED: Final = "io.headrace.attempt.succeeded.v1"
_FAILED: Final = "io.headrace.attempt.failed.v1"
_DEFERRED: Final = "io.headrace.attempt.deferred.v1"
_STARTED: Final = "io.headrace.attempt.started.v1"


def succeeded(received: Received, data: ev.Succeeded, *, source: str, now_ms: int) -> Outgoing:
    """The report of a result."""
    fields = report_envelope(received, _SUCCEEDED, data, source=source, now_ms=now_ms)
    message = ev.AttemptSucceeded(**fields, data=data)
    return Outgoing(subjects.report(received.prefix, "attempt-succeeded"), encode(message), message.id)


def failed(received: Received, data: ev.Failed, *, source: str, now_ms: int) -> Outgoing:
    """The report of an error."""
    fields = report_envelope(received, _FAILED, data, source=source, now_ms=now_ms)
    message = ev.AttemptFailed(**fields, data=data)
    return Outgoing(subjects.report(received.prefix, "attempt-failed"), encode(message), message.id)


def deferred(received: Received, data: ev.Deferred, *, source: str, now_ms: int) -> Outgoing:
    """The report that the order cannot run now."""
    fields = report_envelope(received, _DEFERRED, data, source=source, now_ms=now_ms)
    message = ev.AttemptDeferred(**fields, data=data)
    return Outgoing(subjects.report(received.prefix, "attempt-deferred"), encode(message), message.id)


def claimed(received: Received, data: ev.Claimed, *, source: str, now_ms: int) -> Outgoing:
    """The claim of an at-most-once call."""
    fields = report_envelope(received, _STARTED, data, source=source, now_ms=now_ms)
    message = ev.AttemptStarted(**fields, data=data)
    return Outgoing(claim_subject(received), encode(message), message.id)


def claim_subject(received: Received) -> str:
    """Where a step instance's call is claimed: one subject, so that the sequence check decides between
    two."""
    return subjects.claim(received.prefix, blake2b_hex(received.order.path.encode()))


def report_envelope(received: Received, kind: str, data: Any, *, source: str, now_ms: int) -> dict[str, Any]:
    """The fields of a report but its data, for an attempt."""
    order, cause = received.order, received.message
    return {
        "specversion": SPECVERSION,
        # The content is part of the id: two results of one attempt must never pass for one.
        "id": ids.event_id(
            kind, cause.tenant, cause.runid, order.path, order.attempt, data.offer, data=encode_value(data)
        ),
        "source": source,
        "time": rfc3339(now_ms),
        "schemaver": 1,
        "tenant": cause.tenant,
        "subject": f"run/{cause.runid}/step/{order.path}",
        "pipeline": cause.pipeline,
        "runid": cause.runid,
        "stepid": order.path,
        "attempt": order.attempt,
        "causationid": order.decision,
        "correlationid": cause.correlationid or ids.root_of(cause.runid),
        "traceparent": cause.traceparent,
        "tracestate": cause.tracestate,
        "defdigest": cause.defdigest,
    }


AMBIGUOUS: Final = frozenset(("timeout", "tool_timeout", "connection_lost", "malformed", "tool_crashed", "internal"))
"""After these nobody knows whether the call had its effect."""


def settled_failure(order: ev.Order, failure: Failure, *, called: bool) -> Failure:
    """The failure as it is to be reported: for an at-most-once call that was begun, an ambiguous one is
    *unknown*.

    Args:
        called: The effect may have been begun.
    """
    if order.effect != "at_most_once" or not called or failure.code not in AMBIGUOUS:
        return failure
    return Failure(
        code="outcome_unknown",
        message=f"{order.path}: the call may have happened: {failure.message}"[:2000],
        retryable=order.on_unknown == "retry",
        causes=(f"{failure.code}: {failure.message}"[:500], *failure.causes)[:8],
    )


# --- presence -----------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Self:
    """What a process says of itself in every beat."""

    instance: str
    boot: str
    version: str
    queues: tuple[str, ...]


def beat(
    me: Self,
    hands: Hands,
    *,
    counter: int,
    full: bool,
    ready: bool,
    providers: tuple[str, ...],
    secrets: tuple[str, ...] = (),
) -> Beat:
    """A sign of life. `full` lists everything in hand, which also corrects whoever missed a beat."""
    taken, finished = hands.delta()
    return Beat(
        service=SERVICE,
        instance=me.instance,
        boot=me.boot,
        counter=counter,
        ready=ready,
        version=me.version,
        taken=() if full else taken,
        finished=() if full else finished,
        full=hands.all() if full else None,
        queues=me.queues,
        providers=providers,
        secrets=secrets,
    )


def farewell(me: Self, *, counter: int) -> Beat:
    """The last beat: everything was reported or handed back."""
    return Beat(
        service=SERVICE,
        instance=me.instance,
        boot=me.boot,
        counter=counter,
        version=me.version,
        full=(),
        queues=me.queues,
        leaving=True,
    )
