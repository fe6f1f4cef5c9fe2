"""What is said about conversations: how they open, grow and close.

Facts are past tense. Within `.vN` only fields with defaults are added; a change of meaning is `.vN+1` plus an upcaster.
"""

import msgspec

from headrace.contracts.envelope import Message


class SessionOpening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `session-opened`."""

    session: str
    version: int = 0
    labels: dict[str, str] = {}


class SessionOpened(Message, frozen=True, tag="io.headrace.session.opened.v1"):
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


class TurnAppended(Message, frozen=True, tag="io.headrace.session.appended.v1"):
    """A conversation has one turn more."""

    data: Turn


class SessionClosing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `session-closed`."""

    session: str
    version: int
    reason: str = ""


class SessionClosed(Message, frozen=True, tag="io.headrace.session.closed.v1"):
    """A conversation takes no more turns."""

    data: SessionClosing
