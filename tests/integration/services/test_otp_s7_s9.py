"""S7: services that come and go under load. S9: failed probes stop admission and are heard of."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec
import pytest
from tests.conftest import Connect, until

from headrace.contracts import codec, subjects
from headrace.contracts.errors import HeadraceError
from headrace.contracts.events import AlertCleared, AlertRaised, ToolSpec
from headrace.contracts.live import AppendTurn, OpenSession, ReadSession, SessionView, ToolQuery
from headrace.pipeline.builtin_tools import builtin_tools
from headrace.runtime.api import ServiceError, call
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.eventlog import Broker
from headrace.runtime.probes import Admission, ProbeError, Usage
from headrace.runtime.supervisor import Supervisor
from headrace_session_store.config import Config as SessionConfig
from headrace_session_store.service import SessionStore
from headrace_tool_registry.config import Config as ToolConfig
from headrace_tool_registry.service import ToolRegistry

CLIENTS = 16
TURNS_EACH = 25
DEADLINE_S = 0.5
RESTARTS = 30


@dataclass
class Tally:
    """What callers met."""

    answers: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    restarts: int = 0


async def restart_then_stay(connect: Connect, tally: Tally) -> None:
    """Both services at 10 Hz: connection gone, requests in work cancelled, a new one in its place. The last ones stay,
    so that a slow machine makes the test no slower than its requests."""
    clock, entropy = SystemClock(), SystemEntropy()
    while True:
        broker = await connect("services")
        async with Supervisor(clock) as supervisor:
            registry = ToolRegistry(
                broker,
                supervisor,
                clock=clock,
                entropy=entropy,
                instance=f"r{tally.restarts}",
                config=ToolConfig(),
                builtin=builtin_tools(),
            )
            store = SessionStore(
                broker,
                supervisor,
                clock=clock,
                entropy=entropy,
                instance=f"s{tally.restarts}",
                config=SessionConfig(),
            )
            await registry.start()
            await store.start()
            await asyncio.sleep(0.1 if tally.restarts < RESTARTS else 60)
            await broker.close()
        tally.restarts += 1


async def insist(tally: Tally, ask: Callable[[], object]) -> object:
    """Ask until there is an answer, with the same request id; every try ends within its deadline, with a
    typed error."""
    loop = asyncio.get_running_loop()
    for _ in range(500):
        began_s = loop.time()
        try:
            answer = await ask()  # type: ignore[misc]  # each is a coroutine of a call
        except HeadraceError as error:
            tally.errors[error.failure().code] = tally.errors.get(error.failure().code, 0) + 1
            if isinstance(error, ServiceError) and not error.failure().retryable:
                raise
            await asyncio.sleep(0.01)
        else:
            tally.answers += 1
            return answer
        finally:
            assert loop.time() - began_s < DEADLINE_S + 0.5
    pytest.fail(f"no answer: {tally}")


async def converse(broker: Broker, client: int, tally: Tally) -> None:
    """One client: looks tools up and appends its turns, one after the other, each asked for twice."""
    session = f"s{client}"

    def ask(service: str, verb: str, data: object, answer: type, request_id: str) -> Callable[[], object]:
        return lambda: call(
            broker, service, verb, data, answer, tenant="default", request_id=request_id, timeout_s=DEADLINE_S
        )

    await insist(tally, ask("session-store", "open", OpenSession(session=session), SessionView, "open"))
    for index in range(TURNS_EACH):
        content = msgspec.Raw(msgspec.json.encode(f"{client}-{index}"))
        turn = AppendTurn(session=session, expected=index, role="user", content=content)
        append = ask("session-store", "append", turn, SessionView, f"{client}-{index}")
        first = await insist(tally, append)
        again = await insist(tally, append)
        assert first == again, "a retry with the same request id gave another answer"
        tool = builtin_tools()[index % len(builtin_tools())]
        found = await insist(
            tally, ask("tool-registry", "get", ToolQuery(tool=tool.tool), ToolSpec, f"{client}-{index}")
        )
        assert found == tool


async def test_otp_s7_every_caller_gets_an_answer_or_a_typed_error_while_services_restart(
    streams: Broker, connect_broker: Connect
) -> None:
    """At 10 Hz: nothing hangs, nothing is applied twice, nothing that was answered is missing from the
    log."""
    tally = Tally()
    async with AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(Supervisor(SystemClock()))
        restarts = supervisor.spawn(restart_then_stay(connect_broker, tally), "restarts")
        callers = [await connect_broker(f"caller-{index}") for index in range(4)]
        async with asyncio.timeout(45):
            await asyncio.gather(*(converse(callers[index % 4], index, tally) for index in range(CLIENTS)))
        assert not restarts.done()
        restarts.cancel()
        await asyncio.wait((restarts,))
        crashes = dict(supervisor.crashes)

        assert tally.restarts >= 10, tally
        assert tally.errors, "no restart was noticed"
        assert crashes == {}
        clock, entropy = SystemClock(), SystemEntropy()
        await SessionStore(
            streams, supervisor, clock=clock, entropy=entropy, instance="last", config=SessionConfig()
        ).start()
        for client in range(CLIENTS):
            view = await call(
                streams,
                "session-store",
                "read",
                ReadSession(session=f"s{client}"),
                SessionView,
                tenant="default",
                request_id="read",
            )
            texts = [msgspec.json.decode(turn.content) for turn in view.turns]
            assert texts == [f"{client}-{index}" for index in range(TURNS_EACH)]


async def test_otp_s9_a_failed_memory_probe_stops_admission_and_is_an_alert(streams: Broker) -> None:
    """Unknown is over the limit: new work is refused, an alert is in the log, and both end with the
    failure."""
    broken = True

    def probe() -> Usage:
        if broken:
            msg = "memory: /proc is unreadable"
            raise ProbeError(msg)
        return Usage(1, 100)

    async def newest_alert() -> AlertRaised | AlertCleared | None:
        stored = await streams.last(subjects.SYSTEM, subjects.alert("memory"))
        return None if stored is None else codec.decode(stored.body)  # type: ignore[return-value]  # alerts alone

    async def is_newest(kind: type) -> bool:
        return isinstance(await newest_alert(), kind)

    gate = Admission(streams, clock=SystemClock(), source="/scheduler/t", tenant="default", probe_memory=probe)
    async with Supervisor(SystemClock()) as supervisor:
        supervisor.start("admission", gate.run)
        await until(lambda: is_newest(AlertRaised))
        refusal, alert = gate.refusal(), await newest_alert()
        broken = False
        await until(lambda: is_newest(AlertCleared))

    assert refusal is not None
    assert refusal.code == "probe_failed"
    assert alert is not None
    assert alert.data.failure == refusal
    assert gate.refusal() is None
