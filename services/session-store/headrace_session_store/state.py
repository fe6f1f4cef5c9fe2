"""A conversation: a fold of its own events. Pure: no clock, no random source, no IO."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from headrace.contracts.errors import CorruptError
from headrace.contracts.events import SessionClosed, SessionOpened, StoredMessage, TurnAppended
from headrace.contracts.live import SessionTurn


@dataclass(frozen=True, slots=True)
class Entry:
    """A turn, and the request that appended it: the same request again is the same append."""

    turn: SessionTurn
    request: str


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation as it stands. Version n has n turns."""

    session: str = ""
    """Its name; empty before it is opened."""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    entries: tuple[Entry, ...] = ()
    closed: bool = False
    content_bytes: int = 0

    @property
    def is_open(self) -> bool:
        """It exists and takes turns."""
        return bool(self.session) and not self.closed

    @property
    def version(self) -> int:
        """Number of turns."""
        return len(self.entries)


NOTHING: Final = Session()


def evolve(state: Session, message: StoredMessage) -> Session:
    """The conversation after one message of its subject.

    Raises:
        CorruptError: the message contradicts those before it. Nobody may answer from such a history.
    """
    match message:
        case SessionOpened(data=opening):
            if state.session:
                raise CorruptError(_contradiction(state, "opened a second time"))
            return Session(session=opening.session, labels=MappingProxyType(dict(opening.labels)))
        case TurnAppended(data=turn):
            if not state.is_open or turn.session != state.session or turn.version != state.version + 1:
                raise CorruptError(_contradiction(state, f"turn {turn.version} of {turn.session!r}"))
            entry = Entry(
                turn=SessionTurn(version=turn.version, role=turn.role, content=turn.content),
                request=turn.request,
            )
            return replace(
                state,
                entries=(*state.entries, entry),
                content_bytes=state.content_bytes + len(bytes(turn.content)),
            )
        case SessionClosed():
            if not state.is_open:
                raise CorruptError(_contradiction(state, "closed"))
            return replace(state, closed=True)
        case _:
            raise CorruptError(_contradiction(state, f"a {type(message).__name__}"))


def _contradiction(state: Session, what: str) -> str:
    stands = "does not exist" if not state.session else "is closed" if state.closed else "is open"
    return f"session {state.session!r} {stands} at version {state.version}; next in its history: {what}"
