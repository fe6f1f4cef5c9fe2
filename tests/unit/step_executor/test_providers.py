"""What is a provider's own: names and keys, scripts, how openai's wire is written. The rest is the contract's."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai as loaded_before_anything_is_timed  # noqa: F401 it takes seconds on a busy machine
import pytest
from tests.unit.step_executor.wire import Wire, response, serving

from headrace.contracts.errors import AttemptError
from headrace.runtime.clock import SystemClock
from headrace_step_executor.providers.echo import EchoProvider
from headrace_step_executor.providers.messages import ChatMessage
from headrace_step_executor.providers.openai_wire import OpenAIProvider
from headrace_step_executor.providers.protocol import GenerateRequest, Provider, request_of
from headrace_step_executor.providers.registry import Providers
from headrace_step_executor.providers.script import ScriptProvider


def request(content: str = "hello there", **fields: Any) -> GenerateRequest:
    given: dict[str, Any] = {
        "model": "m",
        "messages": (ChatMessage(role="user", content=content),),
        "key": "r1/a",
    }
    return GenerateRequest(**(given | fields))


def completion(text: Any = "hello there", **fields: Any) -> bytes:
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m-2026",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4,
                  "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}},
    } | fields  # fmt: skip
    return json.dumps(body).encode()


def script(yaml: str) -> ScriptProvider:
    return ScriptProvider(SystemClock(), lambda _name: yaml.encode())


def always(reply: bytes | None) -> Any:
    async def answer(_request: bytes) -> bytes | None:
        return reply

    return answer


@asynccontextmanager
async def openai(reply: bytes | None, *, drip_s: float = 0.0) -> AsyncIterator[tuple[OpenAIProvider, Wire]]:
    async with serving(always(reply), drip_s=drip_s) as wire:
        provider = OpenAIProvider(SystemClock(), key=lambda: "key-1", base_url=wire.url + "/v1")
        try:
            yield provider, wire
        finally:
            await provider.close()


async def fails(provider: Provider, code: str, *, deadline_s: float = 5.0) -> AttemptError:
    with pytest.raises(AttemptError) as raised:
        await provider.generate(request(), deadline_s=deadline_s)
    assert raised.value.attempt_code == code, raised.value
    return raised.value


async def test_the_openai_wire_carries_what_was_asked() -> None:
    """Model, messages, limits, options, key and idempotency key; usage with cached and reasoning tokens."""
    async with openai(response(completion())) as (provider, wire):
        asked = request(max_tokens=7, temperature=0.5, options={"seed": 3}, attempt=2)
        answer = await provider.generate(asked, deadline_s=5)
        head, _, body = wire.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions")
    for header in (b"authorization: Bearer key-1", b"idempotency-key: r1/a", b"x-attempt: 2"):
        assert header.lower() in head.lower()
    assert json.loads(body) == {
        "model": "m", "messages": [{"role": "user", "content": "hello there"}],
        "max_tokens": 7, "temperature": 0.5, "seed": 3,
    }  # fmt: skip
    assert (answer.usage.cached_tokens, answer.usage.reasoning_tokens, answer.request_id) == (
        1,
        1,
        "chatcmpl-1",
    )
    assert answer.model == "openai/m-2026"


async def test_a_server_of_ones_own_needs_an_address_and_no_key() -> None:
    """Servers on one's own machine ask for none; none is made up for them."""
    async with serving(always(response(completion()))) as wire:
        providers = Providers(SystemClock(), environ={"OPENAI_BASE_URL": f"{wire.url}/v1"}, read_roots=())
        assert providers.names == ("echo", "script", "cassette", "openai")
        answer = await providers.get("openai").generate(request(), deadline_s=5)
        await providers.close()
    assert answer.text == "hello there"
    assert b"authorization" not in wire.requests[0].lower()


# --- offline providers -----------------------------------------------------------------------------


