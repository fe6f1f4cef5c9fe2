"""The session store over a real nats-server."""

import asyncio

import msgspec
import pytest
from tests.conftest import Connect
from tests.integration.services.conftest import Start

from headrace.contracts.live import AppendTurn, CloseSession, OpenSession, ReadSession, SessionView
from headrace.runtime.api import ServiceError, call
from headrace.runtime.eventlog import Broker
from headrace_session_store.config import Config
from headrace_session_store.service import SessionStore


async def ask(broker: Broker, verb: str, data: object, request_id: str) -> SessionView:
    return await call(broker, "session-store", verb, data, SessionView, tenant="default", request_id=request_id)


def turn(text: str, expected: int, session: str = "s") -> AppendTurn:
    return AppendTurn(session=session, expected=expected, role="user", content=msgspec.Raw(msgspec.json.encode(text)))


def texts(view: SessionView) -> list[str]:
    return [msgspec.json.decode(one.content) for one in view.turns]


async def test_promise_p11_fifty_concurrent_appends_are_fifty_turns_without_a_gap(
    streams: Broker, start: Start, connect_broker: Connect
) -> None:
    """Losers of the version check hear the current version and append again; nothing is lost or doubled."""
    for name in ("a", "b"):
        await start(SessionStore, await connect_broker(name), config=Config())
    await ask(streams, "open", OpenSession(session="s"), "open")

    async def append(index: int) -> None:
        expected = 0
        for _ in range(200):  # a round lost is another one's turn, so 50 would do
            try:
                await ask(streams, "append", turn(f"turn {index}", expected), f"r{index}")
                return
            except ServiceError as error:
                if error.failure().code != "conflict":
                    raise
                view = await ask(streams, "read", ReadSession(session="s", limit=0), "look")
                expected = view.version
        pytest.fail(f"turn {index} never got its place")

    await asyncio.gather(*(append(index) for index in range(50)))

    view = await ask(streams, "read", ReadSession(session="s"), "read")
    assert [one.version for one in view.turns] == list(range(1, 51))
    assert sorted(texts(view)) == sorted(f"turn {index}" for index in range(50))


async def test_the_loser_hears_the_current_version(streams: Broker, start: Start) -> None:
    """Never a silent overwrite."""
    await start(SessionStore, config=Config())
    await ask(streams, "open", OpenSession(session="s"), "open")
    await ask(streams, "append", turn("one", 0), "r1")

    with pytest.raises(ServiceError, match="at version 1, not 0") as lost:
        await ask(streams, "append", turn("two", 0), "r2")

    assert lost.value.failure().code == "conflict"


async def test_the_same_request_is_the_same_append_and_another_content_a_conflict(
    streams: Broker, start: Start, connect_broker: Connect
) -> None:
    """A retry after a lost answer gives that answer, from any replica, even when others have appended
    since."""
    first = await start(SessionStore, config=Config())
    await ask(streams, "open", OpenSession(session="s"), "open")
    answer = await ask(streams, "append", turn("one", 0), "r1")
    await ask(streams, "append", turn("two", 1), "r2")
    await first.abandon()
    await start(SessionStore, await connect_broker("b"), config=Config())

    again = await ask(streams, "append", turn("one", 0), "r1")
    with pytest.raises(ServiceError, match="another turn"):
        await ask(streams, "append", turn("three", 2), "r1")

    assert again == answer
    assert texts(await ask(streams, "read", ReadSession(session="s"), "read")) == ["one", "two"]


async def test_reading_goes_page_by_page(streams: Broker, start: Start) -> None:
    """A page ends at its limit or before the broker's largest message; the next begins after it."""
    await start(SessionStore, config=Config())
    await ask(streams, "open", OpenSession(session="big"), "open")
    for index in range(4):
        await ask(streams, "append", turn(str(index) * 400_000, index, "big"), f"r{index}")

    pages: list[SessionView] = []
    after = 0
    while after < 4:
        pages.append(await ask(streams, "read", ReadSession(session="big", after=after), "read"))
        after = pages[-1].turns[-1].version

    assert [len(page.turns) for page in pages] == [2, 2]
    assert {page.version for page in pages} == {4}


async def test_what_cannot_be_is_refused_with_a_code(streams: Broker, start: Start) -> None:
    """Unknown sessions, closed ones, bad roles and turns over the limit change nothing."""
    await start(SessionStore, config=Config())
    await ask(streams, "open", OpenSession(session="s"), "open")
    bad_role = AppendTurn(session="s", expected=0, role="wizard", content=msgspec.Raw(b'"x"'))
    cases = [
        ("append", turn("x", 0, "unknown"), "not_found"),
        ("read", ReadSession(session="unknown"), "not_found"),
        ("append", bad_role, "data_invalid"),
        ("append", turn("x" * 1_000_001, 0), "too_large"),
        ("read", ReadSession(session="s", limit=-1), "data_invalid"),
        ("open", OpenSession(session="s", labels={"a": "b"}), "conflict"),
    ]

    for verb, data, code in cases:
        with pytest.raises(ServiceError) as refused:
            await ask(streams, verb, data, f"{verb}-{code}")
        assert refused.value.failure().code == code
    await ask(streams, "close", CloseSession(session="s"), "close")
    with pytest.raises(ServiceError, match="closed"):
        await ask(streams, "append", turn("x", 0), "late")

    assert (await streams.position("HR_SESSIONS")).last_seq == 2


async def test_a_cache_too_small_for_anything_changes_no_answer(streams: Broker, start: Start) -> None:
    """What is not in memory is folded again from the log."""
    await start(SessionStore, config=Config(cache_bytes_max=1024 * 1024, cache_sessions_max=1))
    for session in ("a", "b", "c"):
        await ask(streams, "open", OpenSession(session=session), f"open-{session}")
        await ask(streams, "append", turn(session * 600_000, 0, session), f"turn-{session}")

    views = {session: await ask(streams, "read", ReadSession(session=session), "read") for session in ("a", "b", "c")}

    assert {session: texts(view) for session, view in views.items()} == {
        session: [session * 600_000] for session in ("a", "b", "c")
    }


async def test_otp_s9_a_history_that_contradicts_itself_is_an_error_not_an_empty_session(
    streams: Broker, start: Start
) -> None:
    """Damage is reported with its place; nobody is answered from half a conversation."""
    await start(SessionStore, config=Config())
    await ask(streams, "open", OpenSession(session="s"), "open")
    await streams.append("hr.ses.default.s", b"\xff not JSON")
    await ask(streams, "open", OpenSession(session="t"), "open")
    stored = await streams.last("HR_SESSIONS", "hr.ses.default.t")
    assert stored is not None
    await streams.append("hr.ses.default.t", stored.body, msg_id="again")

    for session, code in (("s", "malformed_message"), ("t", "log_corrupted")):
        with pytest.raises(ServiceError) as refused:
            await ask(streams, "read", ReadSession(session=session), "read")
        assert refused.value.failure().code == code
