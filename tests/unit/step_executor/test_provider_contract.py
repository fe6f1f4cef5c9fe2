"""One contract for every provider, offline ones and those on a wire; the latter against servers that speak it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from google import genai as loaded_before_anything_is_timed  # noqa: F401 it takes seconds on a busy machine
from tests.conftest import until
from tests.unit.step_executor.vendors.anthropic import Anthropic
from tests.unit.step_executor.vendors.google import Google
from tests.unit.step_executor.vendors.openai import OpenAI
from tests.unit.step_executor.vendors.said import Heard, Said, Trouble, Vendor, chunked, encoded, reply
from tests.unit.step_executor.wire import Wire, response, serving

from headrace.runtime.clock import SystemClock
from headrace_step_executor.providers.cassette import CassetteProvider
from headrace_step_executor.providers.echo import EchoProvider
from headrace_step_executor.providers.failures import ERRORS, ProviderError
from headrace_step_executor.providers.messages import (
    ChatMessage,
    ImagePart,
    TextPart,
    ToolCallPart,
    ToolOffer,
    ToolResultPart,
)
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse, Provider
from headrace_step_executor.providers.script import ScriptProvider

VENDORS: dict[str, Vendor] = {vendor.name: vendor for vendor in (Anthropic(), Google(), OpenAI())}
NETWORKED = sorted(VENDORS)
CALLS = (("c1", "fs_read", {"path": "a.txt"}), ("c2", "clock", {}))
TOOLS = (
    ToolOffer(name="fs_read", description="Reads.", parameters={"type": "object", "properties": {"path": {}}}),
    ToolOffer(name="clock", description="Tells.", parameters={"type": "object", "properties": {}}),
)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def request(content: str = "hello there", **fields: Any) -> GenerateRequest:
    given: dict[str, Any] = {"model": "m", "messages": (ChatMessage(role="user", content=content),), "key": "r1/a"}
    return GenerateRequest(**(given | fields))


@asynccontextmanager
async def network(
    name: str, said: Said | Trouble | bytes | None, *, drip_s: float = 0.0, key: Callable[[], str] = lambda: "key-1"
) -> AsyncIterator[tuple[Provider, Wire]]:
    """The adapter and a server that answers so: in the vendor's format, with these bytes, or never."""
    vendor = VENDORS[name]

    async def answer(asked: bytes) -> bytes | None:
        return said if said is None or isinstance(said, bytes) else reply(vendor, asked, said)

    async with serving(answer, drip_s=drip_s) as wire:
        provider = vendor.provider(wire.url, key)
        try:
            yield provider, wire
        finally:
            await provider.close()  # type: ignore[attr-defined]


class Retaken:
    """Every call is recorded first, and answered from the recording by another cassette."""

    def __init__(self, taken: Provider) -> None:
        self._taken, self._tape = taken, bytearray()

    async def generate(self, asked: GenerateRequest, **how: Any) -> GenerateResponse:
        """See Provider."""
        asked = msgspec.structs.replace(asked, model="m#real/m")

        async def write(_name: str, line: bytes) -> None:
            self._tape += line

        recording = CassetteProvider(lambda _name: self._taken, mode="record", read=self._read, append=write)
        await recording.generate(asked, **(how | {"on_delta": Heard() if how.get("on_delta") else None}))
        replaying = CassetteProvider(lambda _name: self._taken, mode="replay", read=self._read, append=None)
        return await replaying.generate(asked, **how)

    def _read(self, _name: str) -> bytes:
        return bytes(self._tape)


@asynccontextmanager
async def any_provider(name: str, said: Said) -> AsyncIterator[Provider]:
    """Any provider, saying this if it can be told what to say."""
    match name:
        case "echo":
            yield EchoProvider()
        case "cassette":
            async with any_provider("script", said) as taken:
                yield Retaken(taken)
        case "script":
            calls = [{"name": tool, "arguments": arguments} for _, tool, arguments in said.calls]
            entry = {"pieces": said.pieces, "tool_calls": calls, "output_tokens": said.usage[1]}
            text = json.dumps({"answers": [entry]})
            yield ScriptProvider(SystemClock(), lambda _name: text.encode())
        case _:
            async with network(name, said) as (provider, _wire):
                yield provider


async def fails(provider: Provider, code: str, *, deadline_s: float = 5.0, stream: bool = False) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        await provider.generate(request(), deadline_s=deadline_s, on_delta=Heard() if stream else None)
    assert raised.value.attempt_code == code, raised.value
    assert raised.value.attempt_retryable == ERRORS[code].retryable
    return raised.value