async def test_a_script_answers_by_match_and_in_sequence() -> None:
    """Entries with `times` are used up; what nothing matches is an error, never another answer."""
    provider = script(
        "answers:\n"
        "  - {match: weather, text: sunny, output_tokens: 9}\n"
        "  - {times: 1, error: rate_limited, retry_after_ms: 1500}\n"
        "  - {times: 1, text: second, latency_ms: 1}\n"
    )
    weather = await provider.generate(request("the weather?"), deadline_s=1)
    assert (weather.text, weather.usage.output_tokens) == ("sunny", 9)
    assert (await fails(provider, "rate_limited")).retry_after_ms == 1500
    assert (await provider.generate(request(), deadline_s=1)).text == "second"
    await fails(provider, "invalid_request")


@pytest.mark.parametrize("yaml", ["answers: [{txt: x}]", "answers: [{error: nonsense}]", "- 1", "a: &b c", ""])
async def test_a_script_that_is_wrong_says_where(yaml: str) -> None:
    """Unknown keys, unknown errors, no script at all."""
    await fails(script(yaml), "invalid_request")


async def test_echo_cuts_after_max_tokens_words() -> None:
    """As a model would, and says so."""
    answer = await EchoProvider().generate(request("a b c", max_tokens=2), deadline_s=1)
    assert (answer.text, answer.finish_reason, answer.usage.output_tokens) == ("a b", "length", 2)


# --- finding a provider ----------------------------------------------------------------------------


def test_the_fields_of_a_step_become_a_request() -> None:
    """Prompt, system, messages; several models in their order; the default is echo."""
    models, made = request_of({"prompt": "p", "system": "s", "model": ["openai/a/b", "echo/x"]}, key="k", attempt=2)
    assert (models, made.model) == (("openai/a/b", "echo/x"), "a/b")
    assert [(message.role, message.content) for message in made.messages] == [("system", "s"), ("user", "p")]
    assert request_of({"prompt": "p"}, key="k", attempt=1)[0] == ("echo/echo",)
    wrongs: list[Any] = [
        {},
        {"prompt": 5},
        {"prompt": "p", "model": "gpt"},
        {"promt": "p"},
        [],
        {"prompt": "p", "model": []},
    ]
    for wrong in wrongs:
        with pytest.raises(AttemptError) as raised:
            request_of(wrong, key="k", attempt=1)
        assert raised.value.attempt_code == "invalid_request"


async def test_otp_n14_a_provider_without_key_or_name_fails_clearly(tmp_path: Path) -> None:
    """Never a stand-in: the error names the variable, or the providers that there are."""
    providers = Providers(SystemClock(), environ={}, read_roots=())
    assert providers.names == ("echo", "script", "cassette")
    assert "OPENAI_API_KEY" in str(await fails(providers.get("openai"), "provider_missing"))
    with pytest.raises(AttemptError, match="anthropic, cassette, echo, google, openai, script"):
        providers.get("gemini")
    (tmp_path / "key").write_text("from-file\n")
    with_file = Providers(SystemClock(), environ={"OPENAI_API_KEY_FILE": str(tmp_path / "key")}, read_roots=())
    assert with_file.names == ("echo", "script", "cassette", "openai")
    unreadable = Providers(SystemClock(), environ={"OPENAI_API_KEY_FILE": str(tmp_path / "no")}, read_roots=())
    await fails(unreadable.get("openai"), "provider_missing")


async def test_input_34_scripts_are_read_in_granted_roots_alone(tmp_path: Path) -> None:
    """A model name is an author's text: it opens nothing that the operator has not granted."""
    (tmp_path / "s.yaml").write_text("answers: [{text: hi}]")
    granted = Providers(SystemClock(), environ={}, read_roots=(tmp_path,)).get("script")
    assert (await granted.generate(request(model="s.yaml"), deadline_s=1)).text == "hi"
    for name, code in (("../x", "path_denied"), ("/etc/passwd", "path_denied"), ("no.yaml", "not_found")):
        with pytest.raises(AttemptError) as raised:
            await granted.generate(request(model=name), deadline_s=1)
        assert raised.value.attempt_code == code
