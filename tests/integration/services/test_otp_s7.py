"""S7: tool registry and session store come and go ten times a second under load."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import pytest
from tests.conftest import Connect, until

from headrace.contracts.errors import HeadraceError
from headrace.contracts.events import ToolSpec
from headrace.contracts.live import AppendTurn, OpenSession, ReadSession, SessionView, ToolQuery
from headrace.pipeline.builtin_tools import builtin_tools
from headrace.runtime.api import ServiceError, call
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.eventlog import Broker
from headrace.runtime.supervisor import Supervisor
from headrace_session_store.config import Config as SessionConfig
from headrace_session_store.service import SessionStore
from headrace_tool_registry.config import Config as ToolConfig
from headrace_tool_registry.service import ToolRegistry

REQUESTS = 10_000
"""Made, whatever came of them."""
CLIENTS = 32
DEADLINE_S = 1.0
LATE_S = 4.0
"""Everything shares one loop here, which may be busy with a restart when a deadline has come; more is a hang."""
RESTART_EVERY_S = 0.1
WHOLE_S = 240.0
"""Ten times what it takes on a quiet machine of two cores."""
T = TypeVar("T")


@dataclass
class Tally:
    """What callers met."""

    requests: int = 0
    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    slowest_s: float = 0.0
    turns: dict[str, int] = field(default_factory=dict, repr=False)
    """Session → turns whose append was answered."""


async def live_and_die(connect: Connect, supervisor: Supervisor, tally: Tally) -> None:
    """Both services start, and a tenth of a second later their connection is cut and their work cancelled, again and
    again. The tools are in the log, so nobody registers them again."""
    clock, entropy = SystemClock(), SystemEntropy()
    coming = await connect("services-0")
    while True:
        began_s, broker = clock.monotonic_s(), coming
        async with Supervisor(clock) as own:
            given: dict[str, Any] = {"clock": clock, "entropy": entropy, "instance": f"i{tally.restarts}"}
            builtin = () if tally.restarts else builtin_tools()
            registry = ToolRegistry(broker, own, config=ToolConfig(), builtin=builtin, **given)
            store = SessionStore(broker, own, config=SessionConfig(), **given)
            await registry.start()
            await store.start()
            if builtin:
                await until(lambda ready=registry: ready.ready, within_s=30, what="the first catalogue")  # type: ignore[misc]
            coming = await connect(f"services-{tally.restarts + 1}")
            await asyncio.sleep(max(0.0, RESTART_EVERY_S - (clock.monotonic_s() - began_s)))
            await broker.close()
        supervisor.crashes.update(own.crashes)
        tally.restarts += 1


async def insist(tally: Tally, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer, with the same request id; every try ends in time, with a typed error."""
    loop = asyncio.get_running_loop()
    for _ in range(1_000):
        began_s = loop.time()
        tally.requests += 1
        try:
            async with asyncio.timeout(DEADLINE_S + LATE_S):
                answer = await ask()
        except HeadraceError as error:
            tally.errors[error.failure().code] += 1
            if isinstance(error, ServiceError) and not error.failure().retryable:
                raise
            await asyncio.sleep(0.02)
        else:
            tally.answers += 1
            return answer
        finally:
            tally.slowest_s = max(tally.slowest_s, loop.time() - began_s)
    pytest.fail(f"no answer: {tally}")


async def converse(broker: Broker, session: str, tally: Tally) -> None:
    """One client, until enough was asked: looks a tool up and appends a turn, which it asks for twice."""

    def ask(service: str, verb: str, data: object, answer: type[T], request_id: str) -> Callable[[], Awaitable[T]]:
        return lambda: call(
            broker, service, verb, data, answer, tenant="default", request_id=request_id, timeout_s=DEADLINE_S
        )

    await insist(tally, ask("session-store", "open", OpenSession(session=session), SessionView, "open"))
    tally.turns[session] = index = 0
    while tally.requests < REQUESTS:
        content = msgspec.Raw(msgspec.json.encode(f"{session}-{index}"))
        turn = AppendTurn(session=session, expected=index, role="user", content=content)
        append = ask("session-store", "append", turn, SessionView, f"{session}-{index}")
        first = await insist(tally, append)
        tally.turns[session] = index = index + 1
        assert await insist(tally, append) == first, "a retry with the same request id gave another answer"
        tool = builtin_tools()[index % len(builtin_tools())]
        query = ToolQuery(tool=tool.tool)
        assert await insist(tally, ask("tool-registry", "get", query, ToolSpec, f"{session}-{index}")) == tool


async def transcript(broker: Broker, session: str) -> list[str]:
    """What the log holds, page by page."""
    texts: list[str] = []
    while True:
        view = await call(
            broker, "session-store", "read", ReadSession(session=session, after=len(texts)), SessionView,
            tenant="default", request_id="read",
        )  # fmt: skip
        texts += [msgspec.json.decode(turn.content) for turn in view.turns]
        if len(texts) >= view.version:
            return texts


@pytest.mark.timeout(WHOLE_S + 60)
async def test_otp_s7_every_caller_gets_an_answer_or_a_typed_error_while_services_restart(
    streams: Broker, connect_broker: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing hangs, nothing is unhandled, nothing is applied twice, nothing that was answered is missing."""
    tally, loop = Tally(), asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.timeout(WHOLE_S), Supervisor(SystemClock()) as supervisor:
        restarts = supervisor.start("restarts", lambda: live_and_die(connect_broker, supervisor, tally))
        callers = [await connect_broker(f"caller-{index}") for index in range(4)]
        async with asyncio.TaskGroup() as group:
            for index in range(CLIENTS):
                group.create_task(converse(callers[index % 4], f"s{index}", tally))
        took_s = loop.time() - began_s
        await supervisor.stop_child(restarts)
        with capsys.disabled():
            print(f"\nS7: {took_s:.1f} s, {took_s / tally.restarts:.3f} s a restart, {tally}")
        assert tally.requests >= REQUESTS
        assert took_s / tally.restarts < 10 * RESTART_EVERY_S, "restarts fell behind"
        assert tally.errors, "no restart was noticed"
        assert supervisor.crashes == {}, "an unhandled exception"
        last = SessionStore(
            streams, supervisor, clock=SystemClock(), entropy=SystemEntropy(), instance="last", config=SessionConfig()
        )
        await last.start()
        for session, turns in tally.turns.items():
            assert await transcript(streams, session) == [f"{session}-{index}" for index in range(turns)]
        await last.stop()
