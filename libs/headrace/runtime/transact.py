"""The one mutating path of small aggregates: read → fold → decide → append, checked → on conflict start over.

A scope is one subject. `decide` gets the state and gives the event that is missing, or None when nothing
is; a refusal is the error it raises. Whatever the broker answers, the caller learns the truth: a conflict
or a missing answer is read back from the scope, by event id, before anything is concluded.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from headrace.contracts import codec, names
from headrace.contracts.envelope import Message
from headrace.contracts.errors import (
    AppendConflictError,
    CorruptError,
    UnavailableError,
    UnknownOutcomeError,
)
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import EventLog, Expected, Stored

S = TypeVar("S")

CONFLICTS_MAX: Final = 32
"""Rounds. Each lost round is somebody else's progress, so 32 means a scope far busier than one is meant to
be."""
READ_BACK_S: Final = 0.25
"""Pause between two looks for an append without an answer. A leader change takes seconds."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """The state of a scope and the sequence of the last message it reflects; 0 when there is none."""

    state: S
    seq: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an aggregate lives."""

    stream: str
    subject: str


async def transact(
    eventlog: EventLog,
    scope: Scope,
    *,
    load: Callable[[], Awaitable[Loaded[S]]],
    decide: Callable[[Loaded[S]], Message | None],
    clock: Clock,
) -> int:
    """The sequence of the stored event, or 0 when `decide` found nothing missing.

    Args:
        load: The newest state; called again after every lost round, and must then see what won. decide: May
        be called several times. Its event's id must cover `Loaded.seq` or a version, so that the same fact
        at another place is another id.

    Raises:
        UnknownOutcomeError: no answer and nothing to be read back; ask again with the same request id.
        UnavailableError: the broker is away, nothing was stored; or the scope is too busy.
        StorageFullError: nothing was stored.
        Whatever `decide` raises; nothing was stored then.
    """
    for _ in range(CONFLICTS_MAX):
        loaded = await load()
        message = decide(loaded)
        if message is None:
            return 0
        seq = await _append(eventlog, scope, message, loaded.seq, clock)
        if seq is not None:
            return seq
    msg = f"{scope.subject}: lost {CONFLICTS_MAX} races in a row; try again later"
    raise UnavailableError(msg)


async def _append(eventlog: EventLog, scope: Scope, message: Message, seq: int, clock: Clock) -> int | None:
    """Where our event is stored, or None when another one took the place."""
    expected = Expected(seq, scope.subject)
    try:
        done = await eventlog.append(scope.subject, codec.encode(message), msg_id=message.id, expected=expected)
    except AppendConflictError:
        return _ours(await eventlog.last(scope.stream, scope.subject), message)
    except UnknownOutcomeError:
        return await _read_back(eventlog, scope, message, seq, clock)
    if done.duplicate:  # some message with this id: look whether it is ours and in this place
        found = await eventlog.get(scope.stream, done.seq)
        if found is None or found.subject != scope.subject or _ours(found, message) is None:
            msg = f"{scope.subject}: the broker calls {message.id} a duplicate of {done.seq}, which is another event"
            raise CorruptError(msg)
    return done.seq


async def _read_back(eventlog: EventLog, scope: Scope, message: Message, seq: int, clock: Clock) -> int | None:
    """Resolve an append without an answer: stored, overtaken, or still unknown after UNKNOWN_RESOLVE_S.

    Nothing there yet means sending the very same event again: the check and the id make that safe.
    """
    until_s = clock.monotonic_s() + names.UNKNOWN_RESOLVE_S
    while clock.monotonic_s() < until_s:
        await clock.sleep(READ_BACK_S)
        try:
            last = await eventlog.last(scope.stream, scope.subject)
            if last is not None and last.seq > seq:
                return _ours(last, message)
            await eventlog.append(
                scope.subject, codec.encode(message), msg_id=message.id, expected=Expected(seq, scope.subject)
            )
        except (AppendConflictError, UnavailableError, UnknownOutcomeError):
            continue  # the next look says what that was
    raise UnknownOutcomeError(scope.subject)


def _ours(last: Stored | None, message: Message) -> int | None:
    """The sequence of the scope's last message if it is our event."""
    return last.seq if last is not None and codec.decode(last.body).id == message.id else None