# --- success ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ["cassette", "echo", "script", *NETWORKED])
async def test_otp_s12_an_answer_has_the_same_shape_from_every_provider(name: str, stream: bool) -> None:
    """Text, reason of the end, model and usage; the deltas of a stream add up to the text."""
    heard = Heard()
    async with any_provider(name, Said()) as provider:
        answer = await provider.generate(request(), deadline_s=5, on_delta=heard if stream else None)
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("hello there", "stop", ())
    assert answer.parts == (TextPart(text="hello there"),)
    assert answer.model.startswith(f"{name}/m")
    assert answer.usage.model.startswith(f"{name}/m")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert not answer.replaced
    assert "".join(heard.pieces) == ("hello there" if stream else "")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ["cassette", "script", *NETWORKED])
async def test_tool_calls_come_with_their_arguments(name: str, stream: bool) -> None:
    """Beside words and without, two at once, none of them lost; the reason says so."""
    for pieces in (("I look.",), ()):
        async with any_provider(name, Said(pieces=pieces, calls=CALLS, finish="tool_calls")) as provider:
            asked = request(tools=TOOLS)
            answer = await provider.generate(asked, deadline_s=5, on_delta=Heard() if stream else None)
        assert answer.finish_reason == "tool_calls"
        assert answer.text == "".join(pieces)
        called = [(call.name, json.loads(call.arguments)) for call in answer.tool_calls]
        assert called == [(tool, arguments) for _, tool, arguments in CALLS]
        assert len({call.id for call in answer.tool_calls}) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NETWORKED)
async def test_usage_has_cached_and_reasoning_tokens(name: str, stream: bool) -> None:
    """Input counts what was cached, output counts the thoughts."""
    async with network(name, Said()) as (provider, _wire):
        usage = (await provider.generate(request(), deadline_s=5, on_delta=Heard() if stream else None)).usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (7, 5, 3, 2)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NETWORKED)
async def test_an_answer_that_a_limit_cut_says_so(name: str, stream: bool) -> None:
    """It is an answer all the same."""
    async with network(name, Said(finish="length")) as (provider, _wire):
        answer = await provider.generate(request(), deadline_s=5, on_delta=Heard() if stream else None)
    assert (answer.text, answer.finish_reason) == ("hello there", "length")


@pytest.mark.parametrize("name", NETWORKED)
async def test_a_whole_conversation_travels(name: str) -> None:
    """System, a picture, calls, their results, options and schema: the wire carries every one of them."""
    conversation = (
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content=(TextPart(text="Look"), ImagePart(data="aGk=", media_type="image/png"))),
        ChatMessage(
            role="assistant",
            content=(TextPart(text="I do."), ToolCallPart(id="c1", name="fs_read", arguments='{"path": "a.txt"}')),
        ),
        ChatMessage(role="tool", content=(ToolResultPart(id="c1", name="fs_read", content="canary-result"),)),
    )
    async with network(name, Said()) as (provider, wire):
        asked = request(
            messages=conversation, tools=TOOLS, tool_choice="fs_read", output_schema=SCHEMA, max_tokens=77,
            temperature=0.25, attempt=2,
        )  # fmt: skip
        await provider.generate(asked, deadline_s=5)
    head, _, body = wire.requests[0].partition(b"\r\n\r\n")
    for text in (
        b"Be brief.",
        b"Look",
        b"aGk=",
        b"I do.",
        b"fs_read",
        b"a.txt",
        b"canary-result",
        b'"n"',
        b"77",
        b"0.25",
    ):
        assert text in body, text
    for text in (b"key-1", b"idempotency-key: r1/a", b"x-attempt: 2"):
        assert text in head.lower(), text


# --- errors -------------------------------------------------------------------------------------------

