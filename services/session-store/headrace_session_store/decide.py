"""What follows from asking to open, append to or close a conversation. Pure: instant and origin are
arguments."""

from dataclasses import dataclass
from typing import Final

from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import ConflictError, DataError, NotFoundError, TooLargeError
from headrace.contracts.events import (
    SessionClosed,
    SessionClosing,
    SessionOpened,
    SessionOpening,
    Turn,
    TurnAppended,
)
from headrace.contracts.ids import event_id
from headrace.contracts.live import AppendTurn, CloseSession, OpenSession
from headrace_session_store.state import Session

CONTENT_BYTES_MAX: Final = 1_000_000
"""One turn is one message of the broker; larger values are blobs, and the turn refers to them."""
TURNS_MAX: Final = 10_000
SESSION_BYTES_MAX: Final = 64 * 1024 * 1024
"""A conversation is folded in memory. No model reads more; compacting starts long before."""
ROLES: Final = ("system", "user", "assistant", "tool")
NAME_CHARS_MAX: Final = 128
LABELS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a new event comes from. `request` is the caller's id: the same again is the same request."""

    tenant: str
    source: str
    time: str
    request: str


def open_session(state: Session, ask: OpenSession, *, origin: Origin) -> SessionOpened | None:
    """The event that opens the conversation, or None when it is open.

    Raises:
        DataError: the name or the labels are too long.
        ConflictError: it is closed, or open with other labels.
    """
    if not 1 <= len(ask.session) <= NAME_CHARS_MAX or len(ask.labels) > LABELS_MAX:
        msg = f"a session has a name of 1 to {NAME_CHARS_MAX} characters and at most {LABELS_MAX} labels"
        raise DataError(msg)
    if state.session:
        _check_name(state, ask.session)
        if state.closed:
            msg = f"session {ask.session!r} is closed; open another name"
            raise ConflictError(msg)
        if dict(state.labels) != ask.labels:
            msg = f"session {ask.session!r} is open with other labels: {sorted(state.labels)}"
            raise ConflictError(msg)
        return None
    tag = "io.headrace.session.opened.v1"
    return SessionOpened(
        specversion=SPECVERSION,
        id=event_id(tag, origin.tenant, ask.session),
        source=origin.source,
        time=origin.time,
        schemaver=1,
        tenant=origin.tenant,
        subject=f"session/{ask.session}",
        causationid=origin.request,
        data=SessionOpening(session=ask.session, labels=ask.labels),
    )


def append_turn(state: Session, ask: AppendTurn, *, origin: Origin) -> TurnAppended | None:
    """The event that appends the turn, or None when this request has appended it before.

    Raises:
        ConflictError: the caller has not seen the newest version, which the text names; the conversation is
        closed; or the request id was used for another turn. NotFoundError: it was never opened.
        TooLargeError: the content, or the conversation with it, is over its limit. DataError: the role is
        none.
    """
    _check_exists(state, ask.session)
    content = bytes(ask.content)
    for entry in state.entries:
        if entry.request == origin.request:
            if entry.turn.role != ask.role or bytes(entry.turn.content) != content:
                msg = f"request {origin.request!r} appended another turn, version {entry.turn.version}"
                raise ConflictError(msg)
            return None
    if state.closed:
        msg = f"session {ask.session!r} is closed at version {state.version}"
        raise ConflictError(msg)
    if ask.expected != state.version:
        msg = f"session {ask.session!r} is at version {state.version}, not {ask.expected}; read on and append again"
        raise ConflictError(msg)
    if ask.role not in ROLES:
        msg = f"role {ask.role[:80]!r} is none of {', '.join(ROLES)}"
        raise DataError(msg)
    _check_room(state, len(content))
    version = state.version + 1
    tag = "io.headrace.session.appended.v1"
    return TurnAppended(
        specversion=SPECVERSION,
        id=event_id(tag, origin.tenant, ask.session, version, origin.request, data=ask.role.encode() + content),
        source=origin.source,
        time=origin.time,
        schemaver=1,
        tenant=origin.tenant,
        subject=f"session/{ask.session}",
        causationid=origin.request,
        data=Turn(session=ask.session, version=version, role=ask.role, content=ask.content, request=origin.request),
    )


def close_session(state: Session, ask: CloseSession, *, origin: Origin) -> SessionClosed | None:
    """The event that closes the conversation, or None when it is closed.

    Raises:
        NotFoundError: it was never opened.
    """
    _check_exists(state, ask.session)
    if state.closed:
        return None
    tag = "io.headrace.session.closed.v1"
    return SessionClosed(
        specversion=SPECVERSION,
        id=event_id(tag, origin.tenant, ask.session, state.version),
        source=origin.source,
        time=origin.time,
        schemaver=1,
        tenant=origin.tenant,
        subject=f"session/{ask.session}",
        causationid=origin.request,
        data=SessionClosing(session=ask.session, version=state.version, reason=ask.reason[:500]),
    )


def _check_exists(state: Session, session: str) -> None:
    if not state.session:
        msg = f"session {session[:NAME_CHARS_MAX]!r} was never opened"
        raise NotFoundError(msg)
    _check_name(state, session)


def _check_name(state: Session, session: str) -> None:
    """Two names can share a subject token, if only on purpose."""
    if state.session != session:
        msg = f"session {session[:NAME_CHARS_MAX]!r} has the same token as {state.session!r}; choose another name"
        raise ConflictError(msg)


def _check_room(state: Session, content_bytes: int) -> None:
    if content_bytes > CONTENT_BYTES_MAX:
        msg = f"the turn has {content_bytes} bytes, at most {CONTENT_BYTES_MAX} are allowed"
        raise TooLargeError(msg)
    if state.version >= TURNS_MAX or state.content_bytes + content_bytes > SESSION_BYTES_MAX:
        msg = (
            f"session {state.session!r} has {state.version} turns and {state.content_bytes} bytes; "
            f"at most {TURNS_MAX} turns and {SESSION_BYTES_MAX} bytes fit"
        )
        raise TooLargeError(msg)
