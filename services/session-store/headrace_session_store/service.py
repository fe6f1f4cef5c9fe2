"""The shell: conversations folded from HR_SESSIONS on demand, appended to with a version check."""

from collections.abc import Callable
from typing import Final

from headrace.contracts import codec, subjects
from headrace.contracts.errors import DataError, NotFoundError
from headrace.contracts.events import SessionClosed, SessionOpened, TurnAppended
from headrace.contracts.ids import token
from headrace.contracts.live import (
    AppendTurn,
    CloseSession,
    OpenSession,
    ReadSession,
    Request,
    SessionTurn,
    SessionView,
)
from headrace.runtime.api import Api
from headrace.runtime.clock import Clock, rfc3339
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import Broker
from headrace.runtime.presence import Condition, Presence
from headrace.runtime.supervisor import Supervisor
from headrace.runtime.transact import Loaded, Scope, transact
from headrace_session_store import decide
from headrace_session_store.cache import SessionCache, Slot
from headrace_session_store.config import Config
from headrace_session_store.state import Session, evolve

Decide = Callable[[Session, decide.Origin], SessionOpened | TurnAppended | SessionClosed | None]
READ_LIMIT_MAX: Final = 10_000
PAGE_BYTES_MAX: Final = 900_000
"""A page ends before the turn that would take it over this; a single larger turn is a page of its own."""


class SessionStore:
    """Service `session-store`. Replicas are alike: each checks the log before it answers, so any may answer
    anything."""

    name: Final = "session-store"

    def __init__(
        self,
        broker: Broker,
        supervisor: Supervisor,
        *,
        clock: Clock,
        entropy: Entropy,
        instance: str,
        config: Config,
    ) -> None:
        self._broker, self._supervisor, self._clock = broker, supervisor, clock
        self._source = f"/{self.name}/{instance}"
        self._cache = SessionCache(bytes_max=config.cache_bytes_max, sessions_max=config.cache_sessions_max)
        self._presence = Presence(
            broker,
            clock=clock,
            entropy=entropy,
            service=self.name,
            instance=instance,
            condition=lambda: Condition(ready=self.ready),
        )
        verbs = {"open": self._open, "append": self._append, "read": self._read, "close": self._close}
        self._api = Api(broker, supervisor, service=self.name, verbs=verbs)

    @property
    def caught_up(self) -> bool:
        """See harness.Service. Conversations are read when they are asked for, so there is nothing to wait
        for."""
        return True

    @property
    def ready(self) -> bool:
        """See harness.Service."""
        return self._broker.connected

    async def start(self) -> None:
        """See harness.Service."""
        self._supervisor.start(f"{self.name}.presence", self._presence.run)
        await self._api.start()

    async def drain(self) -> None:
        """See harness.Service."""
        await self._presence.leave()
        await self._api.stop()

    async def stop(self) -> None:
        """See harness.Service."""
        await self._api.stop()

    async def _open(self, request: Request) -> SessionView:
        ask = codec.decode_as(OpenSession, bytes(request.data))
        return await self._write(
            request, ask.session, lambda state, origin: decide.open_session(state, ask, origin=origin)
        )

    async def _append(self, request: Request) -> SessionView:
        ask = codec.decode_as(AppendTurn, bytes(request.data))
        view = await self._write(
            request, ask.session, lambda state, origin: decide.append_turn(state, ask, origin=origin)
        )
        return view

    async def _close(self, request: Request) -> SessionView:
        ask = codec.decode_as(CloseSession, bytes(request.data))
        return await self._write(
            request, ask.session, lambda state, origin: decide.close_session(state, ask, origin=origin)
        )

    async def _read(self, request: Request) -> SessionView:
        ask = codec.decode_as(ReadSession, bytes(request.data))
        if ask.after < 0 or not 0 <= ask.limit <= READ_LIMIT_MAX:
            msg = f"after {ask.after} and limit {ask.limit}: after is at least 0, limit 0 to {READ_LIMIT_MAX}"
            raise DataError(msg)
        subject = subjects.session(request.tenant, token(ask.session))
        slot = self._cache.slot(subject)
        async with slot.lock:
            state = (await self._load(subject, slot)).state
        if state.session != ask.session:
            msg = f"session {ask.session[:128]!r} was never opened"
            raise NotFoundError(msg)
        return SessionView(
            session=ask.session,
            version=state.version,
            closed=state.closed,
            turns=_page(state, after=ask.after, limit=ask.limit),
        )

    async def _write(self, request: Request, session: str, choose: Decide) -> SessionView:
        """Append what `choose` finds missing. The answer has the conversation's version after this
        request's turn."""
        subject = subjects.session(request.tenant, token(session))
        slot = self._cache.slot(subject)

        def decided(loaded: Loaded[Session]) -> SessionOpened | TurnAppended | SessionClosed | None:
            origin = decide.Origin(
                tenant=request.tenant,
                source=self._source,
                time=rfc3339(self._clock.now_ms()),
                request=request.id,
            )
            return choose(loaded.state, origin)

        async with slot.lock:
            await transact(
                self._broker,
                Scope(subjects.SESSIONS, subject),
                load=lambda: self._load(subject, slot),
                decide=decided,
                clock=self._clock,
            )
            state = (await self._load(subject, slot)).state
        appended = next((entry.turn.version for entry in state.entries if entry.request == request.id), None)
        version = state.version if appended is None else appended
        return SessionView(session=session, version=version, closed=state.closed and appended is None)

    async def _load(self, subject: str, slot: Slot) -> Loaded[Session]:
        """The conversation as the stream's leader has it; reads only what is new since the last time."""
        last = await self._broker.last(subjects.SESSIONS, subject)
        loaded = slot.loaded
        if last is not None and last.seq > loaded.seq:
            state, seq = loaded.state, loaded.seq
            async for stored in self._broker.read(subjects.SESSIONS, (subject,), start_seq=seq + 1):
                state, seq = evolve(state, codec.decode(stored.body)), stored.seq
            loaded = Loaded(state, seq)
            self._cache.put(subject, slot, loaded)
        return loaded


def _page(state: Session, *, after: int, limit: int) -> tuple[SessionTurn, ...]:
    turns: list[SessionTurn] = []
    size = 0
    for entry in state.entries[after : after + limit]:
        size += len(bytes(entry.turn.content)) + 64
        if turns and size > PAGE_BYTES_MAX:
            break
        turns.append(entry.turn)
    return tuple(turns)