STATUSES = [
    (400, "invalid_request"), (401, "auth"), (402, "auth"), (403, "auth"), (404, "invalid_request"), (408, "timeout"),
    (413, "invalid_request"), (422, "invalid_request"), (429, "rate_limited"), (500, "unavailable"),
    (502, "unavailable"), (503, "unavailable"), (504, "timeout"), (529, "overloaded"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NETWORKED)
async def test_otp_n11_one_call_on_the_wire_whatever_the_status(name: str, stream: bool) -> None:
    """The SDKs' own retries are off; the class of each status; what Retry-After asks is passed on."""
    for status, code in STATUSES:
        async with network(name, Trouble(status, headers="retry-after: 2\r\n")) as (provider, wire):
            error = await fails(provider, code, stream=stream)
            assert error.retry_after_ms == 2000, status
            assert len(wire.requests) == 1, status


@pytest.mark.parametrize("name", NETWORKED)
async def test_input_43_retry_after_is_believed_within_its_rules(name: str) -> None:
    """Zero, negative, past and garbage count as silence; a day counts as ten minutes."""
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    for text, wait_ms in (("0", 0), ("-1", 0), ("86400", 600_000), (past, 0), ("soon", 0), ("1.5", 1500)):
        async with network(name, Trouble(429, headers=f"retry-after: {text}\r\n")) as (provider, _wire):
            assert (await fails(provider, "rate_limited")).retry_after_ms == wait_ms, text


@pytest.mark.parametrize("name", NETWORKED)
async def test_a_400_may_mean_several_things(name: str) -> None:
    """A conversation too long for the model, and what its policy forbids, are told apart from a wrong request."""
    for kind, code in (("context", "context_too_long"), ("refused", "refused")):
        async with network(name, Trouble(400, kind)) as (provider, _wire):
            assert not (await fails(provider, code)).counts_for_breaker


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NETWORKED)
async def test_a_refusal_is_terminal_and_says_what_it_cost(name: str, stream: bool) -> None:
    """It is an answer that was paid for, and no answer to go on with."""
    async with network(name, Said(finish="refused")) as (provider, _wire):
        error = await fails(provider, "refused", stream=stream)
    assert error.usage is not None
    assert error.usage.output_tokens == 5


GARBAGE = [
    response(b"<html>oops</html>", kind="text/html"), response(b'{"choices": [', length=13), response(b"[1,2]"),
    response(b"null"), response(b"{}"), response(b'{"choices": [], "content": [], "candidates": []}'),
    response(b'{"choices": 5, "content": 5, "candidates": 5}'), response(b""), b"nothing of HTTP\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NETWORKED)
async def test_input_42_garbage_is_malformed(name: str, stream: bool) -> None:
    """HTML with status 200, JSON cut off, JSON of another shape, nothing at all: never a silent empty answer."""
    for garbage in GARBAGE:
        async with network(name, garbage) as (provider, _wire):
            assert (await fails(provider, "malformed", stream=stream)).counts_for_breaker, garbage


@pytest.mark.parametrize("name", NETWORKED)
async def test_input_42_a_stream_of_another_content_type_is_malformed(name: str) -> None:
    """Also when its bytes would do."""
    events = VENDORS[name].events(Said())
    for kind in ("text/html", "application/json", "application/octet-stream"):
        async with network(name, chunked(events, kind=kind)) as (provider, _wire):
            await fails(provider, "malformed", stream=True)


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "broken"])
@pytest.mark.parametrize("name", NETWORKED)
async def test_input_42_a_stream_that_is_cut_is_malformed_and_keeps_what_came(name: str, ends: bool) -> None:
    """Cut after every event but the last that matter: what was heard is in the failure's causes."""
    events = VENDORS[name].events(Said())
    for length in range(len(events)):
        cut = chunked(events[:length], ends=ends)
        async with network(name, cut) as (provider, _wire):
            heard = Heard()
            error, answer = await outcome(provider, heard)
        if answer is not None:
            assert ends, f"broken after {length} of {len(events)} events, and believed"
            assert answer.text == "hello there", "an end was said before all was"
        else:
            assert error is not None
            assert (error.attempt_code, error.partial) == ("malformed", "".join(heard.pieces))
            if heard.pieces:
                assert error.failure().causes[0] == f"the answer began: {''.join(heard.pieces)}"


async def outcome(provider: Provider, heard: Heard) -> tuple[ProviderError | None, GenerateResponse | None]:
    try:
        return None, await provider.generate(request(), deadline_s=5, on_delta=heard)
    except ProviderError as error:
        return error, None


