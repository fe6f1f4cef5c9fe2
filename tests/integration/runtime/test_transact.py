"""Whatever the broker answers to an append, the caller learns the truth."""

import asyncio

import pytest

from headrace.contracts import codec, subjects
from headrace.contracts.errors import AppendConflictError, UnavailableError, UnknownOutcomeError
from headrace.contracts.events import SessionOpened, SessionOpening
from headrace.runtime import transact as module
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Appended, Broker, StreamSpec
from headrace.runtime.transact import Loaded, Scope, transact

SCOPE = Scope(subjects.SESSIONS, "hr.ses.default.s")


def fact(name: str, seq: int) -> SessionOpened:
    return SessionOpened(
        specversion="1.0",
        id=f"{name}-{seq}",
        source="/t",
        time="",
        schemaver=1,
        tenant="default",
        data=SessionOpening(session=name),
    )


class Unreliable:
    """A connection whose appends lose their answer as told: before the broker stored it, or after."""

    def __init__(self, broker: Broker, *losses: str) -> None:
        self._broker, self._losses = broker, list(losses)
        self.appends = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)

    async def append(self, subject: str, body: bytes, **more: object) -> Appended:
        self.appends += 1
        loss = self._losses.pop(0) if self._losses else ""
        if loss == "before":
            raise UnknownOutcomeError(subject)
        if loss == "overtaken":
            other = fact("other", 0)
            await self._broker.append(subject, codec.encode(other), msg_id=other.id)
            raise UnknownOutcomeError(subject)
        done = await self._broker.append(subject, body, **more)  # type: ignore[arg-type]  # as it came
        if loss == "after":
            raise UnknownOutcomeError(subject)
        if loss == "conflict-though-stored":
            raise AppendConflictError(subject=subject, expected_seq=0, found="10071")
        return done


async def write(broker: object, name: str = "mine") -> int:
    """Append `name` unless the scope's last fact has it."""

    async def load() -> Loaded[str]:
        last = await broker.last(*SCOPE_ARGS)  # type: ignore[attr-defined]
        return Loaded("", 0) if last is None else Loaded(codec.decode(last.body).data.session, last.seq)  # type: ignore[union-attr]

    def decide(loaded: Loaded[str]) -> SessionOpened | None:
        return None if loaded.state == name else fact(name, loaded.seq)

    return await transact(broker, SCOPE, load=load, decide=decide, clock=SystemClock())  # type: ignore[arg-type]


SCOPE_ARGS = (SCOPE.stream, SCOPE.subject)


@pytest.fixture
async def log(broker: Broker) -> Broker:
    await broker.ensure_stream(StreamSpec(name=subjects.SESSIONS, subjects=("hr.ses.>",)))
    return broker


async def stored(log: Broker) -> list[str]:
    return [codec.decode(each.body).id async for each in log.read(SCOPE.stream, (SCOPE.subject,))]


@pytest.mark.parametrize(
    ("loss", "ids"),
    [
        ("", ["mine-0"]),
        ("before", ["mine-0"]),
        ("after", ["mine-0"]),
        ("conflict-though-stored", ["mine-0"]),
        ("overtaken", ["other-0", "mine-1"]),
    ],
)
async def test_a_lost_answer_is_read_back(log: Broker, loss: str, ids: list[str]) -> None:
    """Stored once, whether the answer, the append or the race was lost."""
    seq = await write(Unreliable(log, loss))
    assert await stored(log) == ids
    assert seq == len(ids)
    assert await write(log) == 0


async def test_racing_writers_take_turns(log: Broker) -> None:
    """Each finds its place; nobody overwrites."""
    names = [f"w{index}" for index in range(12)]
    await asyncio.gather(*(write(log, name) for name in names))
    ids = await stored(log)
    assert [identity.rpartition("-")[2] for identity in ids] == [str(index) for index in range(12)]
    assert sorted(identity.partition("-")[0] for identity in ids) == sorted(names)


async def test_a_scope_that_is_always_lost_is_given_up(log: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop has a bound."""
    monkeypatch.setattr(module, "CONFLICTS_MAX", 3)

    class Stale(Unreliable):
        async def last(self, stream: str, subject: str) -> None:
            return None

    await write(log, "first")
    stale = Stale(log)
    with pytest.raises(UnavailableError, match="lost 3 races"):
        await write(stale)
    assert stale.appends == 3
