"""Every request ends: as an answer, as a refusal with a code, or at the caller's own deadline."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from headrace.contracts import codec, subjects
from headrace.contracts.errors import ConflictError, UnavailableError
from headrace.contracts.live import Reply, Request, SessionView
from headrace.runtime import api as module
from headrace.runtime.api import Api, ServiceError, call
from headrace.runtime.memory import MemoryBroker
from headrace.runtime.supervisor import Supervisor

VIEW = SessionView(session="s", version=1)


async def serve(memory: MemoryBroker, supervisor: Supervisor, answer: Callable[[Request], Awaitable[object]]) -> Api:
    api = Api(memory, supervisor, service="x", verbs={"do": answer})
    await api.start()
    return api


async def ask(memory: MemoryBroker, *, timeout_s: float = 1.0, tenant: str = "t", request_id: str = "r") -> SessionView:
    return await call(memory, "x", "do", {}, SessionView, tenant=tenant, request_id=request_id, timeout_s=timeout_s)


async def good(request: Request) -> SessionView:
    return VIEW


async def test_an_answer_comes_back_as_it_was_given(memory: MemoryBroker, supervisor: Supervisor) -> None:
    """A struct in, a struct out."""
    await serve(memory, supervisor, good)
    assert await ask(memory) == VIEW


async def test_a_refusal_keeps_its_code(memory: MemoryBroker, supervisor: Supervisor) -> None:
    """The caller sees what the service raised."""

    async def refuse(_: Request) -> object:
        msg = "no"
        raise ConflictError(msg)

    await serve(memory, supervisor, refuse)
    with pytest.raises(ServiceError, match="no") as refused:
        await ask(memory)
    assert (refused.value.failure().code, refused.value.failure().retryable) == ("conflict", False)


async def test_a_bug_is_answered_and_reported(memory: MemoryBroker, supervisor: Supervisor) -> None:
    """The caller need not wait for its deadline, hears no inner detail, and the crash is counted."""

    async def broken(_: Request) -> object:
        msg = "secret detail"
        raise LookupError(msg)

    await serve(memory, supervisor, broken)
    with pytest.raises(ServiceError, match=r"x\.do failed: LookupError$") as refused:
        await ask(memory)
    assert refused.value.failure().code == "internal"
    await asyncio.sleep(0)
    assert supervisor.crashes["api.x.do"] == 1


async def test_nobody_there_is_an_error_and_not_a_wait(memory: MemoryBroker) -> None:
    """The broker says so at once."""
    with pytest.raises(UnavailableError):
        await ask(memory, timeout_s=5)


async def test_otp_s8_a_handler_that_never_answers_ends_at_the_deadline(
    memory: MemoryBroker, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's own deadline, told as such."""
    monkeypatch.setattr("headrace.contracts.names.REQUEST_DEADLINE_S", 0.05)

    async def hang(_: Request) -> object:
        return await asyncio.Event().wait()

    await serve(memory, supervisor, hang)
    with pytest.raises(ServiceError) as refused:
        await ask(memory)
    assert refused.value.failure().code == "timeout"
    assert refused.value.failure().retryable


async def test_requests_in_work_are_bounded(
    memory: MemoryBroker, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many is refused at once, and asked to come again."""
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 2)
    release = asyncio.Event()

    async def slow(_: Request) -> object:
        await release.wait()
        return VIEW

    await serve(memory, supervisor, slow)
    waiting = [asyncio.get_running_loop().create_task(ask(memory, request_id=str(index))) for index in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(ServiceError, match="2 requests in work") as refused:
        await ask(memory)
    release.set()
    assert await asyncio.gather(*waiting) == [VIEW, VIEW]
    assert refused.value.failure().retryable


@pytest.mark.parametrize(("tenant", "request_id"), [("a.b", "r"), ("*", "r"), ("", "r"), ("t", ""), ("t", "x" * 129)])
async def test_a_tenant_that_is_no_token_is_refused(
    memory: MemoryBroker, supervisor: Supervisor, tenant: str, request_id: str
) -> None:
    """It becomes part of subjects."""
    await serve(memory, supervisor, good)
    with pytest.raises(ServiceError) as refused:
        await ask(memory, tenant=tenant, request_id=request_id)
    assert refused.value.failure().code == "malformed_message"


async def test_garbage_is_answered_with_a_code(memory: MemoryBroker, supervisor: Supervisor) -> None:
    """Whoever speaks another language hears so."""
    await serve(memory, supervisor, good)
    body = await memory.request(subjects.api("x", "do"), b"{", timeout_s=1)
    reply = codec.decode_as(Reply, body)
    assert reply.error is not None
    assert reply.error.code == "malformed_message"


async def test_stopping_finishes_what_is_in_work(memory: MemoryBroker, supervisor: Supervisor) -> None:
    """No request that was taken is dropped; no further one is taken."""
    begun = asyncio.Event()

    async def slow(_: Request) -> object:
        begun.set()
        await asyncio.sleep(0.05)
        return VIEW

    api = await serve(memory, supervisor, slow)
    waiting = asyncio.get_running_loop().create_task(ask(memory))
    await asyncio.wait_for(begun.wait(), 1)
    await api.stop()
    assert await waiting == VIEW
    with pytest.raises(UnavailableError):
        await ask(memory)