@pytest.mark.parametrize("name", NETWORKED)
async def test_a_stream_with_garbage_inside_is_malformed(name: str) -> None:
    """Broken JSON in the middle."""
    events = VENDORS[name].events(Said())
    broken = [*events[:2], events[2][: len(events[2]) // 2] + b"\n\n"]
    async with network(name, chunked(broken)) as (provider, _wire):
        await fails(provider, "malformed", stream=True)


@pytest.mark.parametrize("name", NETWORKED)
async def test_nobody_listening_is_connect(name: str) -> None:
    """And retryable."""
    async with network(name, None) as (_provider, wire):
        url = wire.url
    provider = VENDORS[name].provider(url, lambda: "k")
    assert (await fails(provider, "connect")).counts_for_breaker
    await provider.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ["script", *NETWORKED])
async def test_otp_s8_a_model_that_does_not_answer_times_out_in_total(name: str, stream: bool) -> None:
    """No answer, and one byte every 50 ms, end at the deadline, however the SDK counts."""
    clock = asyncio.get_running_loop()
    if name == "script":
        provider = ScriptProvider(SystemClock(), lambda _name: b"answers: [{hang: true}]")
        await fails(provider, "timeout", deadline_s=0.3, stream=stream)
        return
    vendor = VENDORS[name]
    whole = chunked(vendor.events(Said())) if stream else response(encoded(vendor.whole(Said())))
    for said, drip_s in ((None, 0.0), (whole, 0.05)):
        began_s = clock.time()
        async with network(name, said, drip_s=drip_s) as (provider, _wire):
            await fails(provider, "timeout", deadline_s=0.4, stream=stream)
        assert clock.time() - began_s < 5


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NETWORKED)
async def test_a_call_that_is_cancelled_in_the_middle_closes_its_connection(name: str, stream: bool) -> None:
    """Before the first byte and within a stream: it stays a cancellation, and reaches the wire."""
    events = chunked(VENDORS[name].events(Said()))
    async with network(name, events if stream else None, drip_s=0.001 if stream else 0.0) as (provider, wire):
        heard = Heard()
        task = asyncio.create_task(provider.generate(request(), deadline_s=30, on_delta=heard if stream else None))
        await until(lambda: wire.requests and (heard.pieces or not stream))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: wire.closed, within_s=5)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NETWORKED)
async def test_input_40_lone_surrogates_become_replacement_characters_and_are_told(name: str, stream: bool) -> None:
    """The rest of the text stays."""
    async with network(name, Said(pieces=("a\ud800b",))) as (provider, _wire):
        heard = Heard()
        answer = await provider.generate(request(), deadline_s=5, on_delta=heard if stream else None)
    assert (answer.text, answer.replaced) == ("a\ufffdb", True)
    answer.text.encode()
    "".join(heard.pieces).encode()


@pytest.mark.parametrize("name", NETWORKED)
async def test_input_44_a_key_that_was_rotated_is_used_from_the_next_call_on(name: str) -> None:
    """Over the same adapter; nothing has to be restarted."""
    keys = ["key-old", "key-new"]
    async with network(name, Said(), key=lambda: keys[0]) as (provider, wire):
        await provider.generate(request(), deadline_s=5)
        keys.pop(0)
        await provider.generate(request(), deadline_s=5)
    heads = [asked.partition(b"\r\n\r\n")[0] for asked in wire.requests]
    assert [b"key-old" in head for head in heads] == [True, False]
    assert [b"key-new" in head for head in heads] == [False, True]


@pytest.mark.parametrize("name", [name for name in NETWORKED if getattr(VENDORS[name], "quota", "")])
async def test_quotas_are_read_from_the_headers(name: str) -> None:
    """Of an answer and of an error, where the vendor has such headers."""
    vendor: Any = VENDORS[name]
    for status, body in ((200, vendor.whole(Said())), (429, vendor.error(Trouble(429)))):
        async with network(name, response(encoded(body), status=status, headers=vendor.quota)) as (provider, _wire):
            if status == 200:
                found = (await provider.generate(request(), deadline_s=5)).quota
            else:
                found = (await fails(provider, "rate_limited")).quota
        assert found is not None
        assert (found.requests_limit, found.requests_left) == (100, 4)
        assert (found.tokens_limit, found.tokens_left) == (9000, 800)
        assert 0 < found.requests_reset_ms <= 30_000
        assert 0 < found.tokens_reset_ms <= 30_000


@pytest.mark.parametrize("name", NETWORKED)
def test_what_our_servers_say_is_what_the_sdk_takes_for_valid(name: str) -> None:
    """Bodies and events pass the SDK's own models: the suite speaks the provider's wire and not ours."""
    vendor: Any = VENDORS[name]
    for said in (Said(), Said(finish="length"), Said(pieces=("x",), calls=CALLS, finish="tool_calls")):
        vendor.check_whole(encoded(vendor.whole(said)))
        events = vendor.events(said)
        assert sum(vendor.check_event(event) for event in events) >= 2
